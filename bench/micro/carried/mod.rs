//! One end of a link over what carries it, from and to a connection in memory: instructions are counted in functions whose
//! name has `near_end` in it, and what they ask of the connection is printed.

pub(crate) mod wire;

use std::error::Error;
use std::io::{IoSlice, IoSliceMut};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use ferry_session::Block;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::memory::scratch::BUFFER_SIZE;
use crate::net::Stream;
use crate::tls::{HEADER, Opened, RecordDecryptor, RecordEncryptor, SEAL, ends};
use crate::transport;
use wire::{Calls, Wire};

/// What a link writes at once, if it has so much.
const FLIGHT: usize = 256 * 1024;

/// The type of a record, which stands behind each payload.
const APPLICATION_DATA: u8 = 23;

type Outcome = Result<(), Box<dyn Error>>;

/// Carries records of `write` bytes one way. Those of 16 KiB go in flights, as a busy link's do; others alone.
pub(crate) fn run(what: &str, bytes: usize, write: usize) -> Outcome {
    let unknown = || format!("no such path: {what}");
    let (carrier, way) = what.rsplit_once('-').ok_or_else(unknown)?;
    let ((near, far), calls) = match carrier {
        "tcp" => Wire::pair(),
        "ws" | "ws-listener" => {
            let ((near, far), calls) = Wire::pair();
            let roles = if carrier == "ws" { [Role::Client, Role::Server] } else { [Role::Server, Role::Client] };
            ((transport::websocket(near, roles[0]), transport::websocket(far, roles[1])), calls)
        }
        "wss" => {
            let (ends, calls) = Wire::pair();
            let (near, far) = transport::outer_tls(ends)?;
            ((transport::websocket(near, Role::Client), transport::websocket(far, Role::Server)), calls)
        }
        _ => return Err(unknown().into()),
    };
    let (sealer, opener) = ends()?;
    let mut sender = Sender { sealer, flight: Vec::new(), payload: vec![7; write + 1] };
    sender.payload[write] = APPLICATION_DATA;
    let mut receiver =
        Receiver { opener, buffer: vec![0; BUFFER_SIZE], kept: Vec::new(), block: Block::default(), opened: 0 };
    let records = if write >= Block::SIZE / 2 { FLIGHT.div_ceil(HEADER + write + SEAL) } else { 1 };
    let flights = bytes / (records * write);
    let (mut near, mut far) = (near, far);
    calls.forget();
    let mut spent = Duration::ZERO;
    for _ in 0..flights {
        match way {
            "out" => {
                let begun = Instant::now();
                near_end_sends(&mut sender, &mut *near, records)?;
                spent += begun.elapsed();
                receiver.receive(&mut *far)?;
            }
            "in" => {
                sender.send(&mut *far, records)?;
                let begun = Instant::now();
                near_end_receives(&mut receiver, &mut *near)?;
                spent += begun.elapsed();
            }
            _ => return Err(unknown().into()),
        }
    }
    if receiver.opened != flights * records * write {
        return Err(format!("{} of {} bytes came", receiver.opened, flights * records * write).into());
    }
    let Calls { writes, reads } = calls.of_near_end();
    println!("{what}: {spent:.1?}, {writes} writes and {reads} reads for {flights} flights of {records} records");
    Ok(())
}

#[inline(never)]
fn near_end_sends(sender: &mut Sender, stream: &mut dyn Stream, records: usize) -> Outcome {
    sender.send(stream, records)
}

#[inline(never)]
fn near_end_receives(receiver: &mut Receiver, stream: &mut dyn Stream) -> Outcome {
    receiver.receive(stream)
}

struct Sender {
    sealer: RecordEncryptor,
    flight: Vec<u8>,
    /// With its type behind it.
    payload: Vec<u8>,
}

impl Sender {
    fn send(&mut self, stream: &mut dyn Stream, records: usize) -> Outcome {
        let length = HEADER + self.payload.len() - 1 + SEAL;
        self.flight.resize(records * length, 0);
        for record in self.flight.chunks_exact_mut(length) {
            self.sealer.seal_from(record, &self.payload)?;
        }
        let mut cx = Context::from_waker(Waker::noop());
        let mut rest = &self.flight[..];
        while !rest.is_empty() {
            match stream.poll_write(&mut cx, &[IoSlice::new(rest)]) {
                Poll::Ready(count) => rest = &rest[count?..],
                Poll::Pending => return Err("the connection takes everything".into()),
            }
        }
        Ok(())
    }
}

struct Receiver {
    opener: RecordDecryptor,
    buffer: Vec<u8>,
    /// The beginning of a record.
    kept: Vec<u8>,
    block: Block,
    /// Bytes that came.
    opened: usize,
}

impl Receiver {
    /// Reads and opens all that is there, as a link does.
    fn receive(&mut self, stream: &mut dyn Stream) -> Outcome {
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            let kept = self.kept.len();
            self.buffer[..kept].copy_from_slice(&self.kept);
            let Poll::Ready(count) = stream.poll_read(&mut cx, &mut [IoSliceMut::new(&mut self.buffer[kept..])]) else {
                return Ok(());
            };
            let (filled, mut start) = (kept + count?, 0);
            while let Some(length) = RecordDecryptor::length(&self.buffer[start..filled])? {
                let record = &mut self.buffer[start..start + length];
                let Opened::Data(data) = self.opener.open_into(record, &mut self.block[..])? else {
                    return Err("that ends the link".into());
                };
                self.opened += data.len();
                start += length;
            }
            self.kept = self.buffer[start..filled].to_vec();
        }
    }
}
