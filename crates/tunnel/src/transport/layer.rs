//! Streams over streams: what carries a link inside of something else.

use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::memory::scratch;
use crate::net::{BoxFuture, Carrier, PathCounts, Stream};

/// A protocol over an [`Io`], which may keep what it is given in a buffer until it is flushed.
pub(super) trait Layer: Send + Sync + 'static {
    /// What it runs over.
    fn io(&self) -> &Io;

    /// What it runs over, to be changed.
    fn io_mut(&mut self) -> &mut Io;

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
        &*self.layer.io().stream
    }

    fn below_mut(&mut self) -> &mut dyn Stream {
        self.layer.io_mut().stream()
    }
}

impl<L: Layer> Stream for Layered<L> {
    fn poll_read(&mut self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        self.layer.poll_read(cx, bufs)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let count = match self.unreported {
            Some(count) => count,
            None => *self.unreported.insert(ready!(self.layer.poll_take(cx, bufs))?),
        };
        ready!(self.layer.poll_flush(cx))?;
        self.unreported = None;
        Poll::Ready(Ok(count))
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
        let io = self.layer.io_mut();
        let below = std::mem::replace(&mut io.stream, Box::new(Moving));
        io.stream = below.register_here();
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

/// A stream as one of tokio's, for libraries that take those and read little at a time.
pub(super) struct Io {
    stream: Box<dyn Stream>,
    /// What was read ahead, and nobody has taken yet: `ahead[taken..end]`.
    ahead: Vec<u8>,
    taken: usize,
    end: usize,
}

impl Io {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, ahead: Vec::new(), taken: 0, end: 0 }
    }

    /// The stream itself, for who reads nothing ahead.
    pub(super) fn stream(&mut self) -> &mut dyn Stream {
        &mut *self.stream
    }

    fn poll_read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffer = scratch::take_wire_buffer();
        let read = self.stream.poll_read(cx, &mut [IoSliceMut::new(&mut buffer)]);
        match read {
            Poll::Ready(Ok(count @ 1..)) => (self.ahead, self.taken, self.end) = (buffer, 0, count),
            _ => scratch::return_wire_buffer(buffer),
        }
        read.map_ok(|_| ())
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.taken == self.end {
            ready!(self.poll_read_ahead(cx))?;
        }
        let count = buf.remaining().min(self.end - self.taken);
        buf.put_slice(&self.ahead[self.taken..self.taken + count]);
        self.taken += count;
        if self.taken == self.end && self.end > 0 {
            (self.taken, self.end) = (0, 0);
            scratch::return_wire_buffer(std::mem::take(&mut self.ahead));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_shutdown(cx)
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
