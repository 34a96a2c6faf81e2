//! Links over WebSockets: what a blueprint says of them, what leads to the tunnel, and how the other end dials.

use std::time::Duration;

use k8s_openapi::api::networking::v1::Ingress;

use crate::links::assert_mistake;
use crate::manifests::{allowed, lost, pod_spec, policy, service, services, tunnel};
use crate::stage::Stage;
use crate::support::{ANY_NETWORK, FINE, POSTGRESQL, accepted, mesh, object, rendered, with};
use ferry_bundle::Bundle;
use ferry_config::Address;

const INGRESS: &str = "{websocket: wss://ferry.example.com/links, ingress: {class: nginx, tls_secret: ferry-tls}}";
const ROUTE: &str = "{websocket: \"wss://ferry.example.com#max_life=30m\", http_route: {gateway: public, namespace: edge, listener: https}}";

/// [`FINE`], whose terminator takes links over TCP and WebSockets.
fn beside_tcp(websocket: &str) -> String {
    with("port: 30200", &format!("port: 30200, links: [tcp, {websocket}]"))
}

/// The same over WebSockets alone.
fn alone(websocket: &str) -> String {
    with("port: 30200, address: host.k3d.internal", &format!("links: [{websocket}]"))
}

#[track_caller]
fn mistake(websocket: &str, key: &str, message: &str, hint: &str) {
    assert_mistake(&beside_tcp(websocket), &format!("clusters[1].links[1]{key}"), message, hint);
}

fn addresses(bundle: &Bundle) -> Vec<String> {
    tunnel(bundle, "initiator").peers[0].addresses.iter().map(Address::to_string).collect()
}

#[test]
fn an_ingress_leads_from_the_url_that_the_other_end_dials_to_the_tunnel() {
    let bundle = rendered(&beside_tcp(INGRESS));
    let far = tunnel(&bundle, "terminator");
    assert_eq!((far.listen_ws, far.ws_path.as_str()), ("0.0.0.0:8080".parse().ok(), "/links"));
    assert_eq!(addresses(&bundle), ["file:/etc/ferry/addresses/terminator", "wss://ferry.example.com:443/links"]);

    let ingress: Ingress = object(&bundle, "terminator/06-ingress.yaml");
    assert_eq!(ingress.metadata.namespace.as_deref(), Some("fast-international-ferry-terminator-ns"));
    let spec = ingress.spec.unwrap();
    assert_eq!(spec.ingress_class_name.as_deref(), Some("nginx"));
    let tls = &spec.tls.unwrap()[0];
    assert_eq!(
        (&tls.hosts.as_ref().unwrap()[0], tls.secret_name.as_deref()),
        (&"ferry.example.com".into(), Some("ferry-tls"))
    );
    let rule = spec.rules.unwrap().remove(0);
    assert_eq!(rule.host.as_deref(), Some("ferry.example.com"));
    let path = rule.http.unwrap().paths.remove(0);
    assert_eq!((path.path.as_deref(), path.path_type.as_str()), (Some("/links"), "Exact"));
    let backend = path.backend.service.unwrap();
    let there = service(&bundle, "terminator", &backend.name);
    let port = there.ports.unwrap().remove(0);
    assert_eq!(there.type_.as_deref(), Some("ClusterIP"));
    assert_eq!((port.name.clone(), port.app_protocol.clone()), (backend.port.unwrap().name, None));

    // The load balancer leads to TCP alone, and the policies let both in and out.
    let balanced = service(&bundle, "terminator", "terminator-tunnel").ports.unwrap();
    assert_eq!(balanced.len(), 1);
    assert_eq!(allowed(&policy(&bundle, "terminator"), true), ["18000/TCP,8080/TCP anywhere"]);
    assert_eq!(allowed(&policy(&bundle, "initiator"), false)[0], "30200/TCP,443/TCP anywhere");
    let kustomization = bundle.text("terminator/kustomization.yaml").unwrap();
    assert!(kustomization.contains("- 06-ingress.yaml"), "{kustomization}");
}

#[test]
fn an_http_route_belongs_to_a_gateway_of_somebody_elses() {
    let bundle = rendered(&beside_tcp(ROUTE));
    let route: serde_json::Value =
        serde_saphyr::from_str(bundle.text("terminator/06-http-route.yaml").unwrap()).unwrap();
    assert_eq!((&route["apiVersion"], &route["kind"]), (&"gateway.networking.k8s.io/v1".into(), &"HTTPRoute".into()));
    let expected = serde_json::json!({
        "parentRefs": [{"name": "public", "namespace": "edge", "sectionName": "https"}],
        "hostnames": ["ferry.example.com"],
        "rules": [{
            "matches": [{"path": {"type": "Exact", "value": "/ferry"}}],
            "backendRefs": [{"name": "terminator-websocket", "port": 8080}],
        }],
    });
    assert_eq!(route["spec"], expected);
    let mut found = Vec::new();
    lost(&route, "", &mut found);
    assert_eq!(found, [] as [String; 0]);
    let port = service(&bundle, "terminator", "terminator-websocket").ports.unwrap().remove(0);
    assert_eq!((port.port, port.app_protocol.as_deref()), (8080, Some("kubernetes.io/ws")));
    assert!(bundle.text("terminator/06-ingress.yaml").is_none());
}

#[test]
fn both_ends_leave_a_websocket_before_it_is_ended() {
    let bundle = rendered(&beside_tcp(ROUTE));
    assert_eq!(tunnel(&bundle, "terminator").ws_max_life, Some(Duration::from_secs(1800)));
    assert_eq!(addresses(&bundle)[1], "wss://ferry.example.com:443/ferry#max_life=30m");
}

#[test]
fn the_preferred_kind_is_dialled_first() {
    let text = with("port: 30200", &format!("port: 30200, links: [{INGRESS}, quic, tcp]"));
    let bundle = rendered(&text);
    assert_eq!(addresses(&bundle), ["wss://ferry.example.com:443/links", "file:/etc/ferry/addresses/terminator"]);
    assert_eq!(allowed(&policy(&bundle, "terminator"), true), ["18000/TCP,18000/UDP,8080/TCP anywhere"]);
}

#[test]
fn websockets_alone_need_no_load_balancer_and_nothing_to_wait_for() {
    let text = alone(INGRESS);
    let bundle = rendered(&text);
    let names: Vec<_> =
        services(&bundle, "terminator").into_iter().map(|service| service.metadata.name.unwrap()).collect();
    assert_eq!(names, ["terminator", "terminator-websocket"]);
    assert_eq!(tunnel(&bundle, "terminator").listen, None);
    assert_eq!(addresses(&bundle), ["wss://ferry.example.com:443/links"]);
    assert_eq!(allowed(&policy(&bundle, "initiator"), false)[0], "443/TCP anywhere");
    let volumes = pod_spec(&bundle, "initiator").volumes.unwrap();
    assert!(volumes.iter().all(|volume| volume.name != "tunnel-addresses"));
    assert_eq!(accepted(&text).steps().addresses, []);

    let stage = Stage::new(&text);
    for script in ["deploy-cluster-b.sh", "deploy-cluster-a.sh"] {
        let ran = stage.run(script, &[]).fine();
        assert!(!ran.called("get service") && !ran.called("tunnel-addresses"), "{:?}", ran.calls);
        assert!(!ran.out.contains("address of"), "{}", ran.out);
    }
    let readme = bundle.text("README.md").unwrap();
    assert!(readme.contains("wss://ferry.example.com:443/links ──▶ tunnel :8080 ──▶ web-app :8000"), "{readme}");
    assert!(readme.contains("curl -i https://ferry.example.com:443/links"), "{readme}");
    assert!(!readme.contains("{{") && !readme.contains("load balancer"), "{readme}");
}

#[test]
fn the_example_takes_links_of_every_kind() {
    let bundle = rendered(ANY_NETWORK);
    for site in ["ship", "factory"] {
        let near = tunnel(&bundle, &format!("gateway-{site}"));
        let dialled: Vec<_> = near.peers[0].addresses.iter().map(Address::to_string).collect();
        assert_eq!(dialled, ["file:/etc/ferry/addresses/gateway-hub", "wss://ferry.example.com:443/ferry"]);
    }
    let hub = tunnel(&bundle, "gateway-hub");
    assert!(hub.listen.is_some() && hub.listen_quic.is_some() && hub.listen_ws.is_some());
    let script = bundle.text("deploy-ship.sh").unwrap();
    assert!(script.contains("LINKS=(\n  'gateway-hub' 'quic tcp'\n)\n"), "{script}");
}

#[test]
fn a_cluster_with_a_websocket_is_dialled_by_those_that_have_nothing() {
    let text = POSTGRESQL.replace("port: 30200, address: host.k3d.internal", &format!("links: [{INGRESS}]"));
    let bundle = rendered(&text);
    let near = tunnel(&bundle, "gateway-cluster-a");
    let dialled: Vec<_> = near.peers[0].addresses.iter().map(Address::to_string).collect();
    assert_eq!(dialled, ["wss://ferry.example.com:443/links"]);
    let far = tunnel(&bundle, "gateway-cluster-b");
    assert!(far.listen_ws.is_some() && far.listen.is_none());
    let _: Ingress = object(&bundle, "gateway-cluster-b/06-ingress.yaml");
}

#[test]
fn controllers_are_told_what_they_need_and_the_user_has_the_last_word() {
    let annotations = |ingress: &str| {
        let text = beside_tcp(&format!("{{websocket: wss://ferry.example.com, ingress: {ingress}}}"));
        let ingress: Ingress = object(&rendered(&text), "terminator/06-ingress.yaml");
        ingress.metadata.annotations.unwrap_or_default()
    };
    let nginx = annotations("{class: nginx}");
    assert_eq!(nginx["nginx.ingress.kubernetes.io/proxy-read-timeout"], "3600");
    assert_eq!(nginx["nginx.ingress.kubernetes.io/proxy-send-timeout"], "3600");
    assert_eq!(annotations("{class: alb}")["alb.ingress.kubernetes.io/healthcheck-path"], "/healthz");
    assert!(annotations("{}").is_empty());
    let own = "{class: nginx, annotations: {cert-manager.io/cluster-issuer: letsencrypt, \
               nginx.ingress.kubernetes.io/proxy-read-timeout: \"60\"}}";
    let own = annotations(own);
    assert_eq!(own["cert-manager.io/cluster-issuer"], "letsencrypt");
    assert_eq!(own["nginx.ingress.kubernetes.io/proxy-read-timeout"], "60");
    assert_eq!(own.len(), 3);
}

#[test]
fn a_websocket_that_nothing_can_lead_to_is_reported() {
    let to = |url: &str| format!("{{websocket: \"{url}\", ingress: {{}}}}");
    mistake("websocket", "", "`websocket` alone does not say where", "`{websocket: wss://");
    mistake(&to("ferry.example.com:443"), ".websocket", "is not a WebSocket's URL", "wss://ferry.example.com/ferry");
    mistake(&to("wss://192.0.2.7/ferry"), ".websocket", "`192.0.2.7` is no host name for HTTP", "a DNS name");
    mistake(&to("wss://Ferry.example.com"), ".websocket", "is no host name for HTTP", "lower case");
    mistake(&to("wss://ferry.example.com/a//b"), ".websocket", "no path for an ingress controller", "single slashes");
    mistake(&to("wss://ferry.example.com/healthz"), ".websocket", "answers load balancers at", "another path");
    mistake(&to("wss://ferry.example.com#max_life=1s"), ".websocket", "is not a WebSocket's URL", "from 10s to 24h");
    mistake("{websocket: wss://a.example}", "", "nothing leads from there", "`ingress: {class: nginx}`");
    mistake("{ingress: {}}", ".websocket", "missing", "wss://ferry.example.com/ferry");
    let both = "{websocket: wss://a.example, ingress: {}, http_route: {gateway: public}}";
    mistake(both, ".http_route", "there is an `ingress` already", "keep one");
    mistake("{websocket: wss://a.example, http_route: {}}", ".http_route.gateway", "missing", "name the Gateway");
    let plain = "{websocket: ws://a.example, ingress: {tls_secret: s}}";
    mistake(plain, ".ingress.tls_secret", "a certificate for `ws://`", "write `wss://`");
    let class = "{websocket: wss://a.example, ingress: {class: Nginx}}";
    mistake(class, ".ingress.class", "`Nginx` is not a name in Kubernetes", "lower-case");
    let annotation = "{websocket: wss://a.example, ingress: {annotations: {a b: c}}}";
    mistake(annotation, ".ingress.annotations.`a b`", "is no annotation", "PREFIX/NAME");
}

#[test]
fn websockets_fit_what_else_the_cluster_has() {
    let links = |links: &str| with("port: 30200", &format!("port: 30200, links: {links}"));
    let path = "clusters[1].links[1]";
    assert_mistake(&links(&format!("[quic, {INGRESS}, tcp]")), path, "stands between two", "first, or last");
    assert_mistake(
        &links(&format!("[{INGRESS}, {ROUTE}]"))
            .replace(", address: host.k3d.internal", "")
            .replace("port: 30200, ", ""),
        path,
        "`websocket` is listed twice",
        "once",
    );
    let unused = alone(INGRESS).replace("links:", "port: 30200, links:");
    assert_mistake(&unused, "clusters[1]", "`port` is of a load balancer", "add `tcp`");
    let ranges = alone(INGRESS).replace("links:", "source_ranges: [192.0.2.0/24], links:");
    assert_mistake(&ranges, "clusters[1]", "`source_ranges` is of a load balancer", "remove");
    let address = alone(INGRESS).replace("links:", "address: b.example.com, links:");
    assert_mistake(&address, "clusters[1].address", "`address` is of a load balancer", "add `tcp`");
    // A gateway beside the terminator would have the same URL.
    let two = mesh().replace("port: 30200", &format!("port: 30200, links: [tcp, {INGRESS}]"));
    assert_mistake(&two, "clusters[1].links[1]", "lead to the terminator and to the gateway", "`tcp` or `quic` alone");
    let portless = FINE.replace("port: 30200, address: host.k3d.internal", &format!("links: [tcp, {INGRESS}]"));
    assert_mistake(&portless, "clusters[1].links[0]", "`tcp` needs a `port`", "port: 30200");
}
