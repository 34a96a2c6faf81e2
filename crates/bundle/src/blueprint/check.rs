//! What only shows when the values of a blueprint are held against each other.

use std::{collections::BTreeMap, fmt};

use ferry_config::{
    ValueError,
    fields::{Place, Sink, Spot},
};

use super::{
    Cloud, Host, Label, Scope, Template,
    draft::{Draft, DraftCluster, DraftPod},
};

/// The longest name of a namespace, in bytes.
const NAMESPACE_MAX: usize = 63;
/// The longest name of a pod, in bytes: a Service is called `<pod>-tunnel`, a replica gets 17 bytes more than its pod.
const POD_MAX: usize = 46;

impl Draft {
    /// Reports what does not go together.
    pub(super) fn check(&self, sink: &Sink) {
        self.check_names(sink);
        self.check_clusters(sink);
        self.check_pods(sink);
        self.check_connections(sink);
        self.tunnel.check(sink);
    }

    fn check_names(&self, sink: &Sink) {
        unique(self.clusters.iter().filter_map(|cluster| cluster.id.as_ref()), sink, "give each cluster its own");
        let contexts = self.clusters.iter().filter_map(|cluster| cluster.context.as_ref());
        unique(contexts, sink, "two clusters cannot be behind one context; for pods in one cluster, list it once");
        unique(self.pods.iter().filter_map(|pod| pod.id.as_ref()), sink, "give each pod its own");
        let network = self.network.as_ref().and_then(|network| network.id.as_ref());
        for pod in self.pods.iter().filter_map(|pod| pod.id.as_ref()) {
            if pod.value.as_str().len() > POD_MAX {
                let message = format!("`{}` is too long for a pod", pod.value);
                sink.problem(&pod.place, ValueError::new(message, format!("use at most {POD_MAX} bytes")));
            }
            let Some(network) = network else { continue };
            let namespace = format!("{}-{}-ns", network.value, pod.value);
            if namespace.len() > NAMESPACE_MAX {
                let message = format!("the namespace would be `{namespace}`, which is too long");
                let hint = format!("shorten the id of the network or of the pod, to {NAMESPACE_MAX} bytes in all");
                sink.problem(&pod.place, ValueError::new(message, hint));
            }
        }
    }

    fn check_clusters(&self, sink: &Sink) {
        for cluster in &self.clusters {
            if let (Cloud::None, Some(address)) = (cluster.cloud, &cluster.static_address) {
                let hint = "say which `cloud` it is, or remove the address";
                sink.problem(&address.place, ValueError::new("a static address is the cloud's to give", hint));
            }
            if let Some(address) = &cluster.address {
                cluster.check_address(address, sink);
            }
            let used = |id: &Spot<Label>| self.pods.iter().any(|pod| pod.is_in(&id.value));
            // A pod whose cluster is a slip may be the one that uses it.
            let listed = |spot: &Spot<Label>| {
                self.clusters.iter().filter_map(|cluster| cluster.id.as_ref()).any(|id| id.value == spot.value)
            };
            let all_known = self.pods.iter().all(|pod| pod.cluster.as_ref().is_some_and(listed));
            if let Some(id) = cluster.id.as_ref().filter(|id| all_known && !self.pods.is_empty() && !used(id)) {
                let message = format!("no pod runs in `{}`", id.value);
                sink.problem(&cluster.place, ValueError::new(message, "remove the cluster, or place a pod in it"));
            }
        }
        let scope = self.network.as_ref().and_then(|network| network.scope.as_ref());
        let (Some(scope), Some(place)) = (scope, &self.clusters_place) else { return };
        let (count, hint) = match (scope.value, self.clusters.len()) {
            (Scope::SingleCluster, 2..) => ("several clusters", "list one, or write `multi-cluster`"),
            (Scope::MultiCluster, 1) => ("only one cluster", "list both, or write `single-cluster`"),
            (Scope::MultiCluster, 3..) => ("more than two clusters", "two are what there is so far"),
            _ => return,
        };
        sink.problem(place, ValueError::new(format!("{count} in this `deployment_scope`"), hint));
    }

    fn check_pods(&self, sink: &Sink) {
        for pod in &self.pods {
            if let Some(cluster) = &pod.cluster {
                let known = self.clusters.iter().filter_map(|cluster| cluster.id.as_ref()).map(|id| &id.value);
                listed(cluster, known, "cluster", "clusters", sink);
            }
            let terminator = pod.template.as_ref().is_some_and(|spot| spot.value == Template::WsTerminator);
            if let Some(auto_trigger) = pod.auto_trigger.as_ref().filter(|_| terminator) {
                let message = "a terminator sends nothing by itself";
                sink.problem(&auto_trigger.place, ValueError::new(message, "set it on the initiator"));
            }
        }
        let Some(place) = &self.pods_place else { return };
        for (template, word) in [(Template::WsInitiator, "ws-initiator"), (Template::WsTerminator, "ws-terminator")] {
            let is = |pod: &&DraftPod| pod.template.as_ref().is_some_and(|spot| spot.value == template);
            let known = self.pods.iter().all(|pod| pod.template.is_some());
            match self.pods.iter().filter(is).count() {
                0 if known => {
                    let hint = "a network has one initiator and one terminator";
                    sink.problem(place, ValueError::new(format!("no pod with `template: {word}`"), hint));
                }
                2.. => {
                    let hint = "a network has one initiator and one terminator so far";
                    sink.problem(place, ValueError::new(format!("several pods with `template: {word}`"), hint));
                }
                _ => {}
            }
        }
    }

    fn check_connections(&self, sink: &Sink) {
        for connection in &self.connections {
            let ends = [
                (&connection.from, Template::WsInitiator, "a connection starts at an initiator"),
                (&connection.to, Template::WsTerminator, "a connection ends at a terminator"),
            ];
            for (end, template, hint) in ends {
                let Some(end) = end else { continue };
                let known = self.pods.iter().filter_map(|pod| pod.id.as_ref()).map(|id| &id.value);
                listed(end, known, "pod", "pods", sink);
                let pod = self.pods.iter().find(|pod| pod.id.as_ref().is_some_and(|id| id.value == end.value));
                let other = pod.and_then(|pod| pod.template.as_ref()).filter(|spot| spot.value != template);
                if other.is_some() {
                    let message = format!("`{}` is at the wrong end of the connection", end.value);
                    sink.problem(&end.place, ValueError::new(message, hint));
                }
            }
        }
        if let Some(second) = self.connections.get(1) {
            let hint = "an initiator and a terminator have one so far";
            sink.problem(&second.place, ValueError::new("more than one connection", hint));
        }
    }
}

impl DraftCluster {
    /// Reports an address that only this machine or only k3d knows, on a cluster that is elsewhere: it would be
    /// preferred to the one that the scripts find out, and reach nobody.
    fn check_address(&self, address: &Spot<Host>, sink: &Sink) {
        let k3d = self.context.as_ref().is_none_or(|context| context.value.starts_with("k3d-"));
        let host = address.value.host.trim_end_matches('.');
        let on_one_machine = |end: &str| host.ends_with(end) && self.cloud != Cloud::None;
        let loopback = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        let hint =
            "remove it, and the deploy scripts find the address out; or write one that the other cluster reaches";
        if loopback {
            let message = format!("`{host}` is the dialling pod itself");
            sink.problem(&address.place, ValueError::new(message, hint));
        } else if host.ends_with(".k3d.internal") && !k3d
            || [".k3d.internal", ".docker.internal", ".containers.internal"].into_iter().any(on_one_machine)
        {
            let message = format!("`{host}` is known on one machine only, and this cluster is elsewhere");
            sink.problem(&address.place, ValueError::new(message, hint));
        }
    }
}

impl DraftPod {
    fn is_in(&self, cluster: &Label) -> bool {
        self.cluster.as_ref().is_some_and(|spot| spot.value == *cluster)
    }
}

/// Reports a reference to what is not there.
fn listed<'d>(reference: &Spot<Label>, known: impl Iterator<Item = &'d Label>, what: &str, key: &str, sink: &Sink) {
    let known: Vec<_> = known.collect();
    // With none that could be read, that is what has been reported.
    if known.is_empty() || known.contains(&&reference.value) {
        return;
    }
    let names: Vec<_> = known.iter().map(|known| format!("`{known}`")).collect();
    let message = format!("there is no {what} `{}`", reference.value);
    sink.problem(&reference.place, ValueError::new(message, format!("in `{key}` there is {}", names.join(", "))));
}

fn unique<'d, T: Ord + fmt::Display + 'd>(spots: impl Iterator<Item = &'d Spot<T>>, sink: &Sink, hint: &str) {
    let mut seen: BTreeMap<&T, &Place> = BTreeMap::new();
    for spot in spots {
        match seen.get(&spot.value) {
            Some(first) => {
                let message = format!("`{}` is already at `{first}`", spot.value);
                sink.problem(&spot.place, ValueError::new(message, hint));
            }
            None => {
                seen.insert(&spot.value, &spot.place);
            }
        }
    }
}
