//! Files and directories that are made without the help of a umask.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{address, code, command, role, stderr, stdout};

/// The command, with a umask that takes nothing away.
fn unmasked(args: &[&str], dir: &Path) -> Command {
    let plain = command(args);
    let mut unmasked = Command::new("sh");
    unmasked.args(["-c", "umask 0; exec \"$0\" \"$@\""]).arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => unmasked.env(name, value),
            None => unmasked.env_remove(name),
        };
    }
    unmasked.current_dir(dir);
    unmasked
}

/// Everything below this, and itself.
fn tree(path: &Path) -> Vec<PathBuf> {
    let below = fs::read_dir(path).into_iter().flatten().flat_map(|entry| tree(&entry.unwrap().path()));
    [path.to_owned()].into_iter().chain(below).collect()
}

#[track_caller]
fn none_has(bits: u32, root: &Path, at_least: usize) {
    let all = tree(root);
    let mode = |path: &PathBuf| fs::symlink_metadata(path).unwrap().permissions().mode();
    let open: Vec<_> = all
        .iter()
        .filter(|path| mode(path) & bits != 0)
        .map(|path| format!("{:o} {}", mode(path), path.display()))
        .collect();
    assert!(open.is_empty(), "{open:#?}");
    assert!(all.len() >= at_least, "{all:?}");
}

#[test]
fn nothing_that_is_made_under_a_umask_of_0_can_be_changed_by_others_nor_what_is_stored_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let run = |args: &[&str]| {
        let output = unmasked(args, at).output().unwrap();
        assert_eq!(code(&output), 0, "{}", stderr(&output));
    };
    run(&["keygen", "--out", "identity.key"]);
    run(&["init", "blueprint.yaml"]);
    run(&["bundle", "blueprint.yaml", "--out", "new/bundle"]);
    none_has(0o022, &at.join("new"), 10);
    none_has(0o022, &at.join("blueprint.yaml"), 1);

    fs::write(at.join("tunnel.yaml"), "name: a\nidentity: identity.key\nlisten: 127.0.0.1:0\nstate: new/state\n")
        .unwrap();
    let tunnel = role(&mut unmasked(&["tunnel", "--config", "tunnel.yaml"], at));
    none_has(0o077, &at.join("new/state"), 2);
    let args = ["terminator", "--listen", "127.0.0.1:0", "--data", "new/parent/data"];
    let web_app = role(&mut unmasked(&args, at));
    none_has(0o077, &at.join("new/parent"), 5);
    drop((tunnel, web_app));
}

/// What is below `joined` decides who gets in.
#[test]
fn nothing_that_joining_makes_under_a_umask_of_0_can_be_changed_by_others() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = ["a", "b"].map(|name| dir.path().join(name));
    hosts.iter().for_each(|host| fs::create_dir(host).unwrap());
    fs::set_permissions(&hosts[0], fs::Permissions::from_mode(0o755)).unwrap();
    let [a, b] = &hosts;
    let config = "name: b\nidentity: tunnel.key\nlisten: 127.0.0.1:0\nstate: state\n";
    assert_eq!(code(&unmasked(&["keygen", "--out", "tunnel.key"], b).output().unwrap()), 0);
    fs::write(b.join("tunnel.yaml"), config).unwrap();
    fs::set_permissions(b.join("tunnel.yaml"), fs::Permissions::from_mode(0o644)).unwrap();
    // Before the tunnel has made its state.
    let invite = |address: &str| {
        let args = ["invite", "--service", "web=127.0.0.1:1", "--address", address];
        let output = unmasked(&args, b).output().unwrap();
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        stdout(&output)
    };
    invite("127.0.0.1:1");
    let (_running, ready) = role(&mut unmasked(&["tunnel", "--config", "tunnel.yaml"], b));
    let token = invite(&address(&ready, "listen").to_string());
    let output = unmasked(&["join", "--name", "a", token.trim()], a).output().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    none_has(0o077, &b.join("state"), 6);
    none_has(0o022, a, 5);
    none_has(0o077, &a.join("tunnel.state"), 3);
}
