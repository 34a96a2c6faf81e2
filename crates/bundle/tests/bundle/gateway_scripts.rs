//! The scripts of a bundle with gateways.

use crate::stage::Stage;
use crate::support::{POSTGRESQL, mesh};

const NAMESPACE: &str = "fast-international-ferry-gateway-ns";

fn three() -> Stage {
    let stage = Stage::new(&mesh());
    stage.fake("contexts", "k3d-cluster-a\nk3d-cluster-b\nk3d-cluster-c\n");
    stage
}

#[test]
fn a_gateway_is_told_every_peer_that_it_dials() {
    let stage = three();
    stage.fake("address", "203.0.113.7 \n");
    for cluster in ["b", "a", "c"] {
        stage.run(&format!("deploy-cluster-{cluster}.sh"), &[]).fine();
    }
    let patches = stage.read("fake/patches").unwrap();
    let of = |namespace: &str, patch: &str| patches.lines().any(|line| line == format!("{namespace} {patch}"));
    // B's address is the blueprint's, by the gateway's own port; A's is found.
    assert!(of(NAMESPACE, r#"{"data":{"west":"host.k3d.internal:30201","west.from":"found"}}"#), "{patches}");
    let a = r#"{"data":{"gateway-cluster-a":"203.0.113.7:30100","gateway-cluster-a.from":"found"}}"#;
    assert!(of(NAMESPACE, a), "{patches}");
    assert_eq!(stage.read("bundle/.addresses/gateway-cluster-a").as_deref(), Some("203.0.113.7:30100\n"));
}

#[test]
fn several_addresses_of_a_peer_are_lines_of_its_file() {
    let stage = three();
    stage.fake("address", "203.0.113.7 \n");
    let given = [("FERRY_WEST_ADDRESS", "b1.example.com,b2.example.com")];
    stage.run_with("deploy-cluster-a.sh", &[], &given).fine();
    let patches = stage.read("fake/patches").unwrap();
    let expected = r#"{"data":{"west":"b1.example.com:30201\nb2.example.com:30201","west.from":"given"}}"#;
    assert!(patches.contains(expected), "{patches}");
}

#[test]
fn a_namespace_of_somebody_else_is_neither_taken_nor_removed() {
    let stage = three();
    stage.fake("namespace.remote", "").fake("owner.remote", "remote:");
    let ran = stage.run("deploy-cluster-b.sh", &[]);
    assert_eq!(ran.code, 1, "{}", ran.out);
    ran.says("error: the namespace remote is there already and does not belong to fast-international-ferry");
    assert!(!ran.called("apply"), "{:?}", ran.calls);
    let ran = stage.run("teardown.sh", &["--yes"]);
    assert_eq!(ran.code, 1);
    assert!(!ran.called("delete"), "{:?}", ran.calls);
    stage.fake("owner.remote", "remote:fast-international-ferry").fake("address", "203.0.113.7 \n");
    stage.run("deploy-cluster-b.sh", &[]).fine();
    stage.run("teardown.sh", &["--yes"]).fine();
}

#[test]
fn a_script_says_where_applications_reach_the_services() {
    let stage = Stage::new(POSTGRESQL);
    let ran = stage.run("deploy-cluster-a.sh", &[]).fine();
    ran.says("applications here reach orders-db at orders-db.shop-gateway-ns.svc:5432");
    ran.says("kubectl logs --context k3d-cluster-a -n shop-gateway-ns deployment/gateway-cluster-a -c tunnel -f");
    stage.fake("contexts", "");
    for script in ["deploy-cluster-a.sh", "deploy-cluster-b.sh", "teardown.sh"] {
        stage.run(script, &["--dry-run"]).fine().says("+ kubectl --context k3d-cluster-");
        stage.run(script, &["--help"]).fine().says("--dry-run");
    }
}

#[test]
fn all_gateways_run_one_image() {
    let stage = three();
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let given = [("FERRY_SOURCE", source.to_str().unwrap())];
    let (ran, lines) = crate::scripts::built(&stage, &["--k3d"], &given);
    ran.fine();
    let base = format!("ferry:{}", env!("CARGO_PKG_VERSION"));
    let image = "fast-international-ferry-gateway:dev";
    let at = lines.iter().position(|line| *line == format!("docker image inspect {base}")).unwrap();
    let import = |cluster: &str| format!("k3d image import {image} --cluster {cluster}");
    let expected = [
        format!("docker build --target ferry --tag {base} {}", source.display()),
        format!("docker tag {base} {image}"),
        import("cluster-b"),
        import("cluster-a"),
        import("cluster-c"),
    ];
    assert_eq!(lines[at + 1..], expected);
    let stage = Stage::new(POSTGRESQL);
    let (ran, lines) = crate::scripts::built(&stage, &["--push"], &given);
    ran.fine();
    assert!(lines.iter().any(|line| line == "docker push shop-gateway:dev"), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("python")), "{lines:?}");
}
