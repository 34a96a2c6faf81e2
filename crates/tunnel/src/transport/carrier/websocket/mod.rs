//! A WebSocket (RFC 6455) as a byte stream: binary messages, whatever their bounds. tungstenite reads and writes the heads
//! of frames; payloads stay where the caller has them (`docs/decisions/0118`).

mod mask;
mod receiving;
mod sending;

use std::io::{self, IoSlice, IoSliceMut};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::memory::scratch;
use crate::net::{Carrier, Stream};
use crate::transport::layer::{Layer, Layered};
use receiving::{Asked, Receiving};
use sending::Sending;

pub(super) struct WebSocket {
    below: Box<dyn Stream>,
    /// What came behind the Upgrade, and was not read yet.
    rest: Vec<u8>,
    receiving: Receiving,
    sending: Sending,
    role: Role,
    max_life: Option<Duration>,
}

impl WebSocket {
    /// A WebSocket whose Upgrade is done; `rest` came behind it.
    pub(super) fn start(
        stream: Box<dyn Stream>,
        rest: Vec<u8>,
        role: Role,
        max_life: Option<Duration>,
    ) -> Box<dyn Stream> {
        let (receiving, sending) = (Receiving::new(role), Sending::new(role));
        Layered::new(Self { below: stream, rest, receiving, sending, role, max_life })
    }

    /// Bytes with frames in them, which end with the connection.
    fn poll_receive(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.rest.is_empty() {
            return self.below.poll_read(cx, &mut [IoSliceMut::new(buf)]);
        }
        let count = buf.len().min(self.rest.len());
        buf[..count].copy_from_slice(&self.rest[..count]);
        self.rest.drain(..count);
        Poll::Ready(Ok(count))
    }
}

fn to_io(error: impl Into<Error>) -> io::Error {
    match error.into() {
        Error::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

impl Layer for WebSocket {
    fn below(&self) -> &dyn Stream {
        &*self.below
    }

    fn below_mut(&mut self) -> &mut Box<dyn Stream> {
        &mut self.below
    }

    fn carrier(&self) -> Option<Carrier> {
        Some(Carrier::WebSocket)
    }

    fn max_life(&self) -> Option<Duration> {
        self.max_life
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        let Some(buf) = bufs.iter_mut().find(|buf| !buf.is_empty()) else { return Poll::Ready(Ok(0)) };
        loop {
            // What cannot be written now is written before the next message, or at the next read.
            if let Poll::Ready(Err(error)) = self.sending.poll_control(cx, &mut *self.below) {
                return Poll::Ready(Err(error));
            }
            if let Some(problem) = self.receiving.take_problem() {
                return Poll::Ready(Err(to_io(problem)));
            }
            if self.receiving.is_ended() {
                return Poll::Ready(Ok(0));
            }
            let received = ready!(self.poll_receive(cx, buf))?;
            if received == 0 {
                return Poll::Ready(Err(to_io(ProtocolError::ResetWithoutClosingHandshake)));
            }
            let sending = &mut self.sending;
            match self.receiving.decode(&mut buf[..received], &mut |asked| sending.answer(asked)) {
                // Heads and control frames.
                0 => {}
                carried => return Poll::Ready(Ok(carried)),
            }
        }
    }

    fn poll_take(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.sending.poll_write(cx, &mut *self.below, bufs)
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A message that is cut off leaves no place for a Close.
        if !self.sending.is_within_message() {
            self.sending.answer(Asked::Close(None));
            ready!(self.sending.poll_control(cx, &mut *self.below))?;
        }
        // RFC 6455, 7.1.1: "the client SHOULD wait for the server to close the connection". Who closes first keeps its port.
        if self.role == Role::Client {
            let below = &mut self.below;
            let mut discard =
                || scratch::with_wire_buffer(|buffer| below.poll_read(cx, &mut [IoSliceMut::new(buffer)]));
            while let Ok(1..) = ready!(discard()) {}
        }
        self.below.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
