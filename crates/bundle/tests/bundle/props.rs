//! Any valid blueprint renders, and what is rendered reads back.

use std::path::Path;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Secret, Service};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::manifests::tunnel;
use crate::support::fake_keys;
use ferry_bundle::{Blueprint, render};

/// What may carry links to the terminator.
const LINKS: [&str; 5] = [
    "[tcp]",
    "[quic, tcp]",
    "[quic]",
    "[tcp, {websocket: wss://a.example/b, ingress: {class: alb}}]",
    "[{websocket: 'ws://a.example:8000#max_life=1m', http_route: {gateway: public}}, quic]",
];

/// The text of a blueprint.
fn blueprint() -> impl Strategy<Value = String> {
    let label = || "[a-z]([a-z0-9-]{0,12}[a-z0-9])?";
    let context = "[ -~]{1,40}";
    let ids = (label(), label(), label(), label(), label());
    let clouds = prop_oneof![Just("none"), Just("aws"), Just("gcp"), Just("azure")];
    let cluster = (30_000_u16..=32_767, clouds, any::<bool>(), any::<bool>(), any::<bool>(), 0..LINKS.len());
    let tunnel = (1_u32..100_000, 0_u32..600, 16_u32..4096, 1_u32..5_000);
    let pods = (any::<bool>(), 0_u32..100, proptest::option::of(label()));
    let name = "[ -~é🔁]{1,40}";
    ((ids, context, context, name), (cluster, tunnel, pods, any::<bool>())).prop_filter_map(
        "names that are the same",
        |((ids, context_a, context_b, name), (cluster, tunnel, pods, single))| {
            let (network, a, b, initiator, terminator) = ids;
            if a == b || initiator == terminator || context_a == context_b {
                return None;
            }
            let (port, cloud, address, ranges, sysctls, links) = cluster;
            let (window, drain, memory, storage) = tunnel;
            let (exposed, auto_trigger, metrics) = pods;
            let text = |text: &str| serde_json::Value::from(text);
            let mut clusters = vec![serde_json::json!({
                "id": a, "context": context_a, "port": port, "cloud": cloud, "tcp_sysctls": sysctls,
            })];
            if cloud != "none" && ranges {
                clusters[0]["static_address"] = text("192.0.2.7");
                clusters[0]["source_ranges"] = serde_json::json!(["192.0.2.0/24", "2001:db8::/32"]);
            }
            if address {
                clusters[0]["address"] = text("[2001:db8::1]:443");
            }
            if !single {
                clusters[0]["links"] = serde_saphyr::from_str(LINKS[links]).unwrap();
                clusters.push(serde_json::json!({"id": b, "context": context_b, "port": 30_000}));
            }
            let near = if single { &a } else { &b };
            let mut pods = serde_json::json!([
                {"id": terminator, "template": "ws-terminator", "cluster": a},
                {"id": initiator, "template": "ws-initiator", "cluster": near, "auto_trigger": auto_trigger},
            ]);
            if exposed {
                pods[0]["expose"] = serde_json::json!({"namespace": "ingress"});
            }
            let mut blueprint = serde_json::json!({
                "schema_version": "v2",
                "network": {
                    "id": network, "name": name, "mode": "armored-tunnel",
                    "deployment_scope": if single { "single-cluster" } else { "multi-cluster" },
                },
                "clusters": clusters,
                "app_registry": {"image": "registry.example.com:5000/a/b_c", "tag": "1.0-x"},
                "pods": pods,
                "connections": [{"from": initiator, "to": terminator}],
                "tunnel": {
                    "resume": {"window": format!("{}s", window.clamp(1, 86_400)), "buffer": "1MiB"},
                    "drain": format!("{drain}s"),
                    "limits": {"memory": format!("{memory}MiB")},
                },
                "storage": {"size": format!("{storage}MiB")},
            });
            if let Some(metrics) = metrics {
                blueprint["metrics"] = serde_json::json!({"namespace": metrics});
            }
            Some(blueprint.to_string())
        },
    )
}

/// The object as it comes out of its type again.
fn again<T: DeserializeOwned + Serialize>(object: &serde_json::Value) -> serde_json::Value {
    serde_json::to_value(serde_json::from_value::<T>(object.clone()).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_blueprint_renders_and_reads_back(text in blueprint()) {
        let blueprint = Blueprint::parse("blueprint.yaml", &text).unwrap_or_else(|report| panic!("{report}\n{text}"));
        let bundle = render(&blueprint, &text, &fake_keys(&blueprint)).unwrap();
        let mut tunnels = 0;
        for path in bundle.files().keys().filter(|path| path.ends_with(".yaml") && path.contains("/0")) {
            let objects: Vec<serde_json::Value> = serde_saphyr::from_multiple(bundle.text(path).unwrap()).unwrap();
            for object in objects {
                let read = match object["kind"].as_str().unwrap() {
                    "Namespace" => again::<Namespace>(&object),
                    "Secret" => again::<Secret>(&object),
                    "ConfigMap" => again::<ConfigMap>(&object),
                    "PersistentVolumeClaim" => again::<PersistentVolumeClaim>(&object),
                    "Deployment" => again::<Deployment>(&object),
                    "Service" => again::<Service>(&object),
                    "NetworkPolicy" => again::<NetworkPolicy>(&object),
                    "Ingress" => again::<Ingress>(&object),
                    // Not among the types of Kubernetes.
                    "HTTPRoute" => object.clone(),
                    kind => panic!("{path} has a {kind}"),
                };
                prop_assert_eq!(&read, &object, "{}", path);
                if let Some(config) = object["data"]["tunnel.yaml"].as_str() {
                    let parsed = ferry_config::parse(config, Path::new("/etc/ferry/config"));
                    let parsed = parsed.unwrap_or_else(|report| panic!("{report}\n{config}"));
                    prop_assert_eq!(&parsed.warnings, &[]);
                    prop_assert_eq!(&parsed.tunnel.settings, &blueprint.tunnel);
                    tunnels += 1;
                }
            }
        }
        prop_assert_eq!(tunnels, 2);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[ -~\n]{0,200}") {
        let _ = Blueprint::parse("blueprint.yaml", &text);
    }
}

/// A network of up to five clusters with services in any direction. The first cluster can always be dialled, and is in
/// every pair that would have no other.
fn services() -> impl Strategy<Value = String> {
    let cluster = (any::<bool>(), any::<bool>());
    let service = (0..5_usize, proptest::collection::btree_set(0..5_usize, 1..4), 1_u16..=65_535);
    (proptest::collection::vec(cluster, 2..=5), proptest::collection::vec(service, 1..8)).prop_filter_map(
        "services that no pair of clusters can carry",
        |(clusters, services)| {
            let port = |i: usize| i == 0 || clusters[i].0;
            let mut listed = Vec::new();
            for (n, (home, from, number)) in services.into_iter().enumerate() {
                let home = home % clusters.len();
                let able = |i: &usize| *i != home && *i < clusters.len() && (port(*i) || port(home));
                let from: Vec<_> = from.into_iter().filter(able).map(|i| format!("c{i}")).collect();
                let target = format!("db-{n}.shop.svc:{number}");
                let service = |from| {
                    serde_json::json!({
                        "name": format!("s{n}"), "cluster": format!("c{home}"), "target": target, "reach_from": from,
                    })
                };
                listed.extend((!from.is_empty()).then(|| service(from)));
            }
            let named = |i: &usize| {
                let id = serde_json::Value::from(format!("c{i}"));
                listed.iter().any(|s: &serde_json::Value| {
                    s["cluster"] == id || s["reach_from"].as_array().is_some_and(|from| from.contains(&id))
                })
            };
            let clusters = (0..clusters.len()).filter(named).map(|i| {
                let mut cluster = serde_json::json!({"id": format!("c{i}"), "context": format!("context-{i}")});
                if port(i) {
                    cluster["port"] = serde_json::json!(30_000 + i);
                }
                if clusters[i].1 {
                    cluster["address"] = format!("c{i}.example.com").into();
                }
                cluster
            });
            let clusters: Vec<_> = clusters.collect();
            (!listed.is_empty()).then(|| {
                serde_json::json!({
                    "schema_version": "v2",
                    "network": {"id": "n", "mode": "armored-tunnel", "deployment_scope": "multi-cluster"},
                    "clusters": clusters,
                    "app_registry": {"image": "n", "tag": "dev"},
                    "services": listed,
                })
                .to_string()
            })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_service_has_a_way_and_every_pair_one_dialler(text in services()) {
        let blueprint = Blueprint::parse("blueprint.yaml", &text).unwrap_or_else(|report| panic!("{report}\n{text}"));
        let bundle = render(&blueprint, &text, &fake_keys(&blueprint)).unwrap();
        let tunnels: Vec<_> = blueprint.pods.iter().map(|pod| tunnel(&bundle, pod.id.as_str())).collect();
        let of = |cluster: &str| {
            let own = |tunnel: &&ferry_config::Tunnel<_>| tunnel.name.as_str().starts_with(&format!("{cluster}/"));
            tunnels.iter().find(own).unwrap()
        };
        for service in &blueprint.services {
            let home = of(service.cluster.as_str());
            let offered = home.ingress.iter().find(|ingress| ingress.service.as_str() == service.name.as_str()).unwrap();
            prop_assert_eq!(&offered.forward, &service.target);
            prop_assert_eq!(offered.allow.len(), service.reach_from.len());
            for cluster in &service.reach_from {
                let near = of(cluster.as_str());
                prop_assert!(offered.allow.contains(&near.name));
                let way = near.egress.iter().find(|egress| egress.service.as_str() == service.name.as_str()).unwrap();
                prop_assert_eq!(&way.peer, &home.name);
                let dials = |from: &ferry_config::Tunnel<_>, to: &ferry_config::Tunnel<_>| {
                    from.peers.iter().any(|peer| peer.name == to.name && !peer.addresses.is_empty())
                };
                prop_assert!(dials(near, home) != dials(home, near), "{}", text);
            }
        }
        // Nothing is linked, and nobody let in, without a service between the two.
        let peers: usize = tunnels.iter().map(|tunnel| tunnel.peers.len()).sum();
        prop_assert_eq!(peers, 2 * blueprint.connections.len());
    }
}
