//! TLS around a WebSocket, to an endpoint that proves its name by a certificate. It keeps a link from nobody: Ferry's own
//! TLS inside does that.

mod ciphers;
#[cfg(test)]
mod endpoint;
mod stream;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::net::Stream;
use crate::transport::layer::Io;

/// With the public authorities.
static PUBLIC: OnceLock<Arc<ClientConfig>> = OnceLock::new();

/// Whose certificates endpoints are believed by.
#[derive(Clone, Debug)]
pub(crate) struct OuterTls {
    /// Certificates (PEM), instead of the public authorities'.
    ca_file: Option<PathBuf>,
}

impl OuterTls {
    pub(crate) fn new(ca_file: Option<PathBuf>) -> Self {
        Self { ca_file }
    }

    /// Speaks TLS to `host`.
    pub(crate) async fn connect(&self, stream: Box<dyn Stream>, host: &str) -> io::Result<Box<dyn Stream>> {
        let config = match &self.ca_file {
            None => PUBLIC.get_or_init(|| client(public_roots())).clone(),
            // As small and as near as tunnel.yaml; read each time, so that it can be replaced.
            Some(path) => client(roots_in(&std::fs::read(path).map_err(|error| unreadable(path, &error))?)?),
        };
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let socket = TlsConnector::from(config).connect(name, Io::new(stream)).await.map_err(explain)?;
        Ok(stream::layered(socket))
    }
}

/// What to do about an endpoint that nobody vouches for.
fn explain(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    if matches!(inner, Some(rustls::Error::InvalidMessage(_))) {
        return io::Error::new(error.kind(), "what answers there speaks no TLS: is it an endpoint for `ws://`?");
    }
    if !matches!(inner, Some(rustls::Error::InvalidCertificate(_))) {
        return error;
    }
    let hint = "its certificate has to be one of a public authority, or of `ca_file`, for the name in the URL (one that \
                signs itself needs CA:FALSE)";
    io::Error::new(error.kind(), format!("{error}; {hint}"))
}

fn unreadable(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("`ca_file` {} cannot be read: {error}", path.display()))
}

fn public_roots() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}

fn roots_in(pem: &[u8]) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| io::Error::other(format!("`ca_file`: {error}")))?;
        roots.add(certificate).map_err(io::Error::other)?;
    }
    if roots.is_empty() {
        return Err(io::Error::other("`ca_file` has no certificate in it"));
    }
    Ok(roots)
}

fn client(roots: RootCertStore) -> Arc<ClientConfig> {
    let provider = Arc::new(ciphers::provider());
    // Load balancers that know TLS 1.2 only are many, and no secret depends on it.
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(rustls::ALL_VERSIONS);
    let builder = builder.unwrap_or_else(|_| unreachable!("the provider supports every version that is compiled in"));
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

#[cfg(test)]
mod tests;
