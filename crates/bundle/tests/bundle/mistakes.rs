//! Every mistake in a blueprint is found, in its place and with a hint.

use crate::support::{FINE, accepted, refused, with};

/// Replaces a part of a fine blueprint and expects one problem.
#[track_caller]
fn mistake(from: &str, to: &str, path: &str, message: &str, hint: &str) {
    let report = refused(&with(from, to));
    let [problem] = report.problems() else { panic!("not one problem:\n{report}") };
    assert_eq!(problem.path, path, "{report}");
    assert!(problem.message.contains(message), "{report}");
    assert!(problem.hint.contains(hint), "{report}");
}

#[test]
fn every_problem_is_reported_at_once() {
    let text = FINE
        .replace("\"v2\"", "\"v3\"")
        .replace("port: 30100", "prt: 30100")
        .replace("ws-terminator", "ws-relay")
        .replace("to: terminator", "to: terminatr");
    let report = refused(&text).to_string();
    let expected = "\
blueprint.yaml: schema_version: there is no version of the schema `v3`; what there is: `v2`
blueprint.yaml: clusters[0].prt: unknown key; did you mean `port`?
blueprint.yaml: pods[1].template: the template `ws-relay` is not there yet; what there is: `ws-initiator`, `ws-terminator`, `gateway`
blueprint.yaml: connections[0].to: there is no pod `terminatr`; in `pods` there is `initiator`, `terminator`";
    assert_eq!(report, expected);
}

#[test]
fn an_empty_blueprint_lacks_everything() {
    let report = refused("{}");
    let paths: Vec<_> = report.problems().iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["schema_version", "network", "clusters", "app_registry", "pods", "connections"]);
}

#[test]
fn xtra4_is_an_older_name_of_the_armored_tunnel() {
    let older = accepted(&with("mode: armored-tunnel", "wasm_filter: xtra4"));
    assert_eq!(older, accepted(FINE));
    accepted(&with("mode: armored-tunnel", "mode: armored-tunnel\n  wasm_filter: xtra4"));
    mistake("mode: armored-tunnel", "wasm_filter: xtra5", "network.wasm_filter", "`xtra5`", "`xtra4`");
}

#[test]
fn what_is_not_there_is_named() {
    mistake("armored-tunnel", "open-tunnel", "network.mode", "there is no mode `open-tunnel`", "`armored-tunnel`");
    mistake("ws-initiator", "ws-fan-out", "pods[0].template", "`ws-fan-out` is not there yet", "`ws-initiator`");
    mistake("websocket", "grpc", "network.protocol", "there is no protocol `grpc`", "`websocket`");
    let scope = "deployment_scope: multi-cluster";
    mistake(scope, "deployment_scope: planet", "network.deployment_scope", "`planet`", "`single-cluster`");
    mistake("30200, ", "30200, cloud: ibm, ", "clusters[1].cloud", "no cloud `ibm`", "`aws`, `gcp`, `azure`, `none`");
}

#[test]
fn names_fit_kubernetes() {
    let id = "id: fast-international-ferry";
    mistake(id, "id: Fast_Ferry", "network.id", "`Fast_Ferry` is not a name", "lower-case");
    mistake(id, "id: 4ferry", "network.id", "`4ferry` is not a name", "a letter first");
    let long = format!("id: f{}", "x".repeat(55));
    let report = refused(&with(id, &long));
    assert_eq!(report.problems().len(), 2, "{report}");
    assert!(report.to_string().contains("which is too long"), "{report}");
    let pod = format!("id: p{}, template: ws-initiator", "x".repeat(46));
    let report = refused(&with("id: initiator, template: ws-initiator", &pod)).to_string();
    assert!(report.contains("is too long for a pod; use at most 46 bytes"), "{report}");
}

#[test]
fn ports_are_node_ports() {
    let hint = "from 30000 to 32767";
    mistake("port: 30200", "port: 443", "clusters[1].port", "port 443 cannot be opened", hint);
    mistake("port: 30200", "port: none", "clusters[1].port", "not such a number", "whole number");
}

#[test]
fn images_and_tags_are_such() {
    let image = "image: fast-international-ferry";
    mistake(image, "image: Ferry", "app_registry.image", "not an image", "lower-case");
    mistake(image, "image: ferry:dev", "app_registry.image", "not an image", "the tag goes into `tag`");
    mistake(image, "image: ferry..x", "app_registry.image", "not an image", "single");
    mistake("tag: dev", "tag: 1.0", "app_registry.tag", "expected text", "quotes");
    mistake("tag: dev", "tag: -x", "app_registry.tag", "not a tag", "first");
    let registry = accepted(&with(image, "image: \"localhost:5000/acme/ferry\""));
    assert_eq!(registry.image_of(&registry.pods[0]), "localhost:5000/acme/ferry-initiator:dev");
}

#[test]
fn addresses_and_ranges_are_such() {
    let address = "host.k3d.internal";
    mistake(address, "b..example", "clusters[1].address", "`b..example` is not an address", "a DNS name");
    mistake(address, "\"b:99999\"", "clusters[1].address", "not an address", "1 to 65535");
    for good in ["192.0.2.7", "\"2001:db8::7\"", "\"[2001:db8::7]:443\"", "\"b.example.com:443\""] {
        accepted(&with(address, good));
    }
    let ranges = |range: &str| format!("port: 30200, source_ranges: [{range}]");
    accepted(&with("port: 30200", &ranges("\"192.0.2.0/24\", \"2001:db8::/32\"")));
    for bad in ["192.0.2.0", "192.0.2.0/33", "192.0.2.0/-1", "x/8"] {
        mistake("port: 30200", &ranges(bad), "clusters[1].source_ranges[0]", "not a range", "192.0.2.0/24");
    }
    let fixed = "port: 30200, static_address: here";
    mistake("port: 30200", fixed, "clusters[1].static_address", "the cloud's to give", "`cloud`");
}

#[test]
fn an_address_that_only_one_machine_knows_does_not_leave_it() {
    let (here, path) = ("port: 30200, address: host.k3d.internal", "clusters[1].address");
    for elsewhere in ["host.k3d.internal", "host.docker.internal"] {
        let to = format!("port: 30200, cloud: gcp, address: {elsewhere}");
        mistake(here, &to, path, "is known on one machine only", "the deploy scripts find the address out");
    }
    mistake("context: k3d-cluster-b", "context: gke_project", path, "this cluster is elsewhere", "remove it");
    mistake(here, "port: 30200, address: localhost", path, "is the dialling pod itself", "remove it");
    accepted(&with(here, "port: 30200, cloud: gcp, address: b.example.com"));
}

#[test]
fn clusters_and_pods_belong_together() {
    let one = "  - {id: cluster-b, context: k3d-cluster-b, port: 30200, address: host.k3d.internal}\n";
    let report = refused(&FINE.replace(one, "").replace("cluster: cluster-b", "cluster: cluster-a")).to_string();
    assert!(report.contains("clusters: only one cluster in this `deployment_scope`; list both"), "{report}");
    mistake("multi-cluster", "single-cluster", "clusters", "several clusters", "`multi-cluster`");
    mistake("context: k3d-cluster-b", "context: k3d-cluster-a", "clusters[1].context", "already at", "one context");
    let report = refused(&with("cluster: cluster-b", "cluster: cluster-a")).to_string();
    assert!(report.contains("clusters[1]: no pod runs in `cluster-b`"), "{report}");
    mistake("cluster: cluster-b", "cluster: cluster-c", "pods[1].cluster", "no cluster `cluster-c`", "`cluster-b`");
}

#[test]
fn a_connection_goes_from_an_initiator_to_a_terminator() {
    let way = "{from: initiator, to: terminator}";
    let report = refused(&with(way, "{from: terminator, to: initiator}")).to_string();
    assert!(report.contains("connections[0].from: `terminator` is at the wrong end"), "{report}");
    assert!(report.contains("connections[0].to: `initiator` is at the wrong end"), "{report}");
    let twice = format!("{way}\n  - {way}");
    mistake(way, &twice, "connections[1]", "more than one connection", "one so far");
    mistake("- {from: initiator, to: terminator}", "[]", "connections", "no connections", "who connects");
}

#[test]
fn there_is_one_terminator_and_each_initiator_dials_it_once() {
    let report = refused(&with("ws-terminator", "ws-initiator")).to_string();
    assert!(report.contains("pods: no pod with `template: ws-terminator`"), "{report}");
    let report = refused(&with("ws-initiator", "ws-terminator")).to_string();
    assert!(report.contains("pods: several pods with `template: ws-terminator`"), "{report}");
    let pod = "- {id: terminator, template: ws-terminator, cluster: cluster-b}";
    let more = format!("{pod}\n  - {{id: edge, template: ws-initiator, cluster: cluster-a}}");
    let report = refused(&with(pod, &more)).to_string();
    assert!(report.contains("`edge` has no connection") && report.contains("{from: edge, to: …}"), "{report}");
    let told = "template: ws-terminator, auto_trigger: 3";
    mistake("template: ws-terminator", told, "pods[1].auto_trigger", "sends nothing", "initiator");
}

#[test]
fn spans_go_to_a_collector_over_http() {
    let from = "connections:\n  - {from: initiator, to: terminator}\n";
    for wrong in ["https://otel:4318", "otel:4318", "http://otel", "http://otel:4318/v1/traces"] {
        let to = format!("{from}traces: {{endpoint: \"{wrong}\"}}\n");
        mistake(from, &to, "traces.endpoint", "is not `http://HOST:PORT`", "`http://collector.monitoring.svc:4318`");
    }
}

#[test]
fn the_tunnel_is_checked_like_a_tunnel_yaml() {
    let tunnel = |text: &str| format!("connections:\n  - {{from: initiator, to: terminator}}\ntunnel: {text}\n");
    let from = "connections:\n  - {from: initiator, to: terminator}\n";
    mistake(from, &tunnel("{liveness: soon}"), "tunnel.liveness", "not a duration", "`30s`");
    mistake(from, &tunnel("{rotation: {evry: 1s}}"), "tunnel.rotation.evry", "unknown key", "`every`");
    let buffer = "{resume: {buffer: 1GiB}}";
    mistake(from, &tunnel(buffer), "tunnel.resume.buffer", "does not fit into a `limits.memory`", "lower");
}
