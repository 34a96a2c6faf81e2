//! An arena with any damage: nothing panics, and what is adopted has no wrong byte.
//!
//! Damage is to the words: records, headers of slots, the arena's own header. What is in a slot cannot be told from what it
//! should be, and is not damaged here.
#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use ferry_arena::{Arena, Identity, Record, Sizes, State};
use ferry_session::{
    AckPoint, Epoch, Instance, Session, SessionId, Settings, Side, Survivor, Time,
};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Left {
    /// Bytes that each session has read.
    sessions: [u32; 3],
    damage: Vec<Damage>,
    /// How much more or less the kernel counts.
    read: [i16; 3],
    finished: bool,
}

#[derive(Arbitrary, Debug)]
enum Damage {
    Flip { word: u16, bit: u8 },
    Set { word: u16, value: u64 },
    Copy { from: u16, to: u16, count: u8 },
}

const SIZES: Sizes = Sizes { records: 4, slots: 16 };

fn id(session: usize) -> SessionId {
    SessionId([session as u8 + 1; 16])
}

const SETTINGS: Settings = Settings {
    replay_capacity: 1 << 20,
    receive_capacity: 1 << 20,
    liveness: Duration::from_secs(15),
    resume_window: Duration::from_secs(600),
    ack_at: AckPoint::Delivery,
};

/// Has a session read that much from its application. As long as it lives, the arena is as a killed process would leave it.
fn live(arena: &Arena, session: usize, read: u64) -> (Record, Session) {
    let mut value = Session::opener(Time::ZERO, id(session), "echo", SETTINGS);
    let state = State { snapshot: value.snapshot(), peer: None, last_open: Epoch::NONE, shut_down: false };
    let identity = Identity {
        id: id(session),
        side: Side::Opener,
        peer: "a/peer".into(),
        service: "echo".into(),
        preamble: 0,
        origin: None,
    };
    let record = arena.note(&identity, &state).expect("a record");
    let mut offset = 0;
    while offset < read {
        let lend = || record.block().expect("a slot");
        offset += value.write_with((read - offset) as usize, lend, |bufs| bufs.iter().map(|buf| buf.len()).sum()) as u64;
    }
    record.set_read(read);
    (record, value)
}

fn damage(words: &mut [u64], damage: &Damage) {
    let length = words.len();
    let at = |word: u16| usize::from(word) % length;
    match *damage {
        Damage::Flip { word, bit } => words[at(word)] ^= 1 << (bit % 64),
        Damage::Set { word, value } => words[at(word)] = value,
        Damage::Copy { from, to, count } => {
            let (from, to) = (at(from), at(to));
            let count = usize::from(count).min(length - from.max(to));
            words.copy_within(from..from + count, to);
        }
    }
}

fuzz_target!(|left: Left| {
    let arena = Arena::in_process(SIZES, Instance([1; 16]));
    let sessions = left.sessions.iter().enumerate();
    let alive: Vec<_> = sessions.map(|(session, read)| live(&arena, session, u64::from(*read % 60_000))).collect();
    let mut words = arena.copy_words();
    drop(alive);
    // Where each slot's bytes were, before anything is damaged.
    let sound = Arena::open_copy(&words, |index, bytes| bytes.fill(index as u8)).expect("it is sound");
    let mut starts = [None; 256];
    for mut found in sound.1.sessions {
        let kept = found.kept(found.read).expect("they are sound");
        let mut offset = kept.base;
        for (block, length) in kept.blocks {
            starts[usize::from(block[0])] = Some((found.identity.id, offset));
            offset += length as u64;
        }
    }
    left.damage.iter().take(20).for_each(|each| damage(&mut words, each));
    let Ok((_, inheritance)) = Arena::open_copy(&words, |index, bytes| bytes.fill(index as u8)) else { return };
    for (mut found, read) in inheritance.sessions.into_iter().zip(left.read) {
        let id = found.identity.id;
        let read = found.read.saturating_add_signed(read.into());
        let Ok(kept) = found.kept(read) else { continue };
        let mut offset = kept.base;
        for (block, length) in &kept.blocks {
            assert_eq!(starts[usize::from(block[0])], Some((id, offset)), "bytes of another session or offset");
            offset += *length as u64;
        }
        assert_eq!(offset, read);
        let Identity { side, service, .. } = found.identity;
        let survivor = Survivor {
            side,
            id,
            service,
            snapshot: found.state.snapshot,
            base: kept.base,
            kept: kept.blocks,
            finished: left.finished,
            delivered: found.written,
            finish_delivered: found.state.shut_down,
        };
        let Ok(mut session) = Session::adopt(Time::ZERO, SETTINGS, survivor) else { continue };
        let Ok(epoch) = session.attach(Time::ZERO) else { continue };
        while session.poll_transmit(Time::ZERO, epoch).is_some() {}
    }
});
