//! A file that is looked at again and again.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use ferry_config::{Identity, Watch};

use crate::support::fine;

/// A directory with a `tunnel.yaml` and its identity, and a watch that has seen them.
fn seen() -> (tempfile::TempDir, Watch) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tunnel.yaml"), fine()).unwrap();
    new_identity(dir.path());
    let mut watch = Watch::new(dir.path().join("tunnel.yaml"));
    assert_eq!(watch.look().unwrap().unwrap().tunnel.name.as_str(), "us");
    (dir, watch)
}

fn new_identity(dir: &Path) -> Identity {
    let path = dir.join("identity.key");
    // The first one has nothing to replace.
    let _ = fs::remove_file(&path);
    let identity = Identity::generate().unwrap();
    identity.write_new(&path).unwrap();
    identity
}

#[test]
fn files_that_are_as_they_were_are_not_told_again() {
    let (dir, mut watch) = seen();
    assert!(watch.look().is_none());
    // The same once more, under another time stamp.
    fs::write(dir.path().join("tunnel.yaml"), fine()).unwrap();
    assert!(watch.look().is_none());
    watch.forget();
    watch.look().unwrap().unwrap();
}

#[test]
fn a_change_as_long_as_what_it_replaces_is_told_once() {
    let (dir, mut watch) = seen();
    fs::write(dir.path().join("tunnel.yaml"), fine().replacen("name: us", "name: me", 1)).unwrap();
    assert_eq!(watch.look().unwrap().unwrap().tunnel.name.as_str(), "me");
    assert!(watch.look().is_none());
}

#[test]
fn a_symlink_swap_is_told() {
    let (dir, _) = seen();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("new.yaml"), fine().replacen("name: us", "name: me", 1)).unwrap();
    symlink("tunnel.yaml", at("current")).unwrap();
    let mut watch = Watch::new(at("current"));
    watch.look().unwrap().unwrap();
    symlink("new.yaml", at("next")).unwrap();
    fs::rename(at("next"), at("current")).unwrap();
    assert_eq!(watch.look().unwrap().unwrap().tunnel.name.as_str(), "me");
}

#[test]
fn another_identity_under_the_same_path_is_told() {
    let (dir, mut watch) = seen();
    let identity = new_identity(dir.path());
    assert_eq!(watch.look().unwrap().unwrap().tunnel.identity, identity);
    assert!(watch.look().is_none());
}

#[test]
fn an_identity_that_others_may_read_from_now_on_is_told() {
    let (dir, mut watch) = seen();
    fs::set_permissions(dir.path().join("identity.key"), Permissions::from_mode(0o644)).unwrap();
    assert!(watch.look().unwrap().is_err());
}

#[test]
fn what_cannot_be_used_is_told_at_every_look_until_it_is_mended() {
    let (dir, mut watch) = seen();
    let path = dir.path().join("tunnel.yaml");
    fs::write(&path, "name: [").unwrap();
    assert!(watch.look().unwrap().is_err());
    fs::remove_file(&path).unwrap();
    assert!(watch.look().unwrap().is_err());
    fs::write(&path, fine()).unwrap();
    watch.look().unwrap().unwrap();
    assert!(watch.look().is_none());
}
