//! The Deployment of a pod, and its configuration and volume.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_lc_rs::digest;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMap, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar,
    EnvVarSource, HTTPGetAction, ObjectFieldSelector, PersistentVolumeClaim, PersistentVolumeClaimSpec,
    PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements,
    SeccompProfile, SecretVolumeSource, SecurityContext, Sysctl, Volume, VolumeMount, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::site::{ADMIN_PORT, EGRESS_PORT, Site, TUNNEL_PORT, WEB_APP_PORT};
use super::tunnel::{ADDRESSES_DIR, CONFIG_DIR, DATA_DIR, IDENTITY_DIR, KEEPER_DIR, KEEPER_SOCKET};
use crate::Template;
use crate::keys::TOKEN_KEY;

pub(super) const CONFIG: &str = "tunnel";
pub(super) const IDENTITY: &str = "tunnel-identity";
pub(super) const ADDRESSES: &str = "tunnel-addresses";
pub(super) const TOKEN: &str = "web-app-token";
pub(super) const HOOKS: &str = "hooks";
const RENDERED_DIGEST: &str = "ferry-rendered";
const DATA: &str = "data";
const KEEPER: &str = "keeper";
const TMP: &str = "tmp";
pub(crate) const TOKEN_DIR: &str = "/etc/ferry/token";
/// The hooks are not in the image, so that a change of them restarts nothing. What they import is, and what `pip` made.
const HOOKS_DIR: &str = "/etc/ferry/hooks";
const MODULES_DIR: &str = "/app";

/// The user and group of both containers; not in any image's list of users, so nobody's.
const USER: i64 = 65_532;
/// Readable by the group of the pod, which is how a user that is not root reads a Secret.
const GROUP_READABLE: i32 = 0o440;

/// How long a web-app may take to end, in seconds.
const WEB_APP_STOP: u64 = 20;
/// What is left for the kubelet, in seconds.
const STOP_MARGIN: u64 = 5;

/// What a keeper may take itself, and what it asks for, in MiB.
const KEEPER_OWN: u64 = 64;
const KEEPER_REQUEST: u64 = 16;

const MIB: u64 = 1 << 20;
/// Beside its buffers, a tunnel has its own memory and at least this much in the kernel's sockets.
const TUNNEL_BESIDE: u64 = 256 * MIB;

pub(super) fn config_map(site: &Site<'_>, config: String) -> ConfigMap {
    let digest = digest::digest(&digest::SHA256, config.as_bytes());
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    // By this a deploy script sees that an overlay or a hand has changed the text, which it must not undo.
    let annotations = BTreeMap::from([(RENDERED_DIGEST.into(), hex)]);
    ConfigMap {
        metadata: ObjectMeta { annotations: Some(annotations), ..site.metadata(CONFIG) },
        data: Some(BTreeMap::from([("tunnel.yaml".into(), config)])),
        ..ConfigMap::default()
    }
}

pub(super) fn volume_claim(site: &Site<'_>) -> PersistentVolumeClaim {
    let storage = &site.blueprint.storage;
    PersistentVolumeClaim {
        metadata: site.metadata(DATA),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".into()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".into(), mebibytes(storage.size / MIB))])),
                limits: None,
            }),
            storage_class_name: storage.class.as_ref().map(ToString::to_string),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

pub(super) fn deployment(site: &Site<'_>) -> Deployment {
    let main = if is_gateway(site) { "tunnel" } else { "web-app" };
    let annotations = BTreeMap::from([
        ("prometheus.io/scrape".into(), "true".into()),
        ("prometheus.io/port".into(), ADMIN_PORT.to_string()),
        ("prometheus.io/path".into(), "/metrics".into()),
        ("kubectl.kubernetes.io/default-container".into(), main.into()),
    ]);
    Deployment {
        metadata: site.metadata(site.pod.id.as_str()),
        spec: Some(DeploymentSpec {
            // A session lives in one tunnel, and a volume in one pod.
            replicas: Some(1),
            strategy: Some(DeploymentStrategy { type_: Some("Recreate".into()), rolling_update: None }),
            selector: site.label_selector(),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(site.selector()),
                    annotations: Some(annotations),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(site)),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

fn pod(site: &Site<'_>) -> PodSpec {
    let drain = whole_seconds(site.blueprint.tunnel.drain);
    // Native sidecars start in this order before the others, and end after them in the other order.
    let (init_containers, containers, stop) = match is_gateway(site) {
        true => (vec![keeper(site)], vec![tunnel(site)], drain),
        false => {
            let sidecar = Container { restart_policy: Some("Always".into()), ..tunnel(site) };
            (vec![keeper(site), sidecar], vec![web_app(site)], WEB_APP_STOP + drain)
        }
    };
    PodSpec {
        init_containers: Some(init_containers),
        containers,
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            fs_group_change_policy: Some("OnRootMismatch".into()),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
            sysctls: site.cluster.tcp_sysctls.then(sysctls),
            ..PodSecurityContext::default()
        }),
        termination_grace_period_seconds: i64::try_from(stop + STOP_MARGIN).ok(),
        volumes: Some(volumes(site)),
        ..PodSpec::default()
    }
}

/// What the tunnel's sessions outlive a restart of its container by. It has neither keys nor the network's attention.
fn keeper(site: &Site<'_>) -> Container {
    let settings = &site.blueprint.tunnel;
    // What a tunnel has left in memory counts for the pod, whose limit is the sum of its containers'.
    let limit = KEEPER_OWN + settings.limits.memory.div_ceil(MIB);
    let args = [
        "keeper".into(),
        "--socket".into(),
        KEEPER_SOCKET.into(),
        // The kubelet starts a container that crashes after pauses of up to 5 minutes; no session waits for longer than this.
        "--grace".into(),
        format!("{}s", whole_seconds(settings.resume.window)),
        // Longer than the liveness probe takes: the kubelet ends a tunnel that hangs.
        "--alive-timeout".into(),
        "60s".into(),
    ];
    Container {
        args: Some(args.into()),
        restart_policy: Some("Always".into()),
        ports: None,
        startup_probe: None,
        readiness_probe: None,
        liveness_probe: None,
        volume_mounts: Some(vec![writable(KEEPER, KEEPER_DIR)]),
        resources: Some(resources(("10m", KEEPER_REQUEST), ("500m", limit))),
        ..container(site, KEEPER, 0)
    }
}

fn tunnel(site: &Site<'_>) -> Container {
    let accepts = (is_gateway(site) || !site.incoming.is_empty()).then(|| port("tunnel", TUNNEL_PORT));
    let dials = dials_by_file(site).then(|| mount(ADDRESSES, ADDRESSES_DIR));
    let mounts = [
        mount(CONFIG, CONFIG_DIR),
        mount(IDENTITY, IDENTITY_DIR),
        writable(DATA, DATA_DIR),
        writable(KEEPER, KEEPER_DIR),
    ];
    let config = format!("{CONFIG_DIR}/tunnel.yaml");
    let memory = site.blueprint.tunnel.limits.memory;
    let limit = memory.saturating_add(TUNNEL_BESIDE.max(memory / 2)).div_ceil(MIB);
    let mut args = vec!["tunnel".into(), "--config".into(), config];
    if !is_gateway(site) {
        // The kubelet says SIGTERM whatever it ends a container for. What is left when the pod ends, the state on its volume
        // has the next pod tell of.
        args.push("--leave-sessions".into());
    }
    Container {
        args: Some(args),
        ports: Some(accepts.into_iter().chain([port("admin", ADMIN_PORT)]).collect()),
        volume_mounts: Some(mounts.into_iter().chain(dials).collect()),
        resources: Some(resources(("50m", 64), ("2", limit))),
        ..container(site, "tunnel", ADMIN_PORT)
    }
}

fn web_app(site: &Site<'_>) -> Container {
    let own = match site.pod.template {
        Template::WsInitiator => vec![
            variable("FERRY_PEER", format!("ws://127.0.0.1:{EGRESS_PORT}/ws")),
            variable("FERRY_AUTO_TRIGGER", site.pod.auto_trigger.to_string()),
        ],
        Template::WsTerminator | Template::Gateway => Vec::new(),
    };
    let name = EnvVar {
        name: "POD_NAME".into(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { field_path: "metadata.name".into(), api_version: None }),
            ..EnvVarSource::default()
        }),
    };
    let common = [
        name,
        variable("CLUSTER_NAME", site.cluster.id.to_string()),
        variable("FERRY_LISTEN", format!("0.0.0.0:{WEB_APP_PORT}")),
        variable("FERRY_DATA", format!("{DATA_DIR}/web-app")),
        variable("FERRY_HOOKS", format!("{HOOKS_DIR}/app.py")),
        variable("PYTHONPATH", MODULES_DIR),
        variable("FERRY_TUNNEL_USER", USER.to_string()),
    ];
    // The network policy keeps others out.
    let open = site.pod.expose.is_none().then(|| variable("FERRY_NO_TOKEN", "true"));
    let mut args = vec![site.role().to_owned()];
    let mut mounts = vec![mount(HOOKS, HOOKS_DIR), writable(DATA, DATA_DIR), writable(TMP, "/tmp")];
    if site.pod.expose.is_some() {
        // An argument and not a variable: a web-app that does not know it must not start without it.
        args.extend(["--token-file".into(), format!("{TOKEN_DIR}/{TOKEN_KEY}")]);
        mounts.push(mount(TOKEN, TOKEN_DIR));
    }
    Container {
        args: Some(args),
        env: Some(common.into_iter().chain(open).chain(own).collect()),
        ports: Some(vec![port("http", WEB_APP_PORT)]),
        volume_mounts: Some(mounts),
        resources: Some(resources(("50m", 64), ("1", 256))),
        ..container(site, "web-app", WEB_APP_PORT)
    }
}

/// What both containers have in common; `probed` answers `/livez` and `/readyz`.
fn container(site: &Site<'_>, name: &str, probed: u16) -> Container {
    Container {
        name: name.into(),
        image: Some(site.blueprint.image_of(site.pod)),
        image_pull_policy: Some("IfNotPresent".into()),
        command: Some(vec!["/usr/local/bin/ferry".into()]),
        // Local matters only: a peer that is away keeps neither container from starting or from being ready.
        startup_probe: Some(probe("/livez", probed, (1, 60))),
        readiness_probe: Some(probe("/readyz", probed, (2, 2))),
        liveness_probe: Some(probe("/livez", probed, (10, 3))),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

fn volumes(site: &Site<'_>) -> Vec<Volume> {
    let named = |name: &str| Volume { name: name.into(), ..Volume::default() };
    let config_map = |name: &str, optional: Option<bool>| Volume {
        config_map: Some(ConfigMapVolumeSource { name: name.into(), optional, ..ConfigMapVolumeSource::default() }),
        ..named(name)
    };
    let secret = |name: &str| Volume {
        secret: Some(SecretVolumeSource {
            secret_name: Some(name.into()),
            default_mode: Some(GROUP_READABLE),
            ..SecretVolumeSource::default()
        }),
        ..named(name)
    };
    let mut volumes = vec![config_map(CONFIG, None)];
    volumes.extend((!is_gateway(site)).then(|| config_map(HOOKS, None)));
    volumes.push(secret(IDENTITY));
    if dials_by_file(site) {
        // Made by the deploy script, whenever the address is known: the pod does not wait for it.
        volumes.push(config_map(ADDRESSES, Some(true)));
    }
    if site.pod.expose.is_some() {
        volumes.push(secret(TOKEN));
    }
    // A socket is all that is in it: no disk needs to work for it.
    let keepers = EmptyDirVolumeSource { medium: Some("Memory".into()), size_limit: Some(mebibytes(1)) };
    volumes.push(Volume { empty_dir: Some(keepers), ..named(KEEPER) });
    let empty = EmptyDirVolumeSource { medium: None, size_limit: Some(mebibytes(64)) };
    if is_gateway(site) {
        // It outlives the container, and a pod that is replaced drains before.
        volumes.push(Volume { empty_dir: Some(empty), ..named(DATA) });
        return volumes;
    }
    let claim = PersistentVolumeClaimVolumeSource { claim_name: DATA.into(), read_only: None };
    volumes.push(Volume { persistent_volume_claim: Some(claim), ..named(DATA) });
    volumes.push(Volume { empty_dir: Some(empty), ..named(TMP) });
    volumes
}

fn is_gateway(site: &Site<'_>) -> bool {
    site.pod.template == Template::Gateway
}

/// Whether the tunnel reads addresses from files. Every gateway is ready to: one more service is not another pod.
fn dials_by_file(site: &Site<'_>) -> bool {
    site.blueprint.scope == crate::Scope::MultiCluster && (is_gateway(site) || !site.outgoing.is_empty())
}

/// Room for the bandwidth times the delay of links between continents.
fn sysctls() -> Vec<Sysctl> {
    let sysctl = |name: &str, value: &str| Sysctl { name: name.into(), value: value.into() };
    vec![sysctl("net.ipv4.tcp_rmem", "4096 131072 33554432"), sysctl("net.ipv4.tcp_wmem", "4096 65536 33554432")]
}

fn probe(path: &str, port: u16, (period, failures): (i32, i32)) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::Int(port.into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(2),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

/// Requests and limits, each as CPU and memory in MiB.
fn resources(requests: (&str, u64), limits: (&str, u64)) -> ResourceRequirements {
    let map = |(cpu, memory): (&str, u64)| {
        BTreeMap::from([("cpu".into(), Quantity(cpu.into())), ("memory".into(), mebibytes(memory))])
    };
    ResourceRequirements { requests: Some(map(requests)), limits: Some(map(limits)), claims: None }
}

fn mebibytes(count: u64) -> Quantity {
    match count.is_multiple_of(1024) && count > 0 {
        true => Quantity(format!("{}Gi", count / 1024)),
        false => Quantity(format!("{count}Mi")),
    }
}

fn mount(name: &str, path: &str) -> VolumeMount {
    // Whole directories: a subPath is never updated.
    VolumeMount { name: name.into(), mount_path: path.into(), read_only: Some(true), ..VolumeMount::default() }
}

fn writable(name: &str, path: &str) -> VolumeMount {
    VolumeMount { read_only: None, ..mount(name, path) }
}

fn port(name: &str, port: u16) -> ContainerPort {
    ContainerPort { name: Some(name.into()), container_port: port.into(), ..ContainerPort::default() }
}

fn variable(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value.into()), value_from: None }
}

fn whole_seconds(duration: Duration) -> u64 {
    duration.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX / 2)
}
