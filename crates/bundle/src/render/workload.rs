//! The Deployment of a pod, and its configuration and volume.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVar, EnvVarSource, ObjectFieldSelector, PersistentVolumeClaim, PersistentVolumeClaimSpec,
    PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, PodTemplateSpec, Sysctl, Volume,
    VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::links::{self, LinkPort};
use super::replicas;
use super::sidecar::{
    self, MIB, Sidecar, USER, VolumeNames, config_map_volume, container, mebibytes, mount, port, resources,
    secret_volume, whole_seconds, writable,
};
use super::site::{ADMIN_PORT, EGRESS_PORT, Site, WEB_APP_PORT};
use super::tunnel::{CONFIG_FILE, DATA_DIR};
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
const VOLUMES: VolumeNames = VolumeNames { config: CONFIG, identity: IDENTITY, data: DATA, keeper: KEEPER };
pub(crate) const TOKEN_DIR: &str = "/etc/ferry/token";
/// The hooks are not in the image, so that a change of them restarts nothing. What they import is, and what `pip` made.
const HOOKS_DIR: &str = "/etc/ferry/hooks";
const MODULES_DIR: &str = "/app";

/// How long a web-app may take to end, in seconds.
const WEB_APP_STOP: u64 = 20;
/// What is left for the kubelet, in seconds.
const STOP_MARGIN: u64 = 5;

pub(super) fn config_map(site: &Site<'_>, config: String) -> ConfigMap {
    let digest = digest::digest(&digest::SHA256, config.as_bytes());
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    // By this a deploy script sees that an overlay or a hand has changed the text, which it must not undo.
    let annotations = BTreeMap::from([(RENDERED_DIGEST.into(), hex)]);
    ConfigMap {
        metadata: ObjectMeta { annotations: Some(annotations), ..site.metadata(CONFIG) },
        data: Some(BTreeMap::from([(CONFIG_FILE.into(), config)])),
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
            replicas: Some(site.pod.replicas.into()),
            strategy: Some(replicas::strategy(site)),
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
    let (init_containers, containers, stop) = match is_gateway(site) {
        true => (vec![sidecar(site).keeper()], vec![sidecar(site).tunnel()], drain),
        false => (sidecar(site).containers(), vec![web_app(site)], WEB_APP_STOP + drain),
    };
    PodSpec {
        affinity: replicas::affinity(site),
        init_containers: Some(init_containers),
        containers,
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(PodSecurityContext {
            sysctls: site.cluster.tcp_sysctls.then(sysctls),
            ..sidecar::pod_security()
        }),
        termination_grace_period_seconds: i64::try_from(stop + STOP_MARGIN).ok(),
        volumes: Some(volumes(site)),
        ..PodSpec::default()
    }
}

/// The tunnel of a pod, with what its Deployment has.
fn sidecar<'s>(site: &'s Site<'_>) -> Sidecar<'s> {
    let accepts = is_gateway(site) || !site.incoming.is_empty();
    Sidecar {
        image: site.blueprint.image_of(site.pod),
        settings: &site.blueprint.tunnel,
        admin_port: ADMIN_PORT,
        accepts: if accepts {
            links::ports(site.cluster).iter().map(LinkPort::in_container).collect()
        } else {
            Vec::new()
        },
        volumes: VOLUMES,
        addresses: dials_by_file(site).then_some(ADDRESSES),
        // The kubelet says SIGTERM whatever it ends a container for. What is left when the pod ends, the state on its volume
        // has the next pod tell of; a gateway has none.
        leaves_sessions: !is_gateway(site),
        env: traces(site).into_iter().collect(),
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
        variable("FERRY_LISTEN", site.everywhere(WEB_APP_PORT).to_string()),
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
        env: Some(common.into_iter().chain(open).chain(own).chain(traces(site)).collect()),
        ports: Some(vec![port("http", WEB_APP_PORT)]),
        volume_mounts: Some(mounts),
        resources: Some(resources(("50m", 64), ("1", 256))),
        ..container("web-app", site.blueprint.image_of(site.pod), WEB_APP_PORT)
    }
}

fn volumes(site: &Site<'_>) -> Vec<Volume> {
    let mut volumes = vec![config_map_volume(CONFIG, CONFIG, None)];
    volumes.extend((!is_gateway(site)).then(|| config_map_volume(HOOKS, HOOKS, None)));
    volumes.push(secret_volume(IDENTITY, IDENTITY));
    if dials_by_file(site) {
        // Made by the deploy script, whenever the address is known: the pod does not wait for it.
        volumes.push(config_map_volume(ADDRESSES, ADDRESSES, Some(true)));
    }
    if site.pod.expose.is_some() {
        volumes.push(secret_volume(TOKEN, TOKEN));
    }
    volumes.push(sidecar::keeper_volume(KEEPER));
    if is_gateway(site) {
        // It outlives the container, and a pod that is replaced drains before.
        volumes.push(sidecar::scratch_volume(DATA));
        return volumes;
    }
    let claim = PersistentVolumeClaimVolumeSource { claim_name: DATA.into(), read_only: None };
    volumes.push(Volume { name: DATA.into(), persistent_volume_claim: Some(claim), ..Volume::default() });
    volumes.push(sidecar::scratch_volume(TMP));
    volumes
}

fn is_gateway(site: &Site<'_>) -> bool {
    site.pod.template == Template::Gateway
}

/// Whether the tunnel reads addresses from files. Every gateway is ready to: one more service is not another pod.
pub(super) fn dials_by_file(site: &Site<'_>) -> bool {
    site.blueprint.scope == crate::Scope::MultiCluster
        && (is_gateway(site) || site.outgoing.iter().any(|far| far.port.is_some()))
}

/// Room for the bandwidth times the delay of links between continents.
fn sysctls() -> Vec<Sysctl> {
    let sysctl = |name: &str, value: &str| Sysctl { name: name.into(), value: value.into() };
    vec![sysctl("net.ipv4.tcp_rmem", "4096 131072 33554432"), sysctl("net.ipv4.tcp_wmem", "4096 65536 33554432")]
}

/// Where spans are exported to.
fn traces(site: &Site<'_>) -> Option<EnvVar> {
    let collector = site.blueprint.traces.as_ref()?;
    Some(variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("http://{collector}/v1/traces")))
}

fn variable(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value.into()), value_from: None }
}
