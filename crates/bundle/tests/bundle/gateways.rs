//! Gateways: which there are, who dials whom, and what applications and policies see of them.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::manifests::{allowed, deployment, pod_spec, policy, service, services, tunnel};
use crate::support::{FINE, POSTGRESQL, accepted, mesh, objects, rendered};
use ferry_bundle::Blueprint;
use ferry_config::{Address, EntryLimits};

/// Who dials whom among gateways, as `from>to`.
fn ways(blueprint: &Blueprint) -> BTreeSet<String> {
    blueprint.connections.iter().map(|way| format!("{}>{}", way.from, way.to)).collect()
}

#[test]
fn services_alone_are_enough() {
    let bundle = rendered(POSTGRESQL);
    let (near, far) = (tunnel(&bundle, "gateway-cluster-a"), tunnel(&bundle, "gateway-cluster-b"));
    let [egress] = &near.egress[..] else { panic!("{near:?}") };
    assert_eq!((egress.peer.as_str(), egress.service.as_str()), (far.name.as_str(), "orders-db"));
    let [ingress] = &far.ingress[..] else { panic!("{far:?}") };
    assert_eq!(
        (ingress.service.as_str(), ingress.forward.to_string().as_str()),
        ("orders-db", "postgres.shop.svc:5432")
    );
    let allow: Vec<_> = ingress.allow.iter().map(|name| name.as_str()).collect();
    assert_eq!(allow, ["cluster-a/gateway-cluster-a", "cluster-c/gateway-cluster-c"]);
    // The same host name in every cluster.
    for gateway in ["gateway-cluster-a", "gateway-cluster-c"] {
        let all = services(&bundle, gateway);
        let [orders] = &all[..] else { panic!("{all:?}") };
        assert_eq!(orders.metadata.namespace.as_deref(), Some("shop-gateway-ns"));
        let port = &service(&bundle, gateway, "orders-db").ports.unwrap()[0];
        let listen = i32::from(tunnel(&bundle, gateway).egress[0].listen.port());
        assert_eq!((port.port, port.target_port.clone()), (5432, Some(IntOrString::Int(listen))));
    }
}

#[test]
fn in_a_cluster_with_ipv6_alone_everything_listens_there() {
    let text = POSTGRESQL.replace("context: k3d-cluster-a", "context: k3d-cluster-a, ipv6: true");
    let bundle = rendered(&text);
    let near = tunnel(&bundle, "gateway-cluster-a");
    let listens = [near.listen, near.admin, Some(near.egress[0].listen)].map(Option::unwrap);
    assert_eq!(listens.map(|address| address.to_string()), ["[::]:18000", "[::]:9900", "[::]:18001"]);
    // The others as before.
    assert!(tunnel(&bundle, "gateway-cluster-b").listen.unwrap().is_ipv4());
    let bundle = rendered(&FINE.replace("context: k3d-cluster-a", "context: k3d-cluster-a, ipv6: true"));
    let spec = pod_spec(&bundle, "initiator");
    let environment = spec.containers[0].env.as_ref().unwrap();
    let listen = environment.iter().find(|variable| variable.name == "FERRY_LISTEN").unwrap();
    assert_eq!(listen.value.as_deref(), Some("[::]:8000"));
}

/// Its state does not outlive the pod: the next one could not tell the peers which sessions are gone.
#[test]
fn a_gateway_resets_what_is_open_when_its_pod_ends() {
    let spec = pod_spec(&rendered(POSTGRESQL), "gateway-cluster-a");
    let engine = spec.containers.iter().find(|container| container.name == "tunnel").unwrap();
    assert!(!engine.args.as_ref().unwrap().contains(&"--leave-sessions".to_owned()), "{:?}", engine.args);
    let claims = spec.volumes.unwrap().into_iter().filter(|volume| volume.persistent_volume_claim.is_some());
    assert_eq!(claims.count(), 0);
}

#[test]
fn exactly_the_pairs_that_share_a_service_are_connected() {
    let blueprint = accepted(&mesh());
    let expected = [
        "gateway-cluster-a>west",
        "gateway-cluster-c>gateway-cluster-a",
        "gateway-cluster-c>west",
        "initiator>terminator",
    ];
    assert_eq!(ways(&blueprint), expected.map(String::from).into());
    let bundle = rendered(&mesh());
    let peers = |pod: &str| tunnel(&bundle, pod).peers.len();
    assert_eq!((peers("gateway-cluster-a"), peers("west"), peers("gateway-cluster-c")), (2, 2, 2));
    let without = mesh().replace("reach_from: [cluster-a, cluster-c]", "reach_from: [cluster-a]");
    assert!(!ways(&accepted(&without)).contains("gateway-cluster-c>west"));
}

#[test]
fn of_two_clusters_the_one_with_a_port_is_dialled_then_the_one_with_an_address_then_the_first() {
    let dialled = |a: &str, c: &str| {
        let text = POSTGRESQL.replace("k3d-cluster-a}", &format!("k3d-cluster-a{a}}}"));
        let text = text.replace(", port: 30200, address: host.k3d.internal", c);
        ways(&accepted(&text.replace(", cluster-c]", "]").replace("  - {id: cluster-c, context: k3d-cluster-c}\n", "")))
    };
    let to_a = BTreeSet::from(["gateway-cluster-b>gateway-cluster-a".to_owned()]);
    let to_b = BTreeSet::from(["gateway-cluster-a>gateway-cluster-b".to_owned()]);
    assert_eq!(dialled("", ", port: 30200"), to_b);
    assert_eq!(dialled(", port: 30100", ""), to_a);
    assert_eq!(dialled(", port: 30100", ", port: 30200, address: host.k3d.internal"), to_b);
    assert_eq!(dialled(", port: 30100, address: host.k3d.internal", ", port: 30200"), to_a);
    assert_eq!(dialled(", port: 30100", ", port: 30200"), to_a);
}

#[test]
fn a_gateway_that_is_dialled_has_a_load_balancer_and_the_others_have_none() {
    let bundle = rendered(&mesh());
    let port = &service(&bundle, "west", "west-tunnel").ports.unwrap()[0];
    assert_eq!((port.port, port.node_port), (30_201, Some(30_201)));
    let port = &service(&bundle, "gateway-cluster-a", "gateway-cluster-a-tunnel").ports.unwrap()[0];
    assert_eq!(port.port, 30_100);
    // Nothing dials C, and nothing is reached from there but the database.
    let names: Vec<_> = services(&bundle, "gateway-cluster-c").into_iter().map(|s| s.metadata.name.unwrap()).collect();
    assert_eq!(names, ["orders-db"]);
    let addresses = |pod: &str, peer: &str| {
        let peers = tunnel(&bundle, pod).peers;
        peers.into_iter().find(|known| known.name.as_str() == peer).unwrap().addresses
    };
    assert_eq!(addresses("gateway-cluster-c", "cluster-b/west"), [Address::File("/etc/ferry/addresses/west".into())]);
    assert_eq!(addresses("west", "cluster-c/gateway-cluster-c"), []);
}

#[test]
fn a_service_has_a_port_of_its_own_choice_and_the_namespaces_that_may_reach_it() {
    let bundle = rendered(&mesh());
    let gateway = "gateway-cluster-a";
    assert_eq!(service(&bundle, gateway, "orders-db").ports.unwrap()[0].port, 5432);
    assert_eq!(service(&bundle, gateway, "cache").ports.unwrap()[0].port, 6380);
    let policy_of = |pod: &str| policy(&bundle, pod);
    let dns = "53/UDP,53/TCP anywhere";
    let expected = ["18000/TCP anywhere", "18001/TCP any-namespace", "18002/TCP web", "18003/TCP any-namespace"];
    assert_eq!(allowed(&policy_of(gateway), true), expected);
    assert_eq!(allowed(&policy_of(gateway), false), ["30201/TCP anywhere", "9090/TCP 192.0.2.7/32", dns]);
    // One way to a namespace is enough, and by which port of its pods is not known.
    assert_eq!(allowed(&policy_of("west"), false), ["any/TCP shop", dns]);
    let to_b_and_a = ["30100/TCP anywhere", "30201/TCP anywhere", "443/TCP anywhere", dns];
    assert_eq!(allowed(&policy_of("gateway-cluster-c"), false), to_b_and_a);
    let metrics = rendered(&(POSTGRESQL.to_owned() + "metrics: {namespace: monitoring}\n"));
    let seen = allowed(&policy(&metrics, "gateway-cluster-b"), true);
    assert_eq!(seen, ["18000/TCP anywhere", "9900/TCP monitoring"]);
}

#[test]
fn a_service_is_limited_where_it_runs_from_all_clusters_together() {
    let bundle = rendered(&mesh());
    let limits = |pod: &str, service: &str| {
        let ingress = tunnel(&bundle, pod).ingress;
        ingress.into_iter().find(|known| known.service.as_str() == service).unwrap().limits
    };
    let expected = EntryLimits { sessions: Some(50), bytes_per_second: Some(5_000_000) };
    assert_eq!(limits("west", "cache"), expected);
    assert_eq!(limits("west", "orders-db"), EntryLimits::default());
    let reaching = tunnel(&bundle, "gateway-cluster-a").egress;
    assert!(reaching.iter().all(|egress| egress.limits == EntryLimits::default()));
}

#[test]
fn one_more_service_changes_no_pod() {
    let more = format!(
        "{POSTGRESQL}  - {{name: ledger, cluster: cluster-c, target: ledger.shop.svc:80, reach_from: [cluster-b]}}\n"
    );
    let (before, after) = (rendered(POSTGRESQL), rendered(&more));
    for gateway in ["gateway-cluster-a", "gateway-cluster-b", "gateway-cluster-c"] {
        assert_eq!(deployment(&before, gateway), deployment(&after, gateway));
        let listens = |bundle| tunnel(bundle, gateway).listen;
        assert_eq!(listens(&before), listens(&after), "{gateway}: a restart would be needed");
    }
}

#[test]
fn a_gateway_is_a_tunnel_with_its_keeper_and_no_more() {
    let bundle = rendered(POSTGRESQL);
    let pod = "gateway-cluster-a";
    let spec = pod_spec(&bundle, pod);
    let [keeper] = &spec.init_containers.clone().unwrap()[..] else { panic!("{spec:?}") };
    assert_eq!((keeper.name.as_str(), keeper.restart_policy.as_deref()), ("keeper", Some("Always")));
    let [container] = &spec.containers[..] else { panic!("{spec:?}") };
    assert_eq!((container.name.as_str(), container.image.as_deref()), ("tunnel", Some("shop-gateway:dev")));
    assert_eq!(container.restart_policy, None);
    assert_eq!(spec.termination_grace_period_seconds, Some(15 + 5));
    let claims: Vec<PersistentVolumeClaim> = objects(&bundle, &format!("{pod}/03-deployment.yaml"));
    assert!(claims.is_empty());
    assert!(bundle.files().keys().all(|path| !path.contains("/app/")), "hooks for nothing");
    assert!(!bundle.text(&format!("{pod}/kustomization.yaml")).unwrap().contains("hooks"));
    let readme = bundle.text("README.md").unwrap();
    assert!(readme.contains("`orders-db.shop-gateway-ns.svc:5432`"), "{readme}");
    for path in bundle.files().keys() {
        assert!(!bundle.text(path).unwrap().contains("{{"), "{path} has a place that was not filled");
    }
}

#[test]
fn web_apps_and_gateways_share_a_bundle() {
    let (mixed, alone) = (rendered(&mesh()), rendered(FINE));
    for file in ["03-deployment.yaml", "04-service.yaml", "05-network-policy.yaml", "app/app.py", "kustomization.yaml"]
    {
        for pod in ["initiator", "terminator"] {
            let path = format!("{pod}/{file}");
            assert_eq!(mixed.text(&path), alone.text(&path), "{path}");
        }
    }
    let readme = mixed.text("README.md").unwrap();
    assert!(readme.contains("kubectl logs -n fast-international-ferry-initiator-ns deployment/initiator"), "{readme}");
    assert!(readme.contains("`billing.fast-international-ferry-gateway-ns.svc:443`"), "{readme}");
    assert!(readme.contains("`metrics.remote.svc:9090`"), "{readme}");
}

#[test]
fn clusters_that_are_dialled_are_deployed_first_and_every_gateway_that_leads_somewhere_is_asked() {
    let steps = accepted(&mesh()).steps();
    assert_eq!(steps.scripts, ["deploy-cluster-b.sh", "deploy-cluster-a.sh", "deploy-cluster-c.sh"]);
    assert!(steps.proof.is_some());
    let asked: Vec<_> = steps.links.iter().map(|link| (link.gateway[0].as_str(), link.services.join(","))).collect();
    let expected =
        [("west", "metrics"), ("gateway-cluster-a", "orders-db,cache,billing"), ("gateway-cluster-c", "orders-db")];
    assert_eq!(asked, expected.map(|(gateway, services)| (gateway, services.to_owned())));
    assert_eq!(steps.links[0].pod, "deployment/west");
    // The address of A is found; that of B is known.
    let found: Vec<_> = steps.addresses.iter().map(|watched| watched.pod.as_str()).collect();
    assert_eq!(found, ["gateway-cluster-a"]);
    assert_eq!(accepted(POSTGRESQL).steps().proof, None);
}
