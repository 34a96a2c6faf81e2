//! The scripts of a bundle, run against a stand-in for kubectl that records what it is asked.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::stage::{INITIATOR_NS, Ran, Stage, TERMINATOR_NS};
use crate::support::{FINE, SINGLE};

#[test]
fn b_then_a_with_the_address_of_the_blueprint() {
    let stage = Stage::new(FINE);
    stage.fake("address", "172.18.0.3 \n");
    let b = stage.run("deploy-cluster-b.sh", &[]).fine();
    b.says("terminator: reached at 172.18.0.3:30200, recorded in .addresses/terminator");
    b.says("kubectl logs --context k3d-cluster-b -n fast-international-ferry-terminator-ns deployment/terminator");
    let a = stage.run("deploy-cluster-a.sh", &[]).fine();
    a.says("initiator: address of terminator from the blueprint");
    a.says("kubectl logs --context k3d-cluster-a -n fast-international-ferry-initiator-ns deployment/initiator");
    assert_eq!(stage.told().as_deref(), Some("host.k3d.internal:30200"));
    // The address before the pod, the pod before the wait.
    let at = |words: &str| a.calls.iter().position(|call| call.contains(words)).unwrap_or_else(|| panic!("{words}"));
    assert!(at("01-namespace.yaml") < at("apply --filename -"));
    assert!(at("apply --filename -") < at("apply --kustomize initiator"));
    assert!(at("apply --kustomize initiator") < at("rollout status deployment/initiator"));
}

#[test]
fn nothing_is_asked_of_the_current_context() {
    let stage = Stage::new(FINE);
    stage.fake("address", "172.18.0.3 \n").fake(&format!("namespace.{INITIATOR_NS}"), "");
    for script in ["deploy-cluster-b.sh", "deploy-cluster-a.sh"] {
        let offline = "config get-contexts";
        for call in stage.run(script, &[]).fine().calls {
            let expected = format!("--context k3d-{}", script.trim_start_matches("deploy-").trim_end_matches(".sh"));
            assert!(call.starts_with(&expected) || call.starts_with(offline), "{call}");
        }
    }
}

#[test]
fn the_address_may_be_late() {
    let stage = Stage::without_address();
    stage.fake("late", "3").fake("address", "203.0.113.7 \n");
    let b = stage.run("deploy-cluster-b.sh", &[]).fine();
    b.says("waiting for the address of its load balancer, ").says(" s of 300 s");
    assert_eq!(stage.read("bundle/.addresses/terminator").as_deref(), Some("203.0.113.7:30200\n"));
}

#[test]
fn the_address_may_be_a_host_name_or_several() {
    let stage = Stage::without_address();
    stage.fake("address", " b.elb.example.com\n2001:db8::7 \n203.0.113.7 x\n");
    stage.run("deploy-cluster-b.sh", &[]).fine();
    stage.run("deploy-cluster-a.sh", &[]).fine().says("address of terminator discovered by k3d-cluster-b");
    assert_eq!(stage.told().as_deref(), Some("b.elb.example.com:30200\n[2001:db8::7]:30200\n203.0.113.7:30200"));
}

#[test]
fn an_address_that_never_comes_is_reported_with_the_next_step() {
    let stage = Stage::without_address();
    let b = stage.run_with("deploy-cluster-b.sh", &[], &[("FERRY_WAIT", "0")]);
    assert_eq!(b.code, 1);
    b.says("error: the load balancer of terminator got no address within 0 s");
    b.says("kubectl --context k3d-cluster-b --namespace fast-international-ferry-terminator-ns describe service");
    assert_eq!(stage.read("bundle/.addresses/terminator"), None);
}

#[test]
fn a_first_waits_and_b_then_tells_it() {
    let stage = Stage::without_address();
    let a = stage.run("deploy-cluster-a.sh", &[]).fine();
    a.says("initiator runs and waits for the address of terminator");
    a.says("FERRY_TERMINATOR_ADDRESS=HOST:30200");
    assert!(a.called("rollout status deployment/initiator"));
    assert_eq!(stage.told(), None);
    stage.fake("address", "203.0.113.7 \n").fake(&format!("namespace.{INITIATOR_NS}"), "");
    stage.run("deploy-cluster-b.sh", &[]).fine().says("initiator: dials terminator at 203.0.113.7:30200");
    assert_eq!(stage.told().as_deref(), Some("203.0.113.7:30200"));
    assert_eq!(stage.read("fake/told").as_deref(), Some("k3d-cluster-a\n"));
}

#[test]
fn b_first_says_what_is_next() {
    let stage = Stage::without_address();
    stage.fake("address", "203.0.113.7 \n");
    stage.run("deploy-cluster-b.sh", &[]).fine().says("initiator: not there yet; next: ./deploy-cluster-a.sh");
}

#[test]
fn a_second_run_changes_nothing_and_a_moved_address_only_the_config_map() {
    let stage = Stage::without_address();
    stage.fake("address", "203.0.113.7 \n");
    stage.run("deploy-cluster-b.sh", &[]).fine();
    stage.run("deploy-cluster-a.sh", &[]).fine();
    let again = stage.run("deploy-cluster-a.sh", &[]).fine();
    again.says("initiator: already dials terminator at 203.0.113.7:30200");
    assert!(!again.called("create configmap") && !again.called("annotate"));
    stage.fake("address", "203.0.113.8 \n");
    let moved = stage.run("deploy-cluster-a.sh", &[]).fine();
    assert_eq!(stage.told().as_deref(), Some("203.0.113.8:30200"));
    assert!(moved.called("annotate pods --overwrite --selector app.kubernetes.io/name=initiator"));
    assert!(!moved.called("restart"));
}

#[test]
fn a_given_address_comes_first_and_a_recorded_one_last() {
    let stage = Stage::new(FINE);
    let given = [("FERRY_TERMINATOR_ADDRESS", "b.example.com, 203.0.113.9:443")];
    let a = stage.run_with("deploy-cluster-a.sh", &[], &given).fine();
    a.says("address of terminator given by FERRY_TERMINATOR_ADDRESS");
    a.says("warning: the network policy of initiator lets only port 30200 out");
    assert_eq!(stage.told().as_deref(), Some("b.example.com:30200\n203.0.113.9:443"));

    // Cluster B is known to whoever deployed it; here there is only what they recorded.
    let stage = Stage::without_address();
    stage.fake("contexts", "k3d-cluster-a\n");
    fs::create_dir(stage.path("bundle/.addresses")).unwrap();
    fs::write(stage.path("bundle/.addresses/terminator"), "203.0.113.7:30200\n").unwrap();
    stage.run("deploy-cluster-a.sh", &[]).fine().says("recorded in .addresses/terminator");
    assert_eq!(stage.told().as_deref(), Some("203.0.113.7:30200"));
}

#[test]
fn a_wrong_context_is_named_beside_those_that_there_are() {
    let stage = Stage::new(FINE);
    stage.fake("contexts", "kind-a\nproduction\n");
    for (script, context) in [("deploy-cluster-a.sh", "k3d-cluster-a"), ("teardown.sh", "k3d-cluster-a")] {
        let ran = stage.run(script, &["--dry-run"]);
        assert_eq!(ran.code, 1);
        ran.says(&format!("error: kubectl has no context {context}")).says("it has: kind-a production");
        assert!(!ran.called("apply") && !ran.called("delete"));
    }
}

#[test]
fn a_cluster_that_does_not_answer_is_reported_and_a_short_refusal_is_not() {
    let stage = Stage::new(FINE);
    stage.fake("refuse", "99");
    let ran = stage.run("deploy-cluster-a.sh", &[]);
    assert_eq!(ran.code, 1);
    ran.says("error: the cluster behind context k3d-cluster-a does not answer");
    stage.fake("refuse", "2").fake("refuse_apply", "2");
    stage.run("deploy-cluster-a.sh", &[]).fine();
}

#[test]
fn a_roll_out_that_is_stuck_says_where_to_look() {
    let stage = Stage::new(FINE);
    stage.fake("stuck", "1");
    stage.fake("pods", "tunnel true \nweb-app false CrashLoopBackOff\n");
    stage.fake("logs.web-app", "error: the hooks cannot be loaded: app.py:3: NameError\n");
    let ran = stage.run("deploy-cluster-a.sh", &[]);
    assert_eq!(ran.code, 1);
    ran.says("error: initiator did not come up within 300 s").says("describe pods").says("./build-images.sh");
    ran.says("  web-app (CrashLoopBackOff): error: the hooks cannot be loaded: app.py:3: NameError");
    assert!(!ran.called("--container tunnel --tail"), "the tunnel is ready, and not to blame");
}

#[test]
fn a_dry_run_shows_and_changes_nothing() {
    let stage = Stage::without_address();
    stage.fake("address", "203.0.113.7 \n");
    for script in ["deploy-cluster-a.sh", "deploy-cluster-b.sh", "teardown.sh"] {
        let ran = stage.run(script, &["--dry-run"]).fine();
        ran.says("+ kubectl --context k3d-cluster-");
        let verbs = ["apply", "create", "annotate", "delete", "rollout"];
        assert!(!verbs.iter().any(|verb| ran.called(verb)), "{:?}", ran.calls);
    }
    assert_eq!((stage.told(), stage.read("bundle/.addresses/terminator")), (None, None));
}

#[test]
fn one_cluster_takes_one_script() {
    let stage = Stage::new(SINGLE);
    let ran = stage.run("deploy.sh", &[]).fine();
    let at = |words: &str| ran.calls.iter().position(|call| call.contains(words)).unwrap_or_else(|| panic!("{words}"));
    assert!(at("apply --kustomize terminator") < at("apply --kustomize initiator"));
    assert!(!ran.called("get service") && !ran.called("configmap"));
}

#[test]
fn teardown_asks_first_and_says_what_it_removed() {
    let stage = Stage::new(FINE);
    stage.fake(&format!("namespace.{INITIATOR_NS}"), "");
    let unasked = stage.run("teardown.sh", &[]);
    assert_eq!(unasked.code, 1);
    unasked.says(&format!("namespace {TERMINATOR_NS} in k3d-cluster-b")).says("error: nothing was removed");
    assert!(!unasked.called("delete"));
    let ran = stage.run("teardown.sh", &["--yes"]).fine();
    ran.says(&format!("namespace \"{INITIATOR_NS}\" deleted (k3d-cluster-a)"));
    ran.says(&format!("namespace \"{TERMINATOR_NS}\" was not there (k3d-cluster-b)"));
    // None waits for the one before it.
    let waits: Vec<_> =
        ran.calls.iter().filter(|call| call.contains("delete")).map(|c| c.contains("--wait=false")).collect();
    assert_eq!(waits, [true, true, false, false]);
}

/// What docker and k3d are asked to do; `arguments` are those of the script.
pub(crate) fn built(stage: &Stage, arguments: &[&str], variables: &[(&str, &str)]) -> (Ran, Vec<String>) {
    for tool in ["docker", "k3d"] {
        let path = stage.path("bin").join(tool);
        let script = format!("#!/bin/sh\necho {tool} \"$@\" >> \"$FAKE/built\"\n[ \"$2\" != inspect ]\n");
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let _ = fs::remove_file(stage.path("fake/built"));
    let ran = stage.run_with("build-images.sh", arguments, variables);
    let lines = stage.read("fake/built").unwrap_or_default().lines().map(ToOwned::to_owned).collect();
    (ran, lines)
}

#[test]
fn images_are_built_on_one_base_and_brought_to_the_clusters() {
    let stage = Stage::new(FINE);
    let (ran, _) = built(&stage, &[], &[]);
    assert_eq!(ran.code, 1);
    ran.says("no source of Ferry to build it from").says("FERRY_SOURCE=/path/to/ferry");

    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let given = [("FERRY_SOURCE", source.to_str().unwrap())];
    let (ran, lines) = built(&stage, &["--k3d"], &given);
    ran.fine();
    let base = format!("ferry-python:{}", env!("CARGO_PKG_VERSION"));
    let image = |pod: &str| format!("fast-international-ferry-{pod}:dev");
    let build = |pod: &str| format!("docker build --build-arg BASE={base} --tag {} {pod}/app", image(pod));
    let import = |pod: &str, cluster: &str| format!("k3d image import {} --cluster {cluster}", image(pod));
    let expected = [
        format!("docker image inspect {base}"),
        format!("docker build --target python --tag {base} {}", source.display()),
        build("initiator"),
        import("initiator", "cluster-a"),
        build("terminator"),
        import("terminator", "cluster-b"),
    ];
    assert_eq!(lines, expected);
    let (ran, lines) = built(&stage, &["--push"], &given);
    ran.fine();
    assert!(lines.contains(&format!("docker push {}", image("terminator"))), "{lines:?}");
}

#[test]
fn an_unknown_option_is_a_mistake_of_usage() {
    let stage = Stage::new(FINE);
    for script in ["deploy-cluster-a.sh", "deploy-cluster-b.sh", "teardown.sh", "build-images.sh"] {
        let ran = stage.run(script, &["--force"]);
        assert_eq!(ran.code, 2, "{script}");
        ran.says("usage:");
        stage.run(script, &["--help"]).fine().says("--dry-run");
    }
}
