//! The reference topology on one machine: two clusters, a web-app and a tunnel in each.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use tokio::net::TcpListener;

use crate::between::{Between, LIVENESS};
use crate::log::Label;
use crate::supervisor::{Process, Supervisor};
use ferry::client::Base;
use ferry_config::{Identity, PublicKey};

/// Messages that the initiator sends by itself.
pub(crate) const AUTO_TRIGGER: usize = 5;

/// The service that the web-apps' session is for, and that of the checked stream.
pub(crate) const WEB_APP: &str = "terminator";
pub(crate) const STREAM: &str = "stream";

const LOOPBACK: &str = "127.0.0.1:0";

/// One of the two clusters with its pod.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) id: &'static str,
    pub(crate) pod: String,
    /// The tunnel's name, and the key that its peer pins.
    pub(crate) tunnel: &'static str,
    pub(crate) key: PublicKey,
    pub(crate) web_app: Base,
    pub(crate) admin: SocketAddr,
}

/// Both of them, up.
#[derive(Debug)]
pub(crate) struct Topology {
    pub(crate) initiator: Cluster,
    pub(crate) terminator: Cluster,
    pub(crate) initiator_web_app: Process,
    /// The end that dials, and what lies before it.
    pub(crate) initiator_tunnel: Process,
    pub(crate) between: Between,
    /// Where a plain TCP connection goes into the tunnels, and where it comes out.
    pub(crate) egress: SocketAddr,
    pub(crate) arrivals: TcpListener,
}

/// What is fixed about a cluster before it is up.
struct Plan {
    id: &'static str,
    role: &'static str,
    tunnel: &'static str,
    pod: String,
    identity: Identity,
}

impl Topology {
    /// Starts the four processes: each is told the addresses of those before it, which found free ports by themselves.
    pub(crate) async fn raise(supervisor: &mut Supervisor) -> anyhow::Result<Self> {
        let a = Plan::new("cluster-a", "initiator", "cluster-a/initiator")?;
        let b = Plan::new("cluster-b", "terminator", "cluster-b/terminator")?;

        let mut b_web_app = b.start_web_app(supervisor, &[])?;
        let b_listen = b_web_app.ready().await?.address("listen")?;
        let arrivals = TcpListener::bind(LOOPBACK).await.context("cannot listen for the checked stream")?;
        let b_stream = arrivals.local_addr()?;
        let name = a.tunnel;
        let ingress = format!(
            "listen: {LOOPBACK}\n\
             peers:\n  - {{name: {name}, keys: [\"{}\"]}}\n\
             ingress:\n  - {{service: {WEB_APP}, forward: \"{b_listen}\", allow: [{name}], proxy_protocol: v2}}\n  \
             - {{service: {STREAM}, forward: \"{b_stream}\", allow: [{name}]}}\n",
            a.identity.public_key(),
        );
        let b_tunnel = b.start_tunnel(supervisor, &ingress)?.ready().await?;
        let between = Between::new(b_tunnel.address("listen")?, &supervisor.make_dir(a.tunnel_label())?)?;
        let name = b.tunnel;
        let egress = format!(
            "peers:\n  - {{name: {name}, keys: [\"{}\"], addresses: [\"{}\"]}}\n\
             egress:\n  - {{listen: \"{LOOPBACK}\", peer: {name}, service: {WEB_APP}}}\n  \
             - {{listen: \"{LOOPBACK}\", peer: {name}, service: {STREAM}}}\n",
            b.identity.public_key(),
            between.address(),
        );
        let mut initiator_tunnel = a.start_tunnel(supervisor, &egress)?;
        let a_tunnel = initiator_tunnel.ready().await?;
        let [web_app_egress, stream_egress] = a_tunnel.addresses("egress")?;
        let peer = format!("ws://{web_app_egress}/ws");
        let auto_trigger = AUTO_TRIGGER.to_string();
        let mut a_web_app = a.start_web_app(supervisor, &["--peer", &peer, "--auto-trigger", &auto_trigger])?;
        let a_listen = a_web_app.ready().await?.address("listen")?;
        Ok(Self {
            initiator: a.up(a_listen, a_tunnel.address("admin")?)?,
            terminator: b.up(b_listen, b_tunnel.address("admin")?)?,
            initiator_web_app: a_web_app,
            initiator_tunnel,
            between,
            egress: stream_egress,
            arrivals,
        })
    }
}

impl Plan {
    fn new(id: &'static str, role: &'static str, tunnel: &'static str) -> anyhow::Result<Self> {
        let pod = format!("{role}-{:05x}", random() & 0xf_ffff);
        Ok(Self { id, role, tunnel, pod, identity: Identity::generate()? })
    }

    fn start_web_app(&self, supervisor: &mut Supervisor, more: &[&str]) -> anyhow::Result<Process> {
        let label = Label { cluster: self.id, container: "web-app" };
        let dir = supervisor.make_dir(label)?;
        let mut args = vec![self.role, "--listen", LOOPBACK, "--pod", &self.pod, "--cluster", self.id];
        args.extend(more);
        supervisor.start(label, &dir, &args)
    }

    fn start_tunnel(&self, supervisor: &mut Supervisor, rest: &str) -> anyhow::Result<Process> {
        let label = self.tunnel_label();
        let dir = supervisor.make_dir(label)?;
        self.identity.write_new(&dir.join("identity.key"))?;
        let text = format!(
            "name: {}\nidentity: identity.key\nadmin: {LOOPBACK}\ndrain: 2s\nliveness: {LIVENESS}\n\
             limits: {{sessions: 100}}\n{rest}",
            self.tunnel
        );
        let file = Path::new("tunnel.yaml");
        fs::write(dir.join(file), text).context("cannot write a tunnel.yaml")?;
        supervisor.start(label, &dir, &["tunnel", "--config", "tunnel.yaml"])
    }

    fn tunnel_label(&self) -> Label {
        Label { cluster: self.id, container: "tunnel" }
    }

    fn up(self, web_app: SocketAddr, admin: SocketAddr) -> anyhow::Result<Cluster> {
        let web_app = format!("http://{web_app}").parse().map_err(anyhow::Error::msg)?;
        let key = self.identity.public_key();
        Ok(Cluster { id: self.id, pod: self.pod, tunnel: self.tunnel, key, web_app, admin })
    }
}

/// Something that differs from run to run, as the end of a pod's name does. Nothing secret hangs on it.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
