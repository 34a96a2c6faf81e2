//! Several initiators in several clusters, and one terminator.

use crate::support::{accepted, rendered, with};

/// Of the reference network, with two more initiators: one in a third cluster, and one where the terminator is.
fn many() -> String {
    let pod = "- {id: terminator, template: ws-terminator, cluster: cluster-b}";
    let pods = format!(
        "{pod}\n  - {{id: edge, template: ws-initiator, cluster: cluster-c}}\n  - {{id: near, template: ws-initiator, cluster: \
         cluster-b}}"
    );
    let cluster = "clusters:\n";
    let clusters = "clusters:\n  - {id: cluster-c, context: k3d-cluster-c}\n";
    let way = "- {from: initiator, to: terminator}";
    let ways = format!("{way}\n  - {{from: edge, to: terminator}}\n  - {{from: near, to: terminator}}");
    with(pod, &pods).replace(", address: host.k3d.internal", "").replace(cluster, clusters).replace(way, &ways)
}

/// What the ConfigMap of a pod has as `tunnel.yaml`.
fn tunnel(bundle: &ferry_bundle::Bundle, pod: &str) -> String {
    let manifest = bundle.text(&format!("{pod}/03-deployment.yaml")).unwrap();
    let (_, config) = manifest.split_once("tunnel.yaml: |").unwrap();
    config.split("\n---").next().unwrap().to_owned()
}

#[test]
fn each_initiator_has_an_identity_and_only_the_terminator_for_a_peer() {
    let bundle = rendered(&many());
    let far = tunnel(&bundle, "terminator");
    let names = ["cluster-a/initiator", "cluster-c/edge", "cluster-b/near"];
    for name in names {
        assert!(far.contains(&format!("name: {name}")), "{name} in {far}");
    }
    let keys: std::collections::BTreeSet<_> = far.lines().filter(|line| line.contains("ferry:pub:")).collect();
    assert_eq!(keys.len(), 3, "{far}");
    for (pod, name) in ["initiator", "edge", "near"].into_iter().zip(names) {
        let near = tunnel(&bundle, pod);
        assert!(near.contains(&format!("name: {name}")) && near.contains("name: cluster-b/terminator"), "{near}");
        assert!(names.iter().all(|other| *other == name || !near.contains(other)), "{near}");
        let policy = bundle.text(&format!("{pod}/05-network-policy.yaml")).unwrap();
        assert!(policy.contains("30200"), "{policy}");
    }
}

#[test]
fn every_cluster_is_deployed_once_the_terminators_first() {
    let blueprint = accepted(&many());
    assert_eq!(blueprint.steps().scripts, ["deploy-cluster-b.sh", "deploy-cluster-a.sh", "deploy-cluster-c.sh"]);
    let bundle = rendered(&many());
    let script = bundle.text("deploy-cluster-b.sh").unwrap();
    for (pod, cluster) in [("initiator", "a"), ("edge", "c")] {
        let dialler = format!("'terminator' '{pod}' 'k3d-cluster-{cluster}'");
        assert!(script.contains(&dialler), "{dialler}");
    }
    let readme = bundle.text("README.md").unwrap();
    assert!(readme.contains("3 initiators and one terminator in 3 clusters"), "{readme}");
    assert!(readme.contains("in the same way: `./deploy-cluster-c.sh`."), "{readme}");
    assert!(readme.contains("| edge | ws-initiator | cluster-c |"), "{readme}");
}
