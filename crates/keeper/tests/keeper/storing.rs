//! What is stored, for whom, and for how long.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::*;
use ferry_keeper::{Client, Event, Keeper, MAX_BATCH, Options, RefusedBy};

#[test]
fn the_next_engine_inherits_exactly_what_was_stored() {
    let keeper = Running::start(Options::default());
    let (mut engine, inherited) = keeper.connect();
    assert!(inherited.descriptors.is_empty());
    for number in 0..5 {
        store(&mut engine, &tag(number), &descriptor(number));
    }
    store(&mut engine, &tag(3), &descriptor(33));
    let seq = engine.remove(&tag(1)).unwrap();
    assert_eq!(confirmed(&mut engine, seq), []);
    drop(engine);
    let (_engine, inherited) = keeper.connect();
    assert_eq!(numbers(&inherited), [(tag(0), 0), (tag(2), 2), (tag(3), 33), (tag(4), 4)]);
}

#[test]
fn more_than_one_message_can_carry_is_inherited_in_batches() {
    let keeper = Running::start(Options::default());
    for total in [MAX_BATCH as u64, MAX_BATCH as u64 + 1, 3 * MAX_BATCH as u64 + 7] {
        let (mut engine, _) = keeper.connect();
        let seq = (0..total).map(|number| store(&mut engine, &tag(number), &descriptor(number))).last().unwrap();
        assert_eq!(confirmed(&mut engine, seq), []);
        drop(engine);
        let (engine, inherited) = keeper.connect();
        let expected: Vec<_> = (0..total).map(|number| (tag(number), number)).collect();
        assert_eq!(numbers(&inherited), expected);
        engine.finish().unwrap();
    }
}

#[test]
fn what_was_sent_is_kept_though_its_confirmation_was_never_read() {
    let keeper = Running::start(Options::default());
    let (mut engine, _) = keeper.connect();
    for number in 0..100 {
        engine.store(&tag(number), descriptor(number).as_fd()).unwrap();
    }
    drop(engine);
    assert_eq!(keeper.connect().1.descriptors.len(), 100);
}

#[test]
fn an_engine_that_ends_in_good_order_leaves_nothing() {
    let keeper = Running::start(Options::default());
    let (mut engine, _) = keeper.connect();
    store(&mut engine, &tag(1), &descriptor(1));
    engine.finish().unwrap();
    let (_engine, inherited) = keeper.connect();
    assert!(inherited.descriptors.is_empty());
    assert_eq!(inherited.crashes, 0);
}

#[test]
fn past_its_bound_a_keeper_refuses_and_says_which() {
    let keeper = Running::start(Options { max_descriptors: 3, ..Options::default() });
    let (mut engine, _) = keeper.connect();
    assert_eq!(engine.max_descriptors(), 3);
    let seqs: Vec<_> = (0..5).map(|number| store(&mut engine, &tag(number), &descriptor(number))).collect();
    let refused = Event::Refused { tag: tag(3), by: RefusedBy::Limit };
    let mut events = vec![];
    while events.last() != Some(&Event::Confirmed { through: seqs[4] }) {
        events.push(next_event(&mut engine).unwrap());
    }
    assert!(events.contains(&refused), "{events:?}");
    // What has a place can still be replaced, and a place that is free taken.
    store(&mut engine, &tag(0), &descriptor(70));
    engine.remove(&tag(1)).unwrap();
    let seq = store(&mut engine, &tag(4), &descriptor(4));
    assert_eq!(confirmed(&mut engine, seq), []);
    drop(engine);
    assert_eq!(numbers(&keeper.connect().1), [(tag(0), 70), (tag(2), 2), (tag(4), 4)]);
}

#[test]
fn the_socket_is_the_users_alone() {
    let keeper = Running::start(Options::default());
    let mode = std::fs::metadata(keeper.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_directory_that_others_can_write_to_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let refused = Keeper::bind(&dir.path().join("keeper.sock"), Options::default()).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn a_dead_keepers_socket_is_replaced_and_a_running_ones_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keeper.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a dead listener leaves its socket");
    let keeper = Running::start_at(&path, Options::default());
    let second = Keeper::bind(&path, Options::default()).unwrap_err();
    assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
    assert!(second.to_string().contains("another keeper is running"), "{second}");
    keeper.connect();
}

#[test]
fn a_file_in_the_sockets_place_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keeper.sock");
    std::fs::write(&path, "precious").unwrap();
    Keeper::bind(&path, Options::default()).unwrap_err();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn an_engine_goes_on_with_a_successor_of_its_keeper() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keeper.sock");
    let keeper = Running::start_at(&path, Options::default());
    let (mut engine, _) = keeper.connect();
    drop(keeper);
    let lost = next_event(&mut engine).unwrap_err();
    assert_eq!(lost.kind(), io::ErrorKind::NotConnected);
    assert!(engine.is_lost());
    assert_eq!(engine.store(&tag(1), descriptor(1).as_fd()).unwrap_err().kind(), io::ErrorKind::NotConnected);
    engine.reconnect().unwrap_err();
    let keeper = Running::start_at(&path, Options::default());
    engine.reconnect().unwrap();
    assert_eq!(next_event(&mut engine).unwrap(), Event::Welcomed);
    let seq = store(&mut engine, &tag(1), &descriptor(1));
    engine.complete().unwrap();
    confirmed(&mut engine, seq);
    drop(engine);
    assert_eq!(numbers(&keeper.connect().1), [(tag(1), 1)]);
}

#[test]
fn what_an_engine_does_not_store_again_is_dropped_once_it_says_so() {
    let keeper = Running::start(Options::default());
    let (mut engine, _) = keeper.connect();
    for number in 0..3 {
        store(&mut engine, &tag(number), &descriptor(number));
    }
    engine.reconnect().unwrap();
    assert_eq!(next_event(&mut engine).unwrap(), Event::Welcomed);
    store(&mut engine, &tag(1), &descriptor(1));
    // It dies amid storing everything again: what it had stored before is still there.
    drop(engine);
    let (mut engine, inherited) = keeper.connect();
    assert_eq!(inherited.descriptors.len(), 3);
    engine.reconnect().unwrap();
    assert_eq!(next_event(&mut engine).unwrap(), Event::Welcomed);
    store(&mut engine, &tag(2), &descriptor(2));
    engine.complete().unwrap();
    let seq = engine.remove(&tag(9)).unwrap();
    confirmed(&mut engine, seq);
    drop(engine);
    assert_eq!(numbers(&keeper.connect().1), [(tag(2), 2)]);
}

/// A keeper that moves only when the test has it move, and an engine of it.
fn keeper_at_a_standstill(path: &Path) -> (Keeper, Client) {
    let mut keeper = Keeper::bind(path, Options::default()).unwrap();
    let connecting = std::thread::spawn({
        let path = path.to_owned();
        move || Client::connect(&path, PATIENCE).unwrap().0
    });
    while !connecting.is_finished() {
        turn(&mut keeper);
    }
    (keeper, connecting.join().unwrap())
}

fn turn(keeper: &mut Keeper) {
    keeper.turn(None, Some(Instant::now() + Duration::from_millis(5))).unwrap();
}

#[test]
fn a_slow_keeper_makes_an_engine_queue_and_never_wait() {
    let dir = tempfile::tempdir().unwrap();
    let (mut keeper, mut engine) = keeper_at_a_standstill(&dir.path().join("keeper.sock"));
    let fd = descriptor(1);
    let mut full = (0..1_000_000).filter_map(|number| Some((number, engine.store(&tag(number), fd.as_fd()).err()?)));
    let (stored, error) = full.next().expect("the queue has no bound");
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    assert!(engine.wants_write());
    // Once the keeper reads, everything that was taken is stored.
    while keeper.stored() < usize::try_from(stored).unwrap() {
        turn(&mut keeper);
        engine.poll_event().unwrap();
    }
}

#[test]
fn what_an_engine_sent_before_it_died_is_kept_though_it_left_replies_unread() {
    let dir = tempfile::tempdir().unwrap();
    let (mut keeper, mut engine) = keeper_at_a_standstill(&dir.path().join("keeper.sock"));
    let fd = descriptor(1);
    engine.store(&tag(0), fd.as_fd()).unwrap();
    turn(&mut keeper);
    for number in 1..10 {
        engine.store(&tag(number), fd.as_fd()).unwrap();
    }
    drop(engine);
    turn(&mut keeper);
    turn(&mut keeper);
    assert_eq!(keeper.stored(), 10);
}
