//! Who gets in and out: Services, load balancers, network policies.

use k8s_openapi::api::core::v1::Secret;

use super::{allowed, pod_spec, policy, service, services};
use crate::support::{FINE, SINGLE, accepted, objects, rendered, with};
use ferry_bundle::Cloud;

#[test]
fn cluster_b_alone_has_a_load_balancer() {
    let bundle = rendered(FINE);
    assert!(services(&bundle, "initiator").iter().all(|service| service.metadata.name.as_deref() == Some("initiator")));
    let spec = service(&bundle, "terminator", "terminator-tunnel");
    assert_eq!(spec.type_.as_deref(), Some("LoadBalancer"));
    let port = &spec.ports.unwrap()[0];
    assert_eq!((port.port, port.node_port), (30_200, Some(30_200)));
    let spec = service(&rendered(SINGLE), "terminator", "terminator-tunnel");
    assert_eq!(spec.type_.as_deref(), Some("ClusterIP"));
}

#[test]
fn the_pod_that_is_dialled_has_the_load_balancer_wherever_it_is() {
    let swapped = FINE
        .replace("ws-initiator, cluster: cluster-a", "ws-initiator, cluster: cluster-c")
        .replace("cluster: cluster-b", "cluster: cluster-a")
        .replace("cluster: cluster-c", "cluster: cluster-b");
    let spec = service(&rendered(&swapped), "terminator", "terminator-tunnel");
    assert_eq!(spec.ports.unwrap()[0].port, 30_100);
}

#[test]
fn each_cloud_gets_its_own_load_balancer() {
    let cloud = |cloud: &str| {
        let text = with(
            "port: 30200, address: host.k3d.internal",
            &format!("port: 30200, cloud: {cloud}, static_address: ferry-b, source_ranges: [192.0.2.0/24]"),
        );
        let mut services = services(&rendered(&text), "terminator");
        services.retain(|service| service.metadata.name.as_deref() == Some("terminator-tunnel"));
        let service = services.remove(0);
        let annotations = service.metadata.annotations.unwrap();
        let keys: Vec<_> = annotations.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        (service.spec.unwrap(), keys.join(" "))
    };
    for (name, expected) in [
        ("aws", ["aws-load-balancer-type=nlb", "eip-allocations=ferry-b"]),
        ("gcp", ["l4-rbs=enabled", "load-balancer-ip-addresses=ferry-b"]),
        ("azure", ["tcp-idle-timeout=30", "azure-pip-name=ferry-b"]),
    ] {
        let (spec, annotations) = cloud(name);
        assert_eq!(spec.external_traffic_policy.as_deref(), Some("Local"), "{name}");
        assert_eq!(spec.load_balancer_source_ranges, Some(vec!["192.0.2.0/24".into()]), "{name}");
        assert!(expected.iter().all(|part| annotations.contains(part)), "{name}: {annotations}");
    }
    assert_eq!(accepted(FINE).clusters[1].cloud, Cloud::None);
    let spec = service(&rendered(FINE), "terminator", "terminator-tunnel");
    assert_eq!(spec.external_traffic_policy.as_deref(), Some("Cluster"));
}

#[test]
fn a_pod_talks_to_its_peer_and_to_dns_alone() {
    let bundle = rendered(&format!("{FINE}metrics: {{namespace: monitoring}}\n"));
    let metrics = "9900/TCP,8000/TCP monitoring";
    let dns = "53/UDP,53/TCP anywhere";
    let (near, far) = (policy(&bundle, "initiator"), policy(&bundle, "terminator"));
    assert_eq!(allowed(&near, true), [metrics]);
    assert_eq!(allowed(&near, false), ["30200/TCP anywhere", dns]);
    assert_eq!(allowed(&far, true), ["18000/TCP anywhere", metrics]);
    assert_eq!(allowed(&far, false), [dns]);
    let single = policy(&rendered(SINGLE), "initiator");
    assert_eq!(allowed(&single, true), [] as [&str; 0]);
    assert_eq!(allowed(&single, false), ["18000/TCP fast-ferry-terminator-ns", dns]);
    let elsewhere = rendered(&with("host.k3d.internal", "\"b.example.com:443\""));
    assert_eq!(allowed(&policy(&elsewhere, "initiator"), false)[0], "443/TCP anywhere");
}

#[test]
fn spans_go_from_web_app_and_tunnel_to_the_collector_alone() {
    for (endpoint, way) in
        [("http://otel.monitoring.svc:4318", "any/TCP monitoring"), ("http://192.0.2.7:4318/", "4318/TCP 192.0.2.7/32")]
    {
        let bundle = rendered(&format!("{FINE}traces: {{endpoint: \"{endpoint}\"}}\n"));
        assert_eq!(allowed(&policy(&bundle, "terminator"), false), [way, "53/UDP,53/TCP anywhere"]);
        let spec = pod_spec(&bundle, "terminator");
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        let told = containers.filter(|container| {
            let variables = container.env.iter().flatten();
            let mut found = variables.filter(|variable| variable.name == "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
            let traces = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
            found.next().is_some_and(|variable| variable.value.as_ref() == Some(&traces))
        });
        assert_eq!(told.map(|container| container.name.as_str()).collect::<Vec<_>>(), ["tunnel", "web-app"]);
    }
}

#[test]
fn a_web_app_is_exposed_to_one_namespace_and_with_a_token() {
    let exposed = with("cluster: cluster-a}\n", "cluster: cluster-a, expose: {namespace: ingress}}\n");
    let bundle = rendered(&exposed);
    assert_eq!(allowed(&policy(&bundle, "initiator"), true), ["8000/TCP ingress"]);
    let app = &pod_spec(&bundle, "initiator").containers[0];
    assert_eq!(app.args.clone().unwrap(), ["initiator", "--token-file", "/etc/ferry/token/token"]);
    let secrets: Vec<Secret> = objects(&bundle, "initiator/02-secrets.yaml");
    assert_eq!(secrets[1].data.clone().unwrap()["token"].0, b"not-a-secret");
    let app = &pod_spec(&bundle, "terminator").containers[0];
    assert_eq!(app.args.clone().unwrap(), ["terminator"]);
}
