//! Keys that are replaced: what stands in for what is listed, and how far a roll is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ferry_config::{Identity, Name, PublicKey, Roll, RollStage, RolledPeer, Watch, load};
use ferry_golden::Golden;

use crate::support::{KEY_1, KEY_2, KEY_3};

/// A directory with a tunnel.yaml in which the peer `b` has these keys, and `c` one of its own.
fn configured(keys: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    Identity::generate().unwrap().write_new(&dir.path().join("identity.key")).unwrap();
    list(dir.path(), keys);
    dir
}

fn list(dir: &Path, keys: &[&str]) {
    let text = format!(
        "name: us\nidentity: identity.key\nstate: state\nlisten: 127.0.0.1:1\npeers: [{{name: b, keys: {keys:?}}}]\n"
    );
    fs::write(dir.join("tunnel.yaml"), text).unwrap();
}

fn key(text: &str) -> PublicKey {
    text.parse().unwrap()
}

fn b() -> Name {
    "b".parse().unwrap()
}

/// The keys of `b` that are accepted.
fn accepted(dir: &Path) -> BTreeSet<PublicKey> {
    load(&dir.join("tunnel.yaml")).unwrap().tunnel.peers[0].keys.clone()
}

fn keys(of: &[&str]) -> BTreeSet<PublicKey> {
    of.iter().map(|text| key(text)).collect()
}

/// What is known of the rolls of `b`, changed.
fn changed(dir: &Path, change: impl FnOnce(RolledPeer) -> RolledPeer) {
    change(RolledPeer::load(&dir.join("state"), &b()).unwrap()).write(&dir.join("state")).unwrap();
}

#[test]
fn a_next_key_is_accepted_beside_the_one_that_is_listed_and_later_in_its_place_roll_after_roll() {
    let dir = configured(&[KEY_1]);
    changed(dir.path(), |rolled| rolled.with_next(key(KEY_1), key(KEY_2)));
    assert_eq!(accepted(dir.path()), keys(&[KEY_1, KEY_2]));
    assert!(RolledPeer::load(&dir.path().join("state"), &b()).unwrap().is_rolling_to(key(KEY_2)));
    changed(dir.path(), |rolled| rolled.with_only(key(KEY_2)).unwrap());
    assert_eq!(accepted(dir.path()), keys(&[KEY_2]));
    changed(dir.path(), |rolled| rolled.with_next(key(KEY_2), key(KEY_3)));
    assert_eq!(accepted(dir.path()), keys(&[KEY_2, KEY_3]));
    changed(dir.path(), |rolled| rolled.with_only(key(KEY_3)).unwrap());
    assert_eq!(accepted(dir.path()), keys(&[KEY_3]));
    // Whichever of them a person has written since.
    for listed in [&[KEY_2][..], &[KEY_3], &[KEY_1, KEY_3]] {
        list(dir.path(), listed);
        assert_eq!(accepted(dir.path()), keys(&[KEY_3]), "{listed:?}");
    }
}

#[test]
fn what_a_key_has_announced_goes_with_it() {
    let dir = configured(&[KEY_1]);
    changed(dir.path(), |rolled| rolled.with_next(key(KEY_1), key(KEY_2)));
    changed(dir.path(), |rolled| rolled.with_only(key(KEY_2)).unwrap());
    // Stolen, and replaced by hand.
    list(dir.path(), &[KEY_3]);
    assert_eq!(accepted(dir.path()), keys(&[KEY_3]));
}

#[test]
fn a_next_key_that_was_never_proved_makes_way_for_another_and_one_that_no_roll_led_to_ends_none() {
    let dir = configured(&[KEY_1]);
    changed(dir.path(), |rolled| rolled.with_next(key(KEY_1), key(KEY_2)));
    changed(dir.path(), |rolled| rolled.with_next(key(KEY_1), key(KEY_3)));
    assert_eq!(accepted(dir.path()), keys(&[KEY_1, KEY_3]));
    let rolled = RolledPeer::load(&dir.path().join("state"), &b()).unwrap();
    assert!(!rolled.is_rolling_to(key(KEY_1)) && rolled.with_only(key(KEY_2)).is_none());
}

#[test]
fn a_watch_sees_a_roll_and_a_file_that_is_damaged_is_named() {
    let dir = configured(&[KEY_1]);
    let mut watch = Watch::new(dir.path().join("tunnel.yaml"));
    watch.look().unwrap().unwrap();
    assert!(watch.look().is_none());
    changed(dir.path(), |rolled| rolled.with_next(key(KEY_1), key(KEY_2)));
    assert_eq!(watch.look().unwrap().unwrap().tunnel.peers[0].keys.len(), 2);
    fs::write(RolledPeer::path(&dir.path().join("state"), &b()), "{").unwrap();
    let report = watch.look().unwrap().unwrap_err().to_string();
    assert!(report.contains("rolled/b.json") && report.contains("restore the file"), "{report}");
}

#[test]
fn what_has_become_of_a_peers_keys_is_written_and_read_as_the_first_build_did() {
    let golden =
        Golden::of(env!("CARGO_MANIFEST_DIR"), "rolled", "json", "the file, which has none yet, in src/rolling");
    let dir = configured(&[KEY_1]);
    changed(dir.path(), |rolled| rolled.with_next(key(KEY_1), key(KEY_2)));
    let path = RolledPeer::path(&dir.path().join("state"), &b());
    golden.hold(1, &fs::read_to_string(&path).unwrap());
    fs::write(&path, golden.read(1)).unwrap();
    assert_eq!(accepted(dir.path()), keys(&[KEY_1, KEY_2]));
}

fn identity(path: PathBuf) -> PublicKey {
    Identity::load(&path).unwrap().public_key()
}

#[test]
fn a_roll_knows_how_far_it_is_and_every_step_can_be_done_again() {
    let dir = configured(&[KEY_1]);
    let path = dir.path().join("identity.key");
    let roll = Roll::of(&path, &dir.path().join("state"));
    assert_eq!((roll.stage(), roll.notes.next_key()), (RollStage::Idle, None));
    let (old, next) = (identity(path.clone()), roll.make_next().unwrap().public_key());
    assert_eq!((roll.stage(), roll.notes.next_key()), (RollStage::Announcing, Some(next)));
    assert_eq!(roll.make_next().unwrap().public_key(), next);
    assert!(!roll.notes.note_listed(&b(), old).unwrap() && !roll.notes.is_listed(&b(), next));
    assert!(roll.notes.note_listed(&b(), next).unwrap() && roll.notes.is_listed(&b(), next));
    // As a crash leaves it that comes between the two steps of the switch.
    fs::hard_link(&path, roll.old_path()).unwrap();
    roll.switch().unwrap();
    assert_eq!((roll.stage(), identity(path.clone()), identity(roll.old_path())), (RollStage::Switched, next, old));
    roll.finish().unwrap();
    roll.finish().unwrap();
    assert_eq!((roll.stage(), identity(path), roll.notes.next_key()), (RollStage::Idle, next, None));
    // A key of somebody's is never lost.
    roll.make_next().unwrap();
    Identity::generate().unwrap().write_new(&roll.old_path()).unwrap();
    assert!(roll.switch().unwrap_err().to_string().contains("exists already"));
}
