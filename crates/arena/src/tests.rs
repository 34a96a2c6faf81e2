use std::mem::forget;
use std::time::Duration;

use ferry_session::{Block, Epoch, Instance, Origin, ResetCode, SessionId, Side, Slot, Snapshot};

use super::*;

const SIZES: Sizes = Sizes { records: 4, slots: 8 };
const ROOM: u64 = Block::ROOM as u64;
const US: Instance = Instance([9; 16]);

fn identity(number: u8) -> Identity {
    let side = if number.is_multiple_of(2) { Side::Opener } else { Side::Acceptor };
    Identity {
        id: SessionId([number; 16]),
        side,
        peer: "cluster-b/one".into(),
        service: format!("echo-{number}").into(),
        preamble: u16::from(number) * 100,
        origin: (number != 0).then(|| Origin {
            source: ([10, 0, 0, number], 1000).into(),
            destination: ([0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()], 2000).into(),
        }),
    }
}

fn state() -> State {
    let snapshot = Snapshot {
        epoch: Epoch(7),
        granted: 70_000,
        received: 5_001,
        received_finish: true,
        discarding: false,
        established: true,
        acceptor: None,
        resume_window: Duration::from_secs(600),
        sent_all: false,
        reset: None,
        ended: false,
    };
    State { snapshot, peer: Some(Instance([3; 16])), last_open: Epoch(1), shut_down: true }
}

/// What the next process finds. Handles of this one are forgotten, not dropped, as a kill would have it.
fn reopened(arena: &Arena) -> (Arena, Inheritance) {
    Arena::open_copy(&arena.copy_words(), |index, bytes| bytes.fill(index as u8)).unwrap()
}

fn place(record: &Record, offset: u64) {
    let mut slot = record.slot().unwrap();
    slot.place(Some(offset));
    forget(slot);
}

#[test]
fn a_session_is_found_as_it_was_stored() {
    let arena = Arena::in_process(SIZES, US);
    let mut record = arena.note(&identity(1), &state()).unwrap();
    record.set_read(11);
    record.set_written(22);
    let changed = State {
        snapshot: Snapshot { epoch: Epoch(8), reset: Some(ResetCode::Withdrawn), ..state().snapshot },
        peer: Some(Instance([4; 16])),
        ..state()
    };
    record.save(&changed);
    let key = record.key();
    forget(record);
    let (next, inherited) = reopened(&arena);
    assert_eq!((next.instance(), next.starts(), inherited.damaged), (US, 2, 0));
    let [found] = &inherited.sessions[..] else { panic!("{} sessions", inherited.sessions.len()) };
    assert_eq!((&found.identity, found.state, found.read, found.written), (&identity(1), changed, 11, 22));
    assert_eq!(found.record.key(), key);
}

#[test]
fn it_is_known_how_many_processes_did_not_come_through_an_adoption() {
    let arena = Arena::in_process(SIZES, US);
    let record = arena.note(&identity(1), &state()).unwrap();
    assert_eq!((record.begin_adoption(), record.begin_adoption()), (0, 1));
    forget(record);
    let (_, inherited) = reopened(&arena);
    let record = &inherited.sessions[0].record;
    assert_eq!(record.begin_adoption(), 2);
    record.end_adoption();
    assert_eq!(record.begin_adoption(), 0);
}

#[test]
fn the_acceptor_of_an_opened_session_is_its_peer() {
    let arena = Arena::in_process(SIZES, US);
    forget(arena.note(&identity(2), &state()));
    let (_, inherited) = reopened(&arena);
    assert_eq!(inherited.sessions[0].state.snapshot.acceptor, state().peer);
}

#[test]
fn a_record_that_stands_in_the_place_of_another_is_damaged() {
    let arena = Arena::in_process(SIZES, US);
    forget((arena.note(&identity(0), &state()), arena.note(&identity(1), &state())));
    let mut words = arena.copy_words();
    words.copy_within(SIZES.record(0), SIZES.record(1).start);
    let (_, inherited) = Arena::open_copy(&words, |_, _| {}).unwrap();
    let found: Vec<_> = inherited.sessions.iter().map(|found| &found.identity).collect();
    assert_eq!((found, inherited.damaged), (vec![&identity(0)], 1));
}

#[test]
fn a_session_that_has_ended_is_not_found() {
    let arena = Arena::in_process(SIZES, US);
    let record = arena.note(&identity(1), &state()).unwrap();
    let key = record.key();
    drop(record);
    assert!(reopened(&arena).1.sessions.is_empty());
    let again = arena.note(&identity(1), &state()).unwrap();
    assert_ne!(again.key(), key, "another session in the same place");
}

#[test]
fn there_is_room_for_as_many_as_were_asked_for() {
    let arena = Arena::in_process(SIZES, US);
    let records: Vec<_> = (0..4).map(|number| arena.note(&identity(number), &state()).unwrap()).collect();
    assert!(arena.note(&identity(5), &state()).is_none());
    let blocks: Vec<_> = (0..8).map(|_| records[0].block().unwrap()).collect();
    assert!(records[0].block().is_none());
    drop((records, blocks));
    let record = arena.note(&identity(5), &state()).unwrap();
    assert!(record.block().is_some());
    let long = Identity { peer: "p".repeat(400).into(), service: "s".repeat(400).into(), ..identity(1) };
    assert!(arena.note(&long, &state()).is_none(), "names that do not fit");
}

#[test]
fn bytes_are_found_in_order_and_the_kernel_says_where_they_end() {
    let arena = Arena::in_process(SIZES, US);
    let (one, two) = (arena.note(&identity(1), &state()).unwrap(), arena.note(&identity(2), &state()).unwrap());
    // Slots 0 to 4; the last was made ready and not read into.
    place(&one, 100 + ROOM);
    place(&two, 0);
    place(&one, 100);
    place(&one, 100 + 2 * ROOM);
    place(&one, 100 + 3 * ROOM);
    forget((one, two));
    let (_, mut inherited) = reopened(&arena);
    let kept = inherited.sessions[0].kept(100 + 2 * ROOM + 5).unwrap();
    let found: Vec<_> = kept.blocks.iter().map(|(block, length)| (block[0], *length)).collect();
    assert_eq!((kept.base, found), (100, vec![(2, Block::ROOM), (0, Block::ROOM), (3, 5)]));
    let kept = inherited.sessions[1].kept(1).unwrap();
    assert_eq!((kept.base, kept.blocks.len(), kept.blocks[0].1), (0, 1, 1));
}

#[test]
fn slots_that_were_given_back_out_of_order_leave_what_was_not_acknowledged() {
    let arena = Arena::in_process(SIZES, US);
    let record = arena.note(&identity(1), &state()).unwrap();
    place(&record, 0);
    place(&record, 2 * ROOM);
    forget(record);
    let (_, mut inherited) = reopened(&arena);
    let kept = inherited.sessions[0].kept(3 * ROOM).unwrap();
    assert_eq!((kept.base, kept.blocks.len()), (2 * ROOM, 1));
}

#[test]
fn bytes_that_do_not_add_up_are_not_used() {
    let kept = |offsets: &[u64], read: u64| {
        let arena = Arena::in_process(SIZES, US);
        let record = arena.note(&identity(1), &state()).unwrap();
        offsets.iter().for_each(|offset| place(&record, *offset));
        forget(record);
        reopened(&arena).1.sessions[0].kept(read).err()
    };
    assert_eq!(kept(&[0], ROOM + 1), Some(Damage::Missing));
    assert_eq!(kept(&[0, ROOM - 1], ROOM + 5), Some(Damage::Overlap));
    assert_eq!(kept(&[7, 7], 100), Some(Damage::Overlap));
    assert_eq!(kept(&[], 100), None, "all of it was acknowledged");
}

#[test]
fn a_slot_is_nobodys_before_and_after_it_is_used() {
    let arena = Arena::in_process(SIZES, US);
    let record = arena.note(&identity(1), &state()).unwrap();
    forget(record.block());
    let mut slot = record.slot().unwrap();
    slot.place(Some(0));
    drop(slot);
    forget(record);
    let (next, mut inherited) = reopened(&arena);
    assert!(inherited.sessions[0].kept(100).unwrap().blocks.is_empty());
    let blocks: Vec<_> = std::iter::from_fn(|| inherited.sessions[0].record.block()).collect();
    assert_eq!(blocks.len(), SIZES.slots as usize, "all can be lent");
    drop((next, blocks));
}

#[test]
fn a_slot_of_the_session_before_in_a_record_is_nobodys() {
    let arena = Arena::in_process(SIZES, US);
    let record = arena.note(&identity(1), &state()).unwrap();
    place(&record, 0);
    drop(record);
    forget(arena.note(&identity(3), &state()));
    let (_, mut inherited) = reopened(&arena);
    assert!(inherited.sessions[0].kept(100).unwrap().blocks.is_empty());
}

#[test]
fn every_flipped_bit_of_what_never_changes_is_noticed() {
    let arena = Arena::in_process(SIZES, US);
    let record = arena.note(&identity(1), &state()).unwrap();
    place(&record, 0);
    place(&record, ROOM);
    forget(record);
    let words = arena.copy_words();
    let step = if cfg!(miri) { 61 } else { 1 };
    for word in (0..words.len()).step_by(step) {
        for bit in [0, 1, 13, 31, 32, 63] {
            let mut damaged = words.clone();
            damaged[word] ^= 1 << bit;
            let Ok((_, mut inherited)) = Arena::open_copy(&damaged, |_, _| {}) else { continue };
            for found in &mut inherited.sessions {
                assert_eq!(found.identity, identity(1), "word {word}");
                // Each slot that is used is one of the two, where it was.
                let Ok(kept) = found.kept(ROOM + 5) else { continue };
                let lengths: Vec<_> = kept.blocks.iter().map(|(_, length)| *length).collect();
                assert_eq!(kept.base + lengths.iter().sum::<usize>() as u64, ROOM + 5);
                assert!([&[][..], &[5], &[Block::ROOM, 5]].contains(&&lengths[..]), "word {word}: {lengths:?}");
            }
        }
    }
}

#[test]
fn what_is_not_an_arena_of_this_format_is_refused() {
    let words = Arena::in_process(SIZES, US).copy_words();
    let open = |words: &[u64]| Arena::open_copy(words, |_, _| {}).err().map(|error| error.to_string());
    assert_eq!(open(&words), None);
    assert!(open(&words[..words.len() - 1]).is_some() && open(&[]).is_some());
    for word in 0..7 {
        let mut other = words.clone();
        other[word] ^= 1 << 40;
        assert!(open(&other).is_some(), "word {word}");
    }
}

#[cfg(not(miri))]
mod shared {
    use std::os::fd::OwnedFd;

    use super::*;

    fn open(fd: OwnedFd) -> Result<(Arena, Inheritance), OpenError> {
        Arena::open(fd)
    }

    #[test]
    fn another_process_finds_the_bytes_where_this_one_put_them() {
        let arena = Arena::create(SIZES, US).unwrap();
        let record = arena.note(&identity(1), &state()).unwrap();
        let mut slot = record.slot().unwrap();
        slot.place(Some(0));
        slot.bytes_mut()[..4].copy_from_slice(b"ship");
        forget((slot, record));
        let fd = arena.fd().unwrap().try_clone_to_owned().unwrap();
        let (_, mut inherited) = open(fd).unwrap();
        let kept = inherited.sessions[0].kept(4).unwrap();
        assert_eq!(&kept.blocks[0].0[..4], b"ship");
    }

    #[test]
    fn a_file_that_can_shrink_or_is_something_else_is_refused() {
        let memfd = |flags| rustix::fs::memfd_create("test", flags).unwrap();
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        assert!(open(memfd(flags)).is_err(), "it can shrink");
        let sealed = memfd(flags | rustix::fs::MemfdFlags::ALLOW_SEALING);
        rustix::fs::ftruncate(&sealed, 1 << 20).unwrap();
        let seals = rustix::fs::SealFlags::SHRINK | rustix::fs::SealFlags::GROW | rustix::fs::SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&sealed, seals).unwrap();
        assert!(open(sealed).is_err(), "there is nothing in it");
        assert!(open(std::fs::File::open("/dev/null").unwrap().into()).is_err(), "no memory file");
    }
}
