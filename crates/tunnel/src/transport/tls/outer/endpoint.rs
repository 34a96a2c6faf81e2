//! What an endpoint of `wss://` speaks, and a dialler that believes it: for tests, and for the micro-benchmark.

use std::error::Error;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::NoClientAuth;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{DigitallySignedStruct, ServerConfig, SignatureScheme, SupportedProtocolVersion};

/// With a key of its own, and a certificate that is none.
pub(crate) fn config(version: &'static SupportedProtocolVersion) -> Result<ServerConfig, Box<dyn Error>> {
    config_by(version, Arc::new(NoClientAuth))
}

/// The same, which lets those in that `verifier` does.
pub(crate) fn config_by(
    version: &'static SupportedProtocolVersion,
    verifier: Arc<dyn ClientCertVerifier>,
) -> Result<ServerConfig, Box<dyn Error>> {
    let key = ::aws_lc_rs::signature::Ed25519KeyPair::generate_pkcs8(&::aws_lc_rs::rand::SystemRandom::new())?;
    let key = aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(key.as_ref()))?;
    let certified = CertifiedKey::new(vec![CertificateDer::from(vec![0])], key);
    Ok(ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified))))
}

/// Believes whoever answers: what is looked at are bytes.
#[derive(Debug)]
pub(crate) struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_tls13_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
