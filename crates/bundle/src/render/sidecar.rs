//! The tunnel and its keeper as containers of a pod, and the volumes that they have: in a bundle's pods, and in a pod of
//! somebody else's.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, HTTPGetAction,
    PodSecurityContext, Probe, ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext, Volume,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::tunnel::{ADDRESSES_DIR, CONFIG_DIR, CONFIG_FILE, DATA_DIR, IDENTITY_DIR, KEEPER_DIR, KEEPER_SOCKET};
use ferry_config::Settings;

/// The names of the two containers.
pub(crate) const TUNNEL_CONTAINER: &str = "tunnel";
pub(crate) const KEEPER_CONTAINER: &str = "keeper";

/// The user and group of the containers; not in any image's list of users, so nobody's.
pub(crate) const USER: i64 = 65_532;
/// Readable by the group of the pod, which is how a user that is not root reads a Secret.
const GROUP_READABLE: i32 = 0o440;

/// What a keeper may take itself, and what it asks for, in MiB.
const KEEPER_OWN: u64 = 64;
const KEEPER_REQUEST: u64 = 16;

pub(super) const MIB: u64 = 1 << 20;
/// Beside its buffers, a tunnel has its own memory and at least this much in the kernel's sockets.
const TUNNEL_BESIDE: u64 = 256 * MIB;

/// A tunnel in a pod.
pub(crate) struct Sidecar<'s> {
    pub(crate) image: String,
    pub(crate) settings: &'s Settings,
    /// Where it serves probes and metrics.
    pub(crate) admin_port: u16,
    /// Where it accepts links.
    pub(crate) accepts: Vec<ContainerPort>,
    pub(crate) volumes: VolumeNames,
    /// The volume with files of addresses, if it dials by any.
    pub(crate) addresses: Option<&'static str>,
    /// On SIGTERM it leaves sessions to the keeper and the next process.
    pub(crate) leaves_sessions: bool,
    pub(crate) env: Vec<EnvVar>,
}

/// What the volumes are called that a tunnel has in any pod.
#[derive(Clone, Copy)]
pub(crate) struct VolumeNames {
    pub(crate) config: &'static str,
    pub(crate) identity: &'static str,
    pub(crate) data: &'static str,
    pub(crate) keeper: &'static str,
}

impl Sidecar<'_> {
    /// Both as native sidecars. They start in this order before the others, and end after them in the other order.
    pub(crate) fn containers(&self) -> Vec<Container> {
        vec![self.keeper(), Container { restart_policy: Some("Always".into()), ..self.tunnel() }]
    }

    /// What the tunnel's sessions outlive a restart of its container by. It has neither keys nor the network's attention.
    pub(super) fn keeper(&self) -> Container {
        // What a tunnel has left in memory counts for the pod, whose limit is the sum of its containers'.
        let limit = KEEPER_OWN + self.settings.limits.memory.div_ceil(MIB);
        let args = [
            "keeper".into(),
            "--socket".into(),
            KEEPER_SOCKET.into(),
            // The kubelet starts a container that crashes after pauses of up to 5 minutes; no session waits for longer than
            // this.
            "--grace".into(),
            format!("{}s", whole_seconds(self.settings.resume.window)),
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
            volume_mounts: Some(vec![writable(self.volumes.keeper, KEEPER_DIR)]),
            resources: Some(resources(("10m", KEEPER_REQUEST), ("500m", limit))),
            ..container(KEEPER_CONTAINER, self.image.clone(), 0)
        }
    }

    pub(super) fn tunnel(&self) -> Container {
        let dials = self.addresses.map(|volume| mount(volume, ADDRESSES_DIR));
        let mounts = [
            mount(self.volumes.config, CONFIG_DIR),
            mount(self.volumes.identity, IDENTITY_DIR),
            writable(self.volumes.data, DATA_DIR),
            writable(self.volumes.keeper, KEEPER_DIR),
        ];
        let memory = self.settings.limits.memory;
        let limit = memory.saturating_add(TUNNEL_BESIDE.max(memory / 2)).div_ceil(MIB);
        let mut args = vec!["tunnel".into(), "--config".into(), format!("{CONFIG_DIR}/{CONFIG_FILE}")];
        args.extend(self.leaves_sessions.then(|| "--leave-sessions".into()));
        let accepts = self.accepts.iter().cloned();
        Container {
            args: Some(args),
            env: (!self.env.is_empty()).then(|| self.env.clone()),
            ports: Some(accepts.chain([port("admin", self.admin_port)]).collect()),
            volume_mounts: Some(mounts.into_iter().chain(dials).collect()),
            resources: Some(resources(("50m", 64), ("2", limit))),
            ..container(TUNNEL_CONTAINER, self.image.clone(), self.admin_port)
        }
    }
}

/// What all containers have in common; `probed` answers `/livez` and `/readyz`.
pub(super) fn container(name: &str, image: String, probed: u16) -> Container {
    Container {
        name: name.into(),
        image: Some(image),
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

/// What holds for all containers of a pod of ours.
pub(crate) fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        fs_group_change_policy: Some("OnRootMismatch".into()),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

/// For a keeper's socket, which is all that is in it: no disk needs to work for it.
pub(crate) fn keeper_volume(name: &str) -> Volume {
    let memory = EmptyDirVolumeSource { medium: Some("Memory".into()), size_limit: Some(mebibytes(1)) };
    Volume { empty_dir: Some(memory), ..volume(name) }
}

/// Outlives a container, not the pod.
pub(crate) fn scratch_volume(name: &str) -> Volume {
    let empty = EmptyDirVolumeSource { medium: None, size_limit: Some(mebibytes(64)) };
    Volume { empty_dir: Some(empty), ..volume(name) }
}

pub(crate) fn config_map_volume(name: &str, config_map: &str, optional: Option<bool>) -> Volume {
    let source = ConfigMapVolumeSource { name: config_map.into(), optional, ..ConfigMapVolumeSource::default() };
    Volume { config_map: Some(source), ..volume(name) }
}

pub(crate) fn secret_volume(name: &str, secret: &str) -> Volume {
    let source = SecretVolumeSource {
        secret_name: Some(secret.into()),
        default_mode: Some(GROUP_READABLE),
        ..SecretVolumeSource::default()
    };
    Volume { secret: Some(source), ..volume(name) }
}

fn volume(name: &str) -> Volume {
    Volume { name: name.into(), ..Volume::default() }
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
pub(super) fn resources(requests: (&str, u64), limits: (&str, u64)) -> ResourceRequirements {
    let map = |(cpu, memory): (&str, u64)| {
        BTreeMap::from([("cpu".into(), Quantity(cpu.into())), ("memory".into(), mebibytes(memory))])
    };
    ResourceRequirements { requests: Some(map(requests)), limits: Some(map(limits)), claims: None }
}

pub(super) fn mebibytes(count: u64) -> Quantity {
    match count.is_multiple_of(1024) && count > 0 {
        true => Quantity(format!("{}Gi", count / 1024)),
        false => Quantity(format!("{count}Mi")),
    }
}

pub(super) fn mount(name: &str, path: &str) -> VolumeMount {
    // Whole directories: a subPath is never updated.
    VolumeMount { name: name.into(), mount_path: path.into(), read_only: Some(true), ..VolumeMount::default() }
}

pub(super) fn writable(name: &str, path: &str) -> VolumeMount {
    VolumeMount { read_only: None, ..mount(name, path) }
}

pub(crate) fn port(name: &str, port: u16) -> ContainerPort {
    ContainerPort { name: Some(name.into()), container_port: port.into(), ..ContainerPort::default() }
}

pub(super) fn whole_seconds(duration: Duration) -> u64 {
    duration.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX / 2)
}
