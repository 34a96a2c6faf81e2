//! A pod's key is replaced in steps. How the tunnels take it is tried in `crates/ferry/tests/cli/roll_bundle.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::manifests::tunnel;
use crate::stage::Stage;
use crate::support::{FINE, POSTGRESQL, accepted, label, rendered};
use ferry_bundle::{Bundle, KeyError, KeyRoll, Keys, RollStepTaken, render};
use ferry_config::PublicKey;

/// Dialled from A and from C.
const POD: &str = "gateway-cluster-b";
const PEERS: [&str; 2] = ["gateway-cluster-a", "gateway-cluster-c"];

fn key(keys: &Keys) -> PublicKey {
    keys.of(&label(POD)).unwrap().identity.public_key()
}

/// What is there.
fn loaded(dir: &Path) -> Keys {
    Keys::load(dir, &accepted(POSTGRESQL)).unwrap()
}

fn written(dir: &Path, keys: &Keys) -> Bundle {
    let bundle = render(&accepted(POSTGRESQL), POSTGRESQL, keys).unwrap();
    bundle.write(dir).unwrap();
    bundle
}

/// Takes a step, and renders it. A run without one renders the same.
fn step(dir: &Path) -> (RollStepTaken, Vec<String>) {
    let mut keys = loaded(dir);
    let step = KeyRoll::of(dir, &label(POD)).advance(&accepted(POSTGRESQL), &mut keys).unwrap();
    let bundle = written(dir, &keys);
    assert_eq!(bundle, render(&accepted(POSTGRESQL), POSTGRESQL, &loaded(dir)).unwrap());
    (step.taken, step.scripts)
}

/// What the peers list for the pod, as the bundle has it.
fn listed(dir: &Path) -> BTreeSet<PublicKey> {
    let bundle = render(&accepted(POSTGRESQL), POSTGRESQL, &loaded(dir)).unwrap();
    let [one, other] = PEERS.map(|peer| tunnel(&bundle, peer).peers[0].keys.clone());
    assert_eq!(one, other);
    one
}

fn deployed(dir: &Path, scripts: &[String]) {
    scripts.iter().for_each(|script| fs::remove_file(KeyRoll::of(dir, &label(POD)).note_of(script)).unwrap());
}

fn fresh() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut keys = Keys::default();
    keys.complete(&accepted(POSTGRESQL)).unwrap();
    written(dir.path(), &keys);
    dir
}

#[test]
fn peers_list_a_key_before_the_pod_has_it_and_until_it_has_no_more() {
    let dir = fresh();
    let (dir, before) = (dir.path(), key(&loaded(dir.path())));
    let (taken, scripts) = step(dir);
    assert_eq!(
        (taken, scripts.join(" ").as_str()),
        (RollStepTaken::Announced, "deploy-cluster-a.sh deploy-cluster-c.sh")
    );
    assert_eq!((key(&loaded(dir)), listed(dir).len()), (before, 2));
    deployed(dir, &scripts);
    let (taken, scripts) = step(dir);
    assert_eq!((taken, scripts.join(" ").as_str()), (RollStepTaken::Switched, "deploy-cluster-b.sh"));
    let next = key(&loaded(dir));
    assert_eq!(listed(dir), [before, next].into());
    deployed(dir, &scripts);
    let (taken, scripts) = step(dir);
    assert_eq!((taken, scripts.join(" ").as_str()), (RollStepTaken::Parted, "deploy-cluster-a.sh deploy-cluster-c.sh"));
    assert_eq!((key(&loaded(dir)), listed(dir)), (next, [next].into()));
    // And once more.
    assert_eq!(step(dir).0, RollStepTaken::Announced);
    assert_eq!(listed(dir).len(), 2);
}

#[test]
fn a_step_is_not_taken_before_every_script_of_the_one_before_has_run() {
    let dir = fresh();
    let (_, scripts) = step(dir.path());
    for left in (1..=scripts.len()).rev() {
        assert_eq!(step(dir.path()), (RollStepTaken::None, scripts[scripts.len() - left..].to_vec()));
        deployed(dir.path(), &scripts[scripts.len() - left..][..1]);
    }
    assert_eq!(step(dir.path()).0, RollStepTaken::Switched);
    assert_eq!(step(dir.path()), (RollStepTaken::None, vec!["deploy-cluster-b.sh".to_owned()]));
}

#[test]
fn a_step_that_was_ended_before_the_bundle_was_written_locks_nobody_out() {
    let dir = fresh();
    let (dir, blueprint) = (dir.path(), accepted(POSTGRESQL));
    let ended = || KeyRoll::of(dir, &label(POD)).advance(&blueprint, &mut loaded(dir)).unwrap();
    let before = key(&loaded(dir));
    let scripts = ended().scripts;
    // The next run renders what was begun.
    assert_eq!((step(dir).0, listed(dir).len()), (RollStepTaken::None, 2));
    deployed(dir, &scripts);
    let scripts = ended().scripts;
    assert_eq!((key(&loaded(dir)), listed(dir).len()), (before, 2));
    deployed(dir, &scripts);
    assert_eq!(step(dir), (RollStepTaken::Switched, scripts.clone()));
    deployed(dir, &scripts);
    ended();
    assert_eq!(listed(dir), [key(&loaded(dir))].into());
}

#[test]
fn a_key_that_was_made_anew_is_the_only_one_whatever_was_under_way() {
    let dir = fresh();
    let dir = dir.path();
    step(dir);
    fs::remove_file(dir.join(POD).join("02-secrets.yaml")).unwrap();
    let mut keys = loaded(dir);
    let blueprint = accepted(POSTGRESQL);
    let nothing = KeyRoll::of(dir, &label(POD)).advance(&blueprint, &mut keys).unwrap_err();
    assert!(matches!(nothing, KeyError::NothingToRoll(_)), "{nothing}");
    keys.complete(&blueprint).unwrap();
    written(dir, &keys);
    assert_eq!(listed(dir), [key(&keys)].into());
    assert_eq!((step(dir).0, listed(dir).len()), (RollStepTaken::Announced, 2));
}

#[cfg(unix)]
#[test]
fn next_keys_are_closed_to_others_and_kept_out_of_version_control() {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = fresh();
    step(dir.path());
    let next = dir.path().join(".roll").join(format!("{POD}.next"));
    assert_eq!(fs::metadata(&next).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(dir.path().join(".roll/.gitignore")).unwrap().lines().any(|line| line == "*"));
}

#[cfg(unix)]
#[test]
fn a_script_notes_that_it_has_run_and_makes_the_pod_look_at_its_new_key() {
    let stage = Stage::new(FINE);
    let note = |script: &str| stage.path(&format!("bundle/.roll/initiator.{script}"));
    fs::create_dir(stage.path("bundle/.roll")).unwrap();
    for script in ["deploy-cluster-a.sh", "deploy-cluster-b.sh"] {
        fs::write(note(script), "").unwrap();
    }
    stage.run("deploy-cluster-a.sh", &["--dry-run"]).fine();
    stage.fake("stuck", "1");
    assert_eq!(stage.run("deploy-cluster-a.sh", &[]).code, 1);
    assert!(note("deploy-cluster-a.sh").exists());
    fs::remove_file(stage.path("fake/stuck")).unwrap();
    stage.fake("applied", "secret/tunnel-identity configured\nconfigmap/tunnel unchanged\n");
    let ran = stage.run("deploy-cluster-a.sh", &[]).fine();
    assert!(ran.called("annotate pods"), "{:?}", ran.calls);
    assert!(!note("deploy-cluster-a.sh").exists() && note("deploy-cluster-b.sh").exists());
    // Nothing of it is in a bundle.
    assert!(!rendered(FINE).files().keys().any(|path| path.starts_with(".roll")));
}
