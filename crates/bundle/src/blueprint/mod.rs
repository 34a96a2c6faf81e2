//! The blueprint: what a user says about a network, as values that need no further checking.

mod check;
mod gateways;
mod links;
mod raw;
mod services;
mod values;

use std::collections::BTreeMap;
use std::fmt;

use ferry_config::fields::Problems;
use ferry_config::{EntryLimits, HostPort, Report, Settings, ValueError, WebSocketUrl, yaml};

pub use values::{Cidr, Host, ImageName, Label, ObjectName, Tag};

use raw::RawBlueprint;

/// The largest blueprint, in bytes: 1 MiB.
const MAX_FILE_LEN: usize = 1 << 20;

/// A network of pods: everything that a blueprint says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blueprint {
    /// Names the network; the first part of every namespace.
    pub id: Label,
    /// The name for people; [`id`](Self::id) where the blueprint gives none.
    pub name: String,
    /// Whether the pods are in one cluster or in several.
    pub scope: Scope,
    /// The clusters, each with a pod; names and contexts are unique.
    pub clusters: Vec<Cluster>,
    /// What the image of every pod begins with: pod `p` runs `<image>-p:<tag>`.
    pub image: ImageName,
    /// The tag of all images.
    pub tag: Tag,
    /// The pods; names are unique. Each cluster with a service has one gateway, whether the text lists it or not.
    pub pods: Vec<Pod>,
    /// Who connects to whom; both are of [`pods`](Self::pods). Gateways that share a service are connected.
    pub connections: Vec<Connection>,
    /// The services that gateways carry; their names are unique in each cluster.
    pub services: Vec<Service>,
    /// What all tunnels are set to.
    pub tunnel: Settings,
    /// Where a web-app keeps its messages.
    pub storage: Storage,
    /// The namespace that may read metrics; nobody may if there is none.
    pub metrics: Option<Label>,
    /// The collector that spans are exported to, if there is one.
    pub traces: Option<HostPort>,
}

/// Where the pods are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All in one cluster, where they find each other by the cluster's DNS.
    SingleCluster,
    /// In several, which share nothing but a load balancer's address.
    MultiCluster,
}

/// A Kubernetes cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its name, in file names and trails.
    pub id: Label,
    /// The context of kubectl that leads to it.
    pub context: String,
    /// Where the load balancer is reached, 30000 to 32767; a cluster without one, and without WebSockets, only dials.
    pub port: Option<u16>,
    /// What may carry links to the tunnels in it, the preferred one first; never empty.
    pub links: Vec<Carrier>,
    /// How other clusters reach it, if that is known beforehand.
    pub address: Option<Host>,
    /// Whose load balancer it has.
    pub cloud: Cloud,
    /// Who may reach the load balancer; anybody if empty.
    pub source_ranges: Vec<Cidr>,
    /// An address reserved for the load balancer, as the cloud calls it; only with a cloud.
    pub static_address: Option<String>,
    /// Whether pods may raise `net.ipv4.tcp_rmem` and `tcp_wmem`.
    pub tcp_sysctls: bool,
    /// Whether its pods have addresses of IPv6 alone.
    pub ipv6: bool,
}

/// What carries links into a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// TCP, through the load balancer.
    Tcp,
    /// QUIC, through the same load balancer, at the port of UDP with the same number.
    Quic,
    /// WebSockets, through what the cluster has for HTTP.
    WebSocket(Box<WebSocket>),
}

/// Where links come in as WebSockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocket {
    /// What is dialled. The host is a DNS name.
    pub url: WebSocketUrl,
    /// What leads from there to the tunnel.
    pub front: Front,
}

/// What is in front of a tunnel that accepts WebSockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Front {
    /// An Ingress.
    Ingress {
        /// Whose it is; the cluster's default if there is none.
        class: Option<ObjectName>,
        /// The Secret with the host's certificate; without one, the controller has its own.
        tls_secret: Option<ObjectName>,
        /// What the controller has to be told, on top of what ours are told.
        annotations: BTreeMap<String, String>,
    },
    /// An HTTPRoute of the Gateway API.
    HttpRoute {
        /// The Gateway.
        gateway: ObjectName,
        /// Where the Gateway is; in the tunnel's own namespace if there is none.
        namespace: Option<Label>,
        /// Which of the Gateway's listeners; any that fits if there is none.
        listener: Option<ObjectName>,
    },
}

/// Whose load balancer a cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// Network load balancers of AWS.
    Aws,
    /// Passthrough network load balancers of Google Cloud.
    Gcp,
    /// Standard load balancers of Azure.
    Azure,
    /// None of these: k3s, MetalLB and the like.
    None,
}

/// A pod: a tunnel, and unless it is a gateway a web-app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name: the last part of its namespace, its deployment, its directory.
    pub id: Label,
    /// What it does.
    pub template: Template,
    /// The cluster that it runs in, one of [`Blueprint::clusters`].
    pub cluster: Label,
    /// The namespace that may reach `/trigger`, `/output` and `/stream`, given the token; nobody may if there is none.
    pub expose: Option<Label>,
    /// How many messages an initiator sends by itself.
    pub auto_trigger: u32,
    /// The namespace of a gateway, if it is not the usual one.
    pub namespace: Option<Label>,
    /// Where a gateway is reached from outside, if that is not the port of its cluster.
    pub port: Option<u16>,
    /// How many tunnels a gateway is; 1 for every other pod.
    pub replicas: u16,
}

/// What a pod does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Template {
    /// Connects to a terminator over a WebSocket.
    WsInitiator,
    /// Is connected to.
    WsTerminator,
    /// Carries the services of its cluster to others, and theirs to it.
    Gateway,
}

/// A TCP service in one cluster that applications in others reach through the gateways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The name of the Kubernetes Service in each cluster of [`reach_from`](Self::reach_from).
    pub name: Label,
    /// The cluster that it runs in.
    pub cluster: Label,
    /// Where its gateway finds it.
    pub target: HostPort,
    /// The port of the Kubernetes Service.
    pub port: u16,
    /// The clusters where it is reached; never empty.
    pub reach_from: Vec<Label>,
    /// The namespaces there whose pods may reach it; any if empty.
    pub namespaces: Vec<Label>,
    /// What its sessions may take, from all clusters together.
    pub limits: EntryLimits,
}

/// A way from one pod to another. The tunnel of `from` dials the tunnel of `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Whose app connects.
    pub from: Label,
    /// Whose app is connected to.
    pub to: Label,
}

/// Where a web-app keeps its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Size of the volume in bytes; a whole number of MiB.
    pub size: u64,
    /// The storage class; the cluster's default if there is none.
    pub class: Option<Label>,
}

impl Blueprint {
    /// Reads the text of a blueprint; `source` is what reports call it.
    ///
    /// # Errors
    ///
    /// Every problem in the text, each with its position and what to do about it.
    pub fn parse(source: &str, text: &str) -> Result<Self, Report> {
        if text.len() > MAX_FILE_LEN {
            let error = ValueError::new("larger than 1 MiB", "no blueprint needs to be; is this the right file?");
            return Err(Report::of_document(source, error));
        }
        let document = yaml::parse(text).map_err(|problem| Report::new(source, vec![problem]))?;
        let problems = Problems::default();
        let blueprint = RawBlueprint::read(&document, &problems).and_then(|raw| {
            raw.check(&problems);
            raw.build()
        });
        match blueprint {
            Some(blueprint) if problems.is_empty() => Ok(blueprint),
            _ => Err(Report::new(source, problems.into_problems())),
        }
    }

    /// The namespace of a pod. Gateways have the same one in every cluster, so that a service has one host name.
    pub fn namespace(&self, pod: &Pod) -> String {
        match (&pod.namespace, pod.template) {
            (Some(namespace), _) => namespace.to_string(),
            (None, Template::Gateway) => namespace_of(&self.id, GATEWAY),
            (None, Template::WsInitiator | Template::WsTerminator) => namespace_of(&self.id, pod.id.as_str()),
        }
    }

    /// The image of a pod. Gateways have one image, as there is nothing in it but the binary.
    pub fn image_of(&self, pod: &Pod) -> String {
        let name = if pod.template == Template::Gateway { GATEWAY } else { pod.id.as_str() };
        format!("{}-{name}:{}", self.image, self.tag)
    }

    /// The gateway of a cluster.
    pub fn gateway_in(&self, cluster: &Label) -> Option<&Pod> {
        self.pods.iter().find(|pod| pod.template == Template::Gateway && pod.cluster == *cluster)
    }
}

/// The name of a gateway that the blueprint does not list, and of the image of all gateways.
const GATEWAY: &str = "gateway";

fn namespace_of(network: &Label, pod: &str) -> String {
    format!("{network}-{pod}-ns")
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Quic => "quic",
            Self::WebSocket(_) => "websocket",
        })
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self { size: 1 << 30, class: None }
    }
}
