//! A tunnel in somebody else's pod: put in beside what is there, and taken out without a trace.

use std::fs;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodSpec, Secret};
use serde::de::DeserializeOwned;

use ferry_bundle::{Injection, inject, remove};
use ferry_config::{Address, Identity, Report, Tunnel};

const SHOP: &str = include_str!("shop.yaml");

/// A tunnel that dials, with one egress; `more` is added to its file.
fn tunnel(more: &str) -> Tunnel {
    let dir = tempfile::tempdir().unwrap();
    Identity::generate().unwrap().write_new(&dir.path().join("shop.key")).unwrap();
    let peer = Identity::generate().unwrap().public_key();
    let text = format!(
        "name: shop\nidentity: shop.key\npeers:\n  - {{name: far, keys: [\"{peer}\"], addresses: [\"far.example.com:30200\"]}}\n\
         egress:\n  - {{listen: \"127.0.0.1:5432\", peer: far, service: db}}\n{more}"
    );
    let path = dir.path().join("tunnel.yaml");
    fs::write(&path, text).unwrap();
    ferry_config::load(&path).unwrap_or_else(|report| panic!("{report}")).tunnel
}

fn with(tunnel: &Tunnel) -> Injection<'_> {
    Injection { tunnel, config: "tunnel.yaml", image: "registry.example.com/ferry:0.1.0", with_secret: false }
}

#[track_caller]
fn injected(text: &str, injection: &Injection<'_>) -> String {
    inject("in.yaml", text, None, injection).unwrap_or_else(|report| panic!("{report}\n{text}")).text
}

#[track_caller]
fn removed(text: &str) -> String {
    remove("in.yaml", text, None).unwrap_or_else(|report| panic!("{report}\n{text}")).0
}

#[track_caller]
fn refused(text: &str, injection: &Injection<'_>) -> String {
    inject("in.yaml", text, None, injection).map(|injected| injected.text).unwrap_err().to_string()
}

/// The document of this kind, as Kubernetes reads it.
#[track_caller]
fn read<T: DeserializeOwned>(text: &str, kind: &str) -> T {
    let is_meant = |document: &&str| document.lines().any(|line| line == format!("kind: {kind}"));
    // What was added is at the end.
    let document = text.split("---\n").filter(is_meant).last().unwrap_or_else(|| panic!("no {kind} in:\n{text}"));
    serde_saphyr::from_str(document).unwrap_or_else(|error| panic!("{error}\n{document}"))
}

fn names(spec: &PodSpec) -> (Vec<&str>, Vec<&str>) {
    let init = spec.init_containers.iter().flatten().map(|container| container.name.as_str());
    let volumes = spec.volumes.iter().flatten().map(|volume| volume.name.as_str());
    (init.collect(), volumes.collect())
}

#[test]
fn the_pods_of_a_workload_are_told_where_they_find_each_other() {
    let tunnel = tunnel("listen: \"0.0.0.0:18000\"\nreplicas: [\"shop-replicas.shop.svc:18000\"]\n");
    let config: ConfigMap = read(&injected(SHOP, &with(&tunnel)), "ConfigMap");
    let text = &config.data.unwrap()["tunnel.yaml"];
    assert!(text.contains("replicas:\n- shop-replicas.shop.svc:18000\n"), "{text}");
}

#[test]
fn keeper_and_tunnel_are_the_first_sidecars_and_all_else_stays() {
    let tunnel = tunnel("");
    let text = injected(SHOP, &with(&tunnel));
    let deployment: Deployment = read(&text, "Deployment");
    let spec = deployment.spec.unwrap().template.spec.unwrap();
    let (init, volumes) = names(&spec);
    assert_eq!(init, ["keeper", "tunnel", "migrate"]);
    assert_eq!(volumes, ["tunnel", "tunnel-identity", "tunnel-keeper", "tunnel-state", "html"]);
    for sidecar in &spec.init_containers.as_ref().unwrap()[..2] {
        assert_eq!(sidecar.restart_policy.as_deref(), Some("Always"), "{}", sidecar.name);
        assert_eq!(sidecar.image.as_deref(), Some("registry.example.com/ferry:0.1.0"));
        let security = sidecar.security_context.as_ref().unwrap();
        assert_eq!((security.run_as_user, security.run_as_non_root), (Some(65_532), Some(true)));
        for mount in sidecar.volume_mounts.as_ref().unwrap() {
            assert!(volumes.contains(&mount.name.as_str()), "{} has no volume {}", sidecar.name, mount.name);
        }
    }
    // Every line that was there is there, in its order.
    let mut lines = text.lines();
    for line in SHOP.lines() {
        assert!(lines.any(|other| other == line), "{line:?} is gone or elsewhere:\n{text}");
    }
}

#[test]
fn the_configuration_beside_it_is_a_tunnel_yaml_for_the_pod() {
    let tunnel = tunnel("admin: 127.0.0.1:9901\nrotation: {every: 10s}\n");
    let text = injected(SHOP, &with(&tunnel));
    let config_map: ConfigMap = read(&text, "ConfigMap");
    assert_eq!(config_map.metadata.name.as_deref(), Some("shop-tunnel"));
    assert_eq!(config_map.metadata.namespace.as_deref(), Some("store"));
    let yaml = &config_map.data.unwrap()["tunnel.yaml"];
    let parsed = ferry_config::parse(yaml, "/".as_ref()).unwrap().tunnel;
    assert_eq!(parsed.identity.to_str(), Some("/etc/ferry/identity/identity.key"));
    assert_eq!(parsed.admin, Some("0.0.0.0:9901".parse().unwrap()));
    assert_eq!((parsed.peers, parsed.egress, parsed.settings), (tunnel.peers, tunnel.egress, tunnel.settings));
    assert!(!text.contains("PRIVATE"), "a private key nobody asked for");
    assert!(!text.contains("kind: Secret"), "a Secret nobody asked for");
}

#[test]
fn the_secret_comes_when_it_is_asked_for_and_holds_the_identity() {
    let tunnel = tunnel("");
    let text = injected(SHOP, &Injection { with_secret: true, ..with(&tunnel) });
    let secret: Secret = read(&text, "Secret");
    assert_eq!(secret.metadata.name.as_deref(), Some("shop-tunnel-identity"));
    let pem = &secret.data.unwrap()["identity.key"].0;
    assert_eq!(Identity::of_pem(pem, "identity.key".as_ref()).unwrap().public_key(), tunnel.identity.public_key());
    assert_eq!(removed(&text), SHOP);
}

#[test]
fn what_was_put_in_is_taken_out_to_the_last_byte() {
    let tunnel = tunnel("");
    let job = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: once}\nspec:\n  template:\n    spec:\n      restartPolicy: Never\n\
               \x20     containers: [{name: a, image: b}]";
    for text in [SHOP, POD, CRON_JOB, &format!("{job}\n")] {
        let with_tunnel = injected(text, &with(&tunnel));
        assert_ne!(with_tunnel, text);
        assert_eq!(removed(&with_tunnel), text);
        assert_eq!(remove("in.yaml", text, None).unwrap(), (text.to_owned(), 0));
    }
    // Without a last line break one is added, or what follows would be in the same line.
    assert_eq!(removed(&injected(job, &with(&tunnel))), format!("{job}\n"));
}

#[test]
fn to_inject_twice_is_to_inject_once_and_a_change_is_taken_up() {
    let first = tunnel("");
    let once = injected(SHOP, &with(&first));
    assert_eq!(injected(&once, &with(&first)), once);
    let other = Injection { image: "registry.example.com/ferry:0.2.0", ..with(&first) };
    assert_eq!(injected(&once, &other), injected(SHOP, &other));
}

const POD: &str =
    "apiVersion: v1\nkind: Pod\nmetadata:\n  name: lone\nspec:\n  containers:\n    - name: app\n      image: app\n";
const CRON_JOB: &str = "\
# nightly
apiVersion: batch/v1
kind: CronJob
metadata:
  name: report
spec:
  schedule: '0 3 * * *'
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never   # once
          containers:
          - {name: report, image: report}
          # no volumes so far
";

#[test]
fn every_kind_with_a_pod_gets_one() {
    let tunnel = tunnel("");
    let pod: Pod = read(&injected(POD, &with(&tunnel)), "Pod");
    assert_eq!(pod.metadata.annotations.unwrap()["ferry-injected"], "Pod/lone");
    assert_eq!(names(&pod.spec.unwrap()).0, ["keeper", "tunnel"]);
    let job: CronJob = read(&injected(CRON_JOB, &with(&tunnel)), "CronJob");
    let template = job.spec.unwrap().job_template.spec.unwrap().template;
    assert_eq!(template.metadata.unwrap().annotations.unwrap()["ferry-injected"], "CronJob/report");
    assert_eq!(names(&template.spec.unwrap()).0, ["keeper", "tunnel"]);
    for kind in ["StatefulSet", "DaemonSet", "ReplicaSet", "Deployment"] {
        let text = SHOP.replace("kind: Deployment", &format!("kind: {kind}"));
        assert!(injected(&text, &with(&tunnel)).contains("- name: keeper\n"), "{kind}");
    }
}

#[test]
fn empty_lists_and_odd_indentation_are_no_obstacle() {
    let tunnel = tunnel("");
    let text = "kind: Deployment\nmetadata:\n    name: a\nspec:\n    template:\n        metadata:\n            annotations: {}\n\
                \x20       spec:\n            initContainers: []\n            containers:\n              -   name: c\n\
                \x20           volumes: # none\n";
    let deployment: Deployment = read(&injected(text, &with(&tunnel)), "Deployment");
    let template = deployment.spec.unwrap().template;
    assert_eq!(template.metadata.unwrap().annotations.unwrap().len(), 1);
    assert_eq!(names(&template.spec.unwrap()).1.len(), 4);
}

#[test]
fn of_several_workloads_one_is_named() {
    let tunnel = tunnel("");
    let text = format!("{SHOP}---\n{CRON_JOB}");
    let message = refused(&text, &with(&tunnel));
    assert!(message.contains("several workloads: Deployment/shop, CronJob/report"), "{message}");
    assert!(message.contains("--workload"), "{message}");
    for name in ["report", "cronjob/report"] {
        let one = inject("in.yaml", &text, Some(name), &with(&tunnel)).unwrap();
        assert_eq!(one.workload, ("CronJob".to_owned(), "report".to_owned()));
        let both = inject("in.yaml", &one.text, Some("shop"), &with(&tunnel)).unwrap().text;
        assert_eq!(remove("in.yaml", &both, Some("shop")).unwrap(), (one.text, 1));
        assert_eq!(remove("in.yaml", &both, None).unwrap(), (text.clone(), 2));
    }
    let message = inject("in.yaml", &text, Some("Job/shop"), &with(&tunnel)).unwrap_err().to_string();
    assert!(message.contains("no workload `Job/shop`; there is Deployment/shop, CronJob/report"), "{message}");
}

#[test]
fn two_workloads_do_not_share_a_configuration() {
    let tunnel = tunnel("");
    let text = format!("{SHOP}---\n{}", CRON_JOB.replace("name: report\n", "name: shop\n  namespace: store\n"));
    let one = inject("in.yaml", &text, Some("Deployment/shop"), &with(&tunnel)).unwrap().text;
    let message = inject("in.yaml", &one, Some("CronJob/shop"), &with(&tunnel)).unwrap_err().to_string();
    assert!(message.contains("CronJob/shop: a ConfigMap called `shop-tunnel` is in it already"), "{message}");
    assert_eq!(removed(&one), text);
}

#[test]
fn what_stands_against_it_is_said_at_once() {
    let tunnel = tunnel("");
    let cases: [(&str, &str, &[&str]); 6] = [
        ("name: web\n", "name: tunnel\n", &["containers[0].name: a container called `tunnel` is there already"]),
        ("name: migrate\n", "name: keeper\n", &["initContainers[0].name: a container called `keeper`"]),
        ("name: html\n", "name: tunnel-state\n", &["volumes[0].name: a volume called `tunnel-state`"]),
        ("containerPort: 8080", "containerPort: 9900", &["ports[0].containerPort: 9900 is also the tunnel's `admin`"]),
        ("containerPort: 8080", "containerPort: 5432", &["5432 is also an `egress` of the tunnel"]),
        (
            "      containers:\n        # the shop\n        - name: web\n",
            "      hostNetwork: true\n      containers:\n        - name: tunnel\n",
            &["hostNetwork: the pod has the node's network", "a container called `tunnel`"],
        ),
    ];
    for (from, to, expected) in cases {
        let text = SHOP.replacen(from, to, 1);
        assert_ne!(text, SHOP, "{from}");
        let message = refused(&text, &with(&tunnel));
        for part in expected {
            assert!(message.contains(part), "{to}: {part:?} is not in:\n{message}");
        }
        assert_eq!(message.lines().count(), expected.len(), "{message}");
    }
}

#[test]
fn what_cannot_be_edited_is_refused_with_its_place() {
    let tunnel = tunnel("");
    let service = "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n";
    let list = "kind: List\nitems: []\n";
    let json = r#"{"kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": []}}"#;
    let aliased = "kind: Deployment\nmetadata: {name: a}\nx: &pod\n  containers: [{name: c}]\nspec:\n  template:\n    spec: *pod\n";
    for (text, expected) in [
        (service, "in.yaml: there is no pod template in it; it has to have one of Deployment, StatefulSet"),
        ("", "in.yaml: there is no pod template in it"),
        (list, "a List is not looked into: give its items as documents"),
        (json, "in.yaml: written in brackets, in one piece; write it in block style"),
        (aliased, "in.yaml: spec.template.spec: an alias, whose mapping is written elsewhere"),
        ("a: b\n---\nkind: [\n", "in.yaml: line "),
    ] {
        let message = refused(text, &with(&tunnel));
        assert!(message.starts_with(expected) || message.contains(expected), "{expected:?} is not in:\n{message}");
    }
}

#[test]
fn files_that_the_pod_does_not_have_are_named() {
    let tunnel = tunnel("  \n");
    let mut peers = tunnel.peers.clone();
    peers[0].addresses = vec![Address::File("/tmp/far".into())];
    peers[0].route.ca_file = Some("ca.pem".into());
    let tunnel = Tunnel { peers, ..tunnel };
    let report: Report = inject("in.yaml", SHOP, None, &with(&tunnel)).unwrap_err();
    let message = report.to_string();
    assert!(message.contains("tunnel.yaml: peers[0].addresses[0]: the file /tmp/far is not in the pod"), "{message}");
    assert!(message.contains("tunnel.yaml: peers[0].ca_file: the file ca.pem is not in the pod"), "{message}");
}

#[test]
fn replicas_that_are_dialled_are_worth_a_word() {
    let dialled = tunnel("listen: 0.0.0.0:18000\nlisten_quic: 0.0.0.0:18000\n");
    let text = SHOP.replace("replicas: 1", "replicas: 3");
    let warnings = |text: &str, tunnel: &Tunnel| inject("in.yaml", text, None, &with(tunnel)).unwrap().warnings;
    assert_eq!(warnings(&text, &dialled).len(), 1);
    assert_eq!(warnings(SHOP, &dialled).len() + warnings(&text, &tunnel("")).len(), 0);
    let deployment: Deployment = read(&injected(SHOP, &with(&dialled)), "Deployment");
    let init = deployment.spec.unwrap().template.spec.unwrap().init_containers.unwrap();
    let ports = init[1].ports.iter().flatten().map(|port| (port.container_port, port.protocol.as_deref()));
    assert_eq!(ports.collect::<Vec<_>>(), [(18_000, None), (18_000, Some("UDP")), (9_900, None)]);
}
