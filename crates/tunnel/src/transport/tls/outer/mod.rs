//! TLS around a WebSocket, to an endpoint that proves its name by a certificate. It keeps a link from nobody: Ferry's own
//! TLS inside does that.

mod ciphers;
#[cfg(test)]
mod endpoint;
mod older;
mod records;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore};

use super::TlsError;
use super::handshake::{Handshake, keys};
use crate::net::Stream;

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
        connect(config, name, stream).await.map_err(explain)
    }
}

async fn connect(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    stream: Box<dyn Stream>,
) -> Result<Box<dyn Stream>, TlsError> {
    let connection = ClientConnection::new(config, name)?;
    let mut shaken = Handshake::new(stream, connection.into(), None).run().await?;
    if shaken.connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return Ok(older::start(shaken.stream, shaken.connection, shaken.received));
    }
    let flight = shaken.last_flight()?;
    Ok(records::start(shaken.stream, keys(shaken.connection)?, flight, shaken.received))
}

/// What to do about an endpoint that nobody vouches for, or that is none.
fn explain(error: TlsError) -> io::Error {
    match error {
        TlsError::Io(error) => error,
        TlsError::Record(_) => io::Error::other("what answers there speaks no TLS: is it an endpoint for `ws://`?"),
        TlsError::Handshake(error @ rustls::Error::InvalidCertificate(_)) => io::Error::other(format!(
            "{error}; its certificate has to be one of a public authority, or of `ca_file`, for the name in the URL (one \
             that signs itself needs CA:FALSE)"
        )),
        TlsError::Handshake(error) => io::Error::other(error),
        TlsError::KeyRefused => io::Error::other(records::NOT_LET_IN),
        error => io::Error::other(error),
    }
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
    // Records are made here, and nothing is left that could use a ticket.
    config.enable_secret_extraction = true;
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

#[cfg(test)]
mod tests;
