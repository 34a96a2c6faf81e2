//! The pods: their containers, volumes and limits.

use k8s_openapi::api::core::v1::{Container, PersistentVolumeClaim, PodSpec};

use super::{containers, deployment, named, pod_spec, tunnel};
use crate::support::{FINE, object, rendered, with};
use ferry_config::Keeper;

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

fn memory_limit(spec: &PodSpec, name: &str) -> String {
    named(spec, name).resources.clone().unwrap().limits.unwrap()["memory"].0.clone()
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
