//! The Helm chart, and the values by which it renders what the bundle has.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ServiceSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

use super::sidecar::{MIB, mebibytes};
use super::site::{DialledPod, Site};
use super::{RenderError, fill, gateway, network, secrets, tunnel, workload, yaml};
use crate::{Blueprint, Bundle, Carrier, Keys, Label, Scope, Template};
use ferry_config::{Ingress, Peer, Settings};

/// Paths of files in the chart's directory, each with its text.
macro_rules! chart {
    ($($path:literal,)*) => { [$(($path, include_str!(concat!("../../../../contrib/chart/ferry/", $path)))),*] };
}

/// The files of the chart, which is the same for every pod.
const CHART: [(&str, &str); 20] = chart![
    ".helmignore",
    "Chart.yaml",
    "files/ferry-dashboard.json",
    "files/ferry.rules.yaml",
    "templates/NOTES.txt",
    "templates/_check.tpl",
    "templates/_containers.tpl",
    "templates/_names.tpl",
    "templates/_policy.tpl",
    "templates/_tunnel.tpl",
    "templates/_units.tpl",
    "templates/configuration.yaml",
    "templates/deployment.yaml",
    "templates/monitoring.yaml",
    "templates/namespace.yaml",
    "templates/network-policy.yaml",
    "templates/secrets.yaml",
    "templates/services.yaml",
    "values.schema.json",
    "values.yaml",
];

/// Stands above the values of a pod.
const ABOVE: &str = "\
Written by `ferry bundle --chart` from blueprint.yaml, which is the place for changes. What is yours goes into a file
of your own, named by one more --values.
  helm upgrade --install {{pod}} ./ferry --kube-context {{context}} --namespace default \\
    --values values-{{pod}}.yaml --values secrets-{{pod}}.yaml{{hooks}}";

/// Adds the chart to a bundle, and for each pod its values and secrets.
///
/// # Errors
///
/// As [`render`](super::render), and if links to a cluster are not over TCP alone, which the chart cannot render yet.
pub fn add_chart(bundle: &mut Bundle, blueprint: &Blueprint, keys: &Keys) -> Result<(), RenderError> {
    if let Some(cluster) = blueprint.clusters.iter().find(|cluster| cluster.links != [Carrier::Tcp]) {
        return Err(RenderError::Chart(cluster.id.clone()));
    }
    for (path, text) in CHART {
        bundle.add(format!("chart/ferry/{path}"), text);
    }
    bundle.add("chart/.gitignore", "# Keys.\nsecrets-*.yaml\n");
    for site in Site::all(blueprint, keys)? {
        let pod = site.pod.id.as_str();
        let hooks = format!(" \\\n    --set-file web_app.hooks=../{pod}/app/app.py");
        let hooks = if site.pod.template == Template::Gateway { "" } else { &hooks };
        let above = fill(ABOVE, &[("pod", pod), ("context", &site.cluster.context), ("hooks", hooks)]);
        let values = yaml::plain(&Values::of(&site)?);
        bundle.add(format!("chart/values-{pod}.yaml"), yaml::documents(&above, [Some(values)]));
        let above = format!("Private keys of {pod}: keep this file to yourself, and out of version control.");
        let values = yaml::plain(&SecretValues::of(&site));
        bundle.add(format!("chart/secrets-{pod}.yaml"), yaml::documents(&above, [Some(values)])).mode = 0o600;
    }
    Ok(())
}

/// The values of a pod, as far as they are not the chart's own.
#[derive(Serialize)]
struct Values<'s> {
    template: &'static str,
    name: &'s str,
    network: &'s str,
    cluster: &'s str,
    image: String,
    namespace: Namespace,
    listen: Listen,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<TunnelService>,
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
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tcp_sysctls: bool,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
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
struct Metrics<'s> {
    namespace: &'s str,
}

impl<'s> Values<'s> {
    fn of(site: &'s Site<'_>) -> Result<Self, RenderError> {
        let (blueprint, pod) = (site.blueprint, site.pod);
        let config = tunnel::config(site)?;
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
            namespace: Namespace {
                name: site.namespace(),
                create: true,
                own: true,
                pod_security: secrets::pod_security(site),
            },
            listen: Listen { tcp: config.listen.is_some() },
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
            tcp_sysctls: site.cluster.tcp_sysctls,
        })
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
        let far = dialled.map(|dialled| dialled.remote.pod);
        match site.blueprint.scope {
            Scope::MultiCluster => Self { peer, port: dialled.and_then(|dialled| dialled.port), pods: None },
            Scope::SingleCluster => {
                let pods = far.map(|far| Pods {
                    namespace: site.blueprint.namespace(far),
                    name: far.id.to_string(),
                    network: site.blueprint.id.to_string(),
                });
                Self { peer, port: None, pods }
            }
        }
    }
}

fn known_address(dialled: &DialledPod<'_>) -> Option<(String, String)> {
    Some((dialled.remote.pod.id.to_string(), dialled.known_address()?.to_string()))
}

fn texts(labels: &[Label]) -> Vec<String> {
    labels.iter().map(ToString::to_string).collect()
}

/// The secrets of a pod, as values.
#[derive(Serialize)]
struct SecretValues<'s> {
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
    fn of(site: &'s Site<'_>) -> Self {
        let token = site.keys.token.as_ref().filter(|_| site.pod.expose.is_some());
        Self {
            identity: IdentityValue { pem: site.keys.identity.to_pem().expose().clone() },
            web_app: token.map(|token| TokenOf { token: TokenValue { value: token.expose() } }),
        }
    }
}
