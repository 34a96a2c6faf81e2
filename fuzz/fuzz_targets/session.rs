//! Arbitrary operations on two sessions, over the links and the clock of the crate's own tests.
//!
//! Left alone, everything arrives and both ends finish. A reset ends both ends. With frames of a hostile peer handed to
//! one end, nothing panics, and the other end never sees a wrong byte.
#![no_main]
#![allow(dead_code)]

#[path = "../../crates/session/tests/session/apps.rs"]
mod apps;
#[path = "../../crates/session/tests/session/faults.rs"]
mod faults;
#[path = "../../crates/session/tests/session/pair/mod.rs"]
mod pair;
#[path = "../../crates/session/tests/session/rng.rs"]
mod rng;

use std::borrow::Cow;
use std::time::Duration;

use arbitrary::Arbitrary;
use ferry_session::{
    Accept, AckPoint, Epoch, Frame, Hello, Instance, Intent, LinkKind, Outcome, Preface, Reject, RejectCode, Reset, ResetCode,
    SessionId, Settings, VERSION, decode,
};
use libfuzzer_sys::fuzz_target;
use pair::{ACCEPTOR, OPENER, Pair};

#[derive(Arbitrary, Debug)]
struct Life {
    seed: u16,
    capacities: [u16; 4],
    delay: u16,
    link_capacity: u16,
    eager: u8,
    /// Acks follow the application, and the processes at both ends may be killed.
    delivery: bool,
    /// Which end meets a hostile peer.
    victim: bool,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Write { end: bool, count: u16 },
    Read { end: bool, count: u16 },
    Finish { end: bool },
    Rotate,
    Attach,
    Restart { end: bool },
    Cut { link: u8, notice: u16 },
    BlackHole { link: u8 },
    Hold { link: u8, end: bool, held: bool },
    Wait { micros: u32 },
    Reset { end: bool },
    Capacities { end: bool, replay: u16, receive: u16 },
    Hostile { link: u8, frame: Hostile },
    HostileHello { hello: HostileHello },
    Malformed { link: u8 },
}

#[derive(Arbitrary, Debug)]
enum Hostile {
    Preface,
    Hello(HostileHello),
    Accept(Offset, u16),
    Reject(u8, Offset),
    Data(Offset, u16),
    Ack(Offset, u16),
    Finish(Offset),
    Retire(Offset),
    Done,
    Reset(u8),
    Ping(u64),
    Pong(u64),
    Gone,
    Bytes(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
struct HostileHello {
    epoch: i8,
    intent: u8,
    received: Offset,
    window: u16,
    resume_window: u32,
}

/// An offset close to one that matters, or any.
#[derive(Arbitrary, Debug)]
enum Offset {
    Received(i8),
    Acked(i8),
    Any(u64),
}

impl Offset {
    fn of(&self, pair: &mut Pair, end: usize) -> u64 {
        match *self {
            Self::Received(delta) => pair.session(end).received().saturating_add_signed(delta.into()),
            Self::Acked(delta) => pair.session(end).acked().saturating_add_signed(delta.into()),
            Self::Any(offset) => offset,
        }
    }
}

const REASON: Cow<'static, str> = Cow::Borrowed("hostile");

impl HostileHello {
    fn of(&self, pair: &mut Pair, end: usize) -> Hello<'static> {
        let epoch = pair.session(end).epoch().0.saturating_add_signed(self.epoch.into()).max(1);
        Hello {
            session: SessionId([7; 16]),
            epoch: Epoch(epoch),
            intent: [Intent::Open, Intent::Resume, Intent::Rotate][usize::from(self.intent % 3)],
            received: self.received.of(pair, end),
            window: self.window.into(),
            resume_window: Duration::from_millis(self.resume_window.into()),
            service: Cow::Borrowed("echo"),
        }
    }
}

impl Hostile {
    fn hand_over(&self, pair: &mut Pair, end: usize, epoch: Epoch) {
        let payload = [0xee; 4_096];
        let reject = [RejectCode::Closed, RejectCode::Unknown, RejectCode::Limit, RejectCode::NotAttached];
        let frame = match self {
            Self::Preface => {
                Frame::Preface(Preface { version: VERSION, instance: Instance([1; 16]), kind: LinkKind::Own })
            }
            Self::Hello(hello) => Frame::Hello(hello.of(pair, end)),
            Self::Accept(offset, window) => Frame::Accept(Accept {
                received: offset.of(pair, end),
                window: (*window).into(),
                resume_window: Duration::from_secs(600),
            }),
            Self::Reject(code, offset) => Frame::Reject(Reject {
                code: reject[usize::from(code % 4)],
                received: offset.of(pair, end),
                reason: REASON,
            }),
            Self::Data(offset, length) => Frame::Data {
                offset: offset.of(pair, end),
                payload: payload[..usize::from(*length).clamp(1, payload.len())].into(),
            },
            Self::Ack(offset, window) => Frame::Ack { received: offset.of(pair, end), window: (*window).into() },
            Self::Finish(offset) => Frame::Finish { offset: offset.of(pair, end) },
            Self::Retire(offset) => Frame::Retire { end: offset.of(pair, end) },
            Self::Done => Frame::Done,
            Self::Reset(_) => Frame::Reset(Reset { code: ResetCode::Application, reason: REASON }),
            Self::Ping(token) => Frame::Ping { token: *token },
            Self::Pong(token) => Frame::Pong { token: *token },
            Self::Gone => Frame::Gone { instance: Instance([1; 16]) },
            Self::Bytes(bytes) => match decode(bytes) {
                Ok(Some((frame, _))) => frame,
                _ => return,
            },
        };
        let now = pair.now;
        let session = pair.session(end);
        // The driver reads a link only when it may.
        if session.may_read(epoch) {
            session.handle_frame(now, epoch, frame);
            pair.drain(end);
        }
    }
}

/// The last steps of a life: how it has to end depends on what came in.
#[derive(Default)]
struct Seen {
    reset: bool,
    hostile: bool,
    /// Sessions outlive their processes.
    restarts: bool,
}

fn step(pair: &mut Pair, seen: &mut Seen, victim: usize, step: &Step) {
    let links = pair.links.len();
    let end_of = |end: bool| usize::from(end);
    match *step {
        Step::Write { end, count } if pair.ends[end_of(end)].session.is_some() => {
            pair.write(end_of(end), usize::from(count % 8_192));
        }
        Step::Read { end, count } => read(pair, seen, victim, end_of(end), count.into()),
        Step::Finish { end } if pair.ends[end_of(end)].session.is_some() => pair.finish(end_of(end)),
        Step::Rotate => {
            pair.dial(true);
        }
        Step::Attach => {
            pair.dial(false);
        }
        Step::Restart { end } if seen.restarts => pair.restart(end_of(end)),
        Step::Cut { link, notice } if links > 0 => pair.cut(usize::from(link) % links, notice.into()),
        Step::BlackHole { link } if links > 0 => pair.black_hole(usize::from(link) % links),
        Step::Hold { link, end, held } if links > 0 => pair.hold(usize::from(link) % links, end_of(end), held),
        Step::Wait { micros } => pair.run(Duration::from_micros(u64::from(micros % 1_000_000))),
        Step::Reset { end } if pair.ends[end_of(end)].session.is_some() => {
            seen.reset = true;
            pair.session(end_of(end)).reset(ResetCode::Application, "fuzz");
        }
        Step::Capacities { end, replay, receive } if pair.ends[end_of(end)].session.is_some() => {
            pair.session(end_of(end)).set_capacities(u64::from(replay).max(1), u64::from(receive).max(1));
        }
        Step::Hostile { link, ref frame } if !pair.ends[victim].links.is_empty() => {
            seen.hostile = true;
            let links = &pair.ends[victim].links;
            let (epoch, _) = links[usize::from(link) % links.len()];
            frame.hand_over(pair, victim, epoch);
        }
        Step::HostileHello { ref hello } if victim == ACCEPTOR && pair.ends[ACCEPTOR].session.is_some() => {
            seen.hostile = true;
            let hello = hello.of(pair, ACCEPTOR);
            let now = pair.now;
            // The hostile link itself stays mute: nobody polls it.
            let _ = pair.session(ACCEPTOR).accept(now, &hello);
            pair.drain(ACCEPTOR);
        }
        Step::Malformed { link } if !pair.ends[victim].links.is_empty() => {
            seen.hostile = true;
            let links = &pair.ends[victim].links;
            let (epoch, _) = links[usize::from(link) % links.len()];
            let error = decode(&[0xff]).unwrap_err();
            pair.session(victim).handle_violation(epoch, error.into());
            pair.drain(victim);
        }
        _ => {}
    }
}

/// What the victim of a hostile peer reads is that peer's; all else is checked byte by byte.
fn read(pair: &mut Pair, seen: &Seen, victim: usize, end: usize, count: usize) {
    if !seen.hostile || end != victim {
        pair.read(end, count);
        return;
    }
    let end = &mut pair.ends[end];
    let Some(session) = &mut end.session else { return };
    let taken = count.min(session.readable().map(<[u8]>::len).sum());
    session.consume(taken);
    // A restart is told what the application has.
    end.taken += taken as u64;
    end.saw_finish = session.is_drained();
    if end.saw_finish {
        session.finish_delivered();
    }
}

fuzz_target!(|life: Life| {
    let delivery = life.delivery;
    let settings = |replay: u16, receive: u16| Settings {
        replay_capacity: u64::from(replay).max(1),
        receive_capacity: receive.into(),
        liveness: Duration::from_secs(15),
        resume_window: Duration::from_secs(3_600),
        ack_at: if delivery { AckPoint::Delivery } else { AckPoint::Arrival },
    };
    let [a, b, c, d] = life.capacities;
    let mut pair = Pair::with_settings(life.seed.into(), [settings(a, b), settings(c, d)]);
    pair.delay = life.delay.into();
    pair.link_capacity = usize::from(life.link_capacity).max(1);
    pair.eager = u64::from(life.eager % 30);
    let mut seen = Seen { restarts: delivery, ..Seen::default() };
    let victim = usize::from(life.victim);
    pair.dial(false);
    for each in life.steps.iter().take(200) {
        step(&mut pair, &mut seen, victim, each);
        pair.settle();
    }
    pair.eager = 0;
    pair.links.iter_mut().for_each(|link| link.held = [false; 2]);
    if seen.hostile {
        pair.run(Duration::from_secs(40));
        for end in [OPENER, ACCEPTOR] {
            read(&mut pair, &seen, victim, end, usize::MAX);
        }
    } else if seen.reset {
        let ended = |pair: &Pair| pair.ends.iter().all(|end| end.session.is_none() || end.outcome.is_some());
        for _ in 0..1_000 {
            let until = pair.now + Duration::from_secs(30);
            pair.step(until);
            if ended(&pair) {
                break;
            }
        }
        assert!(ended(&pair), "a reset session goes on");
        for end in [OPENER, ACCEPTOR] {
            pair.read(end, usize::MAX);
            assert!(!matches!(pair.ends[end].outcome, Some(Outcome::Violated(_))));
        }
    } else {
        for session in pair.ends.iter_mut().filter_map(|end| end.session.as_mut()) {
            session.set_capacities(64 * 1024, 64 * 1024);
        }
        let total = [0, 1].map(|end| pair.ends[end].written);
        pair.exchange_and_close(total);
    }
});
