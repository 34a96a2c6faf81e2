//! `ferry inject`: a manifest in, a manifest with a tunnel out, and back.

use std::fs;
use std::path::Path;

use crate::support::{code, ferry, ferry_with_input, keygen, stderr, stdout};

const POD: &str =
    "apiVersion: v1\nkind: Pod\nmetadata:\n  name: app # mine\nspec:\n  containers:\n  - name: app\n    image: app\n";

/// Writes a tunnel.yaml with its identity, and returns its path.
fn tunnel_yaml(dir: &Path, more: &str) -> String {
    keygen(&dir.join("own.key"));
    let peer = keygen(&dir.join("peer.key"));
    let text = format!(
        "name: here\nidentity: own.key\npeers:\n  - {{name: far, keys: [\"{peer}\"], addresses: [\"far.example.com:1\"]}}\n\
         egress:\n  - {{listen: \"127.0.0.1:5432\", peer: far, service: db}}\n{more}"
    );
    let path = dir.join("tunnel.yaml");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_manifest_goes_through_pipes_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    let config = tunnel_yaml(dir.path(), "");
    let args = ["inject", "-f", "-", "--config", &config, "--image", "ferry:0.1.0"];
    let output = ferry_with_input(&args, POD);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let text = stdout(&output);
    for part in ["  name: app # mine\n", "  - name: keeper\n", "  - name: tunnel\n", "kind: ConfigMap\n"] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    assert!(stderr(&output).contains("the Secret `app-tunnel-identity`"), "{}", stderr(&output));
    let back = ferry_with_input(&["inject", "-f", "-", "--remove"], &text);
    assert_eq!((code(&back), stdout(&back)), (0, POD.to_owned()), "{}", stderr(&back));
    let nothing = ferry_with_input(&["inject", "-f", "-", "--remove"], POD);
    assert_eq!((code(&nothing), stdout(&nothing)), (0, POD.to_owned()));
    assert!(stderr(&nothing).contains("no tunnel in it"), "{}", stderr(&nothing));
    let with_secret = ferry_with_input(&[&args[..], &["--with-secret"]].concat(), POD);
    assert!(stdout(&with_secret).contains("kind: Secret\n") && stderr(&with_secret).is_empty(), "{with_secret:?}");
}

#[test]
fn a_configuration_that_cannot_be_used_is_reported_as_by_check() {
    let dir = tempfile::tempdir().unwrap();
    let config = tunnel_yaml(dir.path(), "rotation: {every: never}\nresumee: 1\n");
    let check = ferry(&["tunnel", "--config", &config, "--check"]);
    let output = ferry_with_input(&["inject", "-f", "-", "--config", &config, "--image", "ferry:0.1.0"], POD);
    assert_eq!((code(&output), stderr(&output)), (78, stderr(&check)));
    assert_eq!(stdout(&output), "");
}

#[test]
fn a_manifest_that_cannot_be_used_is_named_with_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let config = tunnel_yaml(dir.path(), "");
    let manifest = dir.path().join("app.yaml");
    fs::write(&manifest, POD.replace("name: app\n", "name: tunnel\n")).unwrap();
    let path = manifest.to_str().unwrap();
    let output = ferry(&["inject", "-f", path, "--config", &config, "--image", "ferry:0.1.0"]);
    assert_eq!((code(&output), stdout(&output)), (78, String::new()));
    let expected = format!("{path}: spec.containers[0].name: a container called `tunnel` is there already");
    assert!(stderr(&output).contains(&expected), "{}", stderr(&output));
    let output = ferry(&["inject", "-f", "nowhere.yaml", "--config", &config, "--image", "ferry:0.1.0"]);
    assert!(code(&output) == 1 && stderr(&output).contains("cannot read nowhere.yaml"), "{output:?}");
}
