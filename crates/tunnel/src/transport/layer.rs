//! Streams over streams: what carries a link inside of something else.

use std::io::{self, IoSlice, IoSliceMut};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::net::{BoxFuture, Carrier, Fill, PathCounts, Stream};

/// A protocol over a stream, which may keep what it is given in a buffer until it is flushed.
pub(super) trait Layer: Send + Sync + 'static {
    /// What it runs over.
    fn below(&self) -> &dyn Stream;

    /// What it runs over, to be changed.
    fn below_mut(&mut self) -> &mut Box<dyn Stream>;

    /// What carries the bytes, if the layer makes it something else than what it runs over.
    fn carrier(&self) -> Option<Carrier> {
        None
    }

    /// What is on the way ends it after this long, if that is known.
    fn max_life(&self) -> Option<Duration> {
        None
    }

    /// Reads into `bufs`, in order; 0 is the end of the stream.
    fn poll_read(&mut self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>>;

    /// Takes bytes of `bufs`, in order, into its buffer, or writes them.
    fn poll_take(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;

    /// Takes bytes as [`Stream::poll_write_filled`] has them.
    fn poll_take_filled(
        &mut self,
        cx: &mut Context<'_>,
        length: usize,
        fill: &mut Fill<'_>,
    ) -> Poll<io::Result<usize>> {
        crate::net::filled(length, fill, |bytes| self.poll_take(cx, &[IoSlice::new(bytes)]))
    }

    /// Writes what it has taken.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Says that nothing follows, and ends the direction of the stream below.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// A layer as a stream.
pub(super) struct Layered<L> {
    layer: L,
    /// Bytes that the layer has taken, and that are reported as written once it is flushed: a caller asks again only while
    /// something is unwritten, and so has them flushed.
    unreported: Option<usize>,
}

impl<L: Layer> Layered<L> {
    pub(super) fn new(layer: L) -> Box<Self> {
        Box::new(Self { layer, unreported: None })
    }

    fn below(&self) -> &dyn Stream {
        self.layer.below()
    }

    fn below_mut(&mut self) -> &mut dyn Stream {
        &mut **self.layer.below_mut()
    }

    /// Has bytes taken, if none are unreported, and flushes them.
    fn poll_taken(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut L, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let count = match self.unreported {
            Some(count) => count,
            None => *self.unreported.insert(ready!(take(&mut self.layer, cx))?),
        };
        ready!(self.layer.poll_flush(cx))?;
        self.unreported = None;
        Poll::Ready(Ok(count))
    }
}

impl<L: Layer> Stream for Layered<L> {
    fn poll_read(&mut self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        self.layer.poll_read(cx, bufs)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.poll_taken(cx, |layer, cx| layer.poll_take(cx, bufs))
    }

    fn poll_write_filled(
        &mut self,
        cx: &mut Context<'_>,
        length: usize,
        fill: &mut Fill<'_>,
    ) -> Poll<io::Result<usize>> {
        self.poll_taken(cx, |layer, cx| layer.poll_take_filled(cx, length, fill))
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.layer.poll_close(cx)
    }

    fn set_unsent_limit(&mut self, bytes: u32) {
        self.below_mut().set_unsent_limit(bytes);
    }

    fn grow_receive_buffer(&mut self, bytes: u32) {
        self.below_mut().grow_receive_buffer(bytes);
    }

    fn follow_receive_window(&mut self, bytes: u64) {
        self.below_mut().follow_receive_window(bytes);
    }

    fn set_congestion_control(&mut self, name: &str) -> io::Result<()> {
        self.below_mut().set_congestion_control(name)
    }

    fn tune_for_loopback(&mut self) {
        self.below_mut().tune_for_loopback();
    }

    fn register_here(mut self: Box<Self>) -> Box<dyn Stream> {
        let below = self.layer.below_mut();
        *below = std::mem::replace(below, Box::new(Moving)).register_here();
        self
    }

    fn carrier(&self) -> Carrier {
        self.layer.carrier().unwrap_or_else(|| self.below().carrier())
    }

    fn path(&self) -> Option<PathCounts> {
        self.below().path()
    }

    fn max_life(&self) -> Option<Duration> {
        self.layer.max_life()
    }

    fn undelivered(&self) -> u64 {
        self.below().undelivered()
    }

    fn failure(&self) -> BoxFuture<'static, io::Error> {
        self.below().failure()
    }

    fn reset_on_drop(&mut self) {
        self.below_mut().reset_on_drop();
    }

    fn reset_unless_ended(&mut self) {
        self.below_mut().reset_unless_ended();
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

    fn register_here(self: Box<Self>) -> Box<dyn Stream> {
        self
    }
}
