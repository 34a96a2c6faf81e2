//! The reference topology on one machine: two clusters, a web-app and a tunnel in each.

use std::{
    collections::hash_map::RandomState,
    fs,
    hash::{BuildHasher as _, Hasher as _},
    net::SocketAddr,
    path::Path,
};

use anyhow::Context as _;
use ferry_config::{Identity, PublicKey};

use super::{
    log::Label,
    supervisor::{Process, Supervisor},
};
use crate::client::Base;

/// Messages that the initiator sends by itself.
pub(crate) const AUTO_TRIGGER: usize = 5;

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
        let ingress = format!(
            "listen: {LOOPBACK}\n\
             peers:\n  - {{name: {}, keys: [\"{}\"]}}\n\
             ingress:\n  - {{service: terminator, forward: \"{b_listen}\", allow: [{}]}}\n",
            a.tunnel,
            a.identity.public_key(),
            a.tunnel,
        );
        let b_tunnel = b.start_tunnel(supervisor, &ingress)?.ready().await?;
        let egress = format!(
            "peers:\n  - {{name: {}, keys: [\"{}\"], addresses: [\"{}\"]}}\n\
             egress:\n  - {{listen: \"{LOOPBACK}\", peer: {}, service: terminator}}\n",
            b.tunnel,
            b.identity.public_key(),
            b_tunnel.address("listen")?,
            b.tunnel,
        );
        let a_tunnel = a.start_tunnel(supervisor, &egress)?.ready().await?;
        let peer = format!("ws://{}/ws", a_tunnel.address("egress")?);
        let auto_trigger = AUTO_TRIGGER.to_string();
        let mut a_web_app = a.start_web_app(supervisor, &["--peer", &peer, "--auto-trigger", &auto_trigger])?;
        let a_listen = a_web_app.ready().await?.address("listen")?;
        Ok(Self {
            initiator: a.up(a_listen, a_tunnel.address("admin")?)?,
            terminator: b.up(b_listen, b_tunnel.address("admin")?)?,
            initiator_web_app: a_web_app,
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
        let label = Label { cluster: self.id, container: "tunnel" };
        let dir = supervisor.make_dir(label)?;
        self.identity.write_new(&dir.join("identity.key"))?;
        let text = format!(
            "name: {}\nidentity: identity.key\nadmin: {LOOPBACK}\ndrain: 2s\nlimits: {{sessions: 100}}\n{rest}",
            self.tunnel
        );
        let file = Path::new("tunnel.yaml");
        fs::write(dir.join(file), text).context("cannot write a tunnel.yaml")?;
        supervisor.start(label, &dir, &["tunnel", "--config", "tunnel.yaml"])
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
