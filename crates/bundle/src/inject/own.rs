//! What is put into a pod and beside it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Container, ContainerPort, PodSecurityContext, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Injection;
use super::manifest::Workload;
use crate::keys::IDENTITY_KEY;
use crate::render::sidecar::{
    self, KEEPER_CONTAINER, Sidecar, TUNNEL_CONTAINER, USER, VolumeNames, config_map_volume, secret_volume,
};
use crate::render::tunnel::{CONFIG_DIR, CONFIG_FILE, DATA_DIR, IDENTITY_DIR, KEEPER_SOCKET};
use crate::render::{ADMIN_PORT, yaml};
use ferry_config::{Address, Keeper, Problem, Report, Tunnel, ValueError};

/// On the pod, and on the documents that were added: which workload they are for.
pub(super) const ANNOTATION: &str = "ferry-injected";

pub(super) const CONTAINERS: [&str; 2] = [KEEPER_CONTAINER, TUNNEL_CONTAINER];

/// Names that an application's own volumes hardly have.
const VOLUMES: VolumeNames =
    VolumeNames { config: "tunnel", identity: "tunnel-identity", data: "tunnel-state", keeper: "tunnel-keeper" };
pub(super) const VOLUME_NAMES: [&str; 4] = [VOLUMES.config, VOLUMES.identity, VOLUMES.data, VOLUMES.keeper];

/// The name of the ConfigMap with the `tunnel.yaml` for a workload.
pub fn config_map_name(workload: &str) -> String {
    format!("{workload}-tunnel")
}

/// The name of the Secret with the identity for a workload.
pub fn secret_name(workload: &str) -> String {
    format!("{workload}-tunnel-identity")
}

/// All of it, as far as it does not depend on the workload.
pub(super) struct Parts {
    /// With the paths of the pod.
    tunnel: Tunnel<PathBuf>,
    image: String,
    /// The identity as PEM, if it is to be written.
    identity: Option<ByteString>,
}

impl Parts {
    pub(super) fn new(injection: &Injection<'_>) -> Result<Self, Report> {
        let problems = missing_files(injection.tunnel);
        if !problems.is_empty() {
            return Err(Report::new(injection.config, problems));
        }
        let identity = Path::new(IDENTITY_DIR).join(IDENTITY_KEY);
        let mut tunnel = injection.tunnel.clone().with_identity(identity);
        // The kubelet's probes come from outside the pod.
        let admin = tunnel.admin.unwrap_or((Ipv4Addr::UNSPECIFIED, ADMIN_PORT).into());
        let everywhere = match admin.ip() {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        tunnel.admin = Some(SocketAddr::new(everywhere, admin.port()));
        tunnel.state = Some(Path::new(DATA_DIR).join("tunnel"));
        tunnel.keeper = Some(Keeper::At(KEEPER_SOCKET.into()));
        // With what was changed it must still be one: the admin endpoint's port may be another's.
        ferry_config::parse(&yaml::plain(&tunnel), Path::new(CONFIG_DIR))
            .map_err(|report| Report::new(injection.config, report.problems().to_vec()))?;
        let pem =
            injection.with_secret.then(|| ByteString(injection.tunnel.identity.to_pem().expose().as_bytes().into()));
        Ok(Self { tunnel, image: injection.image.to_owned(), identity: pem })
    }

    pub(super) fn has_secret(&self) -> bool {
        self.identity.is_some()
    }

    /// The ports that the tunnel takes in the pod, each with its protocol and what it is for.
    pub(super) fn ports(&self) -> Vec<(u16, &'static str, &'static str)> {
        let tunnel = &self.tunnel;
        let own = [
            (tunnel.admin, "TCP", "the tunnel's `admin`"),
            (tunnel.listen, "TCP", "the tunnel's `listen`"),
            (tunnel.listen_ws, "TCP", "the tunnel's `listen_ws`"),
            (tunnel.listen_quic, "UDP", "the tunnel's `listen_quic`"),
        ];
        let own = own.into_iter().filter_map(|(address, protocol, what)| Some((address?.port(), protocol, what)));
        let egress = tunnel.egress.iter().map(|egress| (egress.listen.port(), "TCP", "an `egress` of the tunnel"));
        own.chain(egress).collect()
    }

    fn sidecar(&self) -> Sidecar<'_> {
        let tunnel = &self.tunnel;
        let listens = [
            ("tunnel", "TCP", tunnel.listen),
            ("tunnel-ws", "TCP", tunnel.listen_ws),
            ("tunnel-quic", "UDP", tunnel.listen_quic),
        ];
        let accepts = listens.into_iter().filter_map(|(name, protocol, address)| {
            let port = sidecar::port(name, address?.port());
            // What is not said is TCP.
            let protocol = (protocol != "TCP").then(|| protocol.to_owned());
            Some(ContainerPort { protocol, ..port })
        });
        Sidecar {
            image: self.image.clone(),
            settings: &tunnel.settings,
            admin_port: tunnel.admin.map_or(ADMIN_PORT, |admin| admin.port()),
            accepts: accepts.collect(),
            volumes: VOLUMES,
            addresses: None,
            // The state does not outlive the pod, so nothing would tell peers of sessions that the pod leaves.
            leaves_sessions: false,
            env: Vec::new(),
        }
    }

    /// The containers as a list in YAML.
    pub(super) fn containers(&self) -> String {
        let containers: Vec<_> = self.sidecar().containers().into_iter().map(in_any_pod).collect();
        yaml::document(&containers)
    }

    /// The volumes as a list in YAML.
    pub(super) fn volumes(&self, workload: &str) -> String {
        yaml::document(&[
            config_map_volume(VOLUMES.config, &config_map_name(workload), None),
            secret_volume(VOLUMES.identity, &secret_name(workload)),
            sidecar::keeper_volume(VOLUMES.keeper),
            sidecar::scratch_volume(VOLUMES.data),
        ])
    }

    /// The documents beside the workload.
    pub(super) fn documents(&self, workload: &Workload<'_>) -> Vec<String> {
        let metadata = |name: String| ObjectMeta {
            name: Some(name),
            namespace: workload.namespace.map(str::to_owned),
            annotations: Some(BTreeMap::from([(ANNOTATION.to_owned(), workload.to_string())])),
            labels: Some(BTreeMap::from([("app.kubernetes.io/managed-by".to_owned(), "ferry".to_owned())])),
            ..ObjectMeta::default()
        };
        let config_map = ConfigMap {
            metadata: metadata(config_map_name(workload.name)),
            data: Some(BTreeMap::from([(CONFIG_FILE.to_owned(), yaml::plain(&self.tunnel))])),
            ..ConfigMap::default()
        };
        let secret = self.identity.clone().map(|pem| Secret {
            metadata: metadata(secret_name(workload.name)),
            type_: Some("Opaque".to_owned()),
            data: Some(BTreeMap::from([(IDENTITY_KEY.to_owned(), pem)])),
            ..Secret::default()
        });
        [yaml::document(&config_map)].into_iter().chain(secret.as_ref().map(yaml::document)).collect()
    }
}

/// A container with what a bundle's pod says for all of its own.
fn in_any_pod(container: Container) -> Container {
    let of_pod = sidecar::pod_security();
    let PodSecurityContext { run_as_non_root, seccomp_profile, .. } = of_pod;
    let mut container = container;
    if let Some(security) = &mut container.security_context {
        security.run_as_non_root = run_as_non_root;
        security.run_as_user = Some(USER);
        // A Secret is root's, and readable by its group: root's, or the one that the pod names with `fsGroup`.
        security.run_as_group = Some(0);
        security.seccomp_profile = seccomp_profile;
    }
    container
}

/// Files that the configuration names, none of which is in the pod.
fn missing_files(tunnel: &Tunnel) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (at, peer) in tunnel.peers.iter().enumerate() {
        let mut add = |key: &str, path: &Path, hint: &str| {
            let message = format!("the file {} is not in the pod", path.display());
            let error = ValueError::new(message, hint);
            problems.push(Problem { path: format!("peers[{at}].{key}"), ..Problem::of_document(error) });
        };
        for (number, address) in peer.addresses.iter().enumerate() {
            if let Address::File(path) = address {
                add(&format!("addresses[{number}]"), path, "write the addresses themselves");
            }
        }
        let own = "leave it out, or write the sidecar's volumes by hand";
        peer.route.proxy_credentials.iter().for_each(|path| add("proxy_credentials", path, own));
        peer.route.ca_file.iter().for_each(|path| add("ca_file", path, own));
    }
    problems
}
