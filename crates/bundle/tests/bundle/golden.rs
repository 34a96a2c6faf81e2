//! The committed bundles are what is rendered. `UPDATE=1` writes them anew.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::support::{FINE, SINGLE, accepted, blueprints, rendered, with, without_keys};
use ferry_bundle::render;

/// A bundle as it is committed: without secrets, and with a place-holder for every public key. `ferry bundle` makes both.
fn golden(name: &str, text: &str) {
    let dir = blueprints().join(name).join("bundle");
    let bundle = rendered(text);
    let committed: BTreeMap<_, _> = bundle
        .files()
        .iter()
        .filter(|(path, _)| !path.ends_with("02-secrets.yaml"))
        .map(|(path, file)| (path.clone(), (without_keys(bundle.text(path).unwrap()), file.mode)))
        .collect();
    if std::env::var_os("UPDATE").is_some() {
        update(&dir, &committed);
    }
    for (path, (text, _)) in &committed {
        let there = fs::read_to_string(dir.join(path)).unwrap_or_default();
        assert!(there == *text, "{name}: {path} is not as committed; if that is meant, run the test with UPDATE=1");
    }
    let mut files = Vec::new();
    list(&dir, "", &mut files);
    let known: Vec<_> = committed.into_keys().collect();
    assert_eq!(files, known, "{name}: files that are not rendered");
}

fn update(dir: &Path, committed: &BTreeMap<String, (String, u32)>) {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
        _ => {}
    }
    for (path, (text, mode)) in committed {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
    }
}

fn list(dir: &Path, prefix: &str, files: &mut Vec<String>) {
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
fn the_readme_gets_at_an_exposed_web_app_with_its_token() {
    let text = with("cluster: cluster-b}\n", "cluster: cluster-b, expose: {namespace: ingress}}\n");
    let readme = rendered(&text).text("README.md").unwrap().to_owned();
    let with_token = "ferry output http://127.0.0.1:8000 --token-file /etc/ferry/token/token\n";
    assert!(readme.contains(with_token), "{readme}");
    // The other one asks for none.
    assert!(readme.contains("--message '{\"hello\": \"ferry\"}'\n"), "{readme}");
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
