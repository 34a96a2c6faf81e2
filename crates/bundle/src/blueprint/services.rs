//! The services of a blueprint and the gateways that carry them: how they are read, and what does not go together.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::check::{MAX_POD_LEN, listed};
use super::gateways::{Rank, implied_id, rank};
use super::raw::{RawBlueprint, RawCluster, RawPod, label};
use super::{GATEWAY, Label, Scope, Service, Template};
use ferry_config::fields::{Field, Located, Position, Problems};
use ferry_config::{EntryLimits, HostPort, ValueError, quoted};

pub(super) struct RawService {
    pub(super) name: Option<Located<Label>>,
    pub(super) cluster: Option<Located<Label>>,
    target: Option<HostPort>,
    port: Option<u16>,
    pub(super) reach_from: Vec<Located<Label>>,
    namespaces: Vec<Label>,
    limits: EntryLimits,
}

impl RawService {
    pub(super) fn read(field: &Field<'_>) -> Option<Self> {
        let mut fields = field.fields()?;
        let reach_hint = "list the clusters where applications reach the service: `reach_from: [cluster-a]`";
        let service = Self {
            name: fields.required("name", "name the service, such as `orders-db`").and_then(label),
            cluster: fields
                .required("cluster", "write the `id` of the cluster that the service runs in")
                .and_then(label),
            target: fields
                .required("target", "write where it is found there, such as `postgres.shop.svc:5432`")
                .and_then(|field| field.scalar(target))
                .map(|located| located.value),
            port: fields.optional("port").and_then(|field| u16::try_from(field.number(1..=65_535)?).ok()),
            reach_from: labels(fields.required("reach_from", reach_hint), reach_hint),
            namespaces: labels(fields.optional("namespaces"), "name one, or remove the key to let all in")
                .into_iter()
                .map(|located| located.value)
                .collect(),
            limits: EntryLimits::read(&mut fields),
        };
        fields.finish();
        Some(service)
    }

    pub(super) fn build(self) -> Option<Service> {
        let target = self.target?;
        Some(Service {
            name: self.name?.value,
            cluster: self.cluster?.value,
            port: self.port.unwrap_or(target.port),
            target,
            reach_from: self.reach_from.into_iter().map(|located| located.value).collect(),
            namespaces: self.namespaces,
            limits: self.limits,
        })
    }

    /// Whether a gateway of the cluster is needed for it.
    pub(super) fn is_in(&self, cluster: &Label) -> bool {
        self.reach_from.iter().chain(&self.cluster).any(|located| located.value == *cluster)
    }
}

/// The items of a list that must have some.
fn labels(field: Option<Field<'_>>, hint: &str) -> Vec<Located<Label>> {
    if let Some(field) = field.as_ref().filter(|field| field.is_empty_list()) {
        field.problem::<()>("an empty list", hint);
    }
    field.map(|field| field.items()).unwrap_or_default().into_iter().filter_map(label).collect()
}

/// Reads where a gateway finds a service.
fn target(text: &str) -> Result<HostPort, ValueError> {
    let target: HostPort = text.parse().map_err(|error: ValueError| {
        let hint = match text.contains(':') {
            true => error.hint,
            false => format!("write the port, too, such as `{text}:5432`"),
        };
        ValueError::new(format!("{} is not where a service is found", quoted(text)), hint)
    })?;
    let host = target.host.trim_end_matches('.');
    if host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()) {
        let hint = "write the name of its Kubernetes Service, such as `postgres.shop.svc:5432`";
        return Err(ValueError::new(format!("{} is the gateway itself", quoted(text)), hint));
    }
    if !host.contains(['.', ':']) {
        let hint = format!("write `{host}.NAMESPACE.svc:{}`", target.port);
        return Err(ValueError::new(format!("{} does not say in which namespace", quoted(text)), hint));
    }
    Ok(target)
}

/// Where a name was given first, by cluster and name.
type Names<'d> = BTreeMap<(&'d Label, &'d Label), &'d Position>;

/// Reports a name that another service has in a cluster.
fn is_taken<'d>(
    seen: &mut Names<'d>,
    cluster: &'d Label,
    name: &'d Located<Label>,
    verb: &str,
    problems: &Problems,
) -> bool {
    let first = *seen.entry((cluster, &name.value)).or_insert(&name.position);
    if std::ptr::eq(first, &name.position) {
        return false;
    }
    let message = format!("`{}` is already {verb} `{cluster}` at `{first}`", name.value);
    problems.add(&name.position, ValueError::new(message, "give each service a name of its own"));
    true
}

impl RawBlueprint {
    pub(super) fn check_services(&self, problems: &Problems) {
        let scope = self.network.as_ref().and_then(|network| network.scope.as_ref());
        if let Some((position, _)) =
            self.services_position.as_ref().zip(scope.filter(|s| s.value == Scope::SingleCluster))
        {
            let message = "services are carried between clusters, and here is only one";
            problems.add(position, ValueError::new(message, "write `multi-cluster`, or remove them"));
            return;
        }
        self.check_clusters_of_services(problems);
        self.check_names_of_services(problems);
        self.check_gateways(problems);
        for cluster in self.clusters.iter().filter_map(|cluster| cluster.id.as_ref()) {
            self.check_gateway_of(&cluster.value, problems);
        }
    }

    fn check_clusters_of_services(&self, problems: &Problems) {
        let known = || self.clusters.iter().filter_map(|cluster| cluster.id.as_ref()).map(|id| &id.value);
        for service in &self.services {
            for cluster in service.cluster.iter().chain(&service.reach_from) {
                listed(cluster, known(), "cluster", "clusters", problems);
            }
            let Some(own) = &service.cluster else { continue };
            for (i, cluster) in service.reach_from.iter().enumerate() {
                if cluster.value == own.value {
                    let message = format!("`{}` is where the service runs", cluster.value);
                    let hint = "applications there use its own name; list other clusters only";
                    problems.add(&cluster.position, ValueError::new(message, hint));
                } else if service.reach_from[..i].iter().any(|other| other.value == cluster.value) {
                    let message = format!("`{}` is listed twice", cluster.value);
                    problems.add(&cluster.position, ValueError::new(message, "list each cluster once"));
                } else if let Some((here, there)) = self.rank_of(&own.value).zip(self.rank_of(&cluster.value))
                    && !here.0
                    && !there.0
                {
                    let message = format!("neither `{}` nor `{}` can be dialled", own.value, cluster.value);
                    let hint =
                        "give one of the two clusters a `port`, and an `address` if the deploy scripts cannot find it";
                    problems.add(&cluster.position, ValueError::new(message, hint));
                }
            }
        }
    }

    /// A name stands for one service at the gateway that leads to it, and for one Kubernetes Service where it is reached.
    fn check_names_of_services(&self, problems: &Problems) {
        let (mut running, mut reached) = (Names::new(), Names::new());
        for service in &self.services {
            let Some(name) = &service.name else { continue };
            if service
                .cluster
                .as_ref()
                .is_some_and(|cluster| is_taken(&mut running, &cluster.value, name, "a service of", problems))
            {
                continue;
            }
            for cluster in &service.reach_from {
                if is_taken(&mut reached, &cluster.value, name, "reached from", problems) {
                    break;
                }
                let own = self.gateway_id(&cluster.value);
                let own = |suffix: &str| own.as_ref().is_some_and(|id| format!("{id}-{suffix}") == name.value.as_str());
                if own("tunnel") || own("websocket") {
                    let message = format!("`{}` is what the Service of the gateway itself is called", name.value);
                    problems.add(&name.position, ValueError::new(message, "choose another name"));
                }
            }
        }
    }

    /// Pods with `template: gateway`.
    fn check_gateways(&self, problems: &Problems) {
        let mut seen: BTreeMap<&Label, &Position> = BTreeMap::new();
        for pod in &self.pods {
            let Some((cluster, template)) = pod.cluster.as_ref().zip(pod.template.as_ref()) else { continue };
            if template.value != Template::Gateway {
                let namespace = pod.namespace.as_ref().map(|located| (&located.position, "a `namespace` of its own"));
                let port = pod.port.as_ref().map(|located| (&located.position, "a `port` of its own"));
                let replicas = pod.replicas.as_ref().map(|located| (&located.position, "`replicas`"));
                for (position, what) in [namespace, port, replicas].into_iter().flatten() {
                    problems.add(position, ValueError::new(format!("only a gateway has {what}"), "remove it"));
                }
                continue;
            }
            let expose = pod.expose.as_ref().map(|located| &located.position);
            for position in expose.into_iter().chain(pod.auto_trigger.as_ref().map(|located| &located.position)) {
                problems.add(position, ValueError::new("a gateway has no web-app", "remove it"));
            }
            if let Some(first) = seen.insert(&cluster.value, &template.position) {
                let message = format!("`{}` has a gateway already, at `{first}`", cluster.value);
                problems
                    .add(&template.position, ValueError::new(message, "one gateway carries all services of a cluster"));
            }
            let known = self.cluster(&cluster.value).is_some();
            if known && !self.services.iter().any(|service| service.is_in(&cluster.value)) {
                let message = format!("no service is in `{}`, or reached from it", cluster.value);
                problems.add(&template.position, ValueError::new(message, "remove the gateway, or list a service"));
            }
            let known = self.cluster(&cluster.value);
            let message = match known {
                Some(known) if known.bypasses_load_balancer() => "is dialled by WebSocket alone",
                Some(known) if !known.has_port => "has no `port`, so nothing dials its gateway",
                _ => continue,
            };
            if let Some(port) = &pod.port {
                let message = format!("`{}` {message}", cluster.value);
                problems.add(&port.position, ValueError::new(message, "give the cluster a `port`, or remove this one"));
            }
        }
    }

    /// What the gateway of a cluster needs for itself, whether the blueprint lists it or not.
    fn check_gateway_of(&self, cluster: &Label, problems: &Problems) {
        let Some(service) = self.services.iter().find(|service| service.is_in(cluster)) else { return };
        let here = |pod: &&RawPod| pod.is_in(cluster);
        let gateway = self.gateway_in(cluster);
        let Some(position) = self.cluster(cluster).map(|cluster| &cluster.position) else { return };
        if gateway.is_none() {
            let id = implied_id(cluster).filter(|id| id.as_str().len() <= MAX_POD_LEN);
            let taken =
                self.pods.iter().filter_map(|pod| pod.id.as_ref()).find(|other| Some(&other.value) == id.as_ref());
            let list = format!("list it: `{{id: …, template: gateway, cluster: {cluster}}}`");
            match (id, taken) {
                (None, _) => {
                    let message = format!("a gateway called `gateway-{cluster}` would have too long a name");
                    problems.add(position, ValueError::new(message, list));
                }
                (_, Some(other)) => {
                    let message = format!("`{}` is what the gateway of `{cluster}` is called", other.value);
                    problems.add(&other.position, ValueError::new(message, "rename the pod"));
                }
                _ => {}
            }
        }
        let namespace = self.namespace_of(gateway, GATEWAY);
        let others = self.pods.iter().filter(here).filter(|pod| !pod.is(Template::Gateway));
        for other in others.filter_map(|pod| pod.id.as_ref()) {
            if namespace.is_some() && self.namespace_of(None, other.value.as_str()) == namespace {
                let message = format!("`{}` would share a namespace with the gateway of `{cluster}`", other.value);
                problems.add(
                    &other.position,
                    ValueError::new(message, "rename the pod, or give the gateway a `namespace`"),
                );
            }
        }
        let terminator = self.pods.iter().filter(here).find(|pod| pod.is(Template::WsTerminator));
        let own_port =
            gateway.is_some_and(|pod| pod.port.as_ref().is_some_and(|own| Some(own.value) != self.port_of(cluster)));
        let own_port = own_port || self.cluster(cluster).is_some_and(RawCluster::bypasses_load_balancer);
        if let Some(terminator) =
            terminator.and_then(|pod| pod.id.as_ref()).filter(|_| !own_port && self.is_dialled(cluster))
        {
            let at = gateway.and_then(|pod| pod.template.as_ref()).map(|template| &template.position);
            let at = at.or(service.name.as_ref().map(|name| &name.position)).unwrap_or(position);
            let port = self.port_of(cluster).unwrap_or_default();
            let message = format!("port {port} of `{cluster}` is taken by `{}`", terminator.value);
            let hint = format!("give the gateway its own: `{{id: …, template: gateway, cluster: {cluster}, port: …}}`");
            problems.add(at, ValueError::new(message, hint));
        }
    }

    /// Whether a gateway elsewhere dials the one of this cluster.
    pub(super) fn is_dialled(&self, cluster: &Label) -> bool {
        let Some(own) = self.rank_of(cluster) else { return false };
        self.services.iter().any(|service| {
            let Some(there) = &service.cluster else { return false };
            let mut others: Vec<&Label> = Vec::new();
            match there.value == *cluster {
                true => others.extend(service.reach_from.iter().map(|located| &located.value)),
                false => others.extend(service.is_in(cluster).then_some(&there.value)),
            }
            others
                .into_iter()
                .filter(|other| *other != cluster)
                .any(|other| self.rank_of(other).is_some_and(|rank| rank < own))
        })
    }

    fn cluster(&self, id: &Label) -> Option<&RawCluster> {
        self.clusters.iter().find(|cluster| cluster.id.as_ref().is_some_and(|own| own.value == *id))
    }

    fn port_of(&self, cluster: &Label) -> Option<u16> {
        self.cluster(cluster).and_then(|cluster| cluster.port)
    }

    fn rank_of(&self, id: &Label) -> Option<Rank> {
        let (index, cluster) = self
            .clusters
            .iter()
            .enumerate()
            .find(|(_, cluster)| cluster.id.as_ref().is_some_and(|own| own.value == *id))?;
        Some(rank(cluster.is_dialable(), cluster.address.is_some(), index))
    }

    fn gateway_in(&self, cluster: &Label) -> Option<&RawPod> {
        self.pods.iter().find(|pod| pod.is(Template::Gateway) && pod.is_in(cluster))
    }

    fn gateway_id(&self, cluster: &Label) -> Option<Label> {
        match self.gateway_in(cluster) {
            Some(pod) => pod.id.as_ref().map(|id| id.value.clone()),
            None => implied_id(cluster),
        }
    }

    /// The namespace of a gateway, or of another pod called `id`.
    fn namespace_of(&self, gateway: Option<&RawPod>, id: &str) -> Option<String> {
        if let Some(namespace) = gateway.and_then(|pod| pod.namespace.as_ref()) {
            return Some(namespace.value.to_string());
        }
        let network = self.network.as_ref().and_then(|network| network.id.as_ref())?;
        Some(super::namespace_of(&network.value, id))
    }
}
