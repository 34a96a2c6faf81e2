//! A pod and everything around it, looked up once.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::tunnel::tunnel_name;
use crate::keys::Keys;
use crate::{Blueprint, Cluster, Label, Pod, PodKeys, RenderError, Scope, Template, WebSocket};
use ferry_config::{HostPort, Name, ValueError};

/// Where a web-app serves HTTP.
pub(crate) const WEB_APP_PORT: u16 = 8000;
/// Where a tunnel accepts links.
pub(super) const TUNNEL_PORT: u16 = 18_000;
/// Where a tunnel accepts links over WebSockets.
pub(super) const WEBSOCKET_PORT: u16 = 8080;
/// Where the first egress of a tunnel listens, on loopback.
pub(super) const EGRESS_PORT: u16 = 18_001;
/// Where a tunnel serves probes and metrics.
pub(crate) const ADMIN_PORT: u16 = 9900;

/// A pod, the keys that it has and whom it talks to.
pub(super) struct Site<'b> {
    pub(super) blueprint: &'b Blueprint,
    pub(super) pod: &'b Pod,
    pub(super) cluster: &'b Cluster,
    pub(super) keys: &'b PodKeys,
    /// The pods whose tunnels its own dials.
    pub(super) outgoing: Vec<DialledPod<'b>>,
    /// The pods whose tunnels dial its own.
    pub(super) incoming: Vec<RemotePod<'b>>,
    /// The port of the Service in front of its tunnel, if that is dialled there.
    pub(super) tunnel_service_port: Option<u16>,
}

/// The other end of a connection.
pub(super) struct RemotePod<'b> {
    pub(super) pod: &'b Pod,
    pub(super) cluster: &'b Cluster,
    pub(super) keys: &'b PodKeys,
}

/// The other end of a connection that is dialled.
pub(super) struct DialledPod<'b> {
    pub(super) remote: RemotePod<'b>,
    /// The port of the load balancer that is dialled; none where links are over WebSockets alone.
    pub(super) port: Option<u16>,
}

impl<'b> Site<'b> {
    /// The sites of all pods, in the order of the blueprint.
    pub(super) fn all(blueprint: &'b Blueprint, keys: &'b Keys) -> Result<Vec<Self>, RenderError> {
        let remote = |id: &Label| -> Result<RemotePod<'b>, RenderError> {
            let pod = blueprint.pods.iter().find(|pod| pod.id == *id).ok_or(RenderError::Pod(id.clone()))?;
            let cluster = blueprint.clusters.iter().find(|cluster| cluster.id == pod.cluster);
            Ok(RemotePod {
                pod,
                cluster: cluster.ok_or(RenderError::Cluster(pod.cluster.clone()))?,
                keys: keys.of(id).ok_or(RenderError::Keys(id.clone()))?,
            })
        };
        let site = |pod: &'b Pod| -> Result<Self, RenderError> {
            let RemotePod { pod, cluster, keys } = remote(&pod.id)?;
            let outgoing = blueprint.connections.iter().filter(|way| way.from == pod.id);
            let outgoing = outgoing.map(|way| DialledPod::new(blueprint, remote(&way.to)?));
            let incoming = blueprint.connections.iter().filter(|way| way.to == pod.id).map(|way| remote(&way.from));
            let incoming: Vec<_> = incoming.collect::<Result<_, _>>()?;
            let is_dialled = !incoming.is_empty() && cluster.has_load_balancer();
            let service_port = is_dialled.then(|| tunnel_service_port(pod, cluster)).transpose()?;
            Ok(Self {
                blueprint,
                pod,
                cluster,
                keys,
                outgoing: outgoing.collect::<Result<_, _>>()?,
                incoming,
                tunnel_service_port: service_port,
            })
        };
        blueprint.pods.iter().map(site).collect()
    }

    pub(super) fn namespace(&self) -> String {
        self.blueprint.namespace(self.pod)
    }

    /// The name of this pod's tunnel.
    pub(super) fn tunnel_name(&self) -> Result<Name, ValueError> {
        tunnel_name(&self.cluster.id, &self.pod.id)
    }

    /// What it is: the command of ferry that its web-app is, or a gateway.
    pub(super) fn role(&self) -> &'static str {
        match self.pod.template {
            Template::WsInitiator => "initiator",
            Template::WsTerminator => "terminator",
            Template::Gateway => "gateway",
        }
    }

    /// Whether links come from outside the cluster, through its load balancer.
    pub(super) fn is_published(&self) -> bool {
        self.blueprint.scope == Scope::MultiCluster && self.tunnel_service_port.is_some()
    }

    /// Whether links come to any of several tunnels, which lead them to the right one.
    pub(super) fn is_led(&self) -> bool {
        self.pod.replicas > 1 && !self.incoming.is_empty()
    }

    /// Where links come in as WebSockets.
    pub(super) fn websocket(&self) -> Option<&'b WebSocket> {
        self.cluster.websocket().filter(|_| !self.incoming.is_empty())
    }

    /// An address to listen at for what comes from outside the pod.
    pub(super) fn everywhere(&self, port: u16) -> SocketAddr {
        match self.cluster.ipv6 {
            true => (Ipv6Addr::UNSPECIFIED, port).into(),
            false => (Ipv4Addr::UNSPECIFIED, port).into(),
        }
    }

    /// What replicas of this pod are known by; never changes, as a Deployment could not follow.
    pub(super) fn selector(&self) -> BTreeMap<String, String> {
        selector(self.blueprint, &self.pod.id)
    }

    pub(super) fn label_selector(&self) -> LabelSelector {
        LabelSelector { match_labels: Some(self.selector()), match_expressions: None }
    }

    /// Metadata of an object called `name`.
    pub(super) fn metadata(&self, name: impl Into<String>) -> ObjectMeta {
        ObjectMeta { namespace: Some(self.namespace()), ..self.bare_metadata(name) }
    }

    /// Metadata of an object that is in no namespace.
    pub(super) fn bare_metadata(&self, name: impl Into<String>) -> ObjectMeta {
        ObjectMeta { name: Some(name.into()), labels: Some(self.labels()), ..ObjectMeta::default() }
    }

    /// The labels of every object.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.selector();
        labels.insert("app.kubernetes.io/managed-by".into(), "ferry".into());
        labels
    }
}

impl RemotePod<'_> {
    /// The name of that pod's tunnel.
    pub(super) fn tunnel_name(&self) -> Result<Name, ValueError> {
        tunnel_name(&self.cluster.id, &self.pod.id)
    }
}

impl<'b> DialledPod<'b> {
    fn new(blueprint: &Blueprint, remote: RemotePod<'b>) -> Result<Self, RenderError> {
        let outside = remote.cluster.address.as_ref().filter(|_| blueprint.scope == Scope::MultiCluster);
        let port = match outside.and_then(|address| address.port).filter(|_| remote.pod.port.is_none()) {
            Some(port) => Some(port),
            None if !remote.cluster.has_load_balancer() => None,
            None => Some(tunnel_service_port(remote.pod, remote.cluster)?),
        };
        Ok(Self { remote, port })
    }

    /// Where the blueprint says that it is.
    pub(super) fn known_address(&self) -> Option<HostPort> {
        let address = self.remote.cluster.address.as_ref()?;
        Some(HostPort { host: address.host.clone(), port: self.port? })
    }
}

fn tunnel_service_port(pod: &Pod, cluster: &Cluster) -> Result<u16, RenderError> {
    pod.port.or(cluster.port).ok_or_else(|| RenderError::Port(cluster.id.clone()))
}

pub(super) fn selector(blueprint: &Blueprint, pod: &Label) -> BTreeMap<String, String> {
    let label = |key: &str, value: &Label| (format!("app.kubernetes.io/{key}"), value.to_string());
    BTreeMap::from([label("name", pod), label("part-of", &blueprint.id)])
}

/// The name of the Service in front of a tunnel.
pub(super) fn tunnel_service(pod: &Label) -> String {
    format!("{pod}-tunnel")
}
