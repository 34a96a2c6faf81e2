//! The committed bundles are what is rendered. `UPDATE=1` writes them anew.

use std::fs;

use ferry_bundle::render;

use crate::support::{FINE, SINGLE, accepted, blueprints, rendered};

fn golden(name: &str, text: &str) {
    let dir = blueprints().join(name).join("bundle");
    let bundle = rendered(text);
    if std::env::var_os("UPDATE").is_some() {
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
        bundle.write(&dir).unwrap();
    }
    let changes = bundle.compare(&dir).unwrap();
    let differ: Vec<_> = [changes.new, changes.changed, changes.kept].concat();
    assert!(differ.is_empty(), "{name}: not as committed: {differ:?}; if that is meant, run the test with UPDATE=1");
    let mut files = Vec::new();
    list(&dir, "", &mut files);
    let known: Vec<_> = bundle.files().keys().cloned().collect();
    assert_eq!(files, known, "{name}: files that are not rendered");
}

fn list(dir: &std::path::Path, prefix: &str, files: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        match entry.file_type().unwrap().is_dir() {
            true => list(&entry.path(), &format!("{name}/"), files),
            false => files.push(name),
        }
    }
    files.sort();
}

#[test]
fn the_committed_fast_international_ferry_is_what_is_rendered() {
    golden("fast-international-ferry", FINE);
}

#[test]
fn the_committed_fast_ferry_is_what_is_rendered() {
    golden("fast-ferry", SINGLE);
}

#[test]
fn the_same_blueprint_and_keys_give_the_same_bytes() {
    assert_eq!(rendered(FINE), rendered(FINE));
}

#[test]
fn the_layout_is_the_one_that_is_promised() {
    let pod = [
        "01-namespace.yaml",
        "02-secrets.yaml",
        "03-deployment.yaml",
        "04-service.yaml",
        "05-network-policy.yaml",
        "app/Dockerfile",
        "app/app.py",
        "app/requirements.txt",
        "kustomization.yaml",
    ];
    let common =
        [".gitignore", "LICENSE", "README.md", "blueprint.yaml", "build-images.sh", "teardown.sh"].map(String::from);
    let pods = ["initiator", "terminator"].iter().flat_map(|id| pod.map(|file| format!("{id}/{file}")));
    let mut expected: Vec<_> = common.into_iter().chain(pods).collect();
    let mut multi = expected.clone();
    multi.extend(["deploy-cluster-a.sh".into(), "deploy-cluster-b.sh".into()]);
    expected.push("deploy.sh".into());
    for (text, mut expected) in [(FINE, multi), (SINGLE, expected)] {
        expected.sort();
        let files: Vec<_> = rendered(text).files().keys().cloned().collect();
        assert_eq!(files, expected);
    }
}

#[test]
fn no_text_has_an_unfilled_place() {
    for text in [FINE, SINGLE] {
        let bundle = rendered(text);
        for path in bundle.files().keys() {
            let text = bundle.text(path).unwrap();
            assert!(!text.contains("{{"), "{path} has a place that was not filled");
            assert!(!text.contains("!!"), "{path} has something that could not be written");
        }
    }
}

#[test]
fn secrets_are_for_their_owner_and_scripts_run() {
    let bundle = rendered(FINE);
    for (path, file) in bundle.files() {
        let expected = match path {
            _ if path.ends_with("02-secrets.yaml") => 0o600,
            _ if path.ends_with(".sh") => 0o755,
            _ => 0o644,
        };
        assert_eq!(file.mode, expected, "{path}");
    }
}

#[test]
fn the_readme_has_the_command_that_users_know() {
    let bundle = rendered(FINE);
    let command = "\nkubectl logs -n fast-international-ferry-initiator-ns deployment/initiator -c web-app -f\n";
    assert!(bundle.text("README.md").unwrap().contains(command));
}

#[test]
fn a_pod_without_keys_is_not_rendered() {
    let blueprint = accepted(FINE);
    let error = render(&blueprint, FINE, &ferry_bundle::Keys::default()).unwrap_err();
    assert_eq!(error.to_string(), "pod `initiator` lacks keys");
}

#[test]
fn the_starter_is_a_blueprint() {
    accepted(ferry_bundle::STARTER);
}
