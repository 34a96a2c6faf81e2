//! Throw-away certificates for tunnels that speak TLS with X.509: one self-signed per end, each trusted by the other.

use super::{Site, need};
use crate::process::output;
use anyhow::Result;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

/// One end's certificate.
#[derive(Debug)]
pub(super) struct Identity {
    /// Certificate and private key in one PEM file.
    pub(super) pem: PathBuf,
    /// The certificate alone, for the other end to trust.
    pub(super) certificate: PathBuf,
}

/// Generates an end's key (P-256) and certificate.
pub(super) fn generate(site: &Site, name: &str) -> Result<Identity> {
    let [key, certificate, pem] = ["key", "crt", "pem"].map(|kind| site.dir.join(format!("{name}.{kind}")));
    let subject = format!("/CN={name}");
    let arguments: [&OsStr; 14] = [
        "req".as_ref(),
        "-x509".as_ref(),
        "-newkey".as_ref(),
        "ec".as_ref(),
        "-pkeyopt".as_ref(),
        "ec_paramgen_curve:P-256".as_ref(),
        "-nodes".as_ref(),
        "-days".as_ref(),
        "2".as_ref(),
        "-subj".as_ref(),
        subject.as_ref(),
        "-keyout".as_ref(),
        key.as_ref(),
        "-out".as_ref(),
    ];
    output(&need("openssl")?, &[&arguments[..], &[certificate.as_ref()]].concat())?;
    fs::write(&pem, [fs::read(&certificate)?, fs::read(&key)?].concat())?;
    Ok(Identity { pem, certificate })
}
