//! The local leg: the socket to the application beside this tunnel.

use std::io::{self, IoSlice, IoSliceMut};
use std::task::{Context, Poll};

use ferry_session::Session;

use crate::net::Stream;
use crate::scratch;

/// Smallest and largest read from the application.
const READ: std::ops::RangeInclusive<usize> = 4 * 1024..=256 * 1024;

/// From this on a read goes straight to where the session keeps it; a smaller one should not take up a whole block.
const IN_PLACE: usize = 64 * 1024;

/// Most pieces in one write.
const PIECES: usize = 32;

/// One application's connection.
pub(crate) struct Local {
    stream: Option<Box<dyn Stream>>,
    /// The application may still write.
    readable: bool,
    /// The application was told the end.
    ended: bool,
    /// How much the next read asks for: grows while reads come back full.
    want: usize,
    /// The last read left nothing in the socket.
    emptied: bool,
}

impl Local {
    pub(crate) fn new(mut stream: Box<dyn Stream>) -> Self {
        stream.be_local();
        Self { stream: Some(stream), readable: true, ended: false, want: *READ.start(), emptied: false }
    }

    /// Bytes from the application into the session; returns how many, or nothing to do.
    pub(crate) fn poll_collect(&mut self, cx: &mut Context<'_>, session: &mut Session) -> Poll<io::Result<usize>> {
        let Some(stream) = self.stream.as_mut().filter(|_| self.readable) else { return Poll::Pending };
        let want = self.want.min(session.writable());
        if want == 0 {
            return Poll::Pending;
        }
        let mut polled = Poll::Pending;
        let mut read = |bufs: &mut [IoSliceMut<'_>]| {
            polled = stream.poll_read(cx, bufs);
            if let Poll::Ready(Ok(read)) = polled { read } else { 0 }
        };
        let read = if want < IN_PLACE {
            scratch::with_read_buffer(|buffer| {
                let read = read(&mut [IoSliceMut::new(&mut buffer[..want])]);
                session.write(&buffer[..read])
            })
        } else {
            session.write_with(want, scratch::take_block, read)
        };
        if let Poll::Ready(Ok(0)) = polled {
            self.readable = false;
            session.finish();
        }
        // Of a read into several buffers it is not known.
        self.emptied = (1..want).contains(&read) && want < IN_PLACE;
        self.want = if read == want { want * 2 } else { self.want.min(read.max(1).next_power_of_two() * 2) };
        self.want = self.want.clamp(*READ.start(), *READ.end());
        polled
    }

    /// The last read left nothing: what comes next is worth waiting for, once asked for.
    pub(crate) fn is_emptied(&self) -> bool {
        self.emptied
    }

    /// Bytes from the session to the application, and the end behind them.
    pub(crate) fn poll_deliver(&mut self, cx: &mut Context<'_>, session: &mut Session) -> Poll<io::Result<usize>> {
        let Some(stream) = self.stream.as_mut().filter(|_| !self.ended) else { return Poll::Pending };
        let mut bufs = [IoSlice::new(&[]); PIECES];
        let mut count = 0;
        for (buf, piece) in bufs.iter_mut().zip(session.readable()) {
            *buf = IoSlice::new(piece);
            count += 1;
        }
        if count > 0 {
            let written = std::task::ready!(stream.poll_write(cx, &bufs[..count]))?;
            session.consume(written);
            return Poll::Ready(Ok(written));
        }
        if !session.is_drained() {
            return Poll::Pending;
        }
        std::task::ready!(stream.poll_shutdown(cx))?;
        self.ended = true;
        Poll::Ready(Ok(0))
    }

    /// The application's connection is reset.
    pub(crate) fn reset(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            stream.reset_on_drop();
        }
    }

    /// Nothing more goes to the application.
    pub(crate) fn is_over(&self) -> bool {
        self.stream.is_none() || self.ended
    }
}
