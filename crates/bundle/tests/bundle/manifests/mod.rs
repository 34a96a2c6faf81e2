//! What the manifests say, beyond what their types and the schemas can tell: readers of them, and what holds for all.

mod network;
mod workload;

use std::collections::BTreeSet;
use std::path::Path;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Namespace, PodSpec, Service, ServiceSpec};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::support::{FINE, POSTGRESQL, SINGLE, accepted, fake_keys, label, object, objects, rendered, with};
use ferry_bundle::Bundle;
use ferry_config::{Address, Tunnel};

pub(crate) fn deployment(bundle: &Bundle, pod: &str) -> Deployment {
    object(bundle, &format!("{pod}/03-deployment.yaml"))
}

pub(crate) fn pod_spec(bundle: &Bundle, pod: &str) -> PodSpec {
    deployment(bundle, pod).spec.unwrap().template.spec.unwrap()
}

pub(crate) fn tunnel(bundle: &Bundle, pod: &str) -> Tunnel<std::path::PathBuf> {
    let config: ConfigMap = object(bundle, &format!("{pod}/03-deployment.yaml"));
    let text = &config.data.unwrap()["tunnel.yaml"];
    let parsed = ferry_config::parse(text, Path::new("/etc/ferry/config")).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(parsed.warnings, [], "{text}");
    parsed.tunnel
}

pub(crate) fn services(bundle: &Bundle, pod: &str) -> Vec<Service> {
    objects(bundle, &format!("{pod}/04-service.yaml"))
}

/// The spec of a Service by its name.
pub(crate) fn service(bundle: &Bundle, pod: &str, name: &str) -> ServiceSpec {
    let mut services = services(bundle, pod);
    services.retain(|service| service.metadata.name.as_deref() == Some(name));
    assert_eq!(services.len(), 1, "Services called {name}");
    services.remove(0).spec.unwrap()
}

pub(crate) fn policy(bundle: &Bundle, pod: &str) -> NetworkPolicy {
    let mut policies: Vec<NetworkPolicy> = objects(bundle, &format!("{pod}/05-network-policy.yaml"));
    policies.retain(|policy| policy.metadata.name.as_deref() == Some(pod));
    policies.remove(0)
}

pub(crate) fn containers(spec: &PodSpec) -> Vec<&Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers).collect()
}

fn named<'s>(spec: &'s PodSpec, name: &str) -> &'s Container {
    containers(spec).into_iter().find(|container| container.name == name).unwrap()
}

/// What a policy lets through, as `port/protocol from` lines.
pub(crate) fn allowed(policy: &NetworkPolicy, ingress: bool) -> Vec<String> {
    let spec = policy.spec.clone().unwrap();
    let rules: Vec<_> = match ingress {
        true => spec.ingress.unwrap_or_default().into_iter().map(|rule| (rule.from, rule.ports)).collect(),
        false => spec.egress.unwrap().into_iter().map(|rule| (rule.to, rule.ports)).collect(),
    };
    let line = |(peers, ports): (Option<Vec<_>>, Option<Vec<_>>)| {
        let whom: Vec<String> = peers.map_or_else(
            || vec!["anywhere".into()],
            |peers: Vec<k8s_openapi::api::networking::v1::NetworkPolicyPeer>| {
                let name = |peer: &k8s_openapi::api::networking::v1::NetworkPolicyPeer| {
                    let labels = |selector: k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector| {
                        let named = |labels: std::collections::BTreeMap<String, String>| {
                            labels["kubernetes.io/metadata.name"].clone()
                        };
                        selector.match_labels.map_or("any-namespace".into(), named)
                    };
                    let block = || peer.ip_block.clone().unwrap().cidr;
                    peer.namespace_selector.clone().map_or_else(block, labels)
                };
                peers.iter().map(name).collect()
            },
        );
        let ports: Vec<_> = ports.unwrap();
        let port = |port: &k8s_openapi::api::networking::v1::NetworkPolicyPort| match port.port.clone() {
            Some(IntOrString::Int(number)) => format!("{number}/{}", port.protocol.clone().unwrap()),
            Some(IntOrString::String(name)) => name,
            None => format!("any/{}", port.protocol.clone().unwrap()),
        };
        format!("{} {}", ports.iter().map(port).collect::<Vec<_>>().join(","), whom.join(","))
    };
    rules.into_iter().map(line).collect()
}

/// What the API server would not keep as it is written, so that the next apply would see a difference.
pub(crate) fn lost(value: &serde_json::Value, path: &str, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Array(items) => {
            items.iter().for_each(|item| lost(item, &format!("{path}[]"), found));
            found.extend(items.is_empty().then(|| path.to_owned()));
        }
        serde_json::Value::Object(fields) => {
            fields.iter().for_each(|(key, value)| lost(value, &format!("{path}.{key}"), found));
            // The maps that mean something when they are empty: every pod, every namespace.
            let all = path.ends_with(".podSelector") || path.ends_with(".namespaceSelector");
            found.extend((fields.is_empty() && !all).then(|| path.to_owned()));
            found.extend(fields.contains_key("stringData").then(|| format!("{path}.stringData")));
        }
        serde_json::Value::Null => found.push(path.to_owned()),
        serde_json::Value::String(text) if text.is_empty() => found.push(path.to_owned()),
        _ => {}
    }
}

#[test]
fn every_tunnel_yaml_reads_back_and_the_two_fit_together() {
    for text in [FINE, SINGLE] {
        let bundle = rendered(text);
        let (near, far) = (tunnel(&bundle, "initiator"), tunnel(&bundle, "terminator"));
        assert_eq!(near.peers[0].name, far.name);
        assert_eq!(far.peers[0].name, near.name);
        let keys = fake_keys(&accepted(text));
        let key = |pod: &str| BTreeSet::from([keys.of(&label(pod)).unwrap().identity.public_key()]);
        assert_eq!(near.peers[0].keys, key("terminator"));
        assert_eq!(far.peers[0].keys, key("initiator"));
        assert_eq!(near.egress[0].service, far.ingress[0].service);
        assert!(far.ingress[0].allow.contains(&near.name));
        assert_eq!(near.listen, None);
    }
}

#[test]
fn the_initiator_finds_the_terminator_by_file_or_by_name() {
    let addresses = |text| tunnel(&rendered(text), "initiator").peers[0].addresses.clone();
    assert_eq!(addresses(FINE), [Address::File("/etc/ferry/addresses/terminator".into())]);
    let name = "terminator-tunnel.fast-ferry-terminator-ns.svc:30200";
    assert_eq!(addresses(SINGLE), [Address::HostPort(name.parse().unwrap())]);
}

#[test]
fn selectors_are_the_labels_of_the_pods() {
    for text in [FINE, SINGLE] {
        let bundle = rendered(text);
        for pod in ["initiator", "terminator"] {
            let spec = deployment(&bundle, pod).spec.unwrap();
            let labels = spec.template.metadata.unwrap().labels.unwrap();
            assert_eq!(spec.selector.match_labels.unwrap(), labels);
            for service in services(&bundle, pod) {
                assert_eq!(service.spec.unwrap().selector.unwrap(), labels);
            }
            let selector = policy(&bundle, pod).spec.unwrap().pod_selector.unwrap();
            assert_eq!(selector.match_labels.unwrap(), labels);
        }
    }
}

#[test]
fn ports_meet() {
    for text in [FINE, SINGLE] {
        let bundle = rendered(text);
        for pod in ["initiator", "terminator"] {
            let spec = pod_spec(&bundle, pod);
            let ports: Vec<_> = containers(&spec).iter().flat_map(|c| c.ports.clone().unwrap_or_default()).collect();
            for service in services(&bundle, pod) {
                for port in service.spec.unwrap().ports.unwrap() {
                    let Some(IntOrString::String(target)) = port.target_port else { panic!("a port by number") };
                    assert!(ports.iter().any(|port| port.name.as_ref() == Some(&target)), "no port {target}");
                }
            }
            // Only what is reached by the network can be probed by it.
            for container in containers(&spec).into_iter().filter(|container| container.name != "keeper") {
                let own: Vec<_> = container.ports.iter().flatten().map(|port| port.container_port).collect();
                for probe in [&container.startup_probe, &container.readiness_probe, &container.liveness_probe] {
                    let Some(IntOrString::Int(port)) = probe.clone().unwrap().http_get.map(|get| get.port) else {
                        panic!("a probe without a port");
                    };
                    assert!(own.contains(&port), "{} probes {port}", container.name);
                }
            }
        }
        // From the initiator's app to the terminator's.
        let (near, far) = (tunnel(&bundle, "initiator"), tunnel(&bundle, "terminator"));
        let app = &pod_spec(&bundle, "initiator").containers[0];
        let peer = app.env.iter().flatten().find(|variable| variable.name == "FERRY_PEER").unwrap();
        assert_eq!(peer.value.clone().unwrap(), format!("ws://{}/ws", near.egress[0].listen));
        let listen = i32::from(far.listen.unwrap().port());
        let spec = pod_spec(&bundle, "terminator");
        let port = named(&spec, "tunnel").ports.clone().unwrap()[0].clone();
        assert_eq!((port.name.as_deref(), port.container_port), (Some("tunnel"), listen));
        let app = &spec.containers[0].ports.clone().unwrap()[0];
        assert_eq!(app.container_port, i32::from(far.ingress[0].forward.port));
    }
}

#[test]
fn every_object_is_in_the_namespace_of_its_pod() {
    let bundle = rendered(FINE);
    for pod in ["initiator", "terminator"] {
        let namespace = format!("fast-international-ferry-{pod}-ns");
        let own: Namespace = object(&bundle, &format!("{pod}/01-namespace.yaml"));
        assert_eq!(own.metadata.name.as_ref(), Some(&namespace));
        for (path, _) in bundle.files().range(format!("{pod}/02")..format!("{pod}/06")) {
            let all: Vec<serde_json::Value> = serde_saphyr::from_multiple(bundle.text(path).unwrap()).unwrap();
            assert!(!all.is_empty());
            assert!(all.iter().all(|object| object["metadata"]["namespace"] == *namespace), "{path}");
        }
    }
}

#[test]
fn applying_a_bundle_again_changes_nothing() {
    let exposed = with("cluster: cluster-a}\n", "cluster: cluster-a, expose: {namespace: ingress}}\n");
    for text in [FINE, SINGLE, &exposed, POSTGRESQL] {
        let bundle = rendered(text);
        for (path, _) in bundle.files().iter().filter(|(path, _)| path.ends_with(".yaml") && path.contains("/0")) {
            let all: Vec<serde_json::Value> = serde_saphyr::from_multiple(bundle.text(path).unwrap()).unwrap();
            let mut found = Vec::new();
            all.iter().for_each(|object| lost(object, "", &mut found));
            assert_eq!(found, [] as [String; 0], "{path}");
        }
    }
}
