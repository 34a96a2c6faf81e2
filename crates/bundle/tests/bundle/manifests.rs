//! What the manifests say, beyond what their types and the schemas can tell.

use std::collections::BTreeSet;
use std::path::Path;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, Namespace, PersistentVolumeClaim, PodSpec, Secret, Service, ServiceSpec,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::support::{FINE, POSTGRESQL, SINGLE, accepted, fake_keys, label, object, objects, rendered, with};
use ferry_bundle::{Bundle, Cloud};
use ferry_config::{Address, Keeper, Tunnel};

pub(crate) fn deployment(bundle: &Bundle, pod: &str) -> Deployment {
    object(bundle, &format!("{pod}/03-deployment.yaml"))
}

pub(crate) fn pod_spec(bundle: &Bundle, pod: &str) -> PodSpec {
    deployment(bundle, pod).spec.unwrap().template.spec.unwrap()
}

pub(crate) fn tunnel(bundle: &Bundle, pod: &str) -> Tunnel<std::path::PathBuf> {
    let config: ConfigMap = object(bundle, &format!("{pod}/03-deployment.yaml"));
    let text = &config.data.unwrap()["tunnel.yaml"];
    let parsed = ferry_config::parse(text, Path::new("/etc/ferry/config")).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(parsed.warnings, [], "{text}");
    parsed.tunnel
}

pub(crate) fn services(bundle: &Bundle, pod: &str) -> Vec<Service> {
    objects(bundle, &format!("{pod}/04-service.yaml"))
}

/// The spec of a Service by its name.
pub(crate) fn service(bundle: &Bundle, pod: &str, name: &str) -> ServiceSpec {
    let mut services = services(bundle, pod);
    services.retain(|service| service.metadata.name.as_deref() == Some(name));
    assert_eq!(services.len(), 1, "Services called {name}");
    services.remove(0).spec.unwrap()
}

pub(crate) fn policy(bundle: &Bundle, pod: &str) -> NetworkPolicy {
    let mut policies: Vec<NetworkPolicy> = objects(bundle, &format!("{pod}/05-network-policy.yaml"));
    policies.retain(|policy| policy.metadata.name.as_deref() == Some(pod));
    policies.remove(0)
}

pub(crate) fn containers(spec: &PodSpec) -> Vec<&Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers).collect()
}

fn named<'s>(spec: &'s PodSpec, name: &str) -> &'s Container {
    containers(spec).into_iter().find(|container| container.name == name).unwrap()
}

fn memory_limit(spec: &PodSpec, name: &str) -> String {
    named(spec, name).resources.clone().unwrap().limits.unwrap()["memory"].0.clone()
}

#[test]
fn every_tunnel_yaml_reads_back_and_the_two_fit_together() {
    for text in [FINE, SINGLE] {
        let bundle = rendered(text);
        let (near, far) = (tunnel(&bundle, "initiator"), tunnel(&bundle, "terminator"));
        assert_eq!(near.peers[0].name, far.name);
        assert_eq!(far.peers[0].name, near.name);
        let keys = fake_keys(&accepted(text));
        let key = |pod: &str| BTreeSet::from([keys.of(&label(pod)).unwrap().identity.public_key()]);
        assert_eq!(near.peers[0].keys, key("terminator"));
        assert_eq!(far.peers[0].keys, key("initiator"));
        assert_eq!(near.egress[0].service, far.ingress[0].service);
        assert!(far.ingress[0].allow.contains(&near.name));
        assert_eq!(near.listen, None);
    }
}

#[test]
fn the_initiator_finds_the_terminator_by_file_or_by_name() {
    let addresses = |text| tunnel(&rendered(text), "initiator").peers[0].addresses.clone();
    assert_eq!(addresses(FINE), [Address::File("/etc/ferry/addresses/terminator".into())]);
    let name = "terminator-tunnel.fast-ferry-terminator-ns.svc:30200";
    assert_eq!(addresses(SINGLE), [Address::HostPort(name.parse().unwrap())]);
}

#[test]
fn selectors_are_the_labels_of_the_pods() {
    for text in [FINE, SINGLE] {
        let bundle = rendered(text);
        for pod in ["initiator", "terminator"] {
            let spec = deployment(&bundle, pod).spec.unwrap();
            let labels = spec.template.metadata.unwrap().labels.unwrap();
            assert_eq!(spec.selector.match_labels.unwrap(), labels);
            for service in services(&bundle, pod) {
                assert_eq!(service.spec.unwrap().selector.unwrap(), labels);
            }
            let selector = policy(&bundle, pod).spec.unwrap().pod_selector.unwrap();
            assert_eq!(selector.match_labels.unwrap(), labels);
        }
    }
}

#[test]
fn ports_meet() {
    for text in [FINE, SINGLE] {
        let bundle = rendered(text);
        for pod in ["initiator", "terminator"] {
            let spec = pod_spec(&bundle, pod);
            let ports: Vec<_> = containers(&spec).iter().flat_map(|c| c.ports.clone().unwrap_or_default()).collect();
            for service in services(&bundle, pod) {
                for port in service.spec.unwrap().ports.unwrap() {
                    let Some(IntOrString::String(target)) = port.target_port else { panic!("a port by number") };
                    assert!(ports.iter().any(|port| port.name.as_ref() == Some(&target)), "no port {target}");
                }
            }
            // Only what is reached by the network can be probed by it.
            for container in containers(&spec).into_iter().filter(|container| container.name != "keeper") {
                let own: Vec<_> = container.ports.iter().flatten().map(|port| port.container_port).collect();
                for probe in [&container.startup_probe, &container.readiness_probe, &container.liveness_probe] {
                    let Some(IntOrString::Int(port)) = probe.clone().unwrap().http_get.map(|get| get.port) else {
                        panic!("a probe without a port");
                    };
                    assert!(own.contains(&port), "{} probes {port}", container.name);
                }
            }
        }
        // From the initiator's app to the terminator's.
        let (near, far) = (tunnel(&bundle, "initiator"), tunnel(&bundle, "terminator"));
        let app = &pod_spec(&bundle, "initiator").containers[0];
        let peer = app.env.iter().flatten().find(|variable| variable.name == "FERRY_PEER").unwrap();
        assert_eq!(peer.value.clone().unwrap(), format!("ws://{}/ws", near.egress[0].listen));
        let listen = i32::from(far.listen.unwrap().port());
        let spec = pod_spec(&bundle, "terminator");
        let port = named(&spec, "tunnel").ports.clone().unwrap()[0].clone();
        assert_eq!((port.name.as_deref(), port.container_port), (Some("tunnel"), listen));
        let app = &spec.containers[0].ports.clone().unwrap()[0];
        assert_eq!(app.container_port, i32::from(far.ingress[0].forward.port));
    }
}

#[test]
fn every_object_is_in_the_namespace_of_its_pod() {
    let bundle = rendered(FINE);
    for pod in ["initiator", "terminator"] {
        let namespace = format!("fast-international-ferry-{pod}-ns");
        let own: Namespace = object(&bundle, &format!("{pod}/01-namespace.yaml"));
        assert_eq!(own.metadata.name.as_ref(), Some(&namespace));
        for (path, _) in bundle.files().range(format!("{pod}/02")..format!("{pod}/06")) {
            let all: Vec<serde_json::Value> = serde_saphyr::from_multiple(bundle.text(path).unwrap()).unwrap();
            assert!(!all.is_empty());
            assert!(all.iter().all(|object| object["metadata"]["namespace"] == *namespace), "{path}");
        }
    }
}

#[test]
fn a_pod_runs_as_nobody_and_may_do_nothing() {
    let spec = pod_spec(&rendered(FINE), "terminator");
    assert_eq!(spec.automount_service_account_token, Some(false));
    let pod = spec.security_context.clone().unwrap();
    assert_eq!((pod.run_as_non_root, pod.run_as_user, pod.fs_group), (Some(true), Some(65_532), Some(65_532)));
    assert_eq!(pod.seccomp_profile.unwrap().type_, "RuntimeDefault");
    assert_eq!(pod.sysctls, None);
    for container in containers(&spec) {
        let context = container.security_context.clone().unwrap();
        assert_eq!(context.allow_privilege_escalation, Some(false));
        assert_eq!(context.read_only_root_filesystem, Some(true));
        assert_eq!(context.capabilities.unwrap().drop, Some(vec!["ALL".into()]));
        let resources = container.resources.clone().unwrap();
        assert!(resources.requests.is_some() && resources.limits.is_some());
    }
}

#[test]
fn the_tunnel_starts_before_the_web_app_and_outlives_it() {
    let spec = pod_spec(&rendered(FINE), "initiator");
    let sidecars = spec.init_containers.as_ref().unwrap();
    let names: Vec<_> = sidecars.iter().map(|sidecar| sidecar.name.as_str()).collect();
    assert_eq!(names, ["keeper", "tunnel"]);
    assert!(sidecars.iter().all(|sidecar| sidecar.restart_policy.as_deref() == Some("Always")));
    assert_eq!(spec.containers[0].name, "web-app");
    // The web-app's own end, the drain, and some.
    assert_eq!(spec.termination_grace_period_seconds, Some(20 + 15 + 5));
    let longer = format!("{FINE}tunnel: {{drain: 1m500ms}}\n");
    assert_eq!(pod_spec(&rendered(&longer), "initiator").termination_grace_period_seconds, Some(20 + 61 + 5));
}

#[test]
fn one_image_per_pod_serves_both_containers() {
    let bundle = rendered(FINE);
    for pod in ["initiator", "terminator"] {
        for container in containers(&pod_spec(&bundle, pod)) {
            assert_eq!(container.image.clone().unwrap(), format!("fast-international-ferry-{pod}:dev"));
            assert_eq!(container.image_pull_policy.as_deref(), Some("IfNotPresent"));
        }
    }
}

#[test]
fn config_and_keys_are_mounted_as_directories_and_addresses_may_come_later() {
    let bundle = rendered(FINE);
    let spec = pod_spec(&bundle, "initiator");
    for container in containers(&spec) {
        assert!(container.volume_mounts.iter().flatten().all(|mount| mount.sub_path.is_none()));
    }
    let volumes = spec.volumes.unwrap();
    let find = |name: &str| volumes.iter().find(|volume| volume.name == name).cloned().unwrap();
    assert_eq!(find("tunnel-addresses").config_map.unwrap().optional, Some(true));
    let identity = find("tunnel-identity").secret.unwrap();
    assert_eq!(identity.default_mode, Some(0o440));
    // Outside the kustomization, so that `apply -k` does not wipe it.
    for (path, file) in bundle.files().range("initiator/".to_owned().."initiator/a".to_owned()) {
        let text = String::from_utf8_lossy(&file.bytes);
        assert!(!text.contains("name: tunnel-addresses\n  namespace"), "{path}");
    }
}

#[test]
fn messages_are_on_a_volume_that_one_pod_has_at_a_time() {
    let bundle = rendered(&format!("{FINE}storage: {{size: 2GiB, class: fast}}\n"));
    let claim: PersistentVolumeClaim = object(&bundle, "terminator/03-deployment.yaml");
    let spec = claim.spec.unwrap();
    assert_eq!(spec.resources.unwrap().requests.unwrap()["storage"].0, "2Gi");
    assert_eq!(spec.storage_class_name.as_deref(), Some("fast"));
    let deployment = deployment(&bundle, "terminator").spec.unwrap();
    assert_eq!(deployment.replicas, Some(1));
    assert_eq!(deployment.strategy.unwrap().type_.as_deref(), Some("Recreate"));
}

#[test]
fn the_tunnel_may_use_more_memory_than_its_buffers() {
    for (memory, limit) in [("512MiB", "768Mi"), ("4GiB", "6Gi")] {
        let bundle = rendered(&format!("{FINE}tunnel: {{limits: {{memory: {memory}}}}}\n"));
        let spec = pod_spec(&bundle, "initiator");
        assert_eq!(memory_limit(&spec, "tunnel"), limit);
    }
}

#[test]
fn a_keeper_has_the_sessions_of_the_tunnel_and_nothing_else() {
    let text = format!("{FINE}tunnel: {{limits: {{memory: 1GiB}}, resume: {{window: 2m}}}}\n");
    let bundle = rendered(&text);
    for pod in ["initiator", "terminator"] {
        let spec = pod_spec(&bundle, pod);
        let (keeper, engine) = (named(&spec, "keeper"), named(&spec, "tunnel"));
        let args = keeper.args.clone().unwrap();
        let value = |name: &str| args[args.iter().position(|arg| arg == name).unwrap() + 1].as_str();
        let Some(Keeper::At(socket)) = tunnel(&bundle, pod).keeper else { panic!("the tunnel knows no keeper") };
        assert_eq!(value("--socket"), socket.to_str().unwrap());
        assert_eq!(value("--grace"), "120s");
        // What a killed tunnel leaves counts for the pod.
        assert_eq!(memory_limit(&spec, "keeper"), "1088Mi");
        let mounts = |container: &Container| -> Vec<String> {
            container.volume_mounts.iter().flatten().map(|mount| mount.name.clone()).collect()
        };
        assert_eq!(mounts(keeper), ["keeper"]);
        assert!(mounts(engine).contains(&"keeper".to_owned()));
        assert!(engine.args.as_ref().unwrap().contains(&"--leave-sessions".to_owned()));
        // Not one that everybody can write to, as a volume's root is.
        let shared = named(&spec, "keeper").volume_mounts.clone().unwrap()[0].mount_path.clone();
        assert_ne!(socket.parent().unwrap().to_str().unwrap(), shared);
    }
}

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

/// What a policy lets through, as `port/protocol from` lines.
pub(crate) fn allowed(policy: &NetworkPolicy, ingress: bool) -> Vec<String> {
    let spec = policy.spec.clone().unwrap();
    let rules: Vec<_> = match ingress {
        true => spec.ingress.unwrap_or_default().into_iter().map(|rule| (rule.from, rule.ports)).collect(),
        false => spec.egress.unwrap().into_iter().map(|rule| (rule.to, rule.ports)).collect(),
    };
    let line = |(peers, ports): (Option<Vec<_>>, Option<Vec<_>>)| {
        let whom: Vec<String> = peers.map_or_else(
            || vec!["anywhere".into()],
            |peers: Vec<k8s_openapi::api::networking::v1::NetworkPolicyPeer>| {
                let name = |peer: &k8s_openapi::api::networking::v1::NetworkPolicyPeer| {
                    let labels = |selector: k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector| {
                        let named = |labels: std::collections::BTreeMap<String, String>| {
                            labels["kubernetes.io/metadata.name"].clone()
                        };
                        selector.match_labels.map_or("any-namespace".into(), named)
                    };
                    let block = || peer.ip_block.clone().unwrap().cidr;
                    peer.namespace_selector.clone().map_or_else(block, labels)
                };
                peers.iter().map(name).collect()
            },
        );
        let ports: Vec<_> = ports.unwrap();
        let port = |port: &k8s_openapi::api::networking::v1::NetworkPolicyPort| match port.port.clone() {
            Some(IntOrString::Int(number)) => format!("{number}/{}", port.protocol.clone().unwrap()),
            Some(IntOrString::String(name)) => name,
            None => format!("any/{}", port.protocol.clone().unwrap()),
        };
        format!("{} {}", ports.iter().map(port).collect::<Vec<_>>().join(","), whom.join(","))
    };
    rules.into_iter().map(line).collect()
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

/// What the API server would not keep as it is written, so that the next apply would see a difference.
pub(crate) fn lost(value: &serde_json::Value, path: &str, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Array(items) => {
            items.iter().for_each(|item| lost(item, &format!("{path}[]"), found));
            found.extend(items.is_empty().then(|| path.to_owned()));
        }
        serde_json::Value::Object(fields) => {
            fields.iter().for_each(|(key, value)| lost(value, &format!("{path}.{key}"), found));
            // The maps that mean something when they are empty: every pod, every namespace.
            let all = path.ends_with(".podSelector") || path.ends_with(".namespaceSelector");
            found.extend((fields.is_empty() && !all).then(|| path.to_owned()));
            found.extend(fields.contains_key("stringData").then(|| format!("{path}.stringData")));
        }
        serde_json::Value::Null => found.push(path.to_owned()),
        serde_json::Value::String(text) if text.is_empty() => found.push(path.to_owned()),
        _ => {}
    }
}

#[test]
fn applying_a_bundle_again_changes_nothing() {
    let exposed = with("cluster: cluster-a}\n", "cluster: cluster-a, expose: {namespace: ingress}}\n");
    for text in [FINE, SINGLE, &exposed, POSTGRESQL] {
        let bundle = rendered(text);
        for (path, _) in bundle.files().iter().filter(|(path, _)| path.ends_with(".yaml") && path.contains("/0")) {
            let all: Vec<serde_json::Value> = serde_saphyr::from_multiple(bundle.text(path).unwrap()).unwrap();
            let mut found = Vec::new();
            all.iter().for_each(|object| lost(object, "", &mut found));
            assert_eq!(found, [] as [String; 0], "{path}");
        }
    }
}

#[test]
fn hooks_are_a_config_map_so_that_a_change_of_them_restarts_nothing() {
    let bundle = rendered(FINE);
    for pod in ["initiator", "terminator"] {
        let text = bundle.text(&format!("{pod}/kustomization.yaml")).unwrap();
        let kustomization: serde_json::Value = serde_saphyr::from_str(text).unwrap();
        let hooks = &kustomization["configMapGenerator"][0];
        assert_eq!((&hooks["name"], &hooks["files"][0]), (&"hooks".into(), &"app/app.py".into()));
        assert_eq!(hooks["namespace"], format!("fast-international-ferry-{pod}-ns"));
        // A name with a digest in it would be another ConfigMap, and another pod.
        assert_eq!(hooks["options"]["disableNameSuffixHash"], true);
        let spec = pod_spec(&bundle, pod);
        let app = &spec.containers[0];
        let mounts = app.volume_mounts.clone().unwrap();
        let mount = mounts.iter().find(|mount| mount.name == "hooks").unwrap();
        assert_eq!((mount.mount_path.as_str(), &mount.sub_path), ("/etc/ferry/hooks", &None));
        let env = |name: &str| app.env.iter().flatten().find(|env| env.name == name).unwrap().value.clone().unwrap();
        assert_eq!((env("FERRY_HOOKS"), env("PYTHONPATH")), ("/etc/ferry/hooks/app.py".into(), "/app".into()));
        let volume = spec.volumes.unwrap().into_iter().find(|volume| volume.name == "hooks").unwrap();
        assert_eq!(volume.config_map.unwrap().name, "hooks");
        let dockerfile = bundle.text(&format!("{pod}/app/Dockerfile")).unwrap();
        let check = format!("RUN [\"/usr/local/bin/ferry\", \"{pod}\", \"--check\", \"--hooks\", \"/app/app.py\"]");
        assert!(dockerfile.contains(&check), "{dockerfile}");
        assert!(dockerfile.contains("docker build --target python --tag ferry-python:"), "{dockerfile}");
    }
}

#[test]
fn sysctls_are_set_only_where_the_blueprint_says_so() {
    let text = with("k3d-cluster-a, port: 30100", "k3d-cluster-a, port: 30100, tcp_sysctls: true");
    let bundle = rendered(&text);
    let sysctls = |pod| pod_spec(&bundle, pod).security_context.unwrap().sysctls;
    let names: Vec<_> = sysctls("initiator").unwrap().into_iter().map(|sysctl| sysctl.name).collect();
    assert_eq!(names, ["net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"]);
    assert_eq!(sysctls("terminator"), None);
}
