//! Byte streams as the tunnel sees them, and what is known of their paths.

use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::memory::scratch;

/// A future on the heap.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What carries a link's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// A TCP connection, with or without an HTTP proxy in between.
    Tcp,
    /// A WebSocket.
    WebSocket,
    /// The stream of a QUIC connection.
    Quic,
}

impl Carrier {
    /// What it is in `/status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::WebSocket => "websocket",
            Self::Quic => "quic",
        }
    }
}

/// What the system has counted of a connection since it was made, and how long its path is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathCounts {
    /// The round trip now, smoothed.
    pub round_trip: Duration,
    /// The shortest one so far: without what queues add.
    pub least_round_trip: Duration,
    /// Bytes of a full packet.
    pub segment: u32,
    /// Packets sent.
    pub sent: u64,
    /// What was in them.
    pub sent_bytes: u64,
    /// Those of them that were taken for lost.
    pub lost: u64,
    /// Packets received.
    pub received: u64,
    /// What was in them.
    pub received_bytes: u64,
    /// Those of them that came with one before them missing.
    pub early: u64,
    /// Packets received, all or those that could not be read at once, modulo 2³²: more and more as long as the path
    /// delivers, though they wait for a lost one.
    pub unread: u32,
    /// What this end sends is not slowed down by a lost packet now and then.
    pub bears_loss: bool,
}

/// Puts what stands so many bytes into what is to be written where it goes.
pub type Fill<'a> = dyn FnMut(usize, &mut [u8]) + 'a;

/// Has `write` take bytes that `fill` puts into a buffer of the thread: as many as there is room for.
pub(crate) fn filled<T>(length: usize, fill: &mut Fill<'_>, write: impl FnOnce(&[u8]) -> T) -> T {
    scratch::with_wire_buffer(|buffer| {
        let room = length.min(buffer.len());
        fill(0, &mut buffer[..room]);
        write(&buffer[..room])
    })
}

/// A connected byte stream. Dropping it closes it.
pub trait Stream: Send + Sync + 'static {
    /// Reads into `bufs`, in order; 0 is the end of the stream.
    fn poll_read(&mut self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>>;

    /// Whether there is something to read, as far as is known. If not, the task is woken once there is.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> bool {
        let _ = cx;
        true
    }

    /// Writes from `bufs`, in order.
    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;

    /// Writes some of `length` bytes that are nowhere yet: `fill` puts them where they go, which may be where the stream has
    /// them sealed. What is not taken is filled in again.
    fn poll_write_filled(
        &mut self,
        cx: &mut Context<'_>,
        length: usize,
        fill: &mut Fill<'_>,
    ) -> Poll<io::Result<usize>> {
        filled(length, fill, |bytes| self.poll_write(cx, &[IoSlice::new(bytes)]))
    }

    /// Ends the direction that is written, after what was written.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// The system takes about this many bytes ahead of what it has sent, so that what is written next is not far behind.
    fn set_unsent_limit(&mut self, bytes: u32) {
        let _ = bytes;
    }

    /// The system takes this many received bytes before they are read, or as many as it may, from the beginning on:
    /// left to itself, it learns over many round trips that the stream has use for them.
    fn grow_receive_buffer(&mut self, bytes: u32) {
        let _ = bytes;
    }

    /// The peer may send this many bytes that are not read yet. What keeps them until those before them have come has as much
    /// room, if that is not the system's.
    fn follow_receive_window(&mut self, bytes: u64) {
        let _ = bytes;
    }

    /// The system sends by this congestion control instead of its default.
    ///
    /// # Errors
    /// When it does not have it, or does not let this process use it.
    fn set_congestion_control(&mut self, name: &str) -> io::Result<()> {
        let _ = name;
        Ok(())
    }

    /// The stream is an application's. If that is on this host, there is no path to be gentle with.
    fn tune_for_loopback(&mut self) {}

    /// The stream as one of the runtime that this is called on: it wakes nobody else.
    fn register_here(self: Box<Self>) -> Box<dyn Stream>;

    /// What carries the stream ends it after this long, if that is known.
    fn max_life(&self) -> Option<Duration> {
        None
    }

    /// About how many of the written bytes the other host has not acknowledged: a reset would overtake them. A stream
    /// whose resets overtake nothing says 0.
    fn undelivered(&self) -> u64 {
        0
    }

    /// Resolves when the connection has failed, though nothing is read from it or written to it.
    fn failure(&self) -> BoxFuture<'static, io::Error> {
        Box::pin(std::future::pending())
    }

    /// What carries the bytes.
    fn carrier(&self) -> Carrier {
        Carrier::Tcp
    }

    /// What the system has seen of the path, if it tells.
    fn path(&self) -> Option<PathCounts> {
        None
    }

    /// The stream takes a local port that nothing else has.
    fn has_port(&self) -> bool {
        true
    }

    /// Where this end is, if the stream has an address.
    fn local_addr(&self) -> Option<SocketAddr> {
        None
    }

    /// The connection, for another process to hold a duplicate of. One without it ends with this process.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Another process has a duplicate: closing the connection here would not reset it.
    fn share(&mut self) {}

    /// Dropping the stream now resets the connection.
    fn reset_on_drop(&mut self) {}

    /// Dropping the stream, or the end of this process, resets the connection unless
    /// [`poll_shutdown`](Self::poll_shutdown) came first.
    fn reset_unless_ended(&mut self) {}
}
