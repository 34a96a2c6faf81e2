//! TLS to a collector, which proves its name by a certificate.

use std::path::PathBuf;
use std::sync::Arc;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::error::EnvironmentError;

/// Makes connections, with TLS where the URL says so.
pub(crate) type Connector = HttpsConnector<HttpConnector>;

/// Whose certificates are believed.
#[derive(Debug)]
pub(crate) enum Trust {
    /// TLS is not spoken.
    Nobody,
    /// Those of these authorities, or of the public ones; with this certificate and key of our own, if any are asked for.
    Authorities(Arc<RootCertStore>, Option<Identity>),
}

/// What this end shows of itself.
#[derive(Debug)]
pub(crate) struct Identity(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Trust {
    /// As `either` has the variables: that of the signal, or that of all.
    pub(crate) fn read(either: &dyn Fn(&str) -> Option<(String, String)>) -> Result<Self, EnvironmentError> {
        let roots = match either("CERTIFICATE") {
            // As for `wss://`: an image from scratch has no authorities of its own.
            None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
            Some((name, path)) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(&name, &path)? {
                    roots.add(certificate).map_err(|error| EnvironmentError::new(&name, &path, error.to_string()))?;
                }
                roots
            }
        };
        let identity = match (either("CLIENT_CERTIFICATE"), either("CLIENT_KEY")) {
            (None, None) => None,
            (Some((name, path)), Some((key_name, key_path))) => {
                let key = PrivateKeyDer::from_pem_file(&key_path);
                let key = key.map_err(|error| unreadable(&key_name, &key_path, &error))?;
                Some(Identity(certificates(&name, &path)?, key))
            }
            (Some((name, path)), None) | (None, Some((name, path))) => {
                let problem =
                    "give OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY, or neither";
                return Err(EnvironmentError::new(&name, &path, problem));
            }
        };
        Ok(Self::Authorities(Arc::new(roots), identity))
    }

    /// What connections are made by.
    pub(crate) fn connector(self) -> Result<Connector, String> {
        let config = self.config().map_err(|error| error.to_string())?;
        Ok(HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build())
    }

    fn config(self) -> Result<ClientConfig, rustls::Error> {
        let (roots, identity) = match self {
            Self::Nobody => (Arc::new(RootCertStore::empty()), None),
            Self::Authorities(roots, identity) => (roots, identity),
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(rustls::ALL_VERSIONS)?;
        let builder = builder.with_root_certificates(roots);
        match identity {
            None => Ok(builder.with_no_client_auth()),
            Some(Identity(chain, key)) => builder.with_client_auth_cert(chain, key),
        }
    }
}

fn certificates(name: &str, path: &str) -> Result<Vec<CertificateDer<'static>>, EnvironmentError> {
    let read = CertificateDer::pem_file_iter(PathBuf::from(path)).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| unreadable(name, path, &error))?;
    if certificates.is_empty() {
        return Err(EnvironmentError::new(name, path, "there is no certificate (PEM) in this file"));
    }
    Ok(certificates)
}

fn unreadable(name: &str, path: &str, error: &rustls::pki_types::pem::Error) -> EnvironmentError {
    EnvironmentError::new(name, path, format!("give a file in PEM format; this one cannot be read: {error}"))
}

/// What to do about a connection that was not made.
pub(crate) fn advice(problem: &str) -> &'static str {
    if problem.contains("invalid peer certificate") {
        "; name the file with its authority's certificate in OTEL_EXPORTER_OTLP_CERTIFICATE, and in the URL a name that the \
         certificate has"
    } else if problem.contains("received corrupt message") {
        "; what answers there speaks no TLS: is it a URL for `http://`?"
    } else {
        ""
    }
}
