//! TLS as an endpoint of `wss://` speaks it.

use std::error::Error;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice, IoSliceMut};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsAcceptor, TlsConnector, server};

use super::layer::Io;
use super::test_endpoint::{Anyone, config};
use super::{ciphers, outer};
use crate::carried::wire::{Ends, wait};
use crate::net::Stream;

/// Both ends of a connection in TLS.
pub(crate) fn connect(near: Box<dyn Stream>, far: Box<dyn Stream>) -> Result<Ends, Box<dyn Error>> {
    let client = ClientConfig::builder_with_provider(Arc::new(ciphers::provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    let name = ServerName::try_from("endpoint.example")?;
    let connecting = TlsConnector::from(Arc::new(client)).connect(name, Io::new(near));
    let accepting = TlsAcceptor::from(Arc::new(config()?)).accept(Io::new(far));
    let (mut connecting, mut accepting) = (pin!(connecting), pin!(accepting));
    let (mut near, mut far) = (None, None);
    wait(poll_fn(|cx| {
        if near.is_none() {
            near = ready_now(connecting.as_mut().poll(cx));
        }
        if far.is_none() {
            far = ready_now(accepting.as_mut().poll(cx));
        }
        if near.is_some() && far.is_some() { Poll::Ready(()) } else { Poll::Pending }
    }));
    match (near, far) {
        (Some(near), Some(far)) => Ok((outer::layered(near?), Box::new(Endpoint(far?)))),
        _ => Err("no handshake".into()),
    }
}

fn ready_now<T>(poll: Poll<T>) -> Option<T> {
    match poll {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// The far end.
struct Endpoint(server::TlsStream<Io>);

impl Stream for Endpoint {
    fn poll_read(&mut self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(&mut bufs[0]);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut buf))?;
        Poll::Ready(Ok(buf.filled().len()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.0).poll_write_vectored(cx, bufs))?;
        ready!(Pin::new(&mut self.0).poll_flush(cx))?;
        Poll::Ready(Ok(count))
    }

    fn poll_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn register_here(self: Box<Self>) -> Box<dyn Stream> {
        self
    }
}
