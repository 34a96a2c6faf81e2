//! The local leg: the socket to the application beside this tunnel.

use std::io::{self, IoSlice, IoSliceMut};
use std::task::{Context, Poll};
use std::time::Duration;

use ferry_session::{Session, Time};

use crate::memory::scratch;
use crate::net::{BoxFuture, Stream};
use crate::survival::Kept;

/// Most bytes that are read from the application at once.
pub(crate) const MAX_READ: usize = 256 * 1024;

/// Smallest and largest read from the application.
const READ_SIZE: std::ops::RangeInclusive<u32> = 4 * 1024..=MAX_READ as u32;

/// From this on a read goes straight to where the session keeps it; a smaller one should not take up a whole block.
const MIN_IN_PLACE: usize = 64 * 1024;

/// Most pieces in one write.
const MAX_PIECES: usize = 32;

/// How long an application may keep this end from reading or delivering the last bytes of a connection that is being
/// reset, before the rest is given up.
pub(crate) const LAST_BYTES_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that is not read for longer than this is watched for failures.
const FAILURE_WATCH_DELAY: Duration = Duration::from_secs(1);

/// Shortest and longest time between two looks at whether the kernel has delivered what was written.
const DELIVERY_CHECK_INTERVAL: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_millis(100);

/// A reset waits this much longer than what came before it: an application that is in the middle of writing reads only
/// after its next write, which would fail.
const RESET_GRACE_DELAY: Duration = Duration::from_millis(100);

/// A connection that is to be reset once the application has everything that came before.
struct PendingReset {
    /// Bytes that it did not have at the last look.
    left: u64,
    /// It may make no progress for this long, which is over at `gives_up`.
    patience: Duration,
    gives_up: Time,
    /// When the application had everything.
    delivered_at: Option<Time>,
    /// When to look again, and how much later the time after that.
    check_at: Time,
    interval: Duration,
}

/// A connection that is not read does not tell that it has failed.
enum Unread {
    /// It is read.
    No,
    /// To be watched from then on.
    Since(Time),
    Watched(BoxFuture<'static, io::Error>),
    /// It has failed. If nothing more can be taken from it by then, the rest of what it sent is given up.
    Failed {
        gives_up: Time,
    },
}

/// One application's connection.
pub(crate) struct Local {
    stream: Option<Box<dyn Stream>>,
    /// The application may still write.
    readable: bool,
    /// The application was told the end.
    ended: bool,
    /// How much the next read asks for: grows while reads come back full.
    want: u32,
    /// The last read left nothing in the socket.
    emptied: bool,
    /// Why nothing can be written any more. What the application sent before can still be read.
    failed: Option<io::Error>,
    unread: Unread,
    pending_reset: Option<Box<PendingReset>>,
}

impl Local {
    pub(crate) fn new(mut stream: Box<dyn Stream>) -> Self {
        stream.tune_for_loopback();
        Self {
            stream: Some(stream),
            readable: true,
            ended: false,
            want: *READ_SIZE.start(),
            emptied: false,
            failed: None,
            unread: Unread::No,
            pending_reset: None,
        }
    }

    /// The connection of a process that is gone: the end of what it sends was read if `finished`, and passed on to it if
    /// `ended`.
    pub(crate) fn adopted(stream: Box<dyn Stream>, finished: bool, ended: bool) -> Self {
        Self { readable: !finished, ended, ..Self::new(stream) }
    }

    /// There is no connection any more.
    pub(crate) fn gone() -> Self {
        Self {
            stream: None,
            readable: false,
            ended: true,
            want: *READ_SIZE.start(),
            emptied: false,
            failed: None,
            unread: Unread::No,
            pending_reset: None,
        }
    }

    /// The connection as one of the runtime that this is called on.
    pub(crate) fn register_here(&mut self) {
        self.stream = self.stream.take().map(Stream::register_here);
    }

    /// Has what outlives this process hold the connection, too.
    pub(crate) fn hold(&mut self, kept: &Kept) {
        if let Some(stream) = self.stream.as_mut() {
            kept.hold(&mut **stream);
        }
    }

    /// Bytes from the application into the session; returns how many, or nothing to do. An error comes after the last
    /// byte. What is to outlive this process goes straight to memory that does. It reads `most` bytes at most.
    pub(crate) fn poll_collect(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        kept: Option<&Kept>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        if !self.readable {
            return self.failed.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error)));
        }
        let Some(stream) = self.stream.as_mut().filter(|_| self.pending_reset.is_none()) else { return Poll::Pending };
        let want = (self.want as usize).min(session.writable()).min(most);
        if want == 0 {
            return Poll::Pending;
        }
        let mut polled = Poll::Pending;
        let mut read = |bufs: &mut [IoSliceMut<'_>]| {
            polled = stream.poll_read(cx, bufs);
            if let Poll::Ready(Ok(read)) = polled { read } else { 0 }
        };
        let read = match kept {
            Some(kept) => session.write_with(want, || kept.block(), read),
            None if want >= MIN_IN_PLACE => session.write_with(want, scratch::take_block, read),
            None => scratch::with_read_buffer(|buffer| {
                let read = read(&mut [IoSliceMut::new(&mut buffer[..want])]);
                session.write(&buffer[..read])
            }),
        };
        if let Poll::Ready(Ok(0)) = polled {
            self.readable = false;
            // Behind a failed write this is how the kernel reads a reset.
            match self.failed.take() {
                Some(error) => return Poll::Ready(Err(error)),
                None => session.finish(),
            }
        }
        // Of a read into several buffers it is not known.
        self.emptied = (1..want).contains(&read) && want < MIN_IN_PLACE;
        let next = if read == want { want * 2 } else { (self.want as usize).min(read.max(1).next_power_of_two() * 2) };
        self.want = (next as u32).clamp(*READ_SIZE.start(), *READ_SIZE.end());
        polled
    }

    /// The last read left nothing: what comes next is worth waiting for, once asked for.
    pub(crate) fn is_emptied(&self) -> bool {
        self.emptied
    }

    /// The application has sent something that can be taken.
    pub(crate) fn wants_to_read(&mut self, cx: &mut Context<'_>, session: &Session) -> bool {
        let may_read = self.readable && self.pending_reset.is_none() && session.writable() > 0;
        may_read && self.stream.as_mut().is_some_and(|stream| stream.poll_readable(cx))
    }

    /// It has something for the application.
    pub(crate) fn wants_to_write(&self, session: &Session) -> bool {
        self.stream.is_some() && !self.ended && self.failed.is_none() && session.receive_buffered() > 0
    }

    /// Bytes from the session to the application, `most` at most, and the end behind them.
    pub(crate) fn poll_deliver(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let Some(stream) = self.stream.as_mut().filter(|_| !self.ended && self.failed.is_none()) else {
            return Poll::Pending;
        };
        let mut bufs = [IoSlice::new(&[]); MAX_PIECES];
        let (mut count, mut left) = (0, most);
        for (buf, piece) in bufs.iter_mut().zip(session.readable()) {
            if left == 0 {
                break;
            }
            let piece = &piece[..piece.len().min(left)];
            left -= piece.len();
            *buf = IoSlice::new(piece);
            count += 1;
        }
        if count > 0 {
            let written = match std::task::ready!(stream.poll_write(cx, &bufs[..count])) {
                Ok(written) => written,
                Err(error) => return self.on_write_failed(error, session),
            };
            session.consume(written);
            return Poll::Ready(Ok(written));
        }
        if !session.is_drained() {
            return Poll::Pending;
        }
        std::task::ready!(stream.poll_shutdown(cx))?;
        self.ended = true;
        session.finish_delivered();
        Poll::Ready(Ok(0))
    }

    /// Notices that the connection has failed while nothing is read from it; says whether that has just ended it. What can
    /// be read still may take `patience` to be.
    pub(crate) fn poll_failure(
        &mut self,
        cx: &mut Context<'_>,
        now: Time,
        session: &mut Session,
        patience: Duration,
    ) -> Poll<io::Error> {
        let Some(stream) = self.stream.as_ref().filter(|_| self.pending_reset.is_none()) else { return Poll::Pending };
        let is_read = self.readable && session.writable() > 0;
        match &mut self.unread {
            Unread::No if !is_read => self.unread = Unread::Since(now + FAILURE_WATCH_DELAY),
            Unread::No => {}
            Unread::Since(_) | Unread::Watched(_) if is_read => self.unread = Unread::No,
            Unread::Since(at) if now >= *at => {
                self.unread = Unread::Watched(stream.failure());
                return self.poll_failure(cx, now, session, patience);
            }
            Unread::Since(_) => {}
            Unread::Watched(failure) => {
                let error = std::task::ready!(failure.as_mut().poll(cx));
                if !self.readable {
                    return Poll::Ready(error);
                }
                session.discard_received();
                self.failed = Some(error);
                self.unread = Unread::Failed { gives_up: now + patience };
            }
            Unread::Failed { gives_up } if is_read => *gives_up = now + patience,
            Unread::Failed { gives_up } if now >= *gives_up => {
                let error = self.failed.take().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
                return Poll::Ready(error);
            }
            Unread::Failed { .. } => {}
        }
        Poll::Pending
    }

    /// The application takes nothing more. What it sent before its end is still to be read.
    fn on_write_failed(&mut self, error: io::Error, session: &mut Session) -> Poll<io::Result<usize>> {
        session.discard_received();
        self.failed = Some(error);
        if self.pending_reset.is_some() {
            self.reset();
        }
        Poll::Ready(Ok(0))
    }

    /// The application's connection is reset.
    pub(crate) fn reset(&mut self) {
        (self.pending_reset, self.unread) = (None, Unread::No);
        if let Some(mut stream) = self.stream.take() {
            stream.reset_on_drop();
        }
    }

    /// The application's connection is to be reset, after what has arrived for it. It may take nothing of that for as
    /// long as `patience`. Nothing more is read from it.
    pub(crate) fn reset_once_delivered(&mut self, now: Time, patience: Duration) {
        if self.failed.is_some() || self.stream.is_none() {
            return self.reset();
        }
        self.pending_reset = Some(Box::new(PendingReset {
            left: u64::MAX,
            patience,
            gives_up: now + patience,
            delivered_at: None,
            check_at: now,
            interval: *DELIVERY_CHECK_INTERVAL.start(),
        }));
    }

    /// Resets the connection if that is due; `waiting` bytes have not been written to it. Says whether it did.
    pub(crate) fn poll_reset(&mut self, now: Time, waiting: u64) -> bool {
        let (Some(pending), Some(stream)) = (self.pending_reset.as_mut(), self.stream.as_ref()) else { return false };
        let left = waiting + stream.undelivered();
        if left < pending.left {
            (pending.left, pending.gives_up) = (left, now + pending.patience);
        }
        let grace_is_over = left == 0 && now >= *pending.delivered_at.get_or_insert(now) + RESET_GRACE_DELAY;
        if grace_is_over || now >= pending.gives_up {
            self.reset();
            return true;
        }
        if now >= pending.check_at {
            pending.check_at = now + pending.interval;
            pending.interval = (pending.interval * 2).min(*DELIVERY_CHECK_INTERVAL.end());
        }
        false
    }

    /// When [`poll_reset`](Self::poll_reset) and [`poll_failure`](Self::poll_failure) are to be asked again.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        let watch = match self.unread {
            Unread::Since(at) | Unread::Failed { gives_up: at } => Some(at),
            Unread::No | Unread::Watched(_) => None,
        };
        self.pending_reset.as_ref().map(|pending| pending.check_at).or(watch)
    }

    /// Nothing more goes to the application.
    pub(crate) fn is_over(&self) -> bool {
        self.stream.is_none() || (self.ended && self.pending_reset.is_none())
    }
}
