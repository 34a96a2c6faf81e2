//! The values of the chart for a pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ServiceSpec;
use k8s_openapi::api::networking::v1::NetworkPolicyPort;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

use crate::render::sidecar::{MIB, mebibytes};
use crate::render::site::{DialledPod, Site};
use crate::render::{RenderError, gateway, links, network, secrets, tunnel, workload};
use crate::{Carrier, Front, Label, Scope, Template};
use ferry_config::{Ingress, Peer, Settings};

/// The values of a pod, as far as they are not the chart's own.
#[derive(Serialize)]
pub(super) struct Values<'s> {
    template: &'static str,
    name: &'s str,
    network: &'s str,
    cluster: &'s str,
    image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    replicas: Option<u16>,
    namespace: Namespace,
    listen: Listen,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<TunnelService>,
    #[serde(skip_serializing_if = "Option::is_none")]
    websocket: Option<WebSockets<'s>>,
    peers: Vec<DialledPeer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    addresses: Option<Addresses>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    egress: Vec<Reached>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ingress: Vec<Ingress>,
    tunnel: &'s Settings,
    #[serde(skip_serializing_if = "Option::is_none")]
    web_app: Option<WebApp<'s>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<Metrics<'s>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traces: Option<Traces>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tcp_sysctls: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ipv6: bool,
}

#[derive(Serialize)]
struct Namespace {
    name: String,
    create: bool,
    own: bool,
    pod_security: &'static str,
}

#[derive(Serialize)]
struct Listen {
    tcp: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    quic: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    websocket: bool,
}

/// What leads WebSockets to the tunnel, and what they are.
#[derive(Serialize)]
struct WebSockets<'s> {
    /// None on a gateway that is ready to be dialled, and is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'s str>,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_life: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ingress: Option<IngressValue<'s>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_route: Option<RouteValue<'s>>,
}

#[derive(Serialize)]
struct IngressValue<'s> {
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_secret: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'s BTreeMap<String, String>,
}

#[derive(Serialize)]
struct RouteValue<'s> {
    gateway: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'s str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    listener: Option<String>,
}

/// The Service in front of the tunnel.
#[derive(Serialize)]
struct TunnelService {
    r#type: String,
    port: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_port: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traffic_policy: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    source_ranges: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

/// A peer as `tunnel.yaml` has it, and what a network policy needs to know of it.
#[derive(Serialize)]
struct DialledPeer {
    #[serde(flatten)]
    peer: Peer,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<NetworkPolicyPort>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pods: Option<Pods>,
}

/// Pods in the same cluster.
#[derive(Serialize)]
struct Pods {
    namespace: String,
    name: String,
    network: String,
}

#[derive(Serialize)]
struct Addresses {
    config_map: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    files: BTreeMap<String, String>,
}

/// A service of a peer that is reached here.
#[derive(Serialize)]
struct Reached {
    service: String,
    peer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    namespaces: Vec<String>,
}

#[derive(Serialize)]
struct WebApp<'s> {
    auto_trigger: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    expose: Option<&'s str>,
    storage: Storage<'s>,
}

#[derive(Serialize)]
struct Storage<'s> {
    size: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'s str>,
}

#[derive(Serialize)]
struct Traces {
    endpoint: String,
}

#[derive(Serialize)]
struct Metrics<'s> {
    namespace: &'s str,
}

impl<'s> Values<'s> {
    pub(super) fn of(site: &'s Site<'_>) -> Result<Self, RenderError> {
        let (blueprint, pod) = (site.blueprint, site.pod);
        let config = tunnel::config(site)?;
        // As the text has it.
        let as_text = serde_json::to_value(&config).unwrap_or_default();
        let max_life = as_text["ws_max_life"].as_str().map(str::to_owned);
        let is_gateway = pod.template == Template::Gateway;
        // First those that are dialled, as in `tunnel.yaml`.
        let dialled = site.outgoing.iter().map(Some).chain(std::iter::repeat(None));
        let peers = config.peers.into_iter().zip(dialled).map(|(peer, dialled)| DialledPeer::new(site, peer, dialled));
        let reached = gateway::reached(site).map(|(service, _)| Some(service)).chain(std::iter::repeat(None));
        let egress = config.egress.into_iter().zip(reached).map(|(egress, service)| Reached {
            service: egress.service.to_string(),
            peer: egress.peer.to_string(),
            port: service.map(|service| service.port),
            namespaces: service.map(|service| texts(&service.namespaces)).unwrap_or_default(),
        });
        Ok(Self {
            template: match pod.template {
                Template::WsInitiator => "ws-initiator",
                Template::WsTerminator => "ws-terminator",
                Template::Gateway => "gateway",
            },
            name: pod.id.as_str(),
            network: blueprint.id.as_str(),
            cluster: site.cluster.id.as_str(),
            image: blueprint.image_of(pod),
            replicas: (pod.replicas > 1).then_some(pod.replicas),
            namespace: Namespace {
                name: site.namespace(),
                create: true,
                own: true,
                pod_security: secrets::pod_security(site),
            },
            websocket: config.listen_ws.is_some().then(|| WebSockets::of(site, config.ws_path, max_life)),
            listen: Listen {
                // Replicas listen for each other, too, where no link comes over TCP.
                tcp: config.listen.is_some() && site.cluster.takes(&Carrier::Tcp),
                quic: config.listen_quic.is_some(),
                websocket: config.listen_ws.is_some(),
            },
            service: network::tunnel_service_of(site)
                .and_then(|service| TunnelService::new(service.metadata, service.spec?)),
            peers: peers.collect(),
            addresses: workload::dials_by_file(site).then(|| Addresses {
                config_map: workload::ADDRESSES,
                files: site.outgoing.iter().filter_map(known_address).collect(),
            }),
            egress: egress.collect(),
            ingress: config.ingress,
            tunnel: &blueprint.tunnel,
            web_app: (!is_gateway).then(|| WebApp {
                auto_trigger: pod.auto_trigger,
                expose: pod.expose.as_ref().map(Label::as_str),
                storage: Storage {
                    size: mebibytes(blueprint.storage.size / MIB).0,
                    class: blueprint.storage.class.as_ref().map(Label::as_str),
                },
            }),
            metrics: blueprint.metrics.as_ref().map(|namespace| Metrics { namespace: namespace.as_str() }),
            traces: blueprint.traces.as_ref().map(|collector| Traces { endpoint: format!("http://{collector}") }),
            tcp_sysctls: site.cluster.tcp_sysctls,
            ipv6: site.cluster.ipv6,
        })
    }
}

impl<'s> WebSockets<'s> {
    fn of(site: &'s Site<'_>, path: String, max_life: Option<String>) -> Self {
        let dialled = site.websocket();
        let (mut ingress, mut http_route) = (None, None);
        match dialled.map(|websocket| &websocket.front) {
            Some(Front::Ingress { class, tls_secret, annotations }) => {
                let (class, tls_secret) = (class.as_ref(), tls_secret.as_ref());
                ingress = Some(IngressValue {
                    class: class.map(ToString::to_string),
                    tls_secret: tls_secret.map(ToString::to_string),
                    annotations,
                });
            }
            Some(Front::HttpRoute { gateway, namespace, listener }) => {
                http_route = Some(RouteValue {
                    gateway: gateway.to_string(),
                    namespace: namespace.as_ref().map(Label::as_str),
                    listener: listener.as_ref().map(ToString::to_string),
                });
            }
            None => {}
        }
        let host = dialled.map(|websocket| websocket.url.endpoint.host.as_str());
        Self { host, path, max_life, ingress, http_route }
    }
}

impl TunnelService {
    fn new(metadata: ObjectMeta, spec: ServiceSpec) -> Option<Self> {
        let port = spec.ports?.into_iter().next()?;
        Some(Self {
            r#type: spec.type_?,
            port: port.port,
            node_port: port.node_port,
            traffic_policy: spec.external_traffic_policy,
            source_ranges: spec.load_balancer_source_ranges.unwrap_or_default(),
            annotations: metadata.annotations.unwrap_or_default(),
        })
    }
}

impl DialledPeer {
    fn new(site: &Site<'_>, peer: Peer, dialled: Option<&DialledPod<'_>>) -> Self {
        let Some(dialled) = dialled else { return Self { peer, ports: Vec::new(), pods: None } };
        let far = &dialled.remote;
        match site.blueprint.scope {
            Scope::MultiCluster => Self { peer, ports: links::dialled_ports(far.cluster, dialled.port), pods: None },
            Scope::SingleCluster => {
                let pods = Pods {
                    namespace: site.blueprint.namespace(far.pod),
                    name: far.pod.id.to_string(),
                    network: site.blueprint.id.to_string(),
                };
                Self { peer, ports: Vec::new(), pods: Some(pods) }
            }
        }
    }
}

/// As the deploy script tells it: one address a line, the preferred kind of link first.
fn known_address(dialled: &DialledPod<'_>) -> Option<(String, String)> {
    let known = dialled.known_address()?;
    let address = |carrier: &Carrier| match carrier {
        Carrier::Tcp => Some(known.to_string()),
        Carrier::Quic => Some(format!("quic://{known}")),
        Carrier::WebSocket(_) => None,
    };
    let addresses: Vec<_> = dialled.remote.cluster.links.iter().filter_map(address).collect();
    Some((dialled.remote.pod.id.to_string(), addresses.join("\n")))
}

fn texts(labels: &[Label]) -> Vec<String> {
    labels.iter().map(ToString::to_string).collect()
}

/// The secrets of a pod, as values.
#[derive(Serialize)]
pub(super) struct SecretValues<'s> {
    identity: IdentityValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    web_app: Option<TokenOf<'s>>,
}

#[derive(Serialize)]
struct IdentityValue {
    pem: String,
}

#[derive(Serialize)]
struct TokenOf<'s> {
    token: TokenValue<'s>,
}

#[derive(Serialize)]
struct TokenValue<'s> {
    value: &'s str,
}

impl<'s> SecretValues<'s> {
    pub(super) fn of(site: &'s Site<'_>) -> Self {
        let token = site.keys.token.as_ref().filter(|_| site.pod.expose.is_some());
        Self {
            identity: IdentityValue { pem: site.keys.identity.to_pem().expose().clone() },
            web_app: token.map(|token| TokenOf { token: TokenValue { value: token.expose() } }),
        }
    }
}
