//! `ferry tunnel --check`, and configurations that cannot be used.

use std::fs;
use std::path::Path;

use crate::support::{code, ferry, keygen, stderr, stdout};

fn tunnel(config: &Path, more: &[&str]) -> std::process::Output {
    let mut args = vec!["tunnel".as_ref(), "--config".as_ref(), config.as_os_str()];
    args.extend(more.iter().map(std::ffi::OsStr::new));
    ferry(&args)
}

#[test]
fn five_mistakes_are_reported_at_once_each_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("tunnel.yaml");
    let text = "name: A!\nidentity: nowhere.key\nlisten: localhost\npeers: [{name: b, keys: [x]}]\nfoo: 1\n";
    fs::write(&config, text).unwrap();
    for check in [&["--check"][..], &[]] {
        let output = tunnel(&config, check);
        assert_eq!(code(&output), 78);
        assert_eq!(stdout(&output), "");
        let report = stderr(&output);
        for place in ["name: ", "identity: ", "listen: ", "peers[0].keys[0]: ", "foo: "] {
            assert!(report.contains(&format!("tunnel.yaml: {place}")), "{place:?} is not in:\n{report}");
        }
    }
}

#[test]
fn a_good_file_passes_the_check_with_its_warnings() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("tunnel.yaml");
    keygen(&dir.path().join("identity.key"));
    let key = keygen(&dir.path().join("other.key"));
    let text = format!(
        "name: a\nidentity: identity.key\npeers: [{{name: b, keys: [\"{key}\"], addresses: [\"file:later\"]}}]\n\
         egress: [{{listen: \"127.0.0.1:0\", peer: b, service: s}}]\n"
    );
    fs::write(&config, text).unwrap();
    let output = tunnel(&config, &["--check"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).contains("is fine: a with 1 peer, 1 egress, 0 ingress"), "{}", stdout(&output));
}

#[test]
fn a_missing_file_is_a_bad_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let output = tunnel(&dir.path().join("tunnel.yaml"), &[]);
    assert_eq!(code(&output), 78);
    assert!(stderr(&output).contains("No such file"), "{}", stderr(&output));
}
