//! TLS 1.3 to an endpoint, after its handshake: records that are sealed where a WebSocket masks, and opened into where a
//! link reads (`docs/decisions/0122`).

use std::io::{self, IoSlice, IoSliceMut};
use std::task::{Context, Poll, ready};

use crate::memory::scratch;
use crate::net::{Fill, Stream};
use crate::transport::layer::{Layer, Layered};
use crate::transport::tls::{
    MAX_PLAINTEXT, MAX_RECORD, Opened, RECORD_HEADER, RECORD_SEAL, RecordDecryptor, RecordEncryptor, TlsError,
};
use crate::transport::unsent::Unsent;

/// Bytes that are sealed before they are written: as many as the processor has at hand until then.
const MAX_TAKEN: usize = 8 * MAX_PLAINTEXT;

/// Messages that an endpoint may send after the handshake (RFC 8446 §4.6).
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// What an alert means by which a peer would refuse a key.
pub(super) const NOT_LET_IN: &str =
    "this end is not let in: does the endpoint ask for a certificate? Tunnels have none for it";

/// A connection whose handshake is done but for this end's last flight, which goes first. `received` came behind the other
/// end's.
pub(crate) fn start(
    below: Box<dyn Stream>,
    (encryptor, decryptor): (RecordEncryptor, RecordDecryptor),
    flight: Vec<u8>,
    received: Vec<u8>,
) -> Box<dyn Stream> {
    let sending = Sending { encryptor, unsent: Unsent::new(flight), closed: false };
    let receiving = Receiving { decryptor, received, held: Vec::new(), failure: None, ended: false };
    Layered::new(Records { below, sending, receiving })
}

struct Records {
    below: Box<dyn Stream>,
    sending: Sending,
    receiving: Receiving,
}

struct Sending {
    encryptor: RecordEncryptor,
    unsent: Unsent,
    /// The close_notify was queued.
    closed: bool,
}

struct Receiving {
    decryptor: RecordDecryptor,
    /// Bytes of records that were not opened yet.
    received: Vec<u8>,
    /// What was in records that the caller had too little room for.
    held: Vec<u8>,
    /// What comes behind the bytes that were read last.
    failure: Option<io::Error>,
    ended: bool,
}

impl Layer for Records {
    fn below(&self) -> &dyn Stream {
        &*self.below
    }

    fn below_mut(&mut self) -> &mut Box<dyn Stream> {
        &mut self.below
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        let Some(buf) = bufs.iter_mut().find(|buf| !buf.is_empty()) else { return Poll::Ready(Ok(0)) };
        self.receiving.poll(cx, &mut *self.below, buf)
    }

    fn poll_take(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Some(buf) = bufs.iter().find(|buf| !buf.is_empty()) else { return Poll::Ready(Ok(0)) };
        self.poll_take_filled(cx, buf.len(), &mut |at, room| room.copy_from_slice(&buf[at..at + room.len()]))
    }

    fn poll_take_filled(&mut self, _: &mut Context<'_>, length: usize, fill: &mut Fill<'_>) -> Poll<io::Result<usize>> {
        let taken = length.min(MAX_TAKEN);
        for at in (0..taken).step_by(MAX_PLAINTEXT) {
            let count = MAX_PLAINTEXT.min(taken - at);
            let record = self.sending.unsent.extend(RECORD_HEADER + count + RECORD_SEAL);
            fill(at, &mut record[RECORD_HEADER..RECORD_HEADER + count]);
            self.sending.encryptor.seal(record).map_err(to_io)?;
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let unsent = &mut self.sending.unsent;
        while !unsent.is_empty() {
            match ready!(self.below.poll_write(cx, &[IoSlice::new(unsent.unwritten())]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => unsent.on_written(count),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.sending.closed {
            self.sending.closed = true;
            let notify = self.sending.encryptor.close_notify().map_err(to_io)?;
            self.sending.unsent.extend(notify.len()).copy_from_slice(&notify);
        }
        ready!(self.poll_flush(cx))?;
        self.below.poll_shutdown(cx)
    }
}

impl Receiving {
    /// What is in the records that are there, as far as there is room for it.
    fn poll(&mut self, cx: &mut Context<'_>, below: &mut dyn Stream, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            if !self.held.is_empty() {
                let count = self.held.len().min(buf.len());
                buf[..count].copy_from_slice(&self.held[..count]);
                self.held.drain(..count);
                return Poll::Ready(Ok(count));
            }
            if let Some(failure) = self.failure.take() {
                return Poll::Ready(Err(failure));
            }
            if self.ended {
                return Poll::Ready(Ok(0));
            }
            if buf.len() < MAX_RECORD {
                self.held = ready!(scratch::with_wire_buffer(|wire| {
                    self.poll_records(cx, below, wire).map(|count| wire[..count].to_vec())
                }));
                continue;
            }
            match ready!(self.poll_records(cx, below, buf)) {
                // Tickets, or a part of a record.
                0 => {}
                count => return Poll::Ready(Ok(count)),
            }
        }
    }

    /// Reads once, unless a whole record is here, and opens what is whole. Returns how much was in it, at the front of `buf`,
    /// which has room for the longest record.
    fn poll_records(&mut self, cx: &mut Context<'_>, below: &mut dyn Stream, buf: &mut [u8]) -> Poll<usize> {
        let mut filled = self.received.len();
        buf[..filled].copy_from_slice(&self.received);
        if let Ok(None) = RecordDecryptor::length(&buf[..filled]) {
            match ready!(below.poll_read(cx, &mut [IoSliceMut::new(&mut buf[filled..])])) {
                // An endpoint that closes without a close_notify: what is inside has an end of its own.
                Ok(0) => self.ended = true,
                Ok(count) => filled += count,
                Err(failure) => self.failure = Some(failure),
            }
        }
        let (mut start, mut count) = (0, 0);
        while !self.ended && self.failure.is_none() {
            match self.open(&mut buf[count..filled], start - count) {
                Ok(Some((length, opened))) => (start, count) = (start + length, count + opened),
                Ok(None) => break,
                Err(error) => self.failure = Some(to_io(error)),
            }
        }
        // An exact size: what waits here may wait for long.
        self.received = buf[start..filled].to_vec();
        Poll::Ready(count)
    }

    /// Opens the record that stands `from` bytes into `bytes`, if all of it is there, to the front of them. Returns its length,
    /// and how much was in it.
    fn open(&mut self, bytes: &mut [u8], from: usize) -> Result<Option<(usize, usize)>, TlsError> {
        let Some(length) = RecordDecryptor::length(&bytes[from..])? else { return Ok(None) };
        let opened = match self.decryptor.open_to_front(&mut bytes[..from + length], from)? {
            Opened::Data(data) => data.len(),
            Opened::Messages(messages) => {
                only_tickets(messages)?;
                0
            }
            Opened::CloseNotify => {
                self.ended = true;
                0
            }
        };
        Ok(Some((length, opened)))
    }
}

/// Tickets, which nobody uses: what they save is little next to what is inside. All else asks for what only a handshake's
/// keeper can do.
fn only_tickets(mut messages: &[u8]) -> Result<(), TlsError> {
    while let [kind, high, middle, low, rest @ ..] = messages {
        match *kind {
            NEW_SESSION_TICKET => {}
            KEY_UPDATE => {
                return Err(TlsError::Record("with fresh keys of the endpoint: the link moves to a new connection"));
            }
            _ => return Err(TlsError::Record("that asks for something after the handshake")),
        }
        let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
        messages = rest.get(length..).ok_or(TlsError::Record("with a part of a message"))?;
    }
    Ok(())
}

/// What no endpoint sends.
fn to_io(error: TlsError) -> io::Error {
    match error {
        TlsError::KeyRefused => io::Error::new(io::ErrorKind::InvalidData, NOT_LET_IN),
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}
