//! The blueprint: what a user says about a network, as values that need no further checking.

mod check;
mod raw;
mod values;

use ferry_config::{Report, Settings, ValueError, fields::Problems, yaml};

pub use values::{Cidr, Host, ImageName, Label, Tag};

use raw::RawBlueprint;

/// The largest blueprint, in bytes: 1 MiB.
const MAX_FILE_LEN: usize = 1 << 20;

/// A network of pods: everything that a blueprint says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blueprint {
    /// Names the network; the first part of every namespace.
    pub id: Label,
    /// The name for people; [`id`](Self::id) where the blueprint gives none.
    pub name: String,
    /// Whether the pods are in one cluster or in several.
    pub scope: Scope,
    /// The clusters, each with a pod; names and contexts are unique.
    pub clusters: Vec<Cluster>,
    /// What the image of every pod begins with: pod `p` runs `<image>-p:<tag>`.
    pub image: ImageName,
    /// The tag of all images.
    pub tag: Tag,
    /// The pods; names are unique.
    pub pods: Vec<Pod>,
    /// Who connects to whom; both are of [`pods`](Self::pods).
    pub connections: Vec<Connection>,
    /// What all tunnels are set to.
    pub tunnel: Settings,
    /// Where a web-app keeps its messages.
    pub storage: Storage,
    /// The namespace that may read metrics; nobody may if there is none.
    pub metrics: Option<Label>,
}

/// Where the pods are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All in one cluster, where they find each other by the cluster's DNS.
    SingleCluster,
    /// In several, which share nothing but a load balancer's address.
    MultiCluster,
}

/// A Kubernetes cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its name, in file names and trails.
    pub id: Label,
    /// The context of kubectl that leads to it.
    pub context: String,
    /// Where tunnels in it are reached from outside; 30000 to 32767.
    pub port: u16,
    /// How other clusters reach it, if that is known beforehand.
    pub address: Option<Host>,
    /// Whose load balancer it has.
    pub cloud: Cloud,
    /// Who may reach the load balancer; anybody if empty.
    pub source_ranges: Vec<Cidr>,
    /// An address reserved for the load balancer, as the cloud calls it; only with a cloud.
    pub static_address: Option<String>,
    /// Whether pods may raise `net.ipv4.tcp_rmem` and `tcp_wmem`.
    pub tcp_sysctls: bool,
}

/// Whose load balancer a cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// Network load balancers of AWS.
    Aws,
    /// Passthrough network load balancers of Google Cloud.
    Gcp,
    /// Standard load balancers of Azure.
    Azure,
    /// None of these: k3s, MetalLB and the like.
    None,
}

/// A pod: a web-app and a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name: the last part of its namespace, its deployment, its directory.
    pub id: Label,
    /// What it does.
    pub template: Template,
    /// The cluster that it runs in, one of [`Blueprint::clusters`].
    pub cluster: Label,
    /// The namespace that may reach `/trigger`, `/output` and `/stream`, given the token; nobody may if there is none.
    pub expose: Option<Label>,
    /// How many messages an initiator sends by itself.
    pub auto_trigger: u32,
}

/// What a pod does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Template {
    /// Connects to a terminator over a WebSocket.
    WsInitiator,
    /// Is connected to.
    WsTerminator,
}

/// A way from one pod to another. The tunnel of `from` dials the tunnel of `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Whose app connects.
    pub from: Label,
    /// Whose app is connected to.
    pub to: Label,
}

/// Where a web-app keeps its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Size of the volume in bytes; a whole number of MiB.
    pub size: u64,
    /// The storage class; the cluster's default if there is none.
    pub class: Option<Label>,
}

impl Blueprint {
    /// Reads the text of a blueprint; `source` is what reports call it.
    ///
    /// # Errors
    ///
    /// Every problem in the text, each with its position and what to do about it.
    pub fn parse(source: &str, text: &str) -> Result<Self, Report> {
        if text.len() > MAX_FILE_LEN {
            let error = ValueError::new("larger than 1 MiB", "no blueprint needs to be; is this the right file?");
            return Err(Report::of_document(source, error));
        }
        let document = yaml::parse(text).map_err(|problem| Report::new(source, vec![problem]))?;
        let problems = Problems::default();
        let blueprint = RawBlueprint::read(&document, &problems).and_then(|raw| {
            raw.check(&problems);
            raw.build()
        });
        match blueprint {
            Some(blueprint) if problems.is_empty() => Ok(blueprint),
            _ => Err(Report::new(source, problems.into_problems())),
        }
    }

    /// The namespace of a pod.
    pub fn namespace(&self, pod: &Label) -> String {
        format!("{}-{pod}-ns", self.id)
    }

    /// The image of a pod.
    pub fn image_of(&self, pod: &Label) -> String {
        format!("{}-{pod}:{}", self.image, self.tag)
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self { size: 1 << 30, class: None }
    }
}
