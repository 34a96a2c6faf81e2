//! What requests and frames under way hold in memory, over all connections.
//!
//! A connection may bring a little at any time. What brings more needs a share of the room that all of them have, large
//! enough for the largest message, so that whoever has one can finish. The others are not read meanwhile: they wait in
//! the kernel. A share is held until the message is in the outbox, because a hook's copies of it are worth more than the
//! message itself.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::PollSemaphore;

/// Shares: large messages under way at once.
pub(crate) const MAX_LARGE_MESSAGES: usize = 15;
/// What a connection may bring without a share, in bytes: a request's head and a small body.
const FREE: usize = 16 * 1024;

/// Counts what one connection has brought for the request or frame that it is at.
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

    /// The request or frame is dealt with; the next begins.
    pub(crate) fn settle(&self) {
        let mut state = self.state();
        *state = State { exempt: state.exempt, ..State::default() };
    }

    /// Counts no more: the connection is bounded elsewhere.
    pub(crate) fn exempt(&self) {
        *self.state() = State { exempt: true, ..State::default() };
    }

    /// Whether the connection waits for a share.
    pub(crate) fn waits(&self) -> bool {
        let state = self.state();
        state.large_since.is_some() && state.share.is_none()
    }

    /// Since when the connection has been at a large message.
    pub(crate) fn large_since(&self) -> Option<Instant> {
        self.state().large_since
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is read within its meter.
#[derive(Debug)]
pub(super) struct Metered<S> {
    inner: S,
    meter: Arc<Meter>,
    shares: PollSemaphore,
}

impl<S> Metered<S> {
    pub(super) fn new(inner: S, meter: Arc<Meter>) -> Self {
        let shares = PollSemaphore::new(meter.shares.clone());
        Self { inner, meter, shares }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut state = this.meter.state();
        if state.share.is_none() && state.read >= FREE && !state.exempt {
            state.large_since.get_or_insert_with(Instant::now);
            state.share = ready!(this.shares.poll_acquire(cx));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        state.read += buf.filled().len() - before;
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
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
