//! A pod as kubectl shows it: its tunnel's container, and whether sessions outlive that.

use std::fmt;

use k8s_openapi::api::core::v1::{self, ContainerStatus};
use serde::Deserialize;

use super::Place;
use crate::render::{KEEPER_CONTAINER, TUNNEL_CONTAINER};

/// The argument that a tunnel leaves its sessions to the keeper by when it is asked to stop.
const LEAVES: &str = "--leave-sessions";

/// Why a container that waits does not start by itself.
const HOPELESS: [&str; 7] = [
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

/// A pod with a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundPod {
    /// Its name.
    pub name: String,
    /// Where the tunnel's container is.
    pub place: Place,
    /// The image that the container is to have.
    pub image: String,
    /// How it is now.
    pub container: Container,
    /// Why its sessions do not outlive the container, if they do not.
    pub unkept: Option<Unkept>,
    /// The ReplicaSet that made the pod.
    pub replica_set: Option<String>,
}

/// A container at some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Another one for each start.
    pub id: Option<String>,
    /// It runs, and its probes say that it serves.
    pub is_ready: bool,
    /// Why it does not run.
    pub waiting: Option<Waiting>,
}

/// Why a container does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// A word.
    pub reason: String,
    /// What the kubelet says of it.
    pub message: String,
}

impl Waiting {
    /// It will not run without somebody's help.
    pub fn is_hopeless(&self) -> bool {
        HOPELESS.contains(&self.reason.as_str())
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.message.is_empty() {
            true => f.write_str(&self.reason),
            false => write!(f, "{}: {}", self.reason, self.message),
        }
    }
}

/// Why sessions end with the tunnel's container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unkept {
    /// Nothing holds them while it is replaced.
    NoKeeper,
    /// The keeper does not run.
    KeeperDown,
    /// The tunnel resets what is open after its drain.
    Drains,
}

impl fmt::Display for Unkept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoKeeper => "it has no keeper, so all sessions that are open would be lost",
            Self::KeeperDown => "its keeper does not run, so all sessions that are open would be lost",
            Self::Drains => {
                "its tunnel drains when its container is replaced, as a gateway's does: sessions that are still open after \
                 `drain` would be lost"
            }
        })
    }
}

/// A list as kubectl prints it, which is of no kind.
#[derive(Deserialize)]
struct Pods {
    items: Vec<v1::Pod>,
}

/// The pods in what kubectl prints, without those that end.
///
/// # Errors
/// If it is not a list of pods, or one of them has no tunnel.
pub fn find(text: &str) -> Result<Vec<FoundPod>, String> {
    let pods: Pods = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let living = pods.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    living.map(found).collect()
}

fn found(pod: v1::Pod) -> Result<FoundPod, String> {
    let name = pod.metadata.name.unwrap_or_default();
    let spec = pod.spec.unwrap_or_default();
    let status = pod.status.unwrap_or_default();
    let [init, main] = [spec.init_containers.unwrap_or_default(), spec.containers];
    let lists = [
        (Place::InitContainers, &init, status.init_container_statuses.unwrap_or_default()),
        (Place::Containers, &main, status.container_statuses.unwrap_or_default()),
    ];
    let named = |wanted: &str| {
        lists.iter().find_map(|(place, containers, statuses)| {
            let container = containers.iter().find(|container| container.name == wanted)?;
            let status = statuses.iter().find(|status| status.name == wanted);
            Some((*place, container, status.map(observed).unwrap_or_default()))
        })
    };
    let (place, tunnel, container) = named(TUNNEL_CONTAINER)
        .ok_or_else(|| format!("the pod {name} has no container `{TUNNEL_CONTAINER}`; did `ferry bundle` make it?"))?;
    let leaves = tunnel.args.iter().flatten().any(|argument| argument == LEAVES);
    let unkept = match named(KEEPER_CONTAINER) {
        None => Some(Unkept::NoKeeper),
        Some((_, _, keeper)) if !keeper.is_ready => Some(Unkept::KeeperDown),
        Some(_) if !leaves => Some(Unkept::Drains),
        Some(_) => None,
    };
    let owners = pod.metadata.owner_references.unwrap_or_default();
    let replica_set = owners.into_iter().find(|owner| owner.kind == "ReplicaSet").map(|owner| owner.name);
    let image = tunnel.image.clone().unwrap_or_default();
    Ok(FoundPod { name, place, image, container, unkept, replica_set })
}

fn observed(status: &ContainerStatus) -> Container {
    let state = status.state.clone().unwrap_or_default();
    let waiting = state.waiting.map(|waiting| Waiting {
        reason: waiting.reason.unwrap_or_default(),
        message: waiting.message.unwrap_or_default(),
    });
    Container { id: status.container_id.clone(), is_ready: status.ready && state.running.is_some(), waiting }
}
