//! Gateways of several tunnels.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::manifests::{deployment, pod_spec, policy, service, services, tunnel};
use crate::support::{FINE, POSTGRESQL, accepted, fake_keys, objects, refused, rendered};
use ferry_bundle::{Bundle, add_chart};

const DIALLED: &str = "gateway-cluster-b";
const DIALS: &str = "gateway-cluster-a";

/// With three tunnels of the gateway in each of two clusters.
fn replicated() -> String {
    let pod =
        |id: &str, cluster: &str| format!("  - {{id: {id}, template: gateway, cluster: {cluster}, replicas: 3}}\n");
    format!("{POSTGRESQL}pods:\n{}{}", pod(DIALS, "cluster-a"), pod(DIALLED, "cluster-b"))
}

fn budgets(bundle: &Bundle, gateway: &str) -> Vec<PodDisruptionBudget> {
    objects(bundle, &format!("{gateway}/03-deployment.yaml"))
}

#[test]
fn replicas_of_a_gateway_that_is_dialled_find_and_reach_each_other() {
    let bundle = rendered(&replicated());
    let replicas: Vec<_> = tunnel(&bundle, DIALLED).replicas.iter().map(ToString::to_string).collect();
    assert_eq!(replicas, ["gateway-cluster-b-replicas.shop-gateway-ns.svc:18000"]);
    let headless = service(&bundle, DIALLED, "gateway-cluster-b-replicas");
    assert_eq!((headless.cluster_ip.as_deref(), headless.publish_not_ready_addresses), (Some("None"), Some(true)));
    let labels = deployment(&bundle, DIALLED).spec.unwrap().template.metadata.unwrap().labels;
    assert_eq!(headless.selector, labels);
    let policy = policy(&bundle, DIALLED).spec.unwrap();
    let egress = policy.egress.unwrap();
    let own = |peer: &k8s_openapi::api::networking::v1::NetworkPolicyPeer| {
        peer.pod_selector.as_ref().is_some_and(|selector| selector.match_labels == labels)
            && peer.namespace_selector.is_none()
    };
    let rule = egress.iter().find(|rule| rule.to.iter().flatten().any(own)).unwrap();
    assert_eq!(rule.ports.as_ref().unwrap()[0].port, Some(IntOrString::Int(18000)));
    assert!(policy.ingress.unwrap().iter().any(|rule| rule.from.iter().flatten().any(own)));
}

#[test]
fn replicas_are_apart_and_missing_one_at_a_time() {
    let bundle = rendered(&replicated());
    for gateway in [DIALLED, DIALS] {
        let spec = deployment(&bundle, gateway).spec.unwrap();
        let rolling = spec.strategy.unwrap().rolling_update.unwrap();
        assert_eq!((spec.replicas, rolling.max_surge), (Some(3), Some(IntOrString::Int(0))));
        assert_eq!(rolling.max_unavailable, Some(IntOrString::Int(1)));
        let apart = pod_spec(&bundle, gateway).affinity.unwrap().pod_anti_affinity.unwrap();
        let term = &apart.preferred_during_scheduling_ignored_during_execution.unwrap()[0].pod_affinity_term;
        assert_eq!(term.label_selector.as_ref().unwrap().match_labels, spec.selector.match_labels);
        let [budget] = &budgets(&bundle, gateway)[..] else { panic!("one budget") };
        let budget = budget.spec.as_ref().unwrap();
        assert_eq!(budget.max_unavailable, Some(IntOrString::Int(1)));
        assert_eq!(budget.selector.as_ref().unwrap().match_labels, spec.selector.match_labels);
    }
}

#[test]
fn a_gateway_that_only_dials_leads_nothing() {
    let bundle = rendered(&replicated());
    assert!(tunnel(&bundle, DIALS).replicas.is_empty());
    let names: Vec<_> = services(&bundle, DIALS).iter().map(|service| service.metadata.name.clone().unwrap()).collect();
    assert!(!names.iter().any(|name| name.ends_with("-replicas")), "{names:?}");
}

#[test]
fn a_single_tunnel_is_as_it_was() {
    let single = rendered(&replicated().replace(", replicas: 3", ", replicas: 1"));
    let unsaid = rendered(&replicated().replace(", replicas: 3", ""));
    for gateway in [DIALLED, DIALS] {
        assert_eq!(deployment(&single, gateway), deployment(&unsaid, gateway));
        assert!(budgets(&single, gateway).is_empty());
        assert!(tunnel(&single, gateway).replicas.is_empty());
    }
}

#[test]
fn what_cannot_be_replicated_is_refused() {
    for count in ["0", "33", "-1", "many"] {
        let problems = refused(&replicated().replace("replicas: 3", &format!("replicas: {count}"))).to_string();
        assert!(problems.contains("write a whole number from 1 to 32"), "{problems}");
    }
    let problems =
        refused(&FINE.replace("template: ws-terminator,", "template: ws-terminator, replicas: 2,")).to_string();
    assert!(problems.contains("only a gateway has `replicas`"), "{problems}");
}

#[test]
fn the_values_of_the_chart_say_how_many_and_open_no_port_that_the_bundle_does_not() {
    let quic = replicated().replace("port: 30200,", "port: 30200, links: [quic],");
    for (text, tcp) in [(replicated(), true), (quic, false)] {
        let (bundle, blueprint) = (rendered(&text), accepted(&text));
        let mut charted = bundle.clone();
        add_chart(&mut charted, &blueprint, &fake_keys(&blueprint)).unwrap();
        let values = |pod: &str| -> serde_json::Value {
            serde_saphyr::from_str(charted.text(&format!("chart/values-{pod}.yaml")).unwrap()).unwrap()
        };
        assert_eq!((&values(DIALLED)["replicas"], &values(DIALS)["replicas"]), (&3.into(), &3.into()));
        // To each other they listen in any case.
        assert!(tunnel(&bundle, DIALLED).listen.is_some());
        assert_eq!(values(DIALLED)["listen"]["tcp"], tcp);
    }
}
