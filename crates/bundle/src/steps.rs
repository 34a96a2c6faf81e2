//! What deploying a bundle takes: which scripts, in which order, and what to ask of kubectl for proof.

use crate::keys::TOKEN_KEY;
use crate::render::{TOKEN_DIR, WEB_APP_PORT};
use crate::{Blueprint, Cluster, Pod, Scope, Template};

/// The steps that lead from a bundle to pods that talk to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steps {
    /// The scripts of the bundle, in order.
    pub scripts: Vec<String>,
    /// How to show that messages go through.
    pub proof: Option<Proof>,
    /// How to see that gateways reach each other.
    pub links: Vec<LinkProof>,
    /// What to watch so that a moved address is noticed. Nothing where the blueprint gives the addresses.
    pub addresses: Vec<Watched>,
}

/// A gateway that can be asked whether its peers are reachable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkProof {
    /// What kubectl calls the pod with its tunnel's admin endpoint.
    pub pod: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The kubectl context of its cluster.
    pub context: String,
    /// The gateway and its cluster.
    pub gateway: [String; 2],
    /// The services that it leads to.
    pub services: Vec<String>,
}

/// A message from one end to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The arguments of a kubectl that runs `ferry send` in the initiator, for more of its arguments to follow.
    pub send: Vec<String>,
    /// The initiator and its cluster.
    pub from: [String; 2],
    /// The terminator and its cluster.
    pub to: [String; 2],
    /// The arguments of a kubectl that shows what both ends say, for the cause of a failure.
    pub status: Vec<String>,
}

/// An address that may move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The arguments of a kubectl that prints the address.
    pub query: Vec<String>,
    /// Whose it is.
    pub pod: String,
}

impl Blueprint {
    /// How a bundle of this blueprint is deployed.
    pub fn steps(&self) -> Steps {
        let initiator = self.place_of(Template::WsInitiator);
        let terminator = self.place_of(Template::WsTerminator);
        let clusters: Vec<_> = match self.services.is_empty() {
            true => {
                let initiators = self.pods.iter().filter(|pod| pod.template == Template::WsInitiator);
                let initiators = initiators.filter_map(|pod| self.cluster_of(pod));
                terminator.map(|(_, cluster)| cluster).into_iter().chain(initiators).collect()
            }
            false => self.dialled_first(),
        };
        let mut scripts: Vec<String> = Vec::new();
        for script in clusters.into_iter().map(|cluster| self.deploy_script(cluster)) {
            if !scripts.contains(&script) {
                scripts.push(script);
            }
        }
        let proof = initiator.zip(terminator).map(|((from, here), (to, there))| {
            let deployment = format!("deployment/{}", from.id);
            let app = format!("http://127.0.0.1:{WEB_APP_PORT}");
            let in_pod = ["exec", deployment.as_str(), "--container", "web-app", "--", "ferry", "send", app.as_str()];
            let mut send = self.kubectl(from, here, &in_pod);
            if from.expose.is_some() {
                send.extend(["--token-file".into(), format!("{TOKEN_DIR}/{TOKEN_KEY}")]);
            }
            let logs = ["logs", deployment.as_str(), "--container", "tunnel", "--tail", "1"];
            Proof {
                send,
                from: [from.id.to_string(), here.id.to_string()],
                to: [to.id.to_string(), there.id.to_string()],
                status: self.kubectl(from, here, &logs),
            }
        });
        let multi = self.scope == Scope::MultiCluster;
        let dialled = self.pods.iter().filter(|pod| multi && self.connections.iter().any(|way| way.to == pod.id));
        let is_found = |cluster: &&Cluster| cluster.address.is_none() && cluster.has_load_balancer();
        let found = dialled.filter_map(|pod| Some((pod, self.cluster_of(pod).filter(is_found)?)));
        let addresses = found.map(|(pod, cluster)| {
            let service = format!("{}-tunnel", pod.id);
            let path = "jsonpath={range .status.loadBalancer.ingress[*]}{.ip}{.hostname} {end}";
            let query = ["get", "service", &service, "--output", path];
            Watched { query: self.kubectl(pod, cluster, &query), pod: pod.id.to_string() }
        });
        Steps { scripts, proof, links: self.links(), addresses: addresses.collect() }
    }

    /// The gateways that lead to services elsewhere.
    fn links(&self) -> Vec<LinkProof> {
        let gateways = self.pods.iter().filter(|pod| pod.template == Template::Gateway);
        let links = gateways.filter_map(|pod| {
            let cluster = self.cluster_of(pod)?;
            let reached = self.services.iter().filter(|service| service.reach_from.contains(&cluster.id));
            Some(LinkProof {
                pod: format!("deployment/{}", pod.id),
                namespace: self.namespace(pod),
                context: cluster.context.clone(),
                gateway: [pod.id.to_string(), cluster.id.to_string()],
                services: reached.map(|service| service.name.to_string()).collect(),
            })
        });
        links.filter(|link| !link.services.is_empty()).collect()
    }

    /// The script of a bundle that deploys a cluster.
    pub(crate) fn deploy_script(&self, cluster: &Cluster) -> String {
        match self.scope {
            Scope::SingleCluster => "deploy.sh".into(),
            Scope::MultiCluster => format!("deploy-{}.sh", cluster.id),
        }
    }

    /// The first pod of a template and its cluster; a parsed blueprint with web-apps has one of each, or more initiators.
    fn place_of(&self, template: Template) -> Option<(&Pod, &Cluster)> {
        let pod = self.pods.iter().find(|pod| pod.template == template)?;
        Some((pod, self.cluster_of(pod)?))
    }

    fn cluster_of(&self, pod: &Pod) -> Option<&Cluster> {
        self.clusters.iter().find(|cluster| cluster.id == pod.cluster)
    }

    fn kubectl(&self, pod: &Pod, cluster: &Cluster, words: &[&str]) -> Vec<String> {
        let namespace = self.namespace(pod);
        let which = ["--context", cluster.context.as_str(), "--namespace", namespace.as_str()];
        which.iter().chain(words).map(ToString::to_string).collect()
    }
}
