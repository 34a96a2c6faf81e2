//! Links of every kind: what a blueprint says of them, and what it comes to at both ends.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::manifests::{allowed, containers, pod_spec, policy, service, services, tunnel};
use crate::stage::{INITIATOR_NS, Stage};
use crate::support::{FINE, POSTGRESQL, SINGLE, accepted, refused, rendered, with};
use ferry_bundle::{Bundle, Carrier};
use ferry_config::Address;

/// [`FINE`], with `links` at the cluster that is dialled.
fn by(links: &str) -> String {
    with("port: 30200", &format!("port: 30200, links: {links}"))
}

/// The same, and the scripts have to find out where that is.
fn found(links: &str) -> String {
    by(links).replace(", address: host.k3d.internal", "")
}

/// The ports of the Service in front of the tunnel: name, number, protocol.
fn published(bundle: &Bundle) -> Vec<String> {
    let spec = service(bundle, "terminator", "terminator-tunnel");
    assert_eq!(spec.type_.as_deref(), Some("LoadBalancer"));
    let ports = spec.ports.unwrap().into_iter().map(|port| {
        assert_eq!(port.node_port, Some(port.port));
        assert_eq!(port.target_port, port.name.clone().map(IntOrString::String));
        format!("{} {}/{}", port.name.unwrap(), port.port, port.protocol.unwrap())
    });
    ports.collect()
}

#[track_caller]
fn mistake(links: &str, path: &str, message: &str, hint: &str) {
    assert_mistake(&by(links), path, message, hint);
}

#[track_caller]
pub(crate) fn assert_mistake(text: &str, path: &str, message: &str, hint: &str) {
    let report = refused(text);
    let [problem] = report.problems() else { panic!("not one problem:\n{report}") };
    assert_eq!(problem.path, path, "{report}");
    assert!(problem.message.contains(message), "{report}");
    assert!(problem.hint.contains(hint), "{report}");
}

#[test]
fn links_are_over_tcp_unless_the_blueprint_says_otherwise() {
    assert_eq!(accepted(FINE).clusters[1].links, [Carrier::Tcp]);
    let (plain, told) = (rendered(FINE), rendered(&by("[tcp]")));
    for (path, file) in plain.files().iter().filter(|(path, _)| *path != "blueprint.yaml") {
        assert!(told.files()[path] == *file, "{path}");
    }
}

#[test]
fn quic_has_the_port_of_udp_with_the_same_number_at_both_ends() {
    let bundle = rendered(&by("[quic, tcp]"));
    let far = tunnel(&bundle, "terminator");
    assert_eq!((far.listen, far.listen_quic), ("0.0.0.0:18000".parse().ok(), "0.0.0.0:18000".parse().ok()));
    assert_eq!(published(&bundle), ["tunnel 30200/TCP", "tunnel-quic 30200/UDP"]);
    let spec = pod_spec(&bundle, "terminator");
    let own = containers(&spec).into_iter().find(|container| container.name == "tunnel").unwrap();
    let ports: Vec<_> =
        own.ports.iter().flatten().map(|port| (port.container_port, port.protocol.as_deref())).collect();
    assert_eq!(ports, [(18_000, None), (18_000, Some("UDP")), (9_900, None)]);
    assert_eq!(allowed(&policy(&bundle, "terminator"), true), ["18000/TCP,18000/UDP anywhere"]);
    assert_eq!(allowed(&policy(&bundle, "initiator"), false)[0], "30200/TCP,30200/UDP anywhere");
    // The other end, which nobody dials, is as it was.
    assert_eq!(tunnel(&bundle, "initiator"), tunnel(&rendered(FINE), "initiator"));
}

#[test]
fn what_is_not_listed_is_not_open() {
    let bundle = rendered(&by("[quic]"));
    let far = tunnel(&bundle, "terminator");
    assert_eq!((far.listen, far.listen_quic.is_some()), (None, true));
    assert_eq!(published(&bundle), ["tunnel-quic 30200/UDP"]);
    assert_eq!(allowed(&policy(&bundle, "terminator"), true), ["18000/UDP anywhere"]);
    assert_eq!(allowed(&policy(&bundle, "initiator"), false)[0], "30200/UDP anywhere");
}

#[test]
fn the_order_is_that_of_the_addresses_and_changes_no_pod() {
    let (one, other) = (rendered(&by("[quic, tcp]")), rendered(&by("[tcp, quic]")));
    for (path, file) in one.files().iter().filter(|(path, _)| path.contains("/0")) {
        assert!(other.files()[path] == *file, "{path}");
    }
}

#[test]
fn gateways_take_links_by_what_their_cluster_says() {
    let text = POSTGRESQL.replace("port: 30200", "port: 30200, links: [tcp, quic]");
    let bundle = rendered(&text);
    let far = tunnel(&bundle, "gateway-cluster-b");
    assert!(far.listen.is_some() && far.listen_quic.is_some());
    assert_eq!(tunnel(&bundle, "gateway-cluster-a").listen_quic, None);
    let all = services(&bundle, "gateway-cluster-b");
    let protocols: Vec<_> =
        all[0].spec.as_ref().unwrap().ports.iter().flatten().map(|port| port.protocol.clone().unwrap()).collect();
    assert_eq!(protocols, ["TCP", "UDP"]);
}

#[test]
fn each_cloud_is_told_of_two_protocols_at_one_port() {
    let annotations = |links: &str| {
        let text = found(links).replace("port: 30200", "port: 30200, cloud: aws");
        let mut services = services(&rendered(&text), "terminator");
        services.retain(|service| service.metadata.name.as_deref() == Some("terminator-tunnel"));
        services.remove(0).metadata.annotations.unwrap().into_keys().collect::<Vec<_>>().join(" ")
    };
    let (tcp, both) = (annotations("[tcp]"), annotations("[tcp, quic]"));
    let (listener, both_protocols) = ("listener-attributes.TCP-30200", "aws-load-balancer-enable-tcp-udp-listener");
    assert!(tcp.contains(listener) && !tcp.contains(both_protocols), "{tcp}");
    assert!(both.contains(both_protocols) && !both.contains(listener), "{both}");
}

#[test]
fn the_scripts_tell_an_address_for_each_kind_in_the_order_of_the_blueprint() {
    let stage = Stage::new(&found("[quic, tcp]"));
    stage.fake("address", "203.0.113.7 \n2001:db8::7 \n b.elb.example.com\n");
    stage.run("deploy-cluster-b.sh", &[]).fine();
    let expected = "quic://203.0.113.7:30200\nquic://[2001:db8::7]:30200\nquic://b.elb.example.com:30200\n\
                    203.0.113.7:30200\n[2001:db8::7]:30200\nb.elb.example.com:30200";
    assert_eq!(stage.read("bundle/.addresses/terminator").unwrap().trim_end(), expected);
    stage.run("deploy-cluster-a.sh", &[]).fine();
    let told = stage.told().unwrap();
    assert_eq!(told, expected);
    assert!(told.lines().all(|line| line.parse::<Address>().is_ok()), "{told}");
    let again = stage.run("deploy-cluster-a.sh", &[]).fine();
    again.says("initiator: already dials terminator at quic://203.0.113.7:30200");

    // From what is recorded, and of two kinds the other first.
    let stage = Stage::new(&found("[tcp, quic]"));
    stage.fake("address", "203.0.113.7 \n").fake(&format!("namespace.{INITIATOR_NS}"), "");
    stage.run("deploy-cluster-b.sh", &[]).fine();
    assert_eq!(stage.told().as_deref(), Some("203.0.113.7:30200\nquic://203.0.113.7:30200"));
    stage.fake("contexts", "k3d-cluster-a\n");
    stage.run("deploy-cluster-a.sh", &[]).fine().says("already dials");
}

#[test]
fn a_given_host_stands_for_every_kind_and_a_given_url_for_itself() {
    let stage = Stage::new(&by("[quic, tcp]"));
    let tell = |given: &str| {
        stage.run_with("deploy-cluster-a.sh", &[], &[("FERRY_TERMINATOR_ADDRESS", given)]).fine();
        // What was given is kept by later runs.
        stage.run("deploy-cluster-a.sh", &[]).fine().says("given earlier");
        stage.told().unwrap()
    };
    assert_eq!(tell("b.example.com:443"), "quic://b.example.com:443\nb.example.com:443");
    assert_eq!(
        tell("quic://192.0.2.7:1, [2001:db8::7]"),
        "quic://[2001:db8::7]:30200\n[2001:db8::7]:30200\nquic://192.0.2.7:1"
    );
    assert_eq!(tell("tcp://192.0.2.7:1"), "tcp://192.0.2.7:1");
    stage.run_with("deploy-cluster-a.sh", &[], &[("FERRY_TERMINATOR_ADDRESS", "auto")]).fine();
    assert_eq!(stage.told().unwrap(), "quic://host.k3d.internal:30200\nhost.k3d.internal:30200");
}

#[test]
fn a_service_with_two_ports_of_one_number_is_applied_by_the_api_server() {
    let stage = Stage::new(&by("[quic, tcp]"));
    stage.fake("address", "203.0.113.7 \n");
    let b = stage.run("deploy-cluster-b.sh", &[]).fine();
    assert!(b.called("apply --server-side --force-conflicts --kustomize terminator"), "{:?}", b.calls);
    let a = stage.run("deploy-cluster-a.sh", &[]).fine();
    assert!(a.called("apply --kustomize initiator"), "{:?}", a.calls);
    stage.run("deploy-cluster-b.sh", &["--dry-run"]).fine().says("apply --server-side");
}

#[test]
fn the_readme_opens_both_protocols_of_k3d() {
    let bundle = rendered(&by("[tcp, quic]"));
    let readme = bundle.text("README.md").unwrap();
    assert!(
        readme.contains("--port '30200:30200@loadbalancer' --port '30200:30200/udp@loadbalancer' --wait"),
        "{readme}"
    );
}

#[test]
fn links_that_do_not_fit_are_reported_with_what_to_do() {
    let path = "clusters[1].links";
    mistake("[]", path, "no links", "`[tcp]`, or `[quic, tcp]`");
    mistake("[udp]", "clusters[1].links[0]", "`udp` carries no links", "`tcp`, `quic`");
    mistake("[tcp, quic, tcp]", "clusters[1].links[2]", "`tcp` is listed twice", "once");
    mistake("tcp", path, "expected a list", "- ");
    let single = SINGLE.replace("port: 30200", "port: 30200, links: [tcp]");
    assert_mistake(&single, "clusters[0].links", "within one cluster, links are always over TCP", "remove");
    let portless = POSTGRESQL.replace("context: k3d-cluster-c", "context: k3d-cluster-c, links: [quic]");
    assert_ne!(portless, POSTGRESQL);
    assert_mistake(&portless, "clusters[2].links[0]", "`quic` needs a `port`", "port: 30200");
}
