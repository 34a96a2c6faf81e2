//! `ferry init`, `ferry bundle` and `ferry deploy`.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use tempfile::TempDir;

use crate::support::{code, command, ferry, stderr, stdout};

const BLUEPRINT: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../blueprints/fast-international-ferry/blueprint.yaml");

/// Services and no web-apps.
const POSTGRESQL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/postgresql/blueprint.yaml");

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
fn a_chart_comes_on_request_with_the_keys_of_the_bundle() {
    let dir = tempfile::tempdir().unwrap();
    let out = path(&dir, "out");
    assert_eq!(code(&bundle(BLUEPRINT, &out)), 0);
    assert!(!Path::new(&out).join("chart").exists());
    let ran = ferry(&["bundle", BLUEPRINT, "--out", &out, "--chart"]);
    assert!(stdout(&ran).contains("new: chart/values-terminator.yaml"), "{}", stderr(&ran));
    let secrets = Path::new(&out).join("chart/secrets-terminator.yaml");
    assert_eq!(fs::metadata(&secrets).unwrap().permissions().mode() & 0o777, 0o600);
    // The same ones as before, so that the other end needs no change.
    let again = ferry(&["bundle", BLUEPRINT, "--out", &out, "--chart"]);
    assert!(stderr(&again).contains("0 new, 0 changed"), "{}", stderr(&again));
    assert_eq!(code(&ferry(&["bundle", BLUEPRINT, "--check", "--chart"])), 2);
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

#[test]
fn a_starter_fixes_no_address_and_one_for_k3d_does() {
    let starter = stdout(&ferry(&["init", "-"]));
    assert!(!starter.contains("k3d.internal") && !starter.contains("k3d-cluster"), "{starter}");
    let dir = tempfile::tempdir().unwrap();
    let blueprint = path(&dir, "blueprint.yaml");
    assert_eq!(code(&ferry(&["init", "--k3d", &blueprint])), 0);
    assert_eq!(code(&ferry(&["bundle", &blueprint, "--check"])), 0);
    let text = fs::read_to_string(&blueprint).unwrap();
    assert!(text.contains("context: k3d-cluster-b, port: 30200, address: host.k3d.internal"), "{text}");
    // In a cloud that name means nothing.
    fs::write(&blueprint, text.replace("port: 30200, ", "port: 30200, cloud: gcp, ")).unwrap();
    let checked = ferry(&["bundle", &blueprint, "--check"]);
    assert_eq!(code(&checked), 78);
    assert!(stderr(&checked).contains("clusters[1].address: `host.k3d.internal` is known on one machine only"));
}

/// A bundle, and a kubectl that stands in for its two clusters.
struct Clusters(TempDir);

impl Clusters {
    fn new() -> Self {
        Self::of(BLUEPRINT)
    }

    fn of(blueprint: &str) -> Self {
        let clusters = Self(tempfile::tempdir().unwrap());
        assert_eq!(code(&bundle(blueprint, &clusters.path("out"))), 0);
        for dir in ["bin", "fake"] {
            fs::create_dir(clusters.path(dir)).unwrap();
        }
        let kubectl = clusters.path("bin/kubectl");
        fs::write(&kubectl, include_str!("../../../bundle/tests/bundle/fake-kubectl.sh")).unwrap();
        fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).unwrap();
        clusters.fake("contexts", "k3d-cluster-a\nk3d-cluster-b\nk3d-cluster-c\n").fake("address", "172.18.0.3 \n")
    }

    fn path(&self, name: &str) -> String {
        path(&self.0, name)
    }

    /// Sets what kubectl answers.
    fn fake(self, file: &str, text: &str) -> Self {
        fs::write(Path::new(&self.path("fake")).join(file), text).unwrap();
        self
    }

    fn deploy(&self, args: &[&str]) -> Output {
        let path = format!("{}:{}", self.path("bin"), std::env::var("PATH").unwrap());
        let mut command = command(&["deploy", &self.path("out")]);
        command.args(args).env("PATH", path).env("FAKE", self.path("fake")).env("FERRY_PAUSE", "0.01");
        command.output().unwrap()
    }

    /// The calls of kubectl so far.
    fn calls(&self) -> String {
        fs::read_to_string(self.path("fake/calls")).unwrap_or_default()
    }
}

#[test]
fn deploying_ends_with_a_message_of_its_own_that_was_delivered() {
    let clusters = Clusters::new().fake("proof", "{\"id\":\"m7\",\"delivered\":true,\"reply\":null}\n");
    let ran = clusters.deploy(&["--wait", "9"]);
    assert_eq!(code(&ran), 0, "{}", stderr(&ran));
    assert_eq!(stdout(&ran).lines().last(), Some("✓ m7 initiator (cluster-a) → terminator (cluster-b)"));
    let order = |script: &str| stderr(&ran).find(script).unwrap();
    assert!(order("[1/2] deploy-cluster-b.sh") < order("[2/2] deploy-cluster-a.sh"));
    let sent = "exec deployment/initiator --container web-app -- ferry send http://127.0.0.1:8000 \
                --message {\"sent_by\": \"ferry deploy\"} --wait 9s";
    assert!(clusters.calls().contains(sent), "{}", clusters.calls());
}

#[test]
fn a_committed_bundle_is_deployed_with_keys_of_its_own() {
    let clusters = Clusters::new().fake("proof", "{\"id\":\"m7\",\"delivered\":true}\n");
    let out = clusters.path("out");
    let committed = Path::new(BLUEPRINT).with_file_name("bundle");
    fs::remove_dir_all(&out).unwrap();
    let copied = std::process::Command::new("cp").arg("-R").arg(committed).arg(&out).status().unwrap();
    assert!(copied.success());
    let ran = clusters.deploy(&[]);
    assert_eq!(code(&ran), 0, "{}", stderr(&ran));
    assert!(stdout(&ran).contains("this bundle has no keys yet; making them"), "{}", stdout(&ran));
    for pod in ["initiator", "terminator"] {
        let config = fs::read_to_string(Path::new(&out).join(pod).join("03-deployment.yaml")).unwrap();
        assert!(config.contains("ferry:pub:") && !config.contains("MADE-BY"), "{config}");
        assert!(Path::new(&out).join(pod).join("02-secrets.yaml").exists());
    }
}

#[test]
fn a_message_that_is_not_delivered_fails_the_deployment_whatever_arrived_before() {
    // What an earlier run left in the output is no proof: nobody even looks at it.
    let clusters = Clusters::new().fake("proof_code", "1").fake("logs.tunnel", "WARN peer not reachable\n");
    let ran = clusters.deploy(&["--wait", "0"]);
    assert_eq!(code(&ran), 1);
    let said = stderr(&ran);
    assert!(said.contains("the message from initiator to terminator was not delivered"), "{said}");
    assert!(said.contains("the tunnel of initiator says: WARN peer not reachable"), "{said}");
    assert!(!clusters.calls().contains("ferry output"), "{}", clusters.calls());
    for answer in ["", "{\"id\":\"m7\"}\n", "{\"id\":\"m7\",\"delivered\":false}\n"] {
        let ran = Clusters::new().fake("proof", answer).deploy(&[]);
        assert_eq!(code(&ran), 1, "{answer}");
    }
}

#[test]
fn a_dry_run_of_a_deployment_shows_the_commands_without_a_cluster() {
    for contexts in ["k3d-cluster-a\nk3d-cluster-b\n", ""] {
        let clusters = Clusters::new().fake("contexts", contexts).fake("refuse", "99");
        let ran = clusters.deploy(&["--dry-run"]);
        assert_eq!(code(&ran), 0, "{}", stderr(&ran));
        let out = stdout(&ran);
        assert!(out.contains("+ kubectl --context k3d-cluster-a apply --kustomize initiator"), "{out}");
        assert!(!clusters.calls().contains("exec"), "{}", clusters.calls());
    }
}

/// An admin endpoint that answers every request with `answer`; its port.
fn admin(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut request = [0; 1024];
            let length = connection.read(&mut request).unwrap();
            assert!(request[..length].starts_with(b"GET /readyz?peers=1 "));
            write!(connection, "HTTP/1.1 {answer}").unwrap();
        }
    });
    port
}

#[test]
fn deploying_services_ends_with_every_gateway_that_says_it_reaches_its_peers() {
    let port = admin("200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nready\n");
    let clusters = Clusters::of(POSTGRESQL).fake("forward", &format!("Forwarding from 127.0.0.1:{port} -> 9900\n"));
    let ran = clusters.deploy(&[]);
    assert_eq!(code(&ran), 0, "{}", stderr(&ran));
    let said = stdout(&ran);
    let lines: Vec<_> = said.lines().filter(|line| line.starts_with('✓')).collect();
    let expected =
        ["✓ gateway-cluster-a (cluster-a) reaches orders-db", "✓ gateway-cluster-c (cluster-c) reaches orders-db"];
    assert_eq!(lines, expected);
    let order = |script: &str| stderr(&ran).find(script).unwrap();
    assert!(order("[1/3] deploy-cluster-b.sh") < order("[2/3] deploy-cluster-a.sh"));
    let forward = "port-forward --address 127.0.0.1 -- deployment/gateway-cluster-a :9900";
    assert!(clusters.calls().contains(forward), "{}", clusters.calls());
}

#[test]
fn a_gateway_that_does_not_reach_its_peers_fails_the_deployment() {
    let answer =
        "503 Service Unavailable\r\ncontent-length: 31\r\nconnection: close\r\n\r\npeer west is not reachable: no\n";
    let port = admin(answer);
    let clusters = Clusters::of(POSTGRESQL).fake("forward", &format!("Forwarding from 127.0.0.1:{port} -> 9900\n"));
    let ran = clusters.deploy(&["--wait", "2s"]);
    assert_eq!(code(&ran), 1);
    let said = stderr(&ran);
    assert!(
        said.contains("gateway-cluster-a (cluster-a) does not reach its peers: peer west is not reachable"),
        "{said}"
    );
    // A kubectl that forwards nothing is an answer, too.
    let ran = clusters.fake("forward", "").deploy(&["--wait", "0"]);
    assert_eq!(code(&ran), 1);
}
