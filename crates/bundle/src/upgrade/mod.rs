//! What another image for the tunnels of a bundle takes: the commands of kubectl, and what its answers mean.
//!
//! A container's image can be changed in a pod that runs, and the kubelet then replaces that container alone: its sessions
//! are with the keeper meanwhile. The Deployment is to make the next pod with that image, too, but must not replace this
//! one now, which it does as soon as no ReplicaSet has the same template as it. So it is paused while both templates are
//! changed, and continued only once it takes the ReplicaSet that is there for its own: `docs/decisions/0114`.

mod overlay;
mod pod;
mod rollout;

use serde_json::{Value, json};

pub use overlay::{Overlay, overlay};
pub use pod::{Container, FoundPod, Unkept, Waiting, find};
pub use rollout::Rollout;

use crate::render::TUNNEL_CONTAINER;
use crate::{Blueprint, Cluster, Pod, Template};

/// Longest name of an image that is taken.
const MAX_IMAGE_LEN: usize = 512;

/// Whether this can be the name of an image: what a registry, a tag and a digest are made of.
pub fn is_image(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@+".contains(&byte);
    text.len() <= MAX_IMAGE_LEN
        && text.bytes().all(is_part)
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
}

/// A tunnel of a bundle, in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelSite {
    /// The pod in the blueprint: also its Deployment, and its directory in the bundle.
    pub pod: String,
    /// Its cluster.
    pub cluster: String,
    /// The context of kubectl that leads there.
    pub context: String,
    /// Its namespace.
    pub namespace: String,
    /// The image that the bundle gives it.
    pub image: String,
    /// Where the bundle has its container.
    pub place: Place,
    selector: String,
}

/// In which list of a pod the tunnel's container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A native sidecar.
    InitContainers,
    /// As in a gateway, which has nothing else.
    Containers,
}

impl Place {
    fn key(self) -> &'static str {
        match self {
            Self::InitContainers => "initContainers",
            Self::Containers => "containers",
        }
    }
}

impl Blueprint {
    /// The tunnels of a bundle of this blueprint, in the order of its pods.
    pub fn tunnels(&self) -> Vec<TunnelSite> {
        let cluster_of = |pod: &Pod| self.clusters.iter().find(|cluster| cluster.id == pod.cluster);
        let site = |pod: &Pod, cluster: &Cluster| TunnelSite {
            pod: pod.id.to_string(),
            cluster: cluster.id.to_string(),
            context: cluster.context.to_string(),
            namespace: self.namespace(pod),
            image: self.image_of(pod),
            place: if pod.template == Template::Gateway { Place::Containers } else { Place::InitContainers },
            selector: format!("app.kubernetes.io/name={},app.kubernetes.io/part-of={}", pod.id, self.id),
        };
        self.pods.iter().filter_map(|pod| Some(site(pod, cluster_of(pod)?))).collect()
    }
}

/// The arguments of kubectl.
impl TunnelSite {
    /// Prints the name of its context, if kubectl has it.
    pub fn context_query(&self) -> Vec<String> {
        ["config", "get-contexts", &self.context, "--output", "name"].map(String::from).into()
    }

    /// Its pods.
    pub fn pods(&self) -> Vec<String> {
        self.kubectl(&["get", "pods", "--selector", &self.selector, "--output", "json"])
    }

    /// Its Deployment.
    pub fn deployment(&self) -> Vec<String> {
        self.kubectl(&["get", "deployment", &self.pod, "--output", "json"])
    }

    /// What its pods are at, for people.
    pub fn describe(&self) -> String {
        let context = &self.context;
        format!("kubectl --context {context} --namespace {} describe pods --selector {}", self.namespace, self.selector)
    }

    /// Gives the tunnel's container in a pod that runs another image.
    pub fn patch_pod(&self, name: &str, place: Place, image: &str) -> Vec<String> {
        let containers = json!([{"name": TUNNEL_CONTAINER, "image": image}]);
        self.patch("pod", name, json!({"spec": {place.key(): containers}}))
    }

    /// Gives the Deployment another image, and pauses it.
    pub fn patch_deployment(&self, place: Place, image: &str) -> Vec<String> {
        let mut patch = template(place, image);
        patch["spec"]["paused"] = json!(true);
        self.patch("deployment", &self.pod, patch)
    }

    /// Gives the ReplicaSet of its pod another image. What runs stays as it is.
    pub fn patch_replica_set(&self, name: &str, place: Place, image: &str) -> Vec<String> {
        self.patch("replicaset", name, template(place, image))
    }

    /// Lets the Deployment continue.
    pub fn resume(&self) -> Vec<String> {
        self.patch("deployment", &self.pod, json!({"spec": {"paused": null}}))
    }

    fn patch(&self, kind: &str, name: &str, patch: Value) -> Vec<String> {
        // Strategic: a container is found by its name, and of it only the image changes.
        self.kubectl(&["patch", kind, name, "--type", "strategic", "--patch", &patch.to_string()])
    }

    fn kubectl(&self, words: &[&str]) -> Vec<String> {
        let which = ["--context", &self.context, "--namespace", &self.namespace, "--request-timeout", "10s"];
        which.iter().chain(words).map(ToString::to_string).collect()
    }
}

fn template(place: Place, image: &str) -> Value {
    let containers = json!([{"name": TUNNEL_CONTAINER, "image": image}]);
    json!({"spec": {"template": {"spec": {place.key(): containers}}}})
}
