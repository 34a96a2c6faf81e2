//! `tunnel.yaml`.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::site::{
    ADMIN_PORT, DialledPod, EGRESS_PORT, RemotePod, Site, TUNNEL_PORT, WEB_APP_PORT, WEBSOCKET_PORT, tunnel_service,
};
use super::{RenderError, gateway, replicas};
use crate::{Carrier, Label, Scope, Template};
use ferry_config::{
    Address, Egress, EntryLimits, HostPort, Ingress, Keeper, Name, Peer, ProxyProtocol, Route, ServiceName, Tunnel,
    ValueError, WebSocketUrl,
};

/// The name of the configuration, in its ConfigMap and its directory.
pub(crate) const CONFIG_FILE: &str = "tunnel.yaml";
/// The directory of `tunnel.yaml`.
pub(crate) const CONFIG_DIR: &str = "/etc/ferry/config";
/// The directory of the identity.
pub(crate) const IDENTITY_DIR: &str = "/etc/ferry/identity";
/// The directory with a file of addresses for each pod that is dialled.
pub(super) const ADDRESSES_DIR: &str = "/etc/ferry/addresses";

/// The directory of what outlives a pod; the web-app and the tunnel have a part each.
pub(crate) const DATA_DIR: &str = "/data";

/// The directory that the tunnel shares with its keeper. Everybody can write to the volume, so the socket has one of its own.
pub(super) const KEEPER_DIR: &str = "/run/ferry";
pub(crate) const KEEPER_SOCKET: &str = "/run/ferry/keeper/socket";

/// The configuration of a pod's tunnel, with the path of its identity.
pub(super) fn config(site: &Site<'_>) -> Result<Tunnel<PathBuf>, RenderError> {
    let dialled = site.outgoing.iter().map(|far| far.remote.peer(addresses(site, far)));
    let dialling = site.incoming.iter().map(|far| far.peer(Vec::new()));
    let is_gateway = site.pod.template == Template::Gateway;
    let (egress, ingress) = match is_gateway {
        true => (gateway::egress(site)?, gateway::ingress(site)?),
        false => (to_web_apps(site)?, to_own_web_app(site)?.into_iter().collect()),
    };
    // What a tunnel listens at for links takes a restart to change: a gateway is ready for any service to come.
    let listens = is_gateway || !site.incoming.is_empty();
    let accepts = |carrier| listens && site.cluster.takes(&carrier);
    let websocket = site.cluster.websocket().filter(|_| listens);
    Ok(Tunnel {
        name: site.tunnel_name()?,
        identity: format!("{IDENTITY_DIR}/{}", crate::keys::IDENTITY_KEY).into(),
        state: Some(format!("{DATA_DIR}/tunnel").into()),
        keeper: Some(Keeper::At(KEEPER_SOCKET.into())),
        // The kubelet's probes come from outside the pod.
        admin: Some(site.everywhere(ADMIN_PORT)),
        listen: (accepts(Carrier::Tcp) || site.is_led()).then(|| site.everywhere(TUNNEL_PORT)),
        listen_quic: accepts(Carrier::Quic).then(|| site.everywhere(TUNNEL_PORT)),
        listen_ws: websocket.map(|_| site.everywhere(WEBSOCKET_PORT)),
        ws_path: websocket.map_or(WebSocketUrl::PATH, |websocket| &websocket.url.path).to_owned(),
        ws_max_life: websocket.and_then(|websocket| websocket.url.max_life),
        replicas: replicas::addresses(site),
        peers: dialled.chain(dialling).collect::<Result<_, _>>()?,
        egress,
        ingress,
        settings: site.blueprint.tunnel.clone(),
    })
}

fn to_web_apps(site: &Site<'_>) -> Result<Vec<Egress>, ValueError> {
    let egress = site.outgoing.iter().zip(EGRESS_PORT..).map(|(far, port)| {
        let listen = (Ipv4Addr::LOCALHOST, port).into();
        let (peer, service) = (far.remote.tunnel_name()?, service(&far.remote.pod.id)?);
        Ok(Egress { listen, peer, service, limits: EntryLimits::default() })
    });
    egress.collect()
}

fn to_own_web_app(site: &Site<'_>) -> Result<Option<Ingress>, ValueError> {
    if site.incoming.is_empty() {
        return Ok(None);
    }
    let forward = HostPort { host: Ipv4Addr::LOCALHOST.to_string(), port: WEB_APP_PORT };
    let allow = site.incoming.iter().map(RemotePod::tunnel_name).collect::<Result<_, _>>()?;
    let proxy_protocol = Some(ProxyProtocol::V2);
    let limits = EntryLimits::default();
    Ok(Some(Ingress { service: service(&site.pod.id)?, forward, allow, proxy_protocol, limits }))
}

/// The name of the tunnel of a pod.
pub(super) fn tunnel_name(cluster: &Label, pod: &Label) -> Result<Name, ValueError> {
    format!("{cluster}/{pod}").parse()
}

fn service(label: &Label) -> Result<ServiceName, ValueError> {
    label.as_str().parse()
}

/// Where a pod is dialled: in the same cluster by name, in another at what the deploy script finds out, or at the URL of the
/// blueprint.
fn addresses(site: &Site<'_>, far: &DialledPod<'_>) -> Vec<Address> {
    let pod = far.remote.pod;
    if site.blueprint.scope == Scope::SingleCluster {
        let (service, namespace) = (tunnel_service(&pod.id), site.blueprint.namespace(pod));
        // Whatever the cluster's domain is: the pod's search list has it.
        let host = format!("{service}.{namespace}.svc");
        return far.port.map(|port| Address::HostPort(HostPort { host, port })).into_iter().collect();
    }
    let address = |carrier: &Carrier| match carrier {
        // Those through the load balancer are in one file, and stand together.
        Carrier::Tcp | Carrier::Quic => Address::File(format!("{ADDRESSES_DIR}/{}", pod.id).into()),
        Carrier::WebSocket(websocket) => Address::WebSocket(websocket.url.clone()),
    };
    let mut addresses: Vec<_> = far.remote.cluster.links.iter().map(address).collect();
    addresses.dedup();
    addresses
}

impl RemotePod<'_> {
    fn peer(&self, addresses: Vec<Address>) -> Result<Peer, ValueError> {
        let mut keys = self.keys.also.clone();
        keys.insert(self.keys.identity.public_key());
        let (route, limits) = (Route::default(), EntryLimits::default());
        Ok(Peer { name: self.tunnel_name()?, keys, addresses, route, limits })
    }
}
