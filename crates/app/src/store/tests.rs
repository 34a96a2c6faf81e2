use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::value::to_raw_value;

use super::*;
use crate::message::{Arrival, DeadMessage, Message};
use crate::payload::Payload;

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn message(sender: &SenderId, seq: u64) -> (u64, Arc<str>) {
    let payload = Payload::stored(to_raw_value(&"x".repeat(100)).unwrap());
    let message = Message { seq, id: sender.message(seq), payload, trail: Vec::new(), in_reply_to: None };
    (seq, serde_json::to_string(&message).unwrap().into())
}

fn arrival(sender: &SenderId, seq: u64) -> Arrival {
    let payload = Payload::stored(to_raw_value(&"y".repeat(100)).unwrap());
    Arrival { id: sender.message(seq), payload, trail: Vec::new(), in_reply_to: None, site: None, headers: None }
}

fn far() -> SenderId {
    SenderId::try_from("far".to_owned()).unwrap()
}

/// Messages with these numbers enter the outbox of a site.
fn entering(site: u64, sender: &SenderId, seqs: std::ops::RangeInclusive<u64>) -> OutboxCommit {
    OutboxCommit { site, outbox: seqs.map(|seq| message(sender, seq)).collect(), ..OutboxCommit::default() }
}

/// A commit of the messages with these numbers in both directions.
fn commit(sender: &SenderId, seqs: std::ops::RangeInclusive<u64>) -> Commit {
    let far = far();
    let output = seqs.clone().map(|seq| (seq - 1, serde_json::to_string(&arrival(&far, seq)).unwrap()));
    Commit {
        outboxes: vec![entering(0, sender, seqs.clone())],
        output: output.collect(),
        watermarks: vec![(far.clone(), *seqs.end())],
        ..Commit::default()
    }
}

fn seqs(loaded: &StoredState) -> Vec<u64> {
    loaded.sites[0].outbox.iter().map(|(message, _)| message.seq).collect()
}

/// Copies the files as a process that is killed leaves them.
fn killed(dir: &Path) -> tempfile::TempDir {
    let copy = self::dir();
    for file in files(dir) {
        fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
    }
    copy
}

fn files(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn what_is_committed_is_there_after_a_kill_and_after_an_end() {
    let dir = dir();
    let (mut store, loaded) = open(dir.path()).unwrap();
    let sender = loaded.sites[0].sender.clone();
    assert_eq!((loaded.sites[0].acked, loaded.sites[0].outbox.len()), (0, 0));
    store.commit(&commit(&sender, 1..=3)).unwrap();
    let dead = DeadMessage { arrival: arrival(&far(), 4), raw: None, error: "no".into(), at: "now".into() };
    let east = PeerName::try_from("east".to_owned()).unwrap();
    let more = Commit {
        outboxes: vec![OutboxCommit {
            acked: 1,
            keys: vec![("k".into(), KeyRecord { seq: 4, digest: u64::MAX, fate: Fate::Dead })],
            ..entering(0, &sender, 4..=4)
        }],
        output_start: 1,
        dead: vec![(1, serde_json::to_string(&dead).unwrap())],
        watermarks: vec![(far(), 4)],
        peers: vec![(far(), east.clone())],
        ..Commit::default()
    };
    store.commit(&more).unwrap();
    let copy = killed(dir.path());
    drop(store);
    for dir in [copy, dir] {
        let (_store, loaded) = open(dir.path()).unwrap();
        assert_eq!(
            (loaded.sites[0].sender.as_str(), loaded.sites[0].acked, seqs(&loaded)),
            (sender.as_str(), 1, vec![2, 3, 4])
        );
        assert_eq!(loaded.output.iter().map(|(position, _)| *position).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(loaded.watermarks, [(far(), 4)]);
        assert_eq!(loaded.peers, [(far(), east.clone())]);
        assert_eq!((loaded.dead[0].0, loaded.dead[0].1.error.as_str()), (1, "no"));
        assert_eq!(loaded.sites[0].keys, [("k".into(), KeyRecord { seq: 4, digest: u64::MAX, fate: Fate::Dead })]);
    }
}

#[test]
fn a_second_process_is_refused_and_told_why() {
    let dir = dir();
    let (store, _) = open(dir.path()).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::InUse(_)), "{error}");
    assert!(error.to_string().contains("another ferry process") && error.to_string().contains("--data"), "{error}");
    drop(store);
    open(dir.path()).unwrap();
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let dir = dir();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = open(&file.join("data")).unwrap_err();
    assert!(matches!(error, StoreError::Unusable { .. }) && error.to_string().contains("file/data"), "{error}");
}

/// Opens a damaged store: either it says so, or nothing is lost.
fn found_or_harmless(dir: &Path, sender: &SenderId, what: &str) -> bool {
    match open(dir) {
        Err(StoreError::Damaged { path, reason }) => {
            assert!(path == dir && !reason.is_empty(), "{what}: {reason}");
            true
        }
        Err(StoreError::Version { .. }) => true,
        Err(other) => panic!("{what}: {other}"),
        Ok((_, loaded)) => {
            assert_eq!(seqs(&loaded), (1..=60).collect::<Vec<_>>(), "{what}: lost in silence");
            assert_eq!(loaded.output.len(), 60, "{what}: lost in silence");
            assert!(loaded.output.iter().zip(1..).all(|((_, a), seq)| a.payload == arrival(&far(), seq).payload));
            assert_eq!(loaded.watermarks, [(far(), 60)], "{what}");
            assert_eq!(loaded.sites[0].sender.as_str(), sender.as_str(), "{what}");
            false
        }
    }
}

#[test]
fn a_flipped_bit_or_a_lost_end_of_any_file_is_found_and_nothing_is_lost_in_silence() {
    let dir = dir();
    let (mut store, loaded) = open(dir.path()).unwrap();
    for first in (1..=60).step_by(10) {
        store.commit(&commit(&loaded.sites[0].sender, first..=first + 9)).unwrap();
    }
    let killed_dir = killed(dir.path());
    drop(store);
    let mut found = 0;
    for (how, dir) in [("killed", &killed_dir), ("ended", &dir)] {
        for name in ["store.sqlite", "store.sqlite-wal", "witness"] {
            let Ok(good) = fs::read(dir.path().join(name)) else { continue };
            for i in 0..40 {
                let copy = killed(dir.path());
                let mut bad = good.clone();
                let at = i * bad.len() / 40;
                let what = if i % 4 == 3 {
                    bad.truncate(at);
                    format!("{how}: {name} cut to {at} bytes")
                } else {
                    bad[at] ^= 1 << (i % 8);
                    format!("{how}: bit of byte {at} in {name} flipped")
                };
                fs::write(copy.path().join(name), &bad).unwrap();
                found += u32::from(found_or_harmless(copy.path(), &loaded.sites[0].sender, &what));
            }
        }
        for name in ["store.sqlite", "store.sqlite-wal"] {
            let copy = killed(dir.path());
            if fs::remove_file(copy.path().join(name)).is_ok() {
                assert!(found_or_harmless(copy.path(), &loaded.sites[0].sender, &format!("{how}: {name} removed")));
            }
        }
    }
    assert!(found > 60, "only {found} of the damages were found");
}

#[test]
fn a_store_that_goes_back_in_time_is_refused() {
    let dir = dir();
    let (mut store, loaded) = open(dir.path()).unwrap();
    store.commit(&commit(&loaded.sites[0].sender, 1..=1)).unwrap();
    let old = killed(dir.path());
    store.commit(&commit(&loaded.sites[0].sender, 2..=3)).unwrap();
    drop(store);
    fs::copy(dir.path().join("witness"), old.path().join("witness")).unwrap();
    let error = open(old.path()).unwrap_err().to_string();
    assert!(error.contains("the last 1 are lost"), "{error}");
}

#[test]
fn a_full_disk_is_an_error_that_passes_and_leaves_what_was_stored() {
    let dir = dir();
    let (mut store, loaded) = open(dir.path()).unwrap();
    store.commit(&commit(&loaded.sites[0].sender, 1..=10)).unwrap();
    let pages: u32 = store.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    store.connection.pragma_update(None, "max_page_count", pages + 1).unwrap();
    assert_eq!(store.commit(&commit(&loaded.sites[0].sender, 11..=200)).unwrap_err(), StoreError::Full);
    let acked = OutboxCommit { acked: 5, ..OutboxCommit::default() };
    store.commit(&Commit { outboxes: vec![acked], ..Commit::default() }).unwrap();
    store.connection.pragma_update(None, "max_page_count", 1_000_000).unwrap();
    let mut more = commit(&loaded.sites[0].sender, 11..=200);
    more.outboxes[0].acked = 5;
    store.commit(&more).unwrap();
    drop(store);
    let (_store, loaded) = open(dir.path()).unwrap();
    assert_eq!(seqs(&loaded), (6..=200).collect::<Vec<_>>());
}

fn log(dir: &Path) -> u64 {
    fs::metadata(dir.join("store.sqlite-wal")).unwrap().len()
}

#[test]
fn a_log_that_could_not_be_moved_in_the_background_is_moved_by_a_commit() {
    let dir = dir();
    let (mut store, _) = open(dir.path()).unwrap();
    // Somebody who reads what was there before keeps the log from being moved.
    let reader = Connection::open(dir.path().join("store.sqlite")).unwrap();
    reader.execute_batch("BEGIN; SELECT * FROM about").unwrap();
    let pages = |store: &Store| Log::of(&store.connection).map(|log| (log.pages, log.moved)).unwrap();
    let big = "x".repeat(1 << 20);
    let mut seq = 0;
    while pages(&store).0 < checkpoint::MAX_LOG_PAGES {
        seq += 1;
        let outbox = OutboxCommit { outbox: vec![(seq, big.as_str().into())], ..OutboxCommit::default() };
        store.commit(&Commit { outboxes: vec![outbox], ..Commit::default() }).unwrap();
    }
    assert_eq!(pages(&store).1, 0);
    drop(reader);
    store.commit(&Commit::default()).unwrap();
    let (log, moved) = pages(&store);
    assert_eq!(log, moved);
    store.commit(&Commit::default()).unwrap();
    assert!(pages(&store).0 < 10, "it is reused from its start");
}

#[test]
fn a_checkpoint_on_demand_frees_the_space_of_the_log() {
    let dir = dir();
    let (mut store, loaded) = open(dir.path()).unwrap();
    store.commit(&commit(&loaded.sites[0].sender, 1..=10)).unwrap();
    assert_ne!(log(dir.path()), 0);
    store.checkpoint_now().unwrap();
    assert_eq!(log(dir.path()), 0);
    store.commit(&commit(&loaded.sites[0].sender, 11..=20)).unwrap();
    drop(store);
    assert_eq!(seqs(&open(dir.path()).unwrap().1), (1..=20).collect::<Vec<_>>());
}

#[test]
fn a_start_builds_on_nothing_that_may_not_be_on_the_disk() {
    let dir = dir();
    let (mut store, loaded) = open(dir.path()).unwrap();
    store.commit(&commit(&loaded.sites[0].sender, 1..=10)).unwrap();
    let copy = killed(dir.path());
    assert_ne!(log(copy.path()), 0);
    let (store, loaded) = open(copy.path()).unwrap();
    assert_eq!((log(copy.path()), seqs(&loaded).len()), (0, 10));
    drop(store);
    fs::remove_file(copy.path().join("store.sqlite-wal")).unwrap();
    assert_eq!(seqs(&open(copy.path()).unwrap().1).len(), 10);
}

#[test]
fn a_damaged_store_is_left_as_it_was_found() {
    let dir = dir();
    let (mut store, loaded) = open(dir.path()).unwrap();
    store.commit(&commit(&loaded.sites[0].sender, 1..=10)).unwrap();
    let copy = killed(dir.path());
    store.commit(&commit(&loaded.sites[0].sender, 11..=11)).unwrap();
    fs::copy(dir.path().join("witness"), copy.path().join("witness")).unwrap();
    let content =
        || ["store.sqlite", "store.sqlite-wal", "witness"].map(|name| fs::read(copy.path().join(name)).unwrap());
    let before = content();
    assert!(matches!(open(copy.path()), Err(StoreError::Damaged { .. })));
    assert!(content() == before, "a file has changed");
}

fn name(text: &str) -> PeerName {
    PeerName::try_from(text.to_owned()).unwrap()
}

/// What is kept of a site: its name, and the numbers in its outbox.
fn kept(site: &StoredSite) -> (Option<&str>, Vec<u64>) {
    (site.name.as_ref().map(PeerName::as_str), site.outbox.iter().map(|(message, _)| message.seq).collect())
}

/// A site that the store does not know yet, with its first messages.
fn new_site(number: u64, site: &str, sender: &SenderId, seqs: std::ops::RangeInclusive<u64>) -> OutboxCommit {
    let record = SiteRecord { name: Some(name(site)), sender: sender.clone() };
    OutboxCommit { record: Some(record), ..entering(number, sender, seqs) }
}

fn of_outboxes(outboxes: Vec<OutboxCommit>) -> Commit {
    Commit { outboxes, ..Commit::default() }
}

#[test]
fn each_site_has_an_outbox_of_its_own_and_one_that_is_forgotten_is_gone() {
    let dir = dir();
    let (mut store, loaded) = open(dir.path()).unwrap();
    let first = loaded.sites[0].sender.clone();
    let west = SenderId::random().unwrap();
    store.commit(&of_outboxes(vec![new_site(0, "east", &first, 1..=2), new_site(7, "west", &west, 1..=3)])).unwrap();
    let key = ("k".to_owned(), KeyRecord { seq: 4, digest: 1, fate: Fate::Plain });
    let more = OutboxCommit { acked: 2, keys: vec![key.clone()], ..entering(7, &west, 4..=4) };
    store.commit(&of_outboxes(vec![more])).unwrap();
    drop(store);
    let (mut store, loaded) = open(dir.path()).unwrap();
    let [east, far] = &loaded.sites[..] else { panic!("{:?}", loaded.sites) };
    assert_eq!(kept(east), (Some("east"), vec![1, 2]));
    assert_eq!(kept(far), (Some("west"), vec![3, 4]));
    assert_eq!((far.number, far.acked, &far.sender, &far.keys[..]), (7, 2, &west, &[key][..]));

    let gone =
        OutboxCommit { record: Some(SiteRecord { name: None, sender: first }), acked: 2, ..OutboxCommit::default() };
    store.commit(&Commit { forgotten: vec![0, 7], outboxes: vec![gone], ..Commit::default() }).unwrap();
    drop(store);
    let (_store, loaded) = open(dir.path()).unwrap();
    assert_eq!(loaded.sites.len(), 1);
    assert_eq!((kept(&loaded.sites[0]), loaded.sites[0].acked), ((None, vec![]), 2));
}

#[test]
fn the_outbox_of_a_store_of_before_is_that_of_the_only_peer() {
    for (peers, whose) in [(&["east", "east"][..], Some("east")), (&["east", "west"], None), (&[], None)] {
        let dir = dir();
        let (mut store, loaded) = open(dir.path()).unwrap();
        let bound =
            peers.iter().enumerate().map(|(n, peer)| (SenderId::try_from(format!("s{n}")).unwrap(), name(peer)));
        let peers = bound.collect();
        store.commit(&Commit { peers, ..commit(&loaded.sites[0].sender, 1..=2) }).unwrap();
        drop(store);
        let (_store, loaded) = open(dir.path()).unwrap();
        assert_eq!(kept(&loaded.sites[0]), (whose, vec![1, 2]));
    }
}

#[test]
fn a_message_in_the_outbox_of_another_site_is_damage() {
    let dir = dir();
    let (mut store, _) = open(dir.path()).unwrap();
    let (west, other) = (SenderId::random().unwrap(), SenderId::random().unwrap());
    store.commit(&of_outboxes(vec![new_site(1, "west", &west, 1..=1)])).unwrap();
    store.commit(&of_outboxes(vec![entering(1, &other, 2..=2)])).unwrap();
    drop(store);
    let error = open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("is in the outbox of another site"), "{error}");
}
