//! Bounds the memory of requests and frames under way, over all connections.
//!
//! A connection may always send a little. To send more it needs a share, which is enough for the largest message, so that
//! a connection that has one can finish. The others are not read meanwhile: their data waits in the kernel. A share is
//! held until the message is in the outbox, because a hook's copies of it take more than the message itself.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::PollSemaphore;

/// Bytes that a connection may send without a share: a request's head and a small body.
const FREE_BYTES: usize = 16 * 1024;

/// Counts what one connection has sent of its current request or frame.
#[derive(Debug)]
pub(crate) struct Meter {
    shares: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    read: usize,
    share: Option<OwnedSemaphorePermit>,
    /// Since when it waits for a share or has one.
    large_since: Option<Instant>,
    exempt: bool,
}

impl Meter {
    pub(crate) fn new(shares: Arc<Semaphore>) -> Self {
        Self { shares, state: Mutex::default() }
    }

    /// Call when the request or frame has been dealt with; the next one begins.
    pub(crate) fn finish_message(&self) {
        let mut state = self.state();
        *state = State { exempt: state.exempt, ..State::default() };
    }

    /// Stops counting: the connection is bounded elsewhere.
    pub(crate) fn exempt(&self) {
        *self.state() = State { exempt: true, ..State::default() };
    }

    /// Whether the connection may send the largest message.
    pub(crate) fn has_share(&self) -> bool {
        self.state().share.is_some()
    }

    /// Whether the connection waits for a share.
    pub(crate) fn waits(&self) -> bool {
        let state = self.state();
        state.large_since.is_some() && state.share.is_none()
    }

    /// Since when the connection has been sending a large message.
    pub(crate) fn large_since(&self) -> Option<Instant> {
        self.state().large_since
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// A connection that is read as its meter allows.
#[derive(Debug)]
pub(super) struct MeteredStream<S> {
    inner: S,
    meter: Arc<Meter>,
    shares: PollSemaphore,
}

impl<S> MeteredStream<S> {
    pub(super) fn new(inner: S, meter: Arc<Meter>) -> Self {
        let shares = PollSemaphore::new(meter.shares.clone());
        Self { inner, meter, shares }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MeteredStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut state = this.meter.state();
        if state.share.is_none() && state.read >= FREE_BYTES && !state.exempt {
            state.large_since.get_or_insert_with(Instant::now);
            state.share = ready!(this.shares.poll_acquire(cx));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        state.read += buf.filled().len() - before;
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MeteredStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
