//! `tunnel.yaml`.

use ferry_config::{render_duration, render_size};
use serde::Serialize;

use super::{
    site::{ADMIN_PORT, EGRESS_PORT, Far, Site, TUNNEL_PORT, WEB_APP_PORT, tunnel_service},
    yaml,
};
use crate::Scope;

/// The directory of `tunnel.yaml`.
pub(super) const CONFIG_DIR: &str = "/etc/ferry/config";
/// The directory of the identity.
pub(super) const IDENTITY_DIR: &str = "/etc/ferry/identity";
/// The directory with a file of addresses for each pod that is dialled.
pub(super) const ADDRESSES_DIR: &str = "/etc/ferry/addresses";

/// The directory of what outlives a pod; the web-app and the tunnel have a part each.
pub(super) const DATA_DIR: &str = "/data";

#[derive(Serialize)]
struct TunnelYaml {
    name: String,
    identity: String,
    state: String,
    admin: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<String>,
    peers: Vec<Peer>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    egress: Vec<Egress>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ingress: Vec<Ingress>,
    rotation: Rotation,
    resume: Resume,
    liveness: String,
    open_timeout: String,
    drain: String,
    limits: Limits,
    warm_links: WarmLinks,
}

#[derive(Serialize)]
struct Peer {
    name: String,
    keys: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<String>,
}

#[derive(Serialize)]
struct Egress {
    listen: String,
    peer: String,
    service: String,
}

#[derive(Serialize)]
struct Ingress {
    service: String,
    forward: String,
    allow: Vec<String>,
}

#[derive(Serialize)]
struct Rotation {
    every: String,
    bytes: String,
    max_per_second: u32,
}

#[derive(Serialize)]
struct Resume {
    window: String,
    buffer: String,
}

#[derive(Serialize)]
struct Limits {
    sessions: u32,
    memory: String,
    handshakes: u32,
}

#[derive(Serialize)]
struct WarmLinks {
    own: u32,
    offered: u32,
}

/// The configuration of a pod's tunnel.
pub(super) fn config(site: &Site<'_>) -> String {
    let settings = &site.blueprint.tunnel;
    let dialled = site.outgoing.iter().map(|far| far.peer(vec![address(site, far)]));
    let dialling = site.incoming.iter().map(|far| far.peer(Vec::new()));
    let egress = site.outgoing.iter().zip(EGRESS_PORT..).map(|(far, port)| Egress {
        listen: format!("127.0.0.1:{port}"),
        peer: far.tunnel_name(),
        service: far.pod.id.to_string(),
    });
    let accepts = !site.incoming.is_empty();
    let ingress = accepts.then(|| Ingress {
        service: site.pod.id.to_string(),
        forward: format!("127.0.0.1:{WEB_APP_PORT}"),
        allow: site.incoming.iter().map(Far::tunnel_name).collect(),
    });
    yaml::plain(&TunnelYaml {
        name: site.tunnel_name(),
        identity: format!("{IDENTITY_DIR}/{}", crate::keys::IDENTITY_KEY),
        state: format!("{DATA_DIR}/tunnel"),
        // The kubelet's probes come from outside the pod.
        admin: format!("0.0.0.0:{ADMIN_PORT}"),
        listen: accepts.then(|| format!("0.0.0.0:{TUNNEL_PORT}")),
        peers: dialled.chain(dialling).collect(),
        egress: egress.collect(),
        ingress: ingress.into_iter().collect(),
        rotation: Rotation {
            every: render_duration(settings.rotation.every),
            bytes: render_size(settings.rotation.bytes),
            max_per_second: settings.rotation.max_per_second,
        },
        resume: Resume { window: render_duration(settings.resume.window), buffer: render_size(settings.resume.buffer) },
        liveness: render_duration(settings.liveness),
        open_timeout: render_duration(settings.open_timeout),
        drain: render_duration(settings.drain),
        limits: Limits {
            sessions: settings.limits.sessions,
            memory: render_size(settings.limits.memory),
            handshakes: settings.limits.handshakes,
        },
        warm_links: WarmLinks { own: settings.warm_links.own, offered: settings.warm_links.offered },
    })
}

/// Where a pod is dialled: in the same cluster by name, in another at what the deploy script finds out.
fn address(site: &Site<'_>, far: &Far<'_>) -> String {
    match site.blueprint.scope {
        Scope::SingleCluster => {
            let (service, namespace) = (tunnel_service(&far.pod.id), site.blueprint.namespace(&far.pod.id));
            // Whatever the cluster's domain is: the pod's search list has it.
            format!("{service}.{namespace}.svc:{}", far.cluster.port)
        }
        Scope::MultiCluster => format!("file:{ADDRESSES_DIR}/{}", far.pod.id),
    }
}

impl Far<'_> {
    fn peer(&self, addresses: Vec<String>) -> Peer {
        let keys = vec![self.keys.identity.public_key().to_string()];
        Peer { name: self.tunnel_name(), keys, addresses }
    }
}
