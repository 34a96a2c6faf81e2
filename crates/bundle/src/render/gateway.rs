//! What a gateway has instead of a web-app: services of others that it listens for, and services here that it leads to.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service as KubernetesService, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::RenderError;
use super::network::{namespaced, service, tcp};
use super::site::{EGRESS_PORT, Site};
use super::tunnel::tunnel_name;
use crate::{Label, Service};
use ferry_config::{Egress, EntryLimits, HostPort, Ingress, Name, ServiceName, ValueError};

/// The services that this cluster reaches, each with the port that the tunnel listens at for it.
pub(super) fn reached<'s>(site: &'s Site<'_>) -> impl Iterator<Item = (&'s Service, u16)> {
    let services = site.blueprint.services.iter().filter(|service| service.reach_from.contains(&site.cluster.id));
    services.zip(EGRESS_PORT..)
}

/// The services that run in this cluster.
fn running<'s>(site: &'s Site<'_>) -> impl Iterator<Item = &'s Service> {
    site.blueprint.services.iter().filter(|service| service.cluster == site.cluster.id)
}

pub(super) fn egress(site: &Site<'_>) -> Result<Vec<Egress>, RenderError> {
    let egress = |(service, port): (&Service, u16)| {
        // From outside the pod: the Kubernetes Service leads here.
        let listen = site.everywhere(port);
        let (peer, service) = (gateway_name(site, &service.cluster)?, service_name(service)?);
        Ok(Egress { listen, peer, service, limits: EntryLimits::default() })
    };
    reached(site).map(egress).collect()
}

pub(super) fn ingress(site: &Site<'_>) -> Result<Vec<Ingress>, RenderError> {
    let ingress = |service: &Service| {
        let allow = service.reach_from.iter().map(|cluster| gateway_name(site, cluster));
        let forward = service.target.clone();
        let allow = allow.collect::<Result<_, _>>()?;
        let limits = service.limits.clone();
        Ok(Ingress { service: service_name(service)?, forward, allow, proxy_protocol: None, limits })
    };
    running(site).map(ingress).collect()
}

fn gateway_name(site: &Site<'_>, cluster: &Label) -> Result<Name, RenderError> {
    let gateway = site.blueprint.gateway_in(cluster).ok_or_else(|| RenderError::Cluster(cluster.clone()))?;
    Ok(tunnel_name(cluster, &gateway.id)?)
}

fn service_name(service: &Service) -> Result<ServiceName, ValueError> {
    service.name.as_str().parse()
}

/// What applications connect to: one Kubernetes Service for each service that is reached here.
pub(super) fn services(site: &Site<'_>) -> Vec<KubernetesService> {
    let kubernetes_service = |(reached, port): (&Service, u16)| {
        service(
            site.metadata(reached.name.as_str()),
            ServiceSpec {
                type_: Some("ClusterIP".into()),
                selector: Some(site.selector()),
                ports: Some(vec![ServicePort {
                    name: Some("tcp".into()),
                    port: reached.port.into(),
                    protocol: Some("TCP".into()),
                    // By number: a named port would be one of the pod's, and one more service another pod.
                    target_port: Some(IntOrString::Int(port.into())),
                    ..ServicePort::default()
                }]),
                ..ServiceSpec::default()
            },
        )
    };
    reached(site).map(kubernetes_service).collect()
}

/// Who may reach the services of others: pods of this cluster, in the namespaces that the blueprint names.
pub(super) fn ingress_rules(site: &Site<'_>) -> Vec<NetworkPolicyIngressRule> {
    let rule = |(service, port): (&Service, u16)| {
        let any = [LabelSelector::default()];
        let named: Vec<_> = service.namespaces.iter().map(|namespace| namespaced(namespace.as_str())).collect();
        let selectors = if named.is_empty() { any.to_vec() } else { named };
        let from = selectors
            .into_iter()
            .map(|selector| NetworkPolicyPeer { namespace_selector: Some(selector), ..NetworkPolicyPeer::default() });
        NetworkPolicyIngressRule { from: Some(from.collect()), ports: Some(vec![tcp(port)]) }
    };
    reached(site).map(rule).collect()
}

/// The way to the services that run here.
pub(super) fn egress_rules(site: &Site<'_>) -> Vec<NetworkPolicyEgressRule> {
    let mut rules: Vec<_> = Vec::new();
    for rule in running(site).map(|service| to_target(&service.target)) {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    rules
}

pub(super) fn to_target(target: &HostPort) -> NetworkPolicyEgressRule {
    let at_port = Some(vec![tcp(target.port)]);
    if let Ok(address) = target.host.parse::<IpAddr>() {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let block = IPBlock { cidr: format!("{address}/{bits}"), except: None };
        let to = NetworkPolicyPeer { ip_block: Some(block), ..NetworkPolicyPeer::default() };
        return NetworkPolicyEgressRule { to: Some(vec![to]), ports: at_port };
    }
    let mut labels = target.host.split('.').skip(1);
    match (labels.next(), labels.next()) {
        (Some(namespace), Some("svc")) => {
            let to =
                NetworkPolicyPeer { namespace_selector: Some(namespaced(namespace)), ..NetworkPolicyPeer::default() };
            // A policy goes by the port of the pod behind the Service, which the blueprint does not know.
            let any_port = NetworkPolicyPort { protocol: Some("TCP".into()), ..NetworkPolicyPort::default() };
            NetworkPolicyEgressRule { to: Some(vec![to]), ports: Some(vec![any_port]) }
        }
        // A name that DNS gives addresses to, whenever it is asked.
        _ => NetworkPolicyEgressRule { to: None, ports: at_port },
    }
}
