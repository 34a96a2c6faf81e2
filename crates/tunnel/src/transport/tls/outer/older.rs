//! TLS 1.2 to an endpoint, after its handshake: by rustls, with its copies.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::task::{Context, Poll, ready};

use rustls::Connection;

use crate::memory::scratch::{self, WIRE_SIZE};
use crate::net::Stream;
use crate::transport::layer::{Layer, Layered};
use crate::transport::tls::handshake::write;

/// A connection whose handshake is done. `received` came behind it.
pub(super) fn start(below: Box<dyn Stream>, mut connection: Connection, received: Vec<u8>) -> Box<dyn Stream> {
    // All that is brought at once is sealed, and then written at once.
    connection.set_buffer_limit(Some(WIRE_SIZE));
    Layered::new(Older { below, connection, received, taken: 0 })
}

struct Older {
    below: Box<dyn Stream>,
    connection: Connection,
    /// What the library has not taken yet is `received[taken..]`.
    received: Vec<u8>,
    taken: usize,
}

impl Older {
    /// Hands the library what was received, or reads first. It takes little at a time.
    fn poll_advance(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.taken == self.received.len() {
            let below = &mut self.below;
            let read = scratch::with_wire_buffer(|wire| {
                let count = ready!(below.poll_read(cx, &mut [IoSliceMut::new(wire)]))?;
                Poll::Ready(Ok::<_, io::Error>(wire[..count].to_vec()))
            });
            (self.received, self.taken) = (ready!(read)?, 0);
        }
        // Of nothing the library learns that nothing follows.
        let mut rest = &self.received[self.taken..];
        self.taken += self.connection.read_tls(&mut rest)?;
        let processed = self.connection.process_new_packets();
        Poll::Ready(processed.map(drop).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)))
    }
}

impl Layer for Older {
    fn below(&self) -> &dyn Stream {
        &*self.below
    }

    fn below_mut(&mut self) -> &mut Box<dyn Stream> {
        &mut self.below
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        let Some(buf) = bufs.iter_mut().find(|buf| !buf.is_empty()) else { return Poll::Ready(Ok(0)) };
        loop {
            match self.connection.reader().read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.poll_advance(cx))?,
                // An endpoint that closes without a close_notify: what is inside has an end of its own.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(0)),
                read => return Poll::Ready(read),
            }
        }
    }

    fn poll_take(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let brought = bufs.iter().any(|buf| !buf.is_empty());
        loop {
            match self.connection.writer().write_vectored(bufs)? {
                // It is full of what the library itself had to say.
                0 if brought => ready!(self.poll_flush(cx))?,
                count => return Poll::Ready(Ok(count)),
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.connection.wants_write() {
            ready!(write(&mut self.connection, &mut *self.below, cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.send_close_notify();
        ready!(self.poll_flush(cx))?;
        self.below.poll_shutdown(cx)
    }
}
