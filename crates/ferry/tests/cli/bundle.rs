//! `ferry init`, `ferry bundle` and `ferry deploy`.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Output};

use tempfile::TempDir;

use crate::support::{code, command, ferry, stderr, stdout};

const BLUEPRINT: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../blueprints/fast-international-ferry/blueprint.yaml");

fn path(dir: &TempDir, name: &str) -> String {
    dir.path().join(name).to_str().unwrap().to_owned()
}

fn bundle(blueprint: &str, out: &str) -> Output {
    ferry(&["bundle", blueprint, "--out", out])
}

#[test]
fn a_starter_is_a_blueprint_and_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let blueprint = path(&dir, "blueprint.yaml");
    assert_eq!(code(&ferry(&["init", &blueprint])), 0);
    assert_eq!(code(&ferry(&["bundle", &blueprint, "--check"])), 0);
    let again = ferry(&["init", &blueprint]);
    assert_eq!(code(&again), 1);
    assert!(stderr(&again).contains("exists already"), "{}", stderr(&again));
    assert_eq!(stdout(&ferry(&["init", "-"])), fs::read_to_string(&blueprint).unwrap());
}

#[test]
fn a_second_run_keeps_the_keys() {
    let dir = tempfile::tempdir().unwrap();
    let out = path(&dir, "out");
    let first = bundle(BLUEPRINT, &out);
    assert_eq!(code(&first), 0, "{}", stderr(&first));
    assert!(stdout(&first).contains("new: initiator/02-secrets.yaml"));
    let secrets = || fs::read(Path::new(&out).join("initiator/02-secrets.yaml")).unwrap();
    let before = secrets();
    let second = bundle(BLUEPRINT, &out);
    assert_eq!(stdout(&second), "");
    assert!(stderr(&second).contains("0 new, 0 changed"), "{}", stderr(&second));
    assert_eq!(secrets(), before);
}

#[test]
fn a_dry_run_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = path(&dir, "out");
    let ran = ferry(&["bundle", BLUEPRINT, "--out", &out, "--dry-run"]);
    assert_eq!(code(&ran), 0);
    assert!(stdout(&ran).contains("new: deploy-cluster-a.sh"));
    assert!(!Path::new(&out).exists());
}

#[test]
fn every_problem_of_a_blueprint_is_reported_with_the_code_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let blueprint = path(&dir, "blueprint.yaml");
    let text = fs::read_to_string(BLUEPRINT).unwrap();
    fs::write(&blueprint, text.replace("port: 30100", "port: 80").replace("ws-initiator", "ws-relay")).unwrap();
    let checked = ferry(&["bundle", &blueprint, "--check"]);
    assert_eq!(code(&checked), 78);
    let report = stderr(&checked);
    assert!(report.contains("clusters[0].port: port 80 cannot be opened"), "{report}");
    assert!(report.contains("pods[0].template: the template `ws-relay` is not there yet"), "{report}");
    let absent = ferry(&["bundle", &path(&dir, "none.yaml"), "--check"]);
    assert_eq!(code(&absent), 78);
    assert!(stderr(&absent).contains("`ferry init`"), "{}", stderr(&absent));
    assert_eq!(code(&ferry(&["bundle", &blueprint])), 2);
}

/// Runs `ferry deploy` with a kubectl that stands in for two clusters; `output` is what has arrived.
fn deploy(output: &str, args: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let (out, fake) = (path(&dir, "out"), path(&dir, "fake"));
    assert_eq!(code(&bundle(BLUEPRINT, &out)), 0);
    fs::create_dir_all(path(&dir, "bin")).unwrap();
    fs::create_dir_all(&fake).unwrap();
    let kubectl = path(&dir, "bin/kubectl");
    fs::write(&kubectl, include_str!("../../../bundle/tests/bundle/fake-kubectl.sh")).unwrap();
    fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).unwrap();
    for (file, text) in
        [("contexts", "k3d-cluster-a\nk3d-cluster-b\n"), ("address", "172.18.0.3 \n"), ("output", output)]
    {
        fs::write(Path::new(&fake).join(file), text).unwrap();
    }
    let path = format!("{}:{}", path(&dir, "bin"), std::env::var("PATH").unwrap());
    let mut command = command(&["deploy", &out]);
    command.args(args).env("PATH", path).env("FAKE", &fake).env("FERRY_PAUSE", "0.01").output().unwrap()
}

#[test]
fn deploying_ends_with_the_way_of_every_message() {
    let line = |id: usize| {
        format!(
            "{{\"id\": \"m{id}\", \"payload\": {{}}, \"trail\": [{{\"pod\": \"initiator-x\", \"cluster\": \
             \"cluster-a\"}}, {{\"pod\": \"terminator-y\", \"cluster\": \"cluster-b\"}}]}}\n"
        )
    };
    let ran = deploy(&(0..6).map(line).collect::<String>(), &[]);
    assert_eq!(code(&ran), 0, "{}", stderr(&ran));
    let out = stdout(&ran);
    assert!(out.contains("m1 initiator-x (cluster-a) → terminator-y (cluster-b)"), "{out}");
    assert!(!out.contains("m0 "), "an older message is shown: {out}");
    assert!(stderr(&ran).contains("5 of 5 messages have arrived"), "{}", stderr(&ran));
    let order = |script: &str| stderr(&ran).find(script).unwrap();
    assert!(order("[1/2] deploy-cluster-b.sh") < order("[2/2] deploy-cluster-a.sh"));
}

#[test]
fn messages_that_do_not_arrive_fail_the_deployment() {
    let ran = deploy("", &["--wait", "0"]);
    assert_eq!(code(&ran), 1);
    assert!(stderr(&ran).contains("0 of 5 messages have arrived within 0 s"), "{}", stderr(&ran));
}

#[test]
fn a_dry_run_of_a_deployment_shows_the_commands() {
    let ran = deploy("", &["--dry-run"]);
    assert_eq!(code(&ran), 0, "{}", stderr(&ran));
    assert!(stdout(&ran).contains("+ kubectl --context k3d-cluster-a apply --kustomize initiator"), "{}", stdout(&ran));
}
