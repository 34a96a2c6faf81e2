//! `ferry upgrade`, with a script in the place of kubectl and of the clusters behind it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::kubectl::with_kubectl;
use crate::support::{code, ferry, stderr, stdout};

const BLUEPRINT: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../blueprints/fast-international-ferry/blueprint.yaml");
const INITIATOR: &str = "fast-international-ferry-initiator-ns";
const TERMINATOR: &str = "fast-international-ferry-terminator-ns";
const NEW: &str = "registry.example.com/ferry:2";

struct Clusters(TempDir);

impl Clusters {
    fn new() -> Self {
        let clusters = Self(tempfile::tempdir().unwrap());
        let out = clusters.path("bundle");
        let made = ferry(&["bundle", BLUEPRINT, "--out", out.to_str().unwrap()]);
        assert_eq!(code(&made), 0, "{}", stderr(&made));
        let kubectl = clusters.path("kubectl");
        fs::write(&kubectl, include_str!("fake_cluster.py")).unwrap();
        fs::set_permissions(kubectl, Permissions::from_mode(0o755)).unwrap();
        let site = |name: &str| {
            json!({
                "name": name, "image": "app:1", "runs": "app:1", "template": "app:1", "set": "app:1", "id": 1, "looks": 0,
                "waits": "", "keeper": "up", "leaves": true, "paused": false, "replaced": false, "generation": 1, "seen": 1,
                "sessions": 3, "adopted": 0, "lost": 0, "gone": false, "dies": false, "dies_later": false,
                "forbids": false, "silent": false, "stubborn": false,
            })
        };
        let namespaces = json!({INITIATOR: site("initiator"), TERMINATOR: site("terminator")});
        clusters.write(&json!({"contexts": ["k3d-cluster-a", "k3d-cluster-b"], "namespaces": namespaces}));
        clusters
    }

    /// With something else at the initiator.
    fn with(self, key: &str, value: impl Into<Value>) -> Self {
        let mut cluster = self.read();
        assert!(cluster["namespaces"][INITIATOR].get(key).is_some(), "{key}");
        cluster["namespaces"][INITIATOR][key] = value.into();
        self.write(&cluster);
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.path("cluster.json")).unwrap()).unwrap()
    }

    fn write(&self, cluster: &Value) {
        fs::write(self.path("cluster.json"), cluster.to_string()).unwrap();
    }

    fn site(&self, namespace: &str) -> Value {
        self.read()["namespaces"][namespace].clone()
    }

    fn upgrade(&self, image: &str, more: &[&str]) -> Output {
        let bundle = self.path("bundle");
        let mut command = with_kubectl(self.0.path(), &["upgrade", bundle.to_str().unwrap(), "--image", image]);
        command.args(more).env("FAKE", self.0.path()).output().unwrap()
    }

    /// Fails, and says this.
    fn refuses(&self, image: &str, more: &[&str], said: &str) {
        let ran = self.upgrade(image, more);
        assert_eq!(code(&ran), 1, "{}{}", stdout(&ran), stderr(&ran));
        assert!(stderr(&ran).contains(said), "{}", stderr(&ran));
        assert_eq!(self.site(INITIATOR)["replaced"], false, "the pod was replaced");
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.path("calls")).unwrap_or_default()
    }

    fn overlay(&self) -> PathBuf {
        self.path("bundle/overlays/initiator/kustomization.yaml")
    }

    /// Nothing of the initiator was changed.
    fn is_untouched(&self) -> bool {
        !self.calls().contains("patch") && !self.overlay().exists()
    }
}

#[test]
fn every_tunnel_gets_the_image_in_the_pod_that_runs_and_the_next_pod_will_have_it() {
    let clusters = Clusters::new();
    let ran = clusters.upgrade(NEW, &[]);
    assert_eq!(code(&ran), 0, "{}", stderr(&ran));
    let lines = format!("✓ initiator (cluster-a) runs {NEW}\n✓ terminator (cluster-b) runs {NEW}\n");
    assert_eq!(stdout(&ran), lines);
    assert!(stderr(&ran).contains(&format!("ferry app:1 → {NEW}: 3 sessions continued")), "{}", stderr(&ran));
    for namespace in [INITIATOR, TERMINATOR] {
        let site = clusters.site(namespace);
        assert_eq!([&site["runs"], &site["template"], &site["set"]], [NEW; 3].map(|image| json!(image)).each_ref());
        assert_eq!((&site["paused"], &site["replaced"]), (&json!(false), &json!(false)), "{site}");
    }
    let patch = format!(r#"{{"spec":{{"initContainers":[{{"name":"tunnel","image":"{NEW}"}}]}}}}"#);
    let call = format!(
        "--context k3d-cluster-a --namespace {INITIATOR} --request-timeout 10s patch pod initiator-5d-x --type strategic \
         --patch {patch}\n"
    );
    assert!(clusters.calls().contains(&call), "{}", clusters.calls());
    // One after the other.
    let calls = clusters.calls();
    let patches: Vec<_> =
        calls.lines().filter(|call| call.contains(" patch ")).map(|call| call.contains(INITIATOR)).collect();
    assert_eq!(patches, [true, true, true, true, false, false, false, false]);
    let overlay = fs::read_to_string(clusters.overlay()).unwrap();
    assert!(overlay.contains("resources: [../../initiator]\n") && overlay.contains(NEW), "{overlay}");
    // Once more is nothing more.
    let before = clusters.calls().matches("patch").count();
    let ran = clusters.upgrade(NEW, &[]);
    assert_eq!((code(&ran), clusters.calls().matches("patch").count()), (0, before), "{}", stderr(&ran));
    assert!(stderr(&ran).contains("initiator-5d-x runs it already"), "{}", stderr(&ran));
}

#[test]
fn the_image_of_the_bundle_itself_needs_no_overlay() {
    let clusters = Clusters::new();
    assert_eq!(code(&clusters.upgrade(NEW, &["--only", "initiator"])), 0);
    assert!(clusters.overlay().exists());
    assert_eq!(clusters.site(TERMINATOR)["runs"], "app:1", "the other one is left alone");
    let own = "fast-international-ferry-initiator:dev";
    let ran = clusters.upgrade(own, &["--only", "initiator"]);
    assert_eq!((code(&ran), clusters.site(INITIATOR)["runs"].as_str()), (0, Some(own)), "{}", stderr(&ran));
    assert!(!clusters.overlay().exists());
}

#[test]
fn an_overlay_of_the_users_is_left_to_the_user() {
    let clusters = Clusters::new();
    fs::create_dir_all(clusters.overlay().parent().unwrap()).unwrap();
    fs::write(clusters.overlay(), "resources: [../../initiator]\n").unwrap();
    let ran = clusters.upgrade(NEW, &["--only", "initiator"]);
    assert_eq!(code(&ran), 0, "{}", stderr(&ran));
    let said = stderr(&ran);
    assert!(said.contains("the next deployment puts fast-international-ferry-initiator:dev back"), "{said}");
    assert!(
        said.contains(&format!(r#""path":"/spec/template/spec/initContainers/1/image","value":"{NEW}""#)),
        "{said}"
    );
    assert_eq!(fs::read_to_string(clusters.overlay()).unwrap(), "resources: [../../initiator]\n");
}

#[test]
fn an_image_that_does_not_come_up_is_given_up_and_the_one_before_put_back() {
    for (image, wait, why) in [
        ("ferry:missing", "60s", "ImagePullBackOff: so it is"),
        ("ferry:crashes", "60s", "CrashLoopBackOff: so it is"),
        // However little of it is seen within a second.
        ("ferry:slow", "1s", "not within 1s: "),
    ] {
        let clusters = Clusters::new();
        let said = format!("initiator (cluster-a): 0 of 2 pods have the image: {image} does not serve: {why}");
        clusters.refuses(image, &["--wait", wait], &said);
        clusters.refuses(image, &["--wait", wait], "; app:1 was put back; 3 sessions continued\n");
        let site = clusters.site(INITIATOR);
        assert_eq!([&site["image"], &site["runs"], &site["template"]], [&json!("app:1"); 3]);
        assert!(!clusters.calls().contains("patch deployment"), "{}", clusters.calls());
        assert_eq!(clusters.site(TERMINATOR)["image"], "app:1", "the next pod was not touched");
    }
}

#[test]
fn a_pod_whose_sessions_would_be_lost_is_refused_before_any_is_touched() {
    for (key, value, said) in [
        ("keeper", json!("none"), "it has no keeper, so all sessions that are open would be lost (3 now)"),
        ("keeper", json!("down"), "its keeper does not run, so all sessions that are open would be lost (3 now)"),
        ("leaves", json!(false), "sessions that are still open after `drain` would be lost (3 now)"),
    ] {
        let clusters = Clusters::new().with(key, value);
        clusters.refuses(
            NEW,
            &[],
            &format!(
                "nothing was changed:\n  initiator (cluster-a): {}",
                said.split(", so").next().unwrap_or(said).split("sessions that").next().unwrap()
            ),
        );
        clusters.refuses(NEW, &[], said);
        assert!(clusters.is_untouched(), "{}", clusters.calls());
        let ran = clusters.upgrade(NEW, &["--lose-sessions", "--only", "initiator"]);
        assert_eq!((code(&ran), clusters.site(INITIATOR)["runs"].as_str()), (0, Some(NEW)), "{}", stderr(&ran));
    }
}

#[test]
fn what_cannot_be_upgraded_is_refused_before_any_is_touched() {
    for (key, value, said) in [
        ("gone", json!(true), "no pod of it runs in fast-international-ferry-initiator-ns; `ferry deploy` starts one"),
        ("paused", json!(true), "somebody has paused its Deployment; `kubectl rollout resume` lets it continue"),
        ("set", json!("app:0"), "its Deployment is replacing pods; wait until it has done that"),
    ] {
        let clusters = Clusters::new().with(key, value);
        clusters.refuses(NEW, &[], said);
        assert!(clusters.is_untouched(), "{}", clusters.calls());
    }
    let clusters = Clusters::new();
    let mut cluster = clusters.read();
    cluster["contexts"] = json!(["k3d-cluster-b"]);
    clusters.write(&cluster);
    clusters.refuses(
        NEW,
        &[],
        "initiator (cluster-a): kubectl has no context k3d-cluster-a; write the right one under clusters",
    );
    assert!(clusters.is_untouched());
    for (image, more, said) in [
        ("a b", &[][..], "cannot be the name of an image"),
        (NEW, &["--only", "x"], "has no pod \"x\"; it has initiator, terminator"),
    ] {
        let ran = clusters.upgrade(image, more);
        assert!(code(&ran) == 2 && stderr(&ran).contains(said), "{}", stderr(&ran));
    }
}

#[test]
fn a_pod_that_goes_meanwhile_is_named() {
    for key in ["dies", "dies_later"] {
        let clusters = Clusters::new().with(key, true);
        let said = "the pod initiator-5d-x is gone: something else has replaced it, and its sessions ended with it";
        clusters.refuses(NEW, &[], said);
        assert!(!clusters.calls().contains("patch deployment"), "{}", clusters.calls());
    }
    let clusters = Clusters::new().with("forbids", true);
    clusters.refuses(NEW, &[], "its pod cannot be changed: kubectl: Error from server (Forbidden): you may not");
}

#[test]
fn sessions_that_were_not_continued_fail_the_upgrade_there() {
    let clusters = Clusters::new().with("lost", 2);
    clusters.refuses(NEW, &[], "2 sessions could not be continued, and were reset");
    let clusters = Clusters::new().with("lost", 3);
    clusters.refuses(NEW, &[], "none of 3 sessions was continued: the new tunnel has found nothing in its keeper");
    // One that cannot be asked may be in order.
    let clusters = Clusters::new().with("silent", true);
    let ran = clusters.upgrade(NEW, &[]);
    assert_eq!(code(&ran), 0, "{}", stderr(&ran));
    assert!(
        stderr(&ran).contains("it serves, but cannot be asked for its sessions: kubectl cannot forward"),
        "{}",
        stderr(&ran)
    );
}

#[test]
fn a_deployment_that_would_replace_the_pod_is_put_back_as_it_was() {
    let clusters = Clusters::new().with("stubborn", true).with("image", NEW).with("runs", NEW);
    clusters.refuses(NEW, &["--wait", "1s"], "the pod has the image, but the next one will not");
    let site = clusters.site(INITIATOR);
    assert_eq!(
        [&site["runs"], &site["template"], &site["set"]],
        [NEW, "app:1", "app:1"].map(|image| json!(image)).each_ref()
    );
    assert_eq!(site["paused"], false);
}

#[test]
fn an_upgrade_that_was_interrupted_while_its_deployment_was_paused_is_continued() {
    let clusters = Clusters::new().with("paused", true).with("template", NEW).with("image", NEW).with("runs", NEW);
    let ran = clusters.upgrade(NEW, &[]);
    assert_eq!(code(&ran), 0, "{}", stderr(&ran));
    let site = clusters.site(INITIATOR);
    assert_eq!((&site["paused"], &site["set"], &site["replaced"]), (&json!(false), &json!(NEW), &json!(false)));
}

#[test]
fn a_dry_run_shows_the_commands_and_changes_nothing() {
    let clusters = Clusters::new();
    let ran = clusters.upgrade(NEW, &["--dry-run", "--only", "initiator"]);
    assert_eq!(code(&ran), 0, "{}", stderr(&ran));
    let which = format!("+ kubectl --context k3d-cluster-a --namespace {INITIATOR} --request-timeout 10s");
    let pod = format!(
        r#"{which} patch pod initiator-5d-x --type strategic --patch '{{"spec":{{"initContainers":[{{"name":"tunnel","image":"{NEW}"}}]}}}}'"#
    );
    assert!(stdout(&ran).starts_with(&pod), "{}", stdout(&ran));
    assert!(stdout(&ran).contains(&format!("{which} patch replicaset initiator-5d --type")), "{}", stdout(&ran));
    assert!(clusters.is_untouched());
    // Without a cluster, too.
    let mut cluster = clusters.read();
    cluster["contexts"] = json!([]);
    clusters.write(&cluster);
    let ran = clusters.upgrade(NEW, &["--dry-run", "--only", "initiator"]);
    assert_eq!(code(&ran), 0, "{}", stderr(&ran));
    assert!(stdout(&ran).starts_with(&pod.replace("initiator-5d-x", "POD")), "{}", stdout(&ran));
}
