//! A stream of the tunnel's as one of tokio's, for libraries that take those.

use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::Stream;

/// Wraps a stream; it is taken out for a moment only, to be registered elsewhere.
pub(crate) struct Io(Box<dyn Stream>);

impl Io {
    pub(crate) fn new(stream: Box<dyn Stream>) -> Self {
        Self(stream)
    }

    pub(crate) fn stream(&self) -> &dyn Stream {
        &*self.0
    }

    pub(crate) fn stream_mut(&mut self) -> &mut Box<dyn Stream> {
        &mut self.0
    }

    /// The stream as one of the runtime that this is called on.
    pub(crate) fn register_here(&mut self) {
        let stream = std::mem::replace(&mut self.0, Box::new(Moving));
        self.0 = stream.register_here();
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let count = ready!(self.0.poll_read(cx, &mut [IoSliceMut::new(buf.initialize_unfilled())]))?;
        buf.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_shutdown(cx)
    }
}

/// Stands for a stream while that is being registered elsewhere.
struct Moving;

impl Stream for Moving {
    fn poll_read(&mut self, _: &mut Context<'_>, _: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(0))
    }

    fn poll_write(&mut self, _: &mut Context<'_>, _: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
    }

    fn poll_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn set_unsent_limit(&mut self, _: u32) {}

    fn grow_receive_buffer(&mut self, _: u32) {}

    fn tune_for_loopback(&mut self) {}

    fn register_here(self: Box<Self>) -> Box<dyn Stream> {
        self
    }

    fn reset_on_drop(&mut self) {}
}
