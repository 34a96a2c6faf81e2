//! TLS around a WebSocket, to an endpoint that proves its name by a certificate. It keeps a link from nobody: Ferry's own
//! TLS inside does that.

use std::io::{self, IoSlice, IoSliceMut};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::net::{BoxFuture, Stream};
use crate::transport::io::Io;

/// With the public authorities.
static PUBLIC: OnceLock<Arc<ClientConfig>> = OnceLock::new();

/// Whose certificates endpoints are believed by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
            Some(path) => client(roots_in(&std::fs::read(path)?)?),
        };
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let socket = TlsConnector::from(config).connect(name, Io::new(stream)).await.map_err(explain)?;
        Ok(Box::new(OuterStream { socket, unreported: None }))
    }
}

/// What to do about an endpoint that nobody vouches for.
fn explain(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    if !matches!(inner, Some(rustls::Error::InvalidCertificate(_))) {
        return error;
    }
    let hint = "its certificate has to be one of a public authority, or of `ca_file`, for the name in the URL (one that \
                signs itself needs CA:FALSE)";
    io::Error::new(error.kind(), format!("{error}; {hint}"))
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

struct OuterStream {
    socket: TlsStream<Io>,
    /// Bytes that are in the socket's buffer, and are reported as written once it is empty: until then the caller asks
    /// again, and so has them flushed.
    unreported: Option<usize>,
}

impl OuterStream {
    fn inner(&self) -> &dyn Stream {
        self.socket.get_ref().0.stream()
    }

    fn inner_mut(&mut self) -> &mut Box<dyn Stream> {
        self.socket.get_mut().0.stream_mut()
    }
}

impl Stream for OuterStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        let Some(buf) = bufs.iter_mut().find(|buf| !buf.is_empty()) else { return Poll::Ready(Ok(0)) };
        let mut buf = ReadBuf::new(buf);
        match ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buf)) {
            // An endpoint that closes without a close_notify: what is inside has an end of its own.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(0)),
            read => Poll::Ready(read.map(|()| buf.filled().len())),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut socket = Pin::new(&mut self.socket);
        let count = match self.unreported {
            Some(count) => count,
            None => {
                let count = ready!(socket.as_mut().poll_write_vectored(cx, bufs))?;
                *self.unreported.insert(count)
            }
        };
        ready!(socket.poll_flush(cx))?;
        self.unreported = None;
        Poll::Ready(Ok(count))
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn set_unsent_limit(&mut self, bytes: u32) {
        self.inner_mut().set_unsent_limit(bytes);
    }

    fn grow_receive_buffer(&mut self, bytes: u32) {
        self.inner_mut().grow_receive_buffer(bytes);
    }

    fn tune_for_loopback(&mut self) {
        self.inner_mut().tune_for_loopback();
    }

    fn register_here(mut self: Box<Self>) -> Box<dyn Stream> {
        self.socket.get_mut().0.register_here();
        self
    }

    fn undelivered(&self) -> u64 {
        self.inner().undelivered()
    }

    fn failure(&self) -> BoxFuture<'static, io::Error> {
        self.inner().failure()
    }

    fn reset_on_drop(&mut self) {
        self.inner_mut().reset_on_drop();
    }

    fn reset_unless_ended(&mut self) {
        self.inner_mut().reset_unless_ended();
    }
}
