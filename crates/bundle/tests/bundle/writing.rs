//! How a bundle gets into a directory, and what a second run keeps.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::{FINE, accepted, label, published_key, rendered, with};
use ferry_bundle::{Keys, render};

#[test]
fn a_second_run_keeps_the_keys_and_says_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let blueprint = accepted(FINE);
    let mut keys = Keys::load(dir.path(), &blueprint).unwrap();
    assert!(keys.of(&label("initiator")).is_none());
    keys.complete(&blueprint).unwrap();
    let public = keys.of(&label("initiator")).unwrap().identity.public_key();
    let first = render(&blueprint, FINE, &keys).unwrap().write(dir.path()).unwrap();
    assert!(first.changed.is_empty() && first.unchanged.is_empty() && first.kept.is_empty());

    let text = with("port: 30200", "port: 30201");
    let blueprint = accepted(&text);
    let mut keys = Keys::load(dir.path(), &blueprint).unwrap();
    keys.complete(&blueprint).unwrap();
    assert_eq!(keys.of(&label("initiator")).unwrap().identity.public_key(), public);
    let second = render(&blueprint, &text, &keys).unwrap().write(dir.path()).unwrap();
    assert!(second.new.is_empty() && second.kept.is_empty());
    let expected = [
        "README.md",
        "blueprint.yaml",
        "deploy-cluster-a.sh",
        "deploy-cluster-b.sh",
        "initiator/05-network-policy.yaml",
        "terminator/04-service.yaml",
    ];
    assert_eq!(second.changed, expected);
    assert!(second.unchanged.contains(&"initiator/02-secrets.yaml".to_owned()));
}

#[test]
fn hooks_that_were_edited_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = rendered(FINE);
    bundle.write(dir.path()).unwrap();
    let hooks = dir.path().join("initiator/app/app.py");
    fs::write(&hooks, "mine").unwrap();
    fs::write(dir.path().join("teardown.sh"), "mine").unwrap();
    let changes = bundle.write(dir.path()).unwrap();
    assert_eq!(changes.kept, ["initiator/app/app.py"]);
    assert_eq!(changes.changed, ["teardown.sh"]);
    assert_eq!(fs::read_to_string(&hooks).unwrap(), "mine");
}

#[test]
fn secrets_that_cannot_be_read_are_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let blueprint = accepted(FINE);
    fs::create_dir_all(dir.path().join("initiator")).unwrap();
    for (text, why) in [
        ("", "no `identity.key` in it"),
        ("apiVersion: v1\nkind: Secret\nstringData: {identity.key: nonsense}\n", "does not hold a private key"),
        ("[1", "restore the file"),
    ] {
        fs::write(dir.path().join("initiator/02-secrets.yaml"), text).unwrap();
        let error = Keys::load(dir.path(), &blueprint).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert!(error.contains("restore the file, or move it away"), "{error}");
    }
}

#[test]
fn keys_are_read_from_a_secret_in_plain_text_too() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("initiator")).unwrap();
    let pem = ferry_config::Identity::generate().unwrap().to_pem();
    let secret = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "stringData": {"identity.key": pem.expose()},
    });
    fs::write(dir.path().join("initiator/02-secrets.yaml"), secret.to_string()).unwrap();
    let keys = Keys::load(dir.path(), &accepted(FINE)).unwrap();
    assert!(keys.of(&label("initiator")).is_some());
}

#[test]
fn keys_that_were_published_are_not_rendered_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("initiator")).unwrap();
    for byte in [1, 2] {
        let pem = published_key(byte);
        let plain = serde_json::json!({"kind": "Secret", "stringData": {"identity.key": pem}});
        let encoded = serde_json::json!({"kind": "Secret", "data": {"identity.key": STANDARD.encode(&pem)}});
        for secret in [plain, encoded] {
            fs::write(dir.path().join("initiator/02-secrets.yaml"), secret.to_string()).unwrap();
            let error = Keys::load(dir.path(), &accepted(FINE)).unwrap_err().to_string();
            assert!(error.contains("is published, so anybody has it; move the file away"), "{error}");
        }
    }
}

#[cfg(unix)]
#[test]
fn secrets_are_closed_to_others_again() {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = tempfile::tempdir().unwrap();
    let bundle = rendered(FINE);
    bundle.write(dir.path()).unwrap();
    let path = dir.path().join("initiator/02-secrets.yaml");
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    bundle.write(dir.path()).unwrap();
    assert_eq!(mode(), 0o600);
}

#[test]
fn an_exposed_pod_gets_a_token_that_stays() {
    let dir = tempfile::tempdir().unwrap();
    let text = with("cluster: cluster-a}\n", "cluster: cluster-a, expose: {namespace: ingress}}\n");
    let blueprint = accepted(&text);
    let token = || {
        let mut keys = Keys::load(dir.path(), &blueprint).unwrap();
        keys.complete(&blueprint).unwrap();
        render(&blueprint, &text, &keys).unwrap().write(dir.path()).unwrap();
        keys.of(&label("initiator")).unwrap().token.as_ref().unwrap().expose().clone()
    };
    let first = token();
    assert_eq!(first.len(), 43);
    assert_eq!(token(), first);
}
