//! TLS around a WebSocket, to an endpoint that proves its name by a certificate. It keeps a link from nobody: Ferry's own
//! TLS inside does that.

use std::io::{self, IoSlice, IoSliceMut};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::net::Stream;
use crate::transport::layer::{Io, Layer, Layered};

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
        Ok(Layered::new(socket))
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
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    // Load balancers that know TLS 1.2 only are many, and no secret depends on it.
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(rustls::ALL_VERSIONS);
    let builder = builder.unwrap_or_else(|_| unreachable!("the provider supports every version that is compiled in"));
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

impl Layer for TlsStream<Io> {
    fn io(&self) -> &Io {
        self.get_ref().0
    }

    fn io_mut(&mut self) -> &mut Io {
        self.get_mut().0
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        let Some(buf) = bufs.iter_mut().find(|buf| !buf.is_empty()) else { return Poll::Ready(Ok(0)) };
        let mut buf = ReadBuf::new(buf);
        match ready!(AsyncRead::poll_read(Pin::new(self), cx, &mut buf)) {
            // An endpoint that closes without a close_notify: what is inside has an end of its own.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(0)),
            read => Poll::Ready(read.map(|()| buf.filled().len())),
        }
    }

    fn poll_take(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(self), cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_shutdown(cx)
    }
}
