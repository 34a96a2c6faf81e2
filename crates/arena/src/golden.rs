//! Each format of an arena as the first build with it wrote it, read by this one.

use std::fmt::Write as _;
use std::mem::forget;
use std::ops::Range;
use std::time::Duration;

use ferry_golden::Golden;
use ferry_session::{Block, Epoch, Instance, Origin, ResetCode, SessionId, Side, Slot, Snapshot};

use super::*;
use crate::layout::{Format, header};

const SIZES: Sizes = Sizes { records: 8, slots: 4 };
const ROOM: u64 = Block::ROOM as u64;
const US: Instance = Instance([0xa5; 16]);
const NEWEST: u64 = Format::NEWEST as u64;

fn golden() -> Golden {
    Golden::of(env!("CARGO_MANIFEST_DIR"), "arena", "txt", "Format of crates/arena/src/layout.rs")
}

/// A session, as far as it was read and written.
type Noted = (Identity, State, u64, u64);

/// Between them they have each value of everything that is stored.
fn noted() -> Vec<Noted> {
    let snapshot = Snapshot {
        epoch: Epoch(7),
        granted: 0x0001_0203_0405_0607,
        received: 0x1112_1314,
        received_finish: false,
        discarding: false,
        established: false,
        acceptor: None,
        resume_window: Duration::from_millis(600_001),
        sent_all: false,
        reset: None,
        ended: false,
    };
    let state = State { snapshot, peer: None, last_open: Epoch::NONE, shut_down: false };
    let bytes = |first: u8| std::array::from_fn(|at| first + at as u8);
    let opener = Identity {
        id: SessionId(bytes(0x10)),
        side: Side::Opener,
        peer: "cluster-b/one".into(),
        service: "echo".into(),
        preamble: 0,
        origin: Some(Origin {
            source: "192.0.2.1:4660".parse().unwrap(),
            destination: "198.51.100.2:22136".parse().unwrap(),
        }),
    };
    let origin = Origin {
        source: "[2001:db8::1]:65535".parse().unwrap(),
        destination: "[2001:db8:1:2:3:4:5:6]:1".parse().unwrap(),
    };
    let id = SessionId(bytes(0x20));
    let acceptor = Identity { id, side: Side::Acceptor, preamble: 0x0203, origin: Some(origin), ..opener.clone() };
    let peer = Instance(bytes(0x30));
    let established = Snapshot { established: true, acceptor: Some(peer), ..snapshot };
    let open = State { snapshot: established, peer: Some(peer), ..state };
    let accepted = Snapshot { received_finish: true, established: true, sent_all: true, ..snapshot };
    let accepted = State { snapshot: accepted, peer: Some(peer), last_open: Epoch(0x0a0b_0c0d), shut_down: true };
    let mut sessions = vec![
        (opener.clone(), open, 2 * ROOM + 5, 0x2122),
        (acceptor, accepted, 100, 200),
        // Asked for, and not accepted.
        (opener.clone(), State { peer: Some(peer), ..state }, 0, 0),
    ];
    use ResetCode::{Application, Draining, Protocol, Unreachable, Withdrawn};
    for (number, code) in [Application, Draining, Withdrawn, Protocol, Unreachable].into_iter().enumerate() {
        let snapshot = Snapshot { reset: Some(code), discarding: true, ended: number == 0, ..snapshot };
        let identity = Identity { id: SessionId([number as u8; 16]), origin: None, ..opener.clone() };
        sessions.push((identity, State { snapshot, ..state }, 0, 0));
    }
    sessions
}

/// An arena that this build writes.
fn written() -> Arena {
    let arena = Arena::in_process(SIZES, US);
    for (at, (identity, state, read, written)) in noted().iter().enumerate() {
        let record = arena.note(identity, state).unwrap();
        record.set_read(*read);
        record.set_written(*written);
        if at == 0 {
            record.begin_adoption();
            for offset in [ROOM, 0, 2 * ROOM] {
                let mut slot = record.slot().unwrap();
                slot.place(Some(offset));
                forget(slot);
            }
        }
        forget(record);
    }
    arena
}

/// Its words, those that are not zero, and where slots are and which bytes of them are a session's.
fn text(arena: &Arena) -> String {
    let (words, sizes) = (arena.copy_words(), arena.sizes());
    let mut text = format!(
        "{} records, {} slots of {} bytes from byte {} on, the first {} of each a session's\n",
        sizes.records,
        sizes.slots,
        Block::SIZE,
        words.len() * 8,
        Block::ROOM
    );
    let mut part = |name: String, range: Range<usize>| {
        let _ = writeln!(text, "{name} at {}", range.start);
        for (at, word) in words[range].iter().enumerate().filter(|(_, word)| **word != 0) {
            let _ = writeln!(text, "  {at:2} {word:016x}");
        }
    };
    part("header".to_owned(), 0..header::END);
    (0..sizes.records).for_each(|index| part(format!("record {index}"), sizes.record(index)));
    (0..sizes.slots).for_each(|index| part(format!("slot {index}"), sizes.slot(index)));
    text
}

/// The words of which [`text`] was made.
fn words(text: &str) -> Vec<u64> {
    let (first, rest) = text.split_once('\n').unwrap();
    let bytes = first.split("from byte ").nth(1).unwrap().split(' ').next().unwrap();
    let mut words = vec![0; bytes.parse::<usize>().unwrap() / 8];
    let mut start = 0;
    for line in rest.lines() {
        match line.strip_prefix("  ") {
            Some(word) => {
                let (at, value) = word.trim_start().split_once(' ').unwrap();
                words[start + at.parse::<usize>().unwrap()] = u64::from_str_radix(value, 16).unwrap();
            }
            None => start = line.rsplit(' ').next().unwrap().parse().unwrap(),
        }
    }
    words
}

#[test]
#[cfg_attr(miri, ignore = "it reads files")]
fn sessions_of_a_build_with_the_format_of_any_golden_file_are_found_as_they_were() {
    for format in 1..=NEWEST {
        let fill = |index: u32, bytes: &mut [u8; Block::SIZE]| bytes.fill(index as u8);
        let (arena, inherited) = Arena::open_copy(&words(&golden().read(format)), fill).unwrap();
        assert_eq!((arena.instance(), arena.starts(), inherited.damaged), (US, 2, 0), "format {format}");
        let noted = noted();
        assert_eq!(inherited.sessions.len(), noted.len(), "format {format}");
        for (mut found, (mut identity, state, read, written)) in inherited.sessions.into_iter().zip(noted) {
            if format == Format::First as u64 {
                identity.origin = None;
            }
            assert_eq!((&found.identity, found.state), (&identity, state), "format {format}");
            assert_eq!((found.read, found.written), (read, written), "format {format}");
            let is_first = read > ROOM;
            assert_eq!(found.record.begin_adoption(), u64::from(is_first), "format {format}");
            let kept = found.kept(read).unwrap();
            let blocks: Vec<_> = kept.blocks.iter().map(|(block, length)| (block[0], *length)).collect();
            let expected: &[_] = if is_first { &[(1, Block::ROOM), (0, Block::ROOM), (2, 5)] } else { &[] };
            assert_eq!(blocks, expected, "format {format}");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "it reads files")]
fn what_an_arena_looks_like_changes_with_its_format_alone() {
    golden().hold(NEWEST, &text(&written()));
}

#[test]
#[cfg_attr(miri, ignore = "it reads files")]
fn an_arena_keeps_the_format_that_it_was_made_with_so_that_the_build_before_can_have_it_back() {
    for format in 1..=NEWEST {
        let (arena, inherited) = Arena::open_copy(&words(&golden().read(format)), |_, _| {}).unwrap();
        drop(inherited);
        let (identity, state, ..) = noted().remove(1);
        forget(arena.note(&identity, &state));
        let words = arena.copy_words();
        assert_eq!(words[header::FORMAT], format);
        let (_, inherited) = Arena::open_copy(&words, |_, _| {}).unwrap();
        assert_eq!((inherited.sessions.len(), inherited.damaged), (1, 0), "format {format}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "it reads files")]
fn an_arena_of_a_later_format_is_told_from_a_damaged_one() {
    let mut words = words(&golden().read(NEWEST));
    words[header::FORMAT] = NEWEST + 1;
    let Err(error) = Arena::open_copy(&words, |_, _| {}) else { panic!("it was opened") };
    assert!(matches!(error, OpenError::Format), "{error}");
}
