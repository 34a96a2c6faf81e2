//! What `tunnel.yaml` comes to: values that need no further checking.
//!
//! They serialise to the YAML that [`parse`](crate::parse) reads: the name of a field is its key.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::address::{Address, HostPort, WebSocketUrl};
use crate::identity::Identity;
use crate::key::PublicKey;
use crate::name::{DnsName, Name, ServiceName};
use crate::proxy::Proxy;
use crate::settings::Settings;
use crate::values::{as_duration_if_any, as_size_if_any};

/// A tunnel: everything that `tunnel.yaml` says.
///
/// `I` is the identity: the key itself, or while that is not loaded the path of its file (see [`Parsed`](crate::Parsed)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tunnel<I = Identity> {
    /// Our name, by which peers list us.
    pub name: Name,
    /// What we prove ourselves with.
    pub identity: I,
    /// A directory in which the tunnel remembers from one run to the next which process it was, so that peers learn at
    /// once that the former one and its sessions are gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<PathBuf>,
    /// The keeper that lets sessions outlive this process; `None` where the environment says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keeper: Option<Keeper>,
    /// Where `/livez`, `/readyz`, `/metrics` and `/status` are served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<SocketAddr>,
    /// Where links are accepted; `None` on an end that only dials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Where links are accepted over QUIC. It is a port of UDP, and may have the number of [`listen`](Self::listen).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen_quic: Option<SocketAddr>,
    /// Where links are accepted as WebSockets, for load balancers that speak HTTP alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen_ws: Option<SocketAddr>,
    /// The path of those WebSockets.
    #[serde(skip_serializing_if = "is_default_path")]
    pub ws_path: String,
    /// What is in front of them ends each after this long.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_duration_if_any")]
    pub ws_max_life: Option<Duration>,
    /// Where the replicas of this tunnel listen for links, itself among them or not: those that have its identity, behind
    /// the same address. A name stands for all of its addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<HostPort>,
    /// The tunnels that we know; names and keys are unique, and none is ours.
    pub peers: Vec<Peer>,
    /// Where apps here reach services there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<Egress>,
    /// The services here that peers may reach; their names are unique.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<Ingress>,
    /// What has a default.
    #[serde(flatten)]
    pub settings: Settings,
}

/// Where the keeper is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// There is none, whatever the environment says.
    Off,
    /// Its socket.
    At(PathBuf),
}

impl Keeper {
    /// What [`Keeper::Off`] is in YAML.
    pub const OFF: &str = "off";
}

impl Serialize for Keeper {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str(Self::OFF),
            Self::At(path) => path.serialize(serializer),
        }
    }
}

impl<I> Tunnel<I> {
    /// The same with another identity, such as none where the tunnel is to be shown.
    pub fn with_identity<J>(self, identity: J) -> Tunnel<J> {
        Tunnel {
            identity,
            name: self.name,
            state: self.state,
            keeper: self.keeper,
            admin: self.admin,
            listen: self.listen,
            listen_quic: self.listen_quic,
            listen_ws: self.listen_ws,
            ws_path: self.ws_path,
            ws_max_life: self.ws_max_life,
            replicas: self.replicas,
            peers: self.peers,
            egress: self.egress,
            ingress: self.ingress,
            settings: self.settings,
        }
    }

    /// Peers can dial this end, one way or another.
    pub fn accepts_links(&self) -> bool {
        self.listen.is_some() || self.listen_ws.is_some() || self.listen_quic.is_some()
    }
}

/// A tunnel that we talk to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// Its name.
    pub name: Name,
    /// The keys that it may prove itself with; never empty.
    pub keys: BTreeSet<PublicKey>,
    /// Where it may be dialled; empty for a peer that dials us.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Address>,
    /// How its addresses are reached.
    #[serde(flatten)]
    pub route: Route,
    /// What its sessions may take.
    #[serde(skip_serializing_if = "EntryLimits::is_none")]
    pub limits: EntryLimits,
}

/// What the sessions of a peer, an egress or an ingress may take, all together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EntryLimits {
    /// Sessions at a time; at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u32>,
    /// Bytes of applications in a second, in each direction; at least 1 KiB.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_size_if_any")]
    pub bytes_per_second: Option<u64>,
}

impl EntryLimits {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What stands between this end and the addresses of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Route {
    /// The HTTP proxy to dial through, instead of the environment's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    /// A file with `user:password` for that proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_credentials: Option<PathBuf>,
    /// The name that the ClientHello carries (SNI), for routers that pass TLS on by it. None is sent by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<DnsName>,
    /// A file with the certificates (PEM) that `wss://` endpoints are trusted by, instead of the public ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Which of the addresses are tried first.
    #[serde(skip_serializing_if = "Prefer::is_default")]
    pub prefer: Prefer,
}

/// Which addresses of a peer are tried first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Prefer {
    /// In the order in which they are listed.
    #[default]
    Order,
    /// Those of the kind that suits the path as it is measured; within a kind in their order.
    Auto,
}

impl Prefer {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

fn is_default_path(path: &String) -> bool {
    path == WebSocketUrl::PATH
}

/// A way out: connections to `listen` become sessions to a service of a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Egress {
    /// Where apps connect to.
    pub listen: SocketAddr,
    /// The peer, one of [`Tunnel::peers`].
    pub peer: Name,
    /// The service there.
    pub service: ServiceName,
    /// What its sessions may take.
    #[serde(skip_serializing_if = "EntryLimits::is_none")]
    pub limits: EntryLimits,
}

impl Egress {
    /// Applications that connect here get to the same place.
    pub fn leads_as(&self, other: &Self) -> bool {
        (self.listen, &self.peer, &self.service) == (other.listen, &other.peer, &other.service)
    }
}

/// A way in: sessions for a service become connections to the app behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ingress {
    /// The service.
    pub service: ServiceName,
    /// Where its app listens.
    pub forward: HostPort,
    /// The peers that may reach it, all of [`Tunnel::peers`]; never empty.
    pub allow: BTreeSet<Name>,
    /// What the app is told of each connection before its first byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// What its sessions may take.
    #[serde(skip_serializing_if = "EntryLimits::is_none")]
    pub limits: EntryLimits,
}

/// A header in front of a connection's bytes that says where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum ProxyProtocol {
    /// HAProxy's PROXY protocol, version 2.
    #[serde(rename = "v2")]
    V2,
}
