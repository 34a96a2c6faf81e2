//! The one stream of a connection, and its ends: in good order, or by a reset.

use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::RECEIVE_WINDOW;
use crate::net::{Carrier, PathCounts, Stream};

/// What a connection is closed with (RFC 9000 §19.19).
const ENDED: VarInt = VarInt::from_u32(0);
const RESET: VarInt = VarInt::from_u32(1);

/// Bytes taken beyond those that may be on their way, before the link says what it wants.
const UNSENT_LIMIT: u64 = 64 * 1024;

/// Of what a session is sent this part is what its link and the carrier add to it, or less.
const OVERHEAD_PART: u64 = 16;

/// How long what was written last may take to arrive.
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct QuicStream {
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
    lingering: Arc<Semaphore>,
    unsent_limit: u64,
    send_window: u64,
    receive_window: u64,
    /// The peer has proved a key on it.
    is_proven: bool,
    has_ended: bool,
    /// Dropping it without having ended it resets it.
    resets: bool,
}

impl QuicStream {
    pub(super) fn new(
        connection: Connection,
        send: SendStream,
        receive: RecvStream,
        lingering: Arc<Semaphore>,
    ) -> Self {
        Self {
            connection,
            send,
            receive,
            lingering,
            unsent_limit: UNSENT_LIMIT,
            send_window: 0,
            receive_window: 0,
            is_proven: false,
            has_ended: false,
            resets: false,
        }
    }

    /// As much as the path takes, and a little more: what comes next is not far behind, and no slow path has megabytes
    /// in front of it. The session has no more than its replay buffer to send.
    fn follow_path(&mut self) {
        let window = self.connection.stats().path.cwnd + self.unsent_limit;
        if window != self.send_window {
            self.send_window = window;
            self.connection.set_send_window(window);
        }
    }
}

fn lost(error: ConnectionError) -> io::Error {
    let kind = match error {
        ConnectionError::TimedOut => io::ErrorKind::TimedOut,
        ConnectionError::ApplicationClosed(_) | ConnectionError::Reset => io::ErrorKind::ConnectionReset,
        _ => io::ErrorKind::ConnectionAborted,
    };
    io::Error::new(kind, error)
}

impl Stream for QuicStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        let Some(buf) = bufs.iter_mut().find(|buf| !buf.is_empty()) else { return Poll::Ready(Ok(0)) };
        Poll::Ready(match ready!(self.receive.poll_read(cx, buf)) {
            Ok(count) => Ok(count),
            Err(ReadError::ConnectionLost(ConnectionError::ApplicationClosed(close))) if close.error_code == ENDED => {
                Ok(0)
            }
            Err(ReadError::ConnectionLost(error)) => Err(lost(error)),
            Err(ReadError::Reset(_)) => Err(io::ErrorKind::ConnectionReset.into()),
            Err(error) => Err(io::Error::other(error)),
        })
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Some(buf) = bufs.iter().find(|buf| !buf.is_empty()) else { return Poll::Ready(Ok(0)) };
        self.follow_path();
        Poll::Ready(ready!(Pin::new(&mut self.send).poll_write(cx, buf)).map_err(|error| match error {
            WriteError::ConnectionLost(error) => lost(error),
            WriteError::Stopped(_) => io::ErrorKind::BrokenPipe.into(),
            error => io::Error::other(error),
        }))
    }

    fn poll_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // One that is beyond this has ended already.
        let _ = self.send.finish();
        self.has_ended = true;
        Poll::Ready(Ok(()))
    }

    fn set_unsent_limit(&mut self, bytes: u32) {
        self.unsent_limit = bytes.into();
    }

    /// A link asks for it, whose peer has proved a key: from here on there is room for a long path.
    fn grow_receive_buffer(&mut self, bytes: u32) {
        self.is_proven = true;
        self.follow_receive_window(bytes.into());
    }

    fn follow_receive_window(&mut self, bytes: u64) {
        let window = (bytes + bytes / OVERHEAD_PART).max(RECEIVE_WINDOW);
        if window != self.receive_window {
            self.receive_window = window;
            self.connection.set_receive_window(VarInt::from_u64(window).unwrap_or(VarInt::MAX));
        }
    }

    fn register_here(self: Box<Self>) -> Box<dyn Stream> {
        self
    }

    fn carrier(&self) -> Carrier {
        Carrier::Quic
    }

    fn path(&self) -> Option<PathCounts> {
        let stats = self.connection.stats();
        let path = stats.path;
        Some(PathCounts {
            round_trip: path.rtt,
            least_round_trip: path.min_rtt,
            segment: path.current_mtu.into(),
            sent: path.sent_packets,
            sent_bytes: stats.udp_tx.bytes,
            lost: path.lost_packets,
            // What has not arrived is the sender's to count.
            received: 0,
            received_bytes: stats.udp_rx.bytes,
            early: 0,
            unread: stats.udp_rx.datagrams as u32,
            bears_loss: true,
        })
    }

    fn has_port(&self) -> bool {
        false
    }

    fn reset_on_drop(&mut self) {
        (self.resets, self.has_ended) = (true, false);
    }

    fn reset_unless_ended(&mut self) {
        self.resets = true;
    }
}

impl Drop for QuicStream {
    fn drop(&mut self) {
        if self.resets && !self.has_ended {
            return self.connection.close(RESET, b"");
        }
        let _ = self.send.finish();
        let place = self.lingering.clone().try_acquire_owned();
        match Handle::try_current() {
            // Closing it would end what is still on its way.
            Ok(runtime) if self.is_proven || place.is_ok() => {
                let place = place.ok().filter(|_| !self.is_proven);
                let (connection, delivered) = (self.connection.clone(), self.send.stopped());
                runtime.spawn(async move {
                    let _ = timeout(LINGER_TIMEOUT, delivered).await;
                    connection.close(ENDED, b"");
                    drop(place);
                });
            }
            _ => self.connection.close(ENDED, b""),
        }
    }
}
