//! Services and network policies.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::gateway;
use super::links::{self, LinkPort};
use super::replicas;
use super::site::{ADMIN_PORT, DialledPod, Site, TUNNEL_PORT, WEB_APP_PORT, selector, tunnel_service};
use crate::{Carrier, Cloud, Cluster, Label, Scope, Template};

const DNS_PORT: u16 = 53;

/// The web-app inside the cluster; the network policy says who gets through.
pub(super) fn web_app_service(site: &Site<'_>) -> Service {
    let annotations = BTreeMap::from([
        ("prometheus.io/scrape".into(), "true".into()),
        ("prometheus.io/port".into(), WEB_APP_PORT.to_string()),
        ("prometheus.io/path".into(), "/metrics".into()),
    ]);
    service(
        ObjectMeta { annotations: Some(annotations), ..site.metadata(site.pod.id.as_str()) },
        ServiceSpec {
            type_: Some("ClusterIP".into()),
            selector: Some(site.selector()),
            ports: Some(vec![service_port("http", WEB_APP_PORT, "http")]),
            ..ServiceSpec::default()
        },
    )
}

/// Where links come in, on a pod that accepts some.
pub(super) fn tunnel_service_of(site: &Site<'_>) -> Option<Service> {
    let number = site.tunnel_service_port?;
    let metadata = site.metadata(tunnel_service(&site.pod.id));
    let ports: Vec<_> = links::balanced_ports(site.cluster).iter().map(|port| port.in_service(number)).collect();
    let spec = ServiceSpec { selector: Some(site.selector()), ..ServiceSpec::default() };
    if !site.is_published() {
        let type_ = Some("ClusterIP".into());
        return Some(service(metadata, ServiceSpec { type_, ports: Some(ports), ..spec }));
    }
    let cluster = site.cluster;
    let ranges: Vec<_> = cluster.source_ranges.iter().map(ToString::to_string).collect();
    // Local saves a hop and keeps the caller's address; the load balancer of k3s does not work with it.
    let policy = if cluster.cloud == Cloud::None { "Cluster" } else { "Local" };
    let annotations = cloud_annotations(cluster, number);
    Some(service(
        ObjectMeta { annotations: (!annotations.is_empty()).then_some(annotations), ..metadata },
        ServiceSpec {
            type_: Some("LoadBalancer".into()),
            external_traffic_policy: Some(policy.into()),
            load_balancer_source_ranges: (!ranges.is_empty()).then_some(ranges),
            ports: Some(ports.into_iter().map(|port| ServicePort { node_port: Some(number.into()), ..port }).collect()),
            ..spec
        },
    ))
}

/// What each cloud needs to be told for a network load balancer that leaves long-lived connections alone.
fn cloud_annotations(cluster: &Cluster, port: u16) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::new();
    let mut annotate = |key: &str, value: &str| annotations.insert(key.to_owned(), value.to_owned());
    let fixed = cluster.static_address.as_deref();
    match cluster.cloud {
        Cloud::Aws => {
            annotate("service.beta.kubernetes.io/aws-load-balancer-type", "nlb");
            annotate("service.beta.kubernetes.io/aws-load-balancer-scheme", "internet-facing");
            // There is one pod, so most zones have none: each must reach the one that has.
            annotate("service.beta.kubernetes.io/aws-load-balancer-cross-zone-load-balancing-enabled", "true");
            if cluster.takes(&Carrier::Quic) {
                // One listener for both protocols, whose idle time-out cannot be set.
                annotate("service.beta.kubernetes.io/aws-load-balancer-enable-tcp-udp-listener", "true");
            } else {
                let listener = format!("service.beta.kubernetes.io/aws-load-balancer-listener-attributes.TCP-{port}");
                annotate(&listener, "tcp.idle_timeout.seconds=3600");
            }
            if let Some(allocations) = fixed {
                annotate("service.beta.kubernetes.io/aws-load-balancer-eip-allocations", allocations);
            }
        }
        Cloud::Gcp => {
            annotate("cloud.google.com/l4-rbs", "enabled");
            if let Some(name) = fixed {
                annotate("networking.gke.io/load-balancer-ip-addresses", name);
            }
        }
        Cloud::Azure => {
            annotate("service.beta.kubernetes.io/azure-load-balancer-tcp-idle-timeout", "30");
            match fixed {
                Some(ip) if ip.parse::<std::net::IpAddr>().is_ok() => {
                    annotate("service.beta.kubernetes.io/azure-load-balancer-ipv4", ip);
                }
                Some(name) => {
                    annotate("service.beta.kubernetes.io/azure-pip-name", name);
                }
                None => {}
            }
        }
        Cloud::None => {}
    }
    annotations
}

/// Nothing in and nothing out, for every pod of the namespace that no other policy speaks of.
pub(super) fn default_deny(site: &Site<'_>) -> NetworkPolicy {
    NetworkPolicy {
        metadata: site.metadata("default-deny"),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector::default()),
            policy_types: Some(vec!["Ingress".into(), "Egress".into()]),
            ..NetworkPolicySpec::default()
        }),
    }
}

/// What the pod needs beyond [`default_deny`].
pub(super) fn policy(site: &Site<'_>) -> NetworkPolicy {
    let mut ingress = Vec::new();
    if !site.incoming.is_empty() {
        // From anywhere: behind a load balancer, the caller's address need not be the caller's.
        ingress.push(NetworkPolicyIngressRule {
            from: None,
            ports: Some(links::ports(site.cluster).iter().map(LinkPort::at_pod).collect()),
        });
    }
    let from_namespace = |namespace: &Label, ports: &[u16]| NetworkPolicyIngressRule {
        from: Some(vec![NetworkPolicyPeer {
            namespace_selector: Some(namespaced(namespace.as_str())),
            ..NetworkPolicyPeer::default()
        }]),
        ports: Some(ports.iter().copied().map(tcp).collect()),
    };
    let is_gateway = site.pod.template == Template::Gateway;
    let measured: &[u16] = if is_gateway { &[ADMIN_PORT] } else { &[ADMIN_PORT, WEB_APP_PORT] };
    ingress.extend(site.blueprint.metrics.as_ref().map(|metrics| from_namespace(metrics, measured)));
    ingress.extend(site.pod.expose.as_ref().map(|namespace| from_namespace(namespace, &[WEB_APP_PORT])));
    let dns = NetworkPolicyEgressRule {
        // To anywhere: a cache on the node has an address of its own.
        to: None,
        ports: Some(vec![transport("UDP", DNS_PORT), tcp(DNS_PORT)]),
    };
    let mut egress: Vec<_> = site.outgoing.iter().map(|far| dialling(site, far)).collect();
    if is_gateway {
        ingress.extend(gateway::ingress_rules(site));
        egress.extend(gateway::egress_rules(site));
    }
    ingress.extend(replicas::ingress_rule(site));
    egress.extend(replicas::egress_rule(site));
    egress.extend(site.blueprint.traces.as_ref().map(gateway::to_target));
    egress.push(dns);
    NetworkPolicy {
        metadata: site.metadata(site.pod.id.as_str()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(site.label_selector()),
            policy_types: Some(vec!["Ingress".into(), "Egress".into()]),
            // An empty list is not kept by the API server, so each apply of one would look like a change.
            ingress: (!ingress.is_empty()).then_some(ingress),
            egress: Some(egress),
        }),
    }
}

fn dialling(site: &Site<'_>, far: &DialledPod<'_>) -> NetworkPolicyEgressRule {
    match site.blueprint.scope {
        Scope::MultiCluster => {
            NetworkPolicyEgressRule { to: None, ports: Some(links::dialled_ports(far.remote.cluster, far.port)) }
        }
        // Behind the Service, so by the port of the pod.
        Scope::SingleCluster => NetworkPolicyEgressRule {
            to: Some(vec![NetworkPolicyPeer {
                namespace_selector: Some(namespaced(&site.blueprint.namespace(far.remote.pod))),
                pod_selector: Some(LabelSelector {
                    match_labels: Some(selector(site.blueprint, &far.remote.pod.id)),
                    match_expressions: None,
                }),
                ip_block: None,
            }]),
            ports: Some(vec![tcp(TUNNEL_PORT)]),
        },
    }
}

pub(super) fn namespaced(name: &str) -> LabelSelector {
    let label = ("kubernetes.io/metadata.name".to_owned(), name.to_owned());
    LabelSelector { match_labels: Some(BTreeMap::from([label])), match_expressions: None }
}

pub(super) fn tcp(port: u16) -> NetworkPolicyPort {
    transport("TCP", port)
}

pub(super) fn transport(protocol: &str, port: u16) -> NetworkPolicyPort {
    NetworkPolicyPort { protocol: Some(protocol.into()), port: Some(IntOrString::Int(port.into())), end_port: None }
}

pub(super) fn service_port(name: &str, port: u16, target: &str) -> ServicePort {
    ServicePort {
        name: Some(name.into()),
        port: port.into(),
        protocol: Some("TCP".into()),
        target_port: Some(IntOrString::String(target.into())),
        ..ServicePort::default()
    }
}

pub(super) fn service(metadata: ObjectMeta, spec: ServiceSpec) -> Service {
    Service { metadata, spec: Some(spec), status: None }
}
