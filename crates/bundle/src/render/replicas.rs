//! Several tunnels of one gateway: how they find each other, and how few of them are missing at a time.

use k8s_openapi::api::apps::v1::{DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Affinity, PodAffinityTerm, PodAntiAffinity, Service, ServicePort, ServiceSpec, WeightedPodAffinityTerm,
};
use k8s_openapi::api::networking::v1::{NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::network::{service, tcp};
use super::site::{Site, TUNNEL_PORT};
use ferry_config::HostPort;

/// One pod after another: each takes its sessions with it. A volume is of one pod, which ends before the next begins.
pub(super) fn strategy(site: &Site<'_>) -> DeploymentStrategy {
    if site.pod.replicas == 1 {
        return DeploymentStrategy { type_: Some("Recreate".into()), rolling_update: None };
    }
    let rolling =
        RollingUpdateDeployment { max_surge: Some(IntOrString::Int(0)), max_unavailable: Some(IntOrString::Int(1)) };
    DeploymentStrategy { type_: Some("RollingUpdate".into()), rolling_update: Some(rolling) }
}

/// On different nodes, where there are as many.
pub(super) fn affinity(site: &Site<'_>) -> Option<Affinity> {
    let term = PodAffinityTerm {
        label_selector: Some(site.label_selector()),
        topology_key: "kubernetes.io/hostname".into(),
        ..PodAffinityTerm::default()
    };
    let preferred = vec![WeightedPodAffinityTerm { weight: 100, pod_affinity_term: term }];
    let apart = PodAntiAffinity {
        preferred_during_scheduling_ignored_during_execution: Some(preferred),
        ..PodAntiAffinity::default()
    };
    (site.pod.replicas > 1).then(|| Affinity { pod_anti_affinity: Some(apart), ..Affinity::default() })
}

/// Nodes are drained one after another.
pub(super) fn disruption_budget(site: &Site<'_>) -> Option<PodDisruptionBudget> {
    (site.pod.replicas > 1).then(|| PodDisruptionBudget {
        metadata: site.metadata(site.pod.id.as_str()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(site.label_selector()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    })
}

/// The name that stands for all of them.
pub(super) fn service_of(site: &Site<'_>) -> Option<Service> {
    let port = ServicePort {
        name: Some("tunnel".into()),
        port: TUNNEL_PORT.into(),
        protocol: Some("TCP".into()),
        target_port: Some(IntOrString::Int(TUNNEL_PORT.into())),
        ..ServicePort::default()
    };
    let spec = ServiceSpec {
        cluster_ip: Some("None".into()),
        // One that drains still has its sessions.
        publish_not_ready_addresses: Some(true),
        selector: Some(site.selector()),
        ports: Some(vec![port]),
        ..ServiceSpec::default()
    };
    site.is_led().then(|| service(site.metadata(name(site)), spec))
}

/// Where a tunnel finds the others.
pub(super) fn addresses(site: &Site<'_>) -> Vec<HostPort> {
    let host = format!("{}.{}.svc", name(site), site.namespace());
    site.is_led().then_some(HostPort { host, port: TUNNEL_PORT }).into_iter().collect()
}

pub(super) fn ingress_rule(site: &Site<'_>) -> Option<NetworkPolicyIngressRule> {
    site.is_led()
        .then(|| NetworkPolicyIngressRule { from: Some(vec![others(site)]), ports: Some(vec![tcp(TUNNEL_PORT)]) })
}

pub(super) fn egress_rule(site: &Site<'_>) -> Option<NetworkPolicyEgressRule> {
    site.is_led().then(|| NetworkPolicyEgressRule { to: Some(vec![others(site)]), ports: Some(vec![tcp(TUNNEL_PORT)]) })
}

fn others(site: &Site<'_>) -> NetworkPolicyPeer {
    NetworkPolicyPeer { pod_selector: Some(site.label_selector()), ..NetworkPolicyPeer::default() }
}

fn name(site: &Site<'_>) -> String {
    format!("{}-replicas", site.pod.id)
}
