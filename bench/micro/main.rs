//! The hot paths alone, in a fixed number of rounds, for counting instructions: `bench/micro/run` does that under
//! callgrind, where nothing depends on what else the machine does.
//!
//!     micro <codec|session|record|path> <MiB> [bytes of a write]
//!     micro <tcp|ws|wss>[-listener]-<out|in> <MiB> [bytes of a write]: one end of a link, in `near_end`

mod carried;
mod crypto;
mod memory;
#[allow(dead_code, unreachable_pub, missing_docs, reason = "only what carries data is run")]
#[path = "../../crates/tunnel/src/net/stream.rs"]
mod net;
mod tls;
mod transport;

use crypto::Records;
use ferry_session::{AckPoint, Block, Epoch, Frame, MAX_PAYLOAD, Session, SessionId, Settings, Time, decode};
use std::error::Error;
use std::hint::black_box;
use std::io::Read;
use std::time::Duration;

/// From this on bytes are written, sealed and opened without a copy.
const LARGE: usize = 8 * 1024;

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, size, rest @ ..] = &arguments[..] else {
        return Err("what to run, and with how many MiB?".into());
    };
    let bytes = size.parse::<usize>()? << 20;
    let write = rest.first().map_or(Ok(MAX_PAYLOAD - 1), |write| write.parse())?.clamp(1, MAX_PAYLOAD);
    match what.as_str() {
        "codec" => codec(bytes, write),
        "session" => Pair::new()?.carry(bytes, write, None),
        "record" => record(bytes, write),
        "path" => Pair::new()?.carry(bytes, write, Some(Records::new()?)),
        carried => carried::run(carried, bytes, write),
    }
}

/// Encodes data frames into a send buffer and decodes them there.
fn codec(bytes: usize, write: usize) -> Outcome {
    let payload = vec![7; write];
    let mut wire = Vec::with_capacity(2 * MAX_PAYLOAD);
    for round in 0..bytes / write {
        wire.clear();
        let frame = Frame::Data { offset: (round * write) as u64, payload: payload[..].into() };
        let payload = frame.encode(&mut wire);
        wire.extend_from_slice(payload);
        black_box(decode(black_box(&wire))?.ok_or("not a whole frame")?);
    }
    Ok(())
}

/// Seals records in a send buffer and opens them there.
fn record(bytes: usize, write: usize) -> Outcome {
    let mut records = Records::new()?;
    let payload = vec![7; write];
    for _ in 0..bytes / write {
        black_box(records.carry(&Frame::Data { offset: 0, payload: payload[..].into() })?);
    }
    Ok(())
}

/// Two sessions that hand each other their frames.
struct Pair {
    now: Time,
    epoch: Epoch,
    opener: Session,
    acceptor: Session,
    /// A frame on its way without a record.
    plain: Vec<u8>,
    /// Blocks that no session has.
    spare: Vec<Block>,
}

impl Pair {
    fn new() -> Result<Self, Box<dyn Error>> {
        let settings = Settings {
            replay_capacity: 1 << 20,
            receive_capacity: 1 << 20,
            liveness: Duration::from_secs(15),
            resume_window: Duration::from_secs(600),
            ack_at: AckPoint::Arrival,
        };
        let now = Time::from_origin(Duration::from_secs(1));
        let mut opener = Session::opener(now, SessionId([7; 16]), "app", settings);
        let epoch = opener.attach(now)?;
        let Some(Frame::Hello(hello)) = opener.poll_transmit(now, epoch) else { return Err("no Hello".into()) };
        let mut acceptor = Session::acceptor(now, &hello, settings);
        acceptor.accept(now, &hello)?;
        let mut pair = Self { now, epoch, opener, acceptor, plain: Vec::new(), spare: Vec::new() };
        pair.exchange(&mut None)?;
        Ok(pair)
    }

    /// Carries application bytes from the opener to the acceptor, through records or without.
    fn carry(mut self, bytes: usize, write: usize, mut records: Option<Records>) -> Outcome {
        let payload = vec![7; write];
        let mut taken = 0;
        for _ in 0..bytes / write {
            if self.write(&payload) < write {
                return Err("the replay buffer does not empty".into());
            }
            self.exchange(&mut records)?;
            let came: usize = self.acceptor.readable().map(|slice| black_box(slice).len()).sum();
            self.acceptor.consume(came);
            taken += came;
        }
        if taken != bytes / write * write {
            return Err(format!("{taken} of {bytes} bytes came").into());
        }
        Ok(())
    }

    /// As a local leg does: many bytes go straight to where they are kept.
    fn write(&mut self, bytes: &[u8]) -> usize {
        if bytes.len() < LARGE {
            return self.opener.write(bytes);
        }
        let lend = || self.spare.pop().unwrap_or_default();
        self.opener.write_with(bytes.len(), lend, |bufs| {
            let mut rest = bytes;
            bufs.iter_mut().map(|buf| rest.read(buf).unwrap_or_default()).sum()
        })
    }

    /// Hands over frames until neither end has any more, and forgets the events, as a driver would after acting.
    fn exchange(&mut self, records: &mut Option<Records>) -> Outcome {
        let (now, epoch) = (self.now, self.epoch);
        let (plain, spare) = (&mut self.plain, &mut self.spare);
        loop {
            let there = hand_over(&mut self.opener, &mut self.acceptor, (now, epoch), records, plain, spare)?;
            let back = hand_over(&mut self.acceptor, &mut self.opener, (now, epoch), records, plain, spare)?;
            while let Some(block) = self.opener.poll_spent().or_else(|| self.acceptor.poll_spent()) {
                spare.push(block);
            }
            while self.opener.poll_event().or_else(|| self.acceptor.poll_event()).is_some() {}
            if !there && !back {
                return Ok(());
            }
        }
    }
}

/// Hands over one end's frames, each as bytes; says whether there were any.
fn hand_over(
    from: &mut Session,
    to: &mut Session,
    (now, epoch): (Time, Epoch),
    records: &mut Option<Records>,
    plain: &mut Vec<u8>,
    spare: &mut Vec<Block>,
) -> Result<bool, Box<dyn Error>> {
    let mut any = false;
    while let Some(frame) = from.poll_transmit(now, epoch) {
        any = true;
        let frame = match (records.as_mut(), frame) {
            (None, frame) => {
                plain.clear();
                let payload = frame.encode(plain);
                plain.extend_from_slice(payload);
                decode(plain)?.ok_or("not a whole frame")?.0
            }
            (Some(records), Frame::Data { offset, payload }) if payload.len() >= LARGE => {
                let frame = Frame::Data { offset, payload };
                Frame::Data { offset, payload: records.carry_into(&frame, spare.pop().unwrap_or_default())? }
            }
            (Some(records), frame) => decode(records.carry(&frame)?)?.ok_or("not a whole frame")?.0,
        };
        to.handle_bytes(now, epoch);
        to.handle_frame(now, epoch, frame);
    }
    Ok(any)
}
