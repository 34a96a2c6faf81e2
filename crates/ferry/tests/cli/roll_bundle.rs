//! `ferry bundle --roll`: keys of rendered gateways are replaced under a checked stream, as their clusters are deployed.

use std::fs;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;

use ferry_bundle::{Blueprint, Keys};
use ferry_config::{Identity, Tunnel};
use tempfile::TempDir;

use crate::roll::Stream;
use crate::support::{Port, Running, address, code, command, eventually, ferry, http_get, role, stderr};

/// Two clusters: A dials B, where a gateway is two tunnels.
const BLUEPRINT: &str = "\
schema_version: \"v2\"
network: {id: shop, name: Shop, mode: armored-tunnel, deployment_scope: multi-cluster}
clusters:
  - {id: a, context: k3d-a}
  - {id: b, context: k3d-b, port: 30200, address: b.example.com}
app_registry: {image: shop, tag: dev}
services:
  - {name: db, cluster: b, target: \"db.shop.svc:5432\", reach_from: [a]}
pods:
  - {id: near, template: gateway, cluster: a}
  - {id: far, template: gateway, cluster: b, replicas: 2}
tunnel: {rotation: {every: 1s}}
";

/// Gives each connection to the next of several, as a load balancer may.
fn spread(over: [SocketAddr; 2]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (near, target) in listener.incoming().map_while(Result::ok).zip(over.into_iter().cycle()) {
            // One that is not there any more has refused it.
            let Ok(far) = TcpStream::connect(target) else { continue };
            for (mut from, mut to) in [(near.try_clone(), far.try_clone()), (Ok(far), Ok(near))].map(both) {
                thread::spawn(move || {
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    own
}

fn both((from, to): (io::Result<TcpStream>, io::Result<TcpStream>)) -> (TcpStream, TcpStream) {
    (from.unwrap(), to.unwrap())
}

/// A tunnel of a gateway with the volumes of its pod.
struct Pod {
    of: &'static str,
    root: PathBuf,
    listen: SocketAddr,
    running: Option<Running>,
}

/// A bundle, and its pods as processes.
struct Clusters {
    dir: TempDir,
    app: TcpListener,
    pods: [Pod; 3],
    /// Of the gateway that dials: where applications connect, and its metrics.
    entrance: SocketAddr,
    admin: SocketAddr,
    _ports: [Port; 3],
}

impl Clusters {
    fn start() -> Self {
        let (dir, app) = (tempfile::tempdir().unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = [(); 3].map(|()| Port::reserve());
        let pods = [("near", "near", 0), ("far", "far-1", 1), ("far", "far-2", 2)].map(|(of, root, port)| Pod {
            of,
            root: dir.path().join(root),
            listen: ports[port].address(),
            running: None,
        });
        fs::write(dir.path().join("blueprint.yaml"), BLUEPRINT).unwrap();
        let nowhere = ports[0].address();
        let mut clusters = Self { dir, app, pods, entrance: nowhere, admin: nowhere, _ports: ports };
        clusters.bundle(&[]);
        let balancer = spread([clusters.pods[1].listen, clusters.pods[2].listen]);
        for at in [1, 2, 0] {
            let pod = &clusters.pods[at];
            fs::create_dir_all(&pod.root).unwrap();
            fs::write(pod.root.join("address"), format!("{balancer}\n")).unwrap();
            clusters.write(pod);
            let (running, ready) = role(command(&["tunnel", "--config"]).arg(pod.root.join("tunnel.yaml")));
            if at == 0 {
                (clusters.entrance, clusters.admin) = (address(&ready, "egress"), address(&ready, "admin"));
            }
            clusters.pods[at].running = Some(running);
        }
        clusters
    }

    /// Runs `ferry bundle`. Its exit code, and what it says.
    fn bundle(&self, more: &[&str]) -> (i32, String) {
        let paths = ["blueprint.yaml", "bundle"].map(|name| self.dir.path().join(name).to_str().unwrap().to_owned());
        let ran = ferry(&[&["bundle", &paths[0], "--out", &paths[1]], more].concat());
        (code(&ran), stderr(&ran))
    }

    /// Takes the next step.
    fn step(&self, of: &str) -> String {
        let (code, said) = self.bundle(&["--roll", of]);
        assert_eq!(code, 0, "{said}");
        said
    }

    /// What a cluster does with a ConfigMap and a Secret that have changed: the files of the pod are others.
    fn write(&self, pod: &Pod) {
        let bundle = self.dir.path().join("bundle");
        let manifest = fs::read_to_string(bundle.join(pod.of).join("03-deployment.yaml")).unwrap();
        let (_, config) = manifest.split_once("  tunnel.yaml: |\n").unwrap();
        let mut text: String = config
            .lines()
            .map_while(|line| line.strip_prefix("    "))
            .fold(String::new(), |text, line| text + line + "\n");
        let root = pod.root.display();
        let others = format!("- {}\n- {}", self.pods[1].listen, self.pods[2].listen);
        for (from, to) in [
            ("/etc/ferry/identity", root.to_string()),
            ("/data/tunnel", format!("{root}/state")),
            ("/run/ferry/keeper/socket", "off".to_owned()),
            ("/etc/ferry/addresses/far", format!("{root}/address")),
            ("0.0.0.0:9900", "127.0.0.1:0".to_owned()),
            ("0.0.0.0:18001", "127.0.0.1:0".to_owned()),
            ("0.0.0.0:18000", pod.listen.to_string()),
            ("- far-replicas.shop-gateway-ns.svc:18000", others),
            ("db.shop.svc:5432", self.app.local_addr().unwrap().to_string()),
        ] {
            text = text.replace(from, &to);
        }
        let keys = Keys::load(&bundle, &Blueprint::parse("blueprint.yaml", BLUEPRINT).unwrap()).unwrap();
        let written = pod.root.join("written");
        keys.of(&pod.of.parse().unwrap()).unwrap().identity.write_new(&written).unwrap();
        fs::rename(&written, pod.root.join("identity.key")).unwrap();
        fs::write(&written, text).unwrap();
        fs::rename(written, pod.root.join("tunnel.yaml")).unwrap();
    }

    /// Does what the script of this gateway's cluster does, and waits until its pods have seen it.
    fn deploy(&mut self, of: &str) {
        for at in 0..self.pods.len() {
            if self.pods[at].of == of {
                self.write(&self.pods[at]);
                self.pods[at].running.as_mut().unwrap().line(|line| line.contains("configuration read again"));
            }
        }
        let script = if of == "near" { "deploy-a.sh" } else { "deploy-b.sh" };
        for pod in ["near", "far"] {
            let _ = fs::remove_file(self.dir.path().join(format!("bundle/.roll/{pod}.{script}")));
        }
    }

    fn stream(&self) -> Stream {
        Stream::open(self.entrance, &self.app)
    }

    fn rotations(&self) -> u64 {
        let metrics = http_get(self.admin, "/metrics");
        let done = metrics.lines().find_map(|line| line.strip_prefix("ferry_rotations_total{result=\"done\"} "));
        done.unwrap_or_else(|| panic!("{metrics}")).parse().unwrap()
    }

    /// Sessions move to fresh links.
    fn rotates(&self) {
        let before = self.rotations();
        eventually("rotations", || (self.rotations() > before + 1).then_some(()));
    }

    fn config(&self, at: usize) -> Tunnel {
        ferry_config::load(&self.pods[at].root.join("tunnel.yaml")).unwrap_or_else(|report| panic!("{report}")).tunnel
    }

    /// A gateway has a key of its own alone, which the other one lists alone.
    fn has_rolled(&self, of: usize, by: usize, before: &Identity) {
        let own = self.config(of).identity;
        assert_ne!(own, *before);
        assert_eq!(self.config(by).peers[0].keys, [own.public_key()].into());
        let left: Vec<_> =
            fs::read_dir(self.dir.path().join("bundle/.roll")).unwrap().map(|left| left.unwrap().file_name()).collect();
        assert_eq!(left, [".gitignore"]);
    }
}

#[test]
fn a_gateway_of_several_tunnels_has_a_new_key_after_three_deployments_under_a_stream() {
    let mut clusters = Clusters::start();
    let (stream, before) = (clusters.stream(), clusters.config(1).identity);
    clusters.rotates();
    assert!(clusters.step("far").contains("far has a next key, which its peers list next to the one in use"));
    // What is not deployed must not be left behind.
    let (code, said) = clusters.bundle(&["--roll", "far"]);
    assert_eq!(code, 1);
    assert!(said.contains("the step before is not deployed yet") && said.contains("(deploy-a.sh)"), "{said}");
    clusters.deploy("near");
    assert_eq!(clusters.config(0).peers[0].keys.len(), 2);
    stream.moves();
    assert!(clusters.step("far").contains("far has its new key"));
    clusters.deploy("far");
    clusters.rotates();
    assert!(clusters.step("far").contains("that is all"));
    clusters.deploy("near");
    clusters.has_rolled(1, 0, &before);
    clusters.rotates();
    clusters.stream().finish();
    stream.finish();
}

#[test]
fn a_gateway_that_dials_has_a_new_key_as_well() {
    let mut clusters = Clusters::start();
    let (stream, before) = (clusters.stream(), clusters.config(0).identity);
    for deployed in ["far", "near", "far"] {
        clusters.step("near");
        clusters.deploy(deployed);
        clusters.rotates();
    }
    clusters.has_rolled(0, 1, &before);
    assert_eq!(clusters.config(2).peers[0].keys, clusters.config(1).peers[0].keys);
    clusters.stream().finish();
    stream.finish();
}

#[test]
fn sessions_outlive_a_key_that_is_there_before_the_peer_has_read_of_it() {
    let mut clusters = Clusters::start();
    let stream = clusters.stream();
    stream.moves();
    clusters.step("far");
    // As if it had been: the kubelet takes its time.
    fs::remove_file(clusters.dir.path().join("bundle/.roll/far.deploy-a.sh")).unwrap();
    clusters.step("far");
    clusters.deploy("far");
    stream.moves();
    clusters.deploy("near");
    clusters.rotates();
    stream.finish();
}

#[test]
fn a_pod_that_is_not_there_and_one_without_a_key_cannot_be_rolled() {
    let dir = tempfile::tempdir().unwrap();
    let [blueprint, out] = ["blueprint.yaml", "bundle"].map(|name| dir.path().join(name).to_str().unwrap().to_owned());
    fs::write(&blueprint, BLUEPRINT).unwrap();
    let unknown = ferry(&["bundle", &blueprint, "--out", &out, "--roll", "west"]);
    assert_eq!(code(&unknown), 2);
    assert!(
        stderr(&unknown).contains("there is no pod west in the blueprint; it has: near, far"),
        "{}",
        stderr(&unknown)
    );
    let early = ferry(&["bundle", &blueprint, "--out", &out, "--roll", "far"]);
    assert_eq!(code(&early), 1);
    assert!(stderr(&early).contains("`far` has no key in this bundle yet"), "{}", stderr(&early));
    assert!(!std::path::Path::new(&out).exists());
}
