//! What only shows when the values of a blueprint are held against each other.

use std::collections::BTreeMap;
use std::fmt;

use super::raw::{RawBlueprint, RawCluster, RawConnection, RawPod};
use super::{Cloud, Host, Label, Scope, Template};
use ferry_config::ValueError;
use ferry_config::fields::{Located, Position, Problems};

/// The longest name of a namespace, in bytes.
const MAX_NAMESPACE_LEN: usize = 63;
/// The longest name of a pod, in bytes: a Service is called `<pod>-tunnel`, a replica gets 17 bytes more than its pod.
pub(super) const MAX_POD_LEN: usize = 46;

impl RawBlueprint {
    /// Reports what does not go together.
    pub(super) fn check(&self, problems: &Problems) {
        self.check_names(problems);
        self.check_clusters(problems);
        self.check_pods(problems);
        self.check_connections(problems);
        self.check_services(problems);
        self.check_links(problems);
        self.tunnel.check(problems);
    }

    fn check_names(&self, problems: &Problems) {
        unique(self.clusters.iter().filter_map(|cluster| cluster.id.as_ref()), problems, "give each cluster its own");
        let contexts = self.clusters.iter().filter_map(|cluster| cluster.context.as_ref());
        unique(contexts, problems, "two clusters cannot be behind one context; for pods in one cluster, list it once");
        unique(self.pods.iter().filter_map(|pod| pod.id.as_ref()), problems, "give each pod its own");
        let network = self.network.as_ref().and_then(|network| network.id.as_ref());
        for (raw, pod) in self.pods.iter().filter_map(|pod| Some((pod, pod.id.as_ref()?))) {
            if pod.value.as_str().len() > MAX_POD_LEN {
                let message = format!("`{}` is too long for a pod", pod.value);
                problems.add(&pod.position, ValueError::new(message, format!("use at most {MAX_POD_LEN} bytes")));
            }
            let Some(network) = network.filter(|_| !raw.is(Template::Gateway)) else { continue };
            let namespace = super::namespace_of(&network.value, pod.value.as_str());
            if namespace.len() > MAX_NAMESPACE_LEN {
                let message = format!("the namespace would be `{namespace}`, which is too long");
                let hint = format!("shorten the id of the network or of the pod, to {MAX_NAMESPACE_LEN} bytes in all");
                problems.add(&pod.position, ValueError::new(message, hint));
            }
        }
    }

    fn check_clusters(&self, problems: &Problems) {
        for cluster in &self.clusters {
            if let (Cloud::None, Some(address)) = (cluster.cloud, &cluster.static_address) {
                let hint = "say which `cloud` it is, or remove the address";
                problems.add(&address.position, ValueError::new("a static address is the cloud's to give", hint));
            }
            if let Some(address) = &cluster.address {
                cluster.check_address(address, problems);
            }
            let used = |id: &Located<Label>| {
                let services = || self.services.iter().any(|service| service.is_in(&id.value));
                self.pods.iter().any(|pod| pod.is_in(&id.value)) || services()
            };
            // A pod whose cluster is a slip may be the one that uses it.
            let listed = |located: &Located<Label>| {
                self.clusters.iter().filter_map(|cluster| cluster.id.as_ref()).any(|id| id.value == located.value)
            };
            let of_pods = self.pods.iter().map(|pod| pod.cluster.as_ref());
            let of_services = self.services.iter().map(|service| service.cluster.as_ref());
            let reaching = self.services.iter().flat_map(|service| &service.reach_from).map(Some);
            let nowhere = self.services.iter().filter(|service| service.reach_from.is_empty()).map(|_| None);
            let mut named = of_pods.chain(of_services).chain(reaching).chain(nowhere).peekable();
            let all_known = named.peek().is_some() && named.all(|id| id.is_some_and(listed));
            if let Some(id) = cluster.id.as_ref().filter(|id| all_known && !used(id)) {
                let message = format!("no pod runs in `{}`", id.value);
                let hint = "remove the cluster, or place a pod in it";
                problems.add(&cluster.position, ValueError::new(message, hint));
            }
        }
        let scope = self.network.as_ref().and_then(|network| network.scope.as_ref());
        let (Some(scope), Some(position)) = (scope, &self.clusters_position) else { return };
        let (count, hint) = match (scope.value, self.clusters.len()) {
            (Scope::SingleCluster, 2..) => ("several clusters", "list one, or write `multi-cluster`"),
            (Scope::MultiCluster, 1) => ("only one cluster", "list both, or write `single-cluster`"),
            _ => return,
        };
        problems.add(position, ValueError::new(format!("{count} in this `deployment_scope`"), hint));
    }

    fn check_pods(&self, problems: &Problems) {
        for pod in &self.pods {
            if let Some(cluster) = &pod.cluster {
                let known = self.clusters.iter().filter_map(|cluster| cluster.id.as_ref()).map(|id| &id.value);
                listed(cluster, known, "cluster", "clusters", problems);
            }
            let terminator = pod.is(Template::WsTerminator);
            let portless = |id: &Label| {
                let mut clusters = self.clusters.iter().filter(|cluster| !cluster.is_dialable());
                clusters.any(|cluster| cluster.id.as_ref().is_some_and(|own| own.value == *id))
            };
            if let Some(cluster) = pod.cluster.as_ref().filter(|cluster| terminator && portless(&cluster.value)) {
                let message = format!("`{}` has no `port`, and a terminator is dialled", cluster.value);
                problems
                    .add(&cluster.position, ValueError::new(message, "give the cluster one, such as `port: 30200`"));
            }
            if let Some(auto_trigger) = pod.auto_trigger.as_ref().filter(|_| terminator) {
                let message = "a terminator sends nothing by itself";
                problems.add(&auto_trigger.position, ValueError::new(message, "set it on the initiator"));
            }
        }
        let Some(position) = self.pods_position.as_ref().filter(|_| self.has_web_apps()) else { return };
        for (template, word) in [(Template::WsInitiator, "ws-initiator"), (Template::WsTerminator, "ws-terminator")] {
            let known = self.pods.iter().all(|pod| pod.template.is_some());
            match self.pods.iter().filter(|pod| pod.is(template)).count() {
                0 if known => {
                    let hint = "a network has one terminator, and one initiator or more";
                    problems.add(position, ValueError::new(format!("no pod with `template: {word}`"), hint));
                }
                2.. if template == Template::WsTerminator => {
                    let hint = "a network has one terminator so far, and any number of initiators";
                    problems.add(position, ValueError::new(format!("several pods with `template: {word}`"), hint));
                }
                _ => {}
            }
        }
    }

    /// Whether there are web-apps, or have to be: a blueprint without services needs some.
    fn has_web_apps(&self) -> bool {
        let is_web_app = |pod: &RawPod| pod.is(Template::WsInitiator) || pod.is(Template::WsTerminator);
        self.services_position.is_none() || self.pods.iter().any(is_web_app)
    }

    fn check_connections(&self, problems: &Problems) {
        let unconnected = self.services_position.is_some() && self.connections.is_empty() && self.has_web_apps();
        if let Some(position) = self.pods_position.as_ref().filter(|_| unconnected) {
            let hint = "say which pod connects to which: `connections: [{from: initiator, to: terminator}]`";
            problems.add(position, ValueError::new("no connection between the pods", hint));
        }
        for connection in &self.connections {
            let ends = [
                (&connection.from, Template::WsInitiator, "a connection starts at an initiator"),
                (&connection.to, Template::WsTerminator, "a connection ends at a terminator"),
            ];
            for (end, template, hint) in ends {
                let Some(end) = end else { continue };
                let known = self.pods.iter().filter_map(|pod| pod.id.as_ref()).map(|id| &id.value);
                listed(end, known, "pod", "pods", problems);
                let pod = self.pods.iter().find(|pod| pod.id.as_ref().is_some_and(|id| id.value == end.value));
                let other = pod.and_then(|pod| pod.template.as_ref()).filter(|located| located.value != template);
                if other.is_some() {
                    let message = format!("`{}` is at the wrong end of the connection", end.value);
                    problems.add(&end.position, ValueError::new(message, hint));
                }
            }
        }
        let starts_at =
            |connection: &RawConnection, id: &Label| connection.from.as_ref().is_some_and(|from| from.value == *id);
        for (index, connection) in self.connections.iter().enumerate() {
            let Some(initiator) = &connection.from else { continue };
            if self.connections[..index].iter().any(|before| starts_at(before, &initiator.value)) {
                let message = format!("more than one connection from `{}`", initiator.value);
                problems.add(&connection.position, ValueError::new(message, "an initiator has one so far"));
            }
        }
        // Where there are none, that is reported already.
        let initiators = self.pods.iter().filter(|pod| pod.is(Template::WsInitiator) && !self.connections.is_empty());
        for id in initiators.filter_map(|pod| pod.id.as_ref()).filter(|_| self.connects_initiators()) {
            if !self.connections.iter().any(|connection| starts_at(connection, &id.value)) {
                let hint = format!("say which terminator it dials: `- {{from: {}, to: …}}`", id.value);
                problems.add(&id.position, ValueError::new(format!("`{}` has no connection", id.value), hint));
            }
        }
    }

    /// Whether every connection starts at an initiator: one that does not is a slip, and may be the one that is missed.
    fn connects_initiators(&self) -> bool {
        let starts = |id: &Located<Label>| {
            let is_it = |pod: &&RawPod| pod.id.as_ref().is_some_and(|own| own.value == id.value);
            self.pods.iter().find(is_it).is_some_and(|pod| pod.is(Template::WsInitiator))
        };
        self.connections.iter().all(|connection| connection.from.as_ref().is_some_and(starts))
    }
}

impl RawCluster {
    /// Reports an address that only this machine or only k3d knows, on a cluster that is elsewhere: it would be
    /// preferred to the one that the scripts find out, and reach nobody.
    fn check_address(&self, address: &Located<Host>, problems: &Problems) {
        let k3d = self.context.as_ref().is_none_or(|context| context.value.starts_with("k3d-"));
        let host = address.value.host.trim_end_matches('.');
        let on_one_machine = |end: &str| host.ends_with(end) && self.cloud != Cloud::None;
        let loopback = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        let hint =
            "remove it, and the deploy scripts find the address out; or write one that the other cluster reaches";
        if loopback {
            let message = format!("`{host}` is the dialling pod itself");
            problems.add(&address.position, ValueError::new(message, hint));
        } else if host.ends_with(".k3d.internal") && !k3d
            || [".k3d.internal", ".docker.internal", ".containers.internal"].into_iter().any(on_one_machine)
        {
            let message = format!("`{host}` is known on one machine only, and this cluster is elsewhere");
            problems.add(&address.position, ValueError::new(message, hint));
        }
    }
}

impl RawPod {
    pub(super) fn is_in(&self, cluster: &Label) -> bool {
        self.cluster.as_ref().is_some_and(|located| located.value == *cluster)
    }

    pub(super) fn is(&self, template: Template) -> bool {
        self.template.as_ref().is_some_and(|located| located.value == template)
    }
}

/// Reports a reference to what is not there.
pub(super) fn listed<'d>(
    reference: &Located<Label>,
    known: impl Iterator<Item = &'d Label>,
    what: &str,
    key: &str,
    problems: &Problems,
) {
    let known: Vec<_> = known.collect();
    // With none that could be read, that is what has been reported.
    if known.is_empty() || known.contains(&&reference.value) {
        return;
    }
    let names: Vec<_> = known.iter().map(|known| format!("`{known}`")).collect();
    let message = format!("there is no {what} `{}`", reference.value);
    problems.add(&reference.position, ValueError::new(message, format!("in `{key}` there is {}", names.join(", "))));
}

fn unique<'d, T: Ord + fmt::Display + 'd>(
    spots: impl Iterator<Item = &'d Located<T>>,
    problems: &Problems,
    hint: &str,
) {
    let mut seen: BTreeMap<&T, &Position> = BTreeMap::new();
    for located in spots {
        match seen.get(&located.value) {
            Some(first) => {
                let message = format!("`{}` is already at `{first}`", located.value);
                problems.add(&located.position, ValueError::new(message, hint));
            }
            None => {
                seen.insert(&located.value, &located.position);
            }
        }
    }
}
