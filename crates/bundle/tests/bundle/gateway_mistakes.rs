//! Every mistake in services and gateways is found, in its place and with a hint.

use crate::support::{FINE, POSTGRESQL, accepted, mesh, refused};

const SERVICE: &str =
    "{name: orders-db, cluster: cluster-b, target: postgres.shop.svc:5432, reach_from: [cluster-a, cluster-c]}";

/// Expects one problem in a text.
#[track_caller]
fn problem(text: &str, path: &str, message: &str, hint: &str) {
    let report = refused(text);
    let [problem] = report.problems() else { panic!("not one problem:\n{report}") };
    assert_eq!(problem.path, path, "{report}");
    assert!(problem.message.contains(message), "{report}");
    assert!(problem.hint.contains(hint), "{report}");
    assert!(problem.line.is_some() && problem.column.is_some(), "{problem:?}");
}

/// Replaces a part of the example and expects one problem.
#[track_caller]
fn mistake(from: &str, to: &str, path: &str, message: &str, hint: &str) {
    assert!(POSTGRESQL.contains(from), "no {from:?}");
    problem(&POSTGRESQL.replacen(from, to, 1), path, message, hint);
}

/// The example with lines added.
fn with_more(text: &str) -> String {
    format!("{POSTGRESQL}{text}")
}

#[test]
fn a_problem_has_a_line_and_a_column() {
    let report = refused(&POSTGRESQL.replace("svc:5432", "svc"));
    let at = &report.problems()[0];
    let line = POSTGRESQL.lines().position(|line| line.contains("orders-db")).unwrap() + 1;
    assert_eq!((at.line, at.column), (Some(line as u64), Some(51)));
    let expected = "blueprint.yaml: services[0].target: `postgres.shop.svc` is not where a service is found; write the \
                    port, too, such as `postgres.shop.svc:5432`";
    assert_eq!(report.to_string(), expected);
}

#[test]
fn a_target_has_a_port_and_a_namespace() {
    let target = "postgres.shop.svc:5432";
    let path = "services[0].target";
    mistake(target, "postgres.shop.svc:0", path, "is not where a service is found", "port 0");
    mistake(target, "postgres.shop.svc:70000", path, "is not where a service is found", "1 to 65535");
    mistake(target, "postgres:5432", path, "does not say in which namespace", "`postgres.NAMESPACE.svc:5432`");
    mistake(target, "127.0.0.1:5432", path, "is the gateway itself", "`postgres.shop.svc:5432`");
    mistake(", target: postgres.shop.svc:5432", "", path, "missing", "where it is found");
    for good in ["192.0.2.7:5432", "\"[2001:db8::7]:5432\"", "db.example.com:5432", "a.b.svc.cluster.local:1"] {
        accepted(&POSTGRESQL.replace(target, good));
    }
}

#[test]
fn a_service_has_a_name_for_kubernetes() {
    for bad in ["Orders", "orders_db", "4ders", "-db"] {
        mistake("orders-db", bad, "services[0].name", "is not a name for Kubernetes", "lower-case");
    }
    let long = "x".repeat(64);
    mistake("orders-db", &long, "services[0].name", "is not a name for Kubernetes", "at most 63");
    mistake("name: orders-db, ", "", "services[0].name", "missing", "name the service");
    let own = "gateway-cluster-a-tunnel";
    mistake("orders-db", own, "services[0].name", "what the Service of the gateway itself is called", "another name");
}

#[test]
fn limits_are_what_a_tunnel_takes() {
    let limited = |limits: &str, key: &str, message: &str, hint: &str| {
        let service = format!("target: postgres.shop.svc:5432, limits: {limits}");
        mistake("target: postgres.shop.svc:5432", &service, &format!("services[0].limits{key}"), message, hint);
    };
    limited("{sessions: 0}", ".sessions", "`0`", "from 1 to");
    limited("{bytes_per_second: 1023}", ".bytes_per_second", "too small", "at least 1KiB");
    limited("{bytes_per_second: 8Mbit}", ".bytes_per_second", "not a size", "`GB` (1000s)");
    limited("{memory: 1MiB}", ".memory", "unknown key", "");
    limited("50", "", "", "");
}

#[test]
fn a_name_stands_for_one_service_in_a_cluster() {
    let path = "services[1].name";
    let with_more = |text: &str| with_more(text).replace("k3d-cluster-c}", "k3d-cluster-c, port: 30300}");
    let other =
        with_more("  - {name: orders-db, cluster: cluster-c, target: db.shop.svc:1, reach_from: [cluster-a]}\n");
    problem(&other, path, "already reached from `cluster-a` at `services[0].name`", "a name of its own");
    let twice =
        with_more("  - {name: orders-db, cluster: cluster-b, target: db.shop.svc:1, reach_from: [cluster-a]}\n");
    problem(&twice, path, "already a service of `cluster-b` at `services[0].name`", "a name of its own");
    // Elsewhere it is another service.
    accepted(&with_more("  - {name: orders-db, cluster: cluster-c, target: db.shop.svc:1, reach_from: [cluster-b]}\n"));
}

#[test]
fn a_service_is_reached_from_other_clusters_that_there_are() {
    let from = "[cluster-a, cluster-c]";
    let path = "services[0].reach_from";
    let missing = "  - {id: cluster-c, context: k3d-cluster-c}\n";
    let text = POSTGRESQL.replace(missing, "");
    problem(&text, "services[0].reach_from[1]", "there is no cluster `cluster-c`", "`cluster-a`, `cluster-b`");
    mistake("cluster: cluster-b", "cluster: cluster-d", "services[0].cluster", "no cluster `cluster-d`", "`cluster-b`");
    let own = "[cluster-a, cluster-c, cluster-b]";
    mistake(from, own, "services[0].reach_from[2]", "`cluster-b` is where the service runs", "other clusters only");
    let twice = "[cluster-a, cluster-c, cluster-a]";
    mistake(from, twice, "services[0].reach_from[2]", "listed twice", "once");
    mistake(from, "[]", path, "an empty list", "list the clusters");
    mistake(", reach_from: [cluster-a, cluster-c]", "", path, "missing", "list the clusters");
}

#[test]
fn one_cluster_of_a_pair_can_be_dialled() {
    let port = ", port: 30200, address: host.k3d.internal";
    let report = refused(&POSTGRESQL.replace(port, ""));
    let found: Vec<_> = report.problems().iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(found, ["services[0].reach_from[0]", "services[0].reach_from[1]"]);
    assert!(report.to_string().contains("neither `cluster-b` nor `cluster-a` can be dialled; give one"), "{report}");
    // A port that is wrong is a port.
    mistake("port: 30200", "port: 443", "clusters[1].port", "cannot be opened", "30000");
}

#[test]
fn a_gateway_shares_a_port_with_nobody() {
    let text = mesh().replace(", port: 30201", "");
    problem(&text, "pods[2].template", "port 30200 of `cluster-b` is taken by `terminator`", "port: …");
    let same = mesh().replace("port: 30201", "port: 30200");
    problem(&same, "pods[2].template", "port 30200 of `cluster-b` is taken by `terminator`", "its own");
    let implied =
        mesh().replace("  - {id: west, template: gateway, cluster: cluster-b, port: 30201, namespace: remote}\n", "");
    problem(&implied, "services[0].name", "port 30200 of `cluster-b` is taken by `terminator`", "template: gateway");
}

#[test]
fn a_gateway_is_for_services_and_there_is_one_in_a_cluster() {
    let listed = |pods: &str| with_more(&format!("pods:\n{pods}"));
    let gateway = |id: &str, rest: &str| format!("  - {{id: {id}, template: gateway, cluster: {rest}}}\n");
    accepted(&listed(&gateway("west", "cluster-b, namespace: remote, port: 30300")));
    let idle = POSTGRESQL.replace(", cluster-c]", "]") + "pods:\n" + &gateway("idle", "cluster-c");
    problem(&idle, "pods[0].template", "no service is in `cluster-c`", "remove the gateway");
    let two = listed(&(gateway("one", "cluster-b") + &gateway("two", "cluster-b")));
    problem(&two, "pods[1].template", "`cluster-b` has a gateway already, at `pods[0].template`", "all services");
    let portless = listed(&gateway("east", "cluster-a, port: 30300"));
    problem(&portless, "pods[0].port", "`cluster-a` has no `port`", "give the cluster");
    for key in ["auto_trigger: 3", "expose: {namespace: web}"] {
        let path = format!("pods[0].{}", key.split(':').next().unwrap());
        problem(&listed(&gateway("east", &format!("cluster-a, {key}"))), &path, "no web-app", "remove it");
    }
    let path = "pods[0].template";
    problem(
        &listed(&gateway("e", "cluster-a").replace("gateway", "gatewy")),
        path,
        "no template `gatewy`",
        "`gateway`",
    );
    let unknown = listed(&gateway("east", "cluster-d"));
    problem(&unknown, "pods[0].cluster", "there is no cluster `cluster-d`", "`cluster-a`");
}

#[test]
fn only_a_gateway_chooses_its_namespace_and_port() {
    for (key, value) in [("namespace", "mine"), ("port", "30300")] {
        let text = FINE.replace("cluster: cluster-a}\n", &format!("cluster: cluster-a, {key}: {value}}}\n"));
        problem(&text, &format!("pods[0].{key}"), "only a gateway has a", "remove it");
    }
}

#[test]
fn names_of_gateways_are_free() {
    let taken =
        mesh().replace("id: initiator", "id: gateway-cluster-a").replace("from: initiator", "from: gateway-cluster-a");
    problem(&taken, "pods[0].id", "is what the gateway of `cluster-a` is called", "rename the pod");
    let shared = mesh().replace("id: initiator", "id: gateway").replace("from: initiator", "from: gateway");
    problem(&shared, "pods[0].id", "would share a namespace with the gateway of `cluster-a`", "rename the pod");
    let long = format!("cluster-{}", "c".repeat(40));
    let text =
        POSTGRESQL.replace("{id: cluster-c", &format!("{{id: {long}")).replace(", cluster-c]", &format!(", {long}]"));
    problem(&text, "clusters[2]", "too long a name", "template: gateway");
}

#[test]
fn services_need_several_clusters() {
    let one = FINE.replace("multi-cluster", "single-cluster").replace("cluster: cluster-b", "cluster: cluster-a");
    let line = "  - {id: cluster-b, context: k3d-cluster-b, port: 30200, address: host.k3d.internal}\n";
    let text = one.replace(line, "") + "services:\n  - " + &SERVICE.replace("cluster-b", "cluster-a") + "\n";
    problem(&text, "services", "carried between clusters, and here is only one", "`multi-cluster`");
    let idle = POSTGRESQL.replace(", cluster-c]", "]");
    problem(&idle, "clusters[2]", "no pod runs in `cluster-c`", "remove the cluster");
    mistake(&format!("  - {SERVICE}\n"), "  []\n", "services", "no services", "list a service");
}

#[test]
fn web_apps_are_as_complete_beside_services_as_alone() {
    let text = mesh().replace("connections:\n  - {from: initiator, to: terminator}\n", "");
    problem(&text, "pods", "no connection between the pods", "connections:");
    let portless = FINE.replace(", port: 30200, address: host.k3d.internal", "");
    problem(&portless, "pods[1].cluster", "`cluster-b` has no `port`, and a terminator is dialled", "port: 30200");
    accepted(&FINE.replace(", port: 30100", ""));
}
