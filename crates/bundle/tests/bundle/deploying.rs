//! What deploying again leaves alone, and what it refuses before it touches a cluster.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::stage::{INITIATOR_NS, Stage, TERMINATOR_NS};
use crate::support::{FINE, blueprints, published_key, rendered};

const A: &str = "deploy-cluster-a.sh";
const B: &str = "deploy-cluster-b.sh";
const VARIABLE: &str = "FERRY_TERMINATOR_ADDRESS";

#[test]
fn a_given_address_outlives_every_later_run_until_it_is_forgotten() {
    let stage = Stage::without_address();
    stage.fake("address", "203.0.113.7 \n").fake(&format!("namespace.{INITIATOR_NS}"), "");
    stage.run_with(A, &[], &[(VARIABLE, "b.example.com")]).fine();
    assert_eq!(stage.told().as_deref(), Some("b.example.com:30200"));
    // By the cluster's own record, also from a bundle that was never there before.
    fs::remove_dir_all(stage.path("bundle/.addresses")).unwrap();
    stage.run(A, &[]).fine().says("address of terminator given earlier; FERRY_TERMINATOR_ADDRESS=auto forgets it");
    stage.run(B, &[]).fine().says("initiator: goes on dialling terminator where it was told to by hand");
    stage.run(B, &["--addresses"]).fine();
    assert_eq!(stage.told().as_deref(), Some("b.example.com:30200"));

    stage.run_with(A, &[], &[(VARIABLE, "auto")]).fine().says("discovered by k3d-cluster-b");
    assert_eq!(stage.told().as_deref(), Some("203.0.113.7:30200"));
    stage.fake("address", "203.0.113.8 \n").run(B, &[]).fine();
    assert_eq!(stage.told().as_deref(), Some("203.0.113.8:30200"));
}

#[test]
fn a_given_address_outlives_the_cluster_that_it_was_given_to() {
    let stage = Stage::without_address();
    stage.fake("address", "203.0.113.7 \n");
    stage.run_with(A, &[], &[(VARIABLE, "b.example.com")]).fine();
    for file in ["", ".from"] {
        fs::remove_file(stage.path(&format!("fake/configmap.{INITIATOR_NS}{file}"))).unwrap();
    }
    stage.run(A, &[]).fine().says("given earlier");
    assert_eq!(stage.told().as_deref(), Some("b.example.com:30200"));
}

#[test]
fn passing_an_address_on_applies_nothing() {
    let stage = Stage::without_address();
    stage.fake("address", "203.0.113.7 \n").fake(&format!("namespace.{INITIATOR_NS}"), "");
    let ran = stage.run(B, &["--addresses"]).fine();
    assert_eq!(stage.told().as_deref(), Some("203.0.113.7:30200"));
    assert!(!ran.called("apply --kustomize") && !ran.called("rollout"), "{:?}", ran.calls);
}

#[test]
fn an_overlay_is_what_is_applied() {
    let stage = Stage::new(FINE);
    fs::create_dir_all(stage.path("bundle/overlays/initiator")).unwrap();
    let ran = stage.run(A, &[]).fine();
    ran.says("initiator: applying overlays/initiator to cluster-a");
    assert!(ran.called("apply --kustomize overlays/initiator"));
    assert!(!ran.called("apply --kustomize initiator"));
}

#[test]
fn a_tunnel_yaml_that_something_else_has_changed_is_not_undone() {
    let stage = Stage::new(FINE);
    let ours = "name: ours\n";
    let sha256_of_ours = "d7bbcd55840ed6edd5e0c7305b786ec5ab712ba4cd652d3ecb3bc48b06e7d12a";
    stage.fake(&format!("digest.{INITIATOR_NS}"), sha256_of_ours);
    stage.fake(&format!("config.{INITIATOR_NS}"), "name: somebody-else-s\n");
    let ran = stage.run(A, &[]);
    assert_eq!(ran.code, 1, "{}", ran.out);
    ran.says("error: the tunnel.yaml of initiator in the cluster is not as this bundle rendered it");
    ran.says("overlays/initiator").says("--overwrite");
    assert!(!ran.called("apply"), "{:?}", ran.calls);
    stage.run(A, &["--overwrite"]).fine();
    // As it was rendered, it is ours to replace.
    stage.fake(&format!("config.{INITIATOR_NS}"), ours);
    stage.run(A, &[]).fine();
}

#[test]
fn the_digest_beside_a_tunnel_yaml_is_that_of_its_text() {
    let bundle = rendered(FINE);
    let stage = Stage::new(FINE);
    for (pod, namespace, script) in [("initiator", INITIATOR_NS, A), ("terminator", TERMINATOR_NS, B)] {
        let config: k8s_openapi::api::core::v1::ConfigMap =
            crate::support::object(&bundle, &format!("{pod}/03-deployment.yaml"));
        stage.fake(&format!("digest.{namespace}"), &config.metadata.annotations.unwrap()["ferry-rendered"]);
        stage.fake(&format!("config.{namespace}"), &config.data.unwrap()["tunnel.yaml"]);
        stage.fake("address", "203.0.113.7 \n").run(script, &[]).fine();
    }
}

#[test]
fn hooks_that_the_pod_cannot_load_are_not_applied() {
    let stage = Stage::new(FINE);
    fs::write(stage.path("bundle/initiator/app/app.py"), "def broken(\n").unwrap();
    stage
        .fake("code", "78")
        .fake("said", "error: app.py:1: '(' was never closed\ncommand terminated with exit code 78\n");
    let ran = stage.run(A, &[]);
    assert_eq!(ran.code, 1);
    ran.says("error: initiator cannot load initiator/app/app.py").says("app.py:1: '(' was never closed");
    assert!(!ran.called("apply"), "{:?}", ran.calls);
    assert_eq!(stage.read("fake/stdin").as_deref(), Some("def broken(\n"));
    // That there is no pod to ask yet says nothing of the hooks.
    stage.fake("code", "1").run(A, &[]).fine();
}

#[test]
fn changed_hooks_reach_the_pod_that_runs_at_once() {
    let stage = Stage::new(FINE);
    stage.fake("applied", "configmap/hooks configured\ndeployment.apps/initiator unchanged\n");
    let ran = stage.run(A, &[]).fine();
    let after = ran.calls.iter().skip_while(|call| !call.contains("--kustomize"));
    assert!(after.clone().any(|call| call.contains("annotate pods")), "{:?}", ran.calls);
    stage.fake("applied", "configmap/hooks unchanged\n");
    let ran = stage.run(A, &[]).fine();
    assert!(!ran.called("annotate pods"), "{:?}", ran.calls);
}

#[test]
fn an_image_that_is_not_there_ends_the_wait_at_once() {
    for reason in ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"] {
        let stage = Stage::new(FINE);
        stage.fake("hangs", "").fake("pods", &format!("tunnel false {reason}\nweb-app false PodInitializing\n"));
        let ran = stage.run(A, &[]);
        assert_eq!(ran.code, 1);
        ran.says(&format!("error: the cluster does not find the image of initiator: tunnel ({reason})"));
        ran.says("./build-images.sh");
    }
}

#[test]
fn a_dry_run_needs_no_cluster() {
    let stage = Stage::new(FINE);
    stage.fake("contexts", "");
    for script in [A, B, "teardown.sh"] {
        stage.run(script, &["--dry-run"]).fine().says("+ kubectl --context k3d-cluster-");
    }
    stage.fake("contexts", "k3d-cluster-a\nk3d-cluster-b\n").fake("refuse", "99");
    stage.run(A, &["--dry-run"]).fine().says("warning: no cluster answers behind k3d-cluster-a");
}

#[test]
fn keys_that_were_published_are_never_deployed() {
    let stage = Stage::new(FINE);
    let secrets = stage.path("bundle/initiator/02-secrets.yaml");
    let fine = fs::read_to_string(&secrets).unwrap();
    for byte in [1, 2] {
        let pem = published_key(byte);
        let indented = pem.replace('\n', "\n    ");
        for text in [
            format!("stringData:\n  identity.key: |\n    {indented}"),
            format!("data:\n  identity.key: {}\n", STANDARD.encode(&pem)),
        ] {
            fs::write(&secrets, text).unwrap();
            let ran = stage.run(A, &[]);
            assert_eq!(ran.code, 1, "{}", ran.out);
            ran.says("error: the keys of initiator are published, so anybody has them");
            assert!(!ran.called("apply"), "{:?}", ran.calls);
        }
    }
    fs::write(&secrets, fine).unwrap();
    let deployment = stage.path("bundle/initiator/03-deployment.yaml");
    let text = fs::read_to_string(&deployment).unwrap();
    let peer = text.find("ferry:pub:").unwrap();
    let published = "ferry:pub:iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w";
    fs::write(&deployment, [&text[..peer], published, &text[peer + published.len()..]].concat()).unwrap();
    assert_eq!(stage.run(A, &[]).code, 1);
}

#[test]
fn a_committed_bundle_makes_keys_of_its_own_before_it_is_deployed() {
    let stage = Stage::new(FINE);
    fs::remove_dir_all(stage.path("bundle")).unwrap();
    copy(&blueprints().join("fast-international-ferry/bundle"), &stage.path("bundle"));
    // Without a ferry at hand it says what to do.
    let path = format!("{}:/usr/bin:/bin", stage.path("bin").display());
    let ran = stage.run_with(A, &[], &[("PATH", &path)]);
    assert_eq!(ran.code, 1, "{}", ran.out);
    ran.says("error: this bundle has no keys yet").says("ferry bundle blueprint.yaml --out .");
    assert!(!ran.called("apply"));
    let dry = stage.run_with(A, &["--dry-run"], &[("PATH", &path)]).fine();
    dry.says("+ ferry bundle blueprint.yaml --out .")
        .says("+ kubectl --context k3d-cluster-a apply --kustomize initiator");

    let ferry = stage.path("bin/ferry");
    let keys = stage.path("keys");
    rendered(FINE).write(&keys).unwrap();
    fs::write(&ferry, format!("#!/bin/sh\necho ferry \"$@\"\ncp -R '{}/.' .\n", keys.display())).unwrap();
    fs::set_permissions(&ferry, fs::Permissions::from_mode(0o755)).unwrap();
    let ran = stage.run_with(A, &[], &[("PATH", &path)]).fine();
    ran.says("ferry bundle blueprint.yaml --out .");
    assert!(ran.called("apply --kustomize initiator"));
    // Keys that are lost are not replaced in silence: the far end lists the former ones.
    fs::remove_file(stage.path("bundle/initiator/02-secrets.yaml")).unwrap();
    let ran = stage.run_with(A, &[], &[("PATH", &path)]);
    assert_eq!(ran.code, 1);
    ran.says("error: initiator/02-secrets.yaml is missing").says("restore it");
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}
