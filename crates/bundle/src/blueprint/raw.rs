//! A blueprint as far as it could be read, with the places that its values come from.

use super::links::RawLinks;
use super::services::RawService;
use super::{Blueprint, Cidr, Cloud, Cluster, Connection, Host, ImageName, Label, Pod, Scope, Storage, Tag, Template};
use ferry_config::fields::{Field, Fields, Located, Position, Problems};
use ferry_config::settings::{RawSettings, size};
use ferry_config::yaml::Value;
use ferry_config::{HostPort, Settings, ValueError, quoted};

const MIB: u64 = 1 << 20;

/// What was read. A value that must be there is `None` if it is not, and then there is a problem.
pub(super) struct RawBlueprint {
    pub(super) network: Option<RawNetwork>,
    pub(super) clusters: Vec<RawCluster>,
    pub(super) clusters_position: Option<Position>,
    image: Option<(ImageName, Tag)>,
    pub(super) pods: Vec<RawPod>,
    pub(super) pods_position: Option<Position>,
    pub(super) connections: Vec<RawConnection>,
    pub(super) services: Vec<RawService>,
    pub(super) services_position: Option<Position>,
    pub(super) tunnel: RawSettings,
    storage: Storage,
    metrics: Option<Label>,
    traces: Option<HostPort>,
}

pub(super) struct RawNetwork {
    pub(super) id: Option<Located<Label>>,
    name: Option<String>,
    pub(super) scope: Option<Located<Scope>>,
}

pub(super) struct RawCluster {
    pub(super) position: Position,
    pub(super) id: Option<Located<Label>>,
    pub(super) context: Option<Located<String>>,
    /// Whether there is a port, be it a wrong one.
    pub(super) has_port: bool,
    pub(super) port: Option<u16>,
    pub(super) links: Option<RawLinks>,
    pub(super) address: Option<Located<Host>>,
    pub(super) cloud: Cloud,
    source_ranges: Vec<Cidr>,
    pub(super) static_address: Option<Located<String>>,
    tcp_sysctls: bool,
    ipv6: bool,
}

pub(super) struct RawPod {
    pub(super) id: Option<Located<Label>>,
    pub(super) template: Option<Located<Template>>,
    pub(super) cluster: Option<Located<Label>>,
    pub(super) expose: Option<Located<Label>>,
    pub(super) auto_trigger: Option<Located<u32>>,
    pub(super) namespace: Option<Located<Label>>,
    pub(super) port: Option<Located<u16>>,
    pub(super) replicas: Option<Located<u16>>,
}

pub(super) struct RawConnection {
    pub(super) position: Position,
    pub(super) from: Option<Located<Label>>,
    pub(super) to: Option<Located<Label>>,
}

impl RawBlueprint {
    /// Reads a document. `None` only if it is not a mapping at all.
    pub(super) fn read(document: &Value, problems: &Problems) -> Option<Self> {
        let mut fields = Field::root(document, problems).fields()?;
        let top = &mut fields;
        if let Some(field) = top.required("schema_version", "write `schema_version: \"v2\"`") {
            expect_word(&field, "v2", "version of the schema");
        }
        let network = top.required("network", "say what the network is called: `network: {id: …}`");
        let network = network.and_then(|field| RawNetwork::read(&field));
        let (clusters, clusters_position) = list(top, "clusters", "list the clusters", RawCluster::read);
        let image = top.required("app_registry", "say what the images are called: `app_registry: {image: …, tag: …}`");
        let services = top.optional("services");
        // Services alone make a network: their gateways need not be listed.
        let pods = match services {
            Some(_) => top.optional("pods"),
            None => top.required("pods", "list the pods"),
        };
        let connections = match services {
            Some(_) => top.optional("connections"),
            None => top.required("connections", "say who connects to whom"),
        };
        let (pods, pods_position) = items(pods, "pods", "list the pods", RawPod::read);
        let (connections, _) = items(connections, "connections", "say who connects to whom", RawConnection::read);
        let (services, services_position) =
            items(services, "services", "list a service, or remove the key", RawService::read);
        let raw = Self {
            network,
            clusters,
            clusters_position,
            image: image.and_then(|field| read_image(&field)),
            pods,
            pods_position,
            connections,
            services,
            services_position,
            tunnel: top.optional("tunnel").and_then(|field| read_tunnel(&field)).unwrap_or_default(),
            storage: top.optional("storage").and_then(|field| read_storage(&field)).unwrap_or_default(),
            metrics: top.optional("metrics").and_then(|field| read_namespace(&field)),
            traces: top.optional("traces").and_then(|field| read_traces(&field)),
        };
        fields.finish();
        Some(raw)
    }

    /// The blueprint. `None` only if something was missing, which is a problem.
    pub(super) fn build(self) -> Option<Blueprint> {
        let network = self.network?;
        let id = network.id?.value;
        let (image, tag) = self.image?;
        let blueprint = Blueprint {
            name: network.name.unwrap_or_else(|| id.to_string()),
            id,
            scope: network.scope?.value,
            clusters: self.clusters.into_iter().map(RawCluster::build).collect::<Option<_>>()?,
            image,
            tag,
            pods: self.pods.into_iter().map(RawPod::build).collect::<Option<_>>()?,
            connections: self.connections.into_iter().map(RawConnection::build).collect::<Option<_>>()?,
            tunnel: self.tunnel.settings,
            services: self.services.into_iter().map(RawService::build).collect::<Option<_>>()?,
            storage: self.storage,
            metrics: self.metrics,
            traces: self.traces,
        };
        blueprint.with_gateways()
    }
}

impl RawNetwork {
    fn read(field: &Field<'_>) -> Option<Self> {
        let mut fields = field.fields()?;
        let id = fields.required("id", "name the network, such as `fast-international-ferry`").and_then(label);
        let name = fields.optional("name").and_then(|field| one_line(&field)).map(|located| located.value);
        if let Some(field) = fields.optional("protocol") {
            expect_word(&field, "websocket", "protocol");
        }
        let filter = fields.optional("wasm_filter");
        let mode = match filter.is_some() {
            // An older name for the same thing.
            true => fields.optional("mode"),
            false => fields.required("mode", "write `mode: armored-tunnel`"),
        };
        if let Some(field) = filter {
            expect_word(&field, "xtra4", "filter");
        }
        if let Some(field) = mode {
            expect_word(&field, "armored-tunnel", "mode");
        }
        let scope =
            fields.required("deployment_scope", "write `multi-cluster` or `single-cluster`").and_then(|field| {
                one_of(
                    &field,
                    "scope",
                    &[("multi-cluster", Scope::MultiCluster), ("single-cluster", Scope::SingleCluster)],
                )
            });
        fields.finish();
        Some(Self { id, name, scope })
    }
}

impl RawCluster {
    fn read(field: &Field<'_>) -> Option<Self> {
        const CLOUDS: [(&str, Cloud); 4] =
            [("aws", Cloud::Aws), ("gcp", Cloud::Gcp), ("azure", Cloud::Azure), ("none", Cloud::None)];
        let mut fields = field.fields()?;
        let context_hint = "write the context that `kubectl config get-contexts` shows for the cluster";
        let ranges = fields.optional("source_ranges").map(|field| field.items()).unwrap_or_default();
        let own_port = fields.optional("port");
        let cluster = Self {
            position: field.position.clone(),
            id: fields.required("id", "name the cluster, such as `cluster-a`").and_then(label),
            context: fields.required("context", context_hint).and_then(|field| one_line(&field)),
            has_port: own_port.is_some(),
            port: own_port.and_then(|field| port(&field)),
            links: fields.optional("links").map(|field| RawLinks::read(&field)),
            address: fields.optional("address").and_then(|field| field.scalar(str::parse)),
            cloud: fields
                .optional("cloud")
                .and_then(|field| one_of(&field, "cloud", &CLOUDS))
                .map_or(Cloud::None, |located| located.value),
            source_ranges: ranges
                .iter()
                .filter_map(|field| field.scalar(str::parse))
                .map(|located| located.value)
                .collect(),
            static_address: fields.optional("static_address").and_then(|field| one_line(&field)),
            tcp_sysctls: fields.optional("tcp_sysctls").and_then(|field| read_bool(&field)).unwrap_or_default(),
            ipv6: fields.optional("ipv6").and_then(|field| read_bool(&field)).unwrap_or_default(),
        };
        fields.finish();
        Some(cluster)
    }

    pub(super) fn has_source_ranges(&self) -> bool {
        !self.source_ranges.is_empty()
    }

    fn build(self) -> Option<Cluster> {
        Some(Cluster {
            id: self.id?.value,
            context: self.context?.value,
            port: self.port,
            links: self.links.map_or_else(|| Cluster::DEFAULT_LINKS.to_vec(), RawLinks::build),
            address: self.address.map(|located| located.value),
            cloud: self.cloud,
            source_ranges: self.source_ranges,
            static_address: self.static_address.map(|located| located.value),
            tcp_sysctls: self.tcp_sysctls,
            ipv6: self.ipv6,
        })
    }
}

impl RawPod {
    fn read(field: &Field<'_>) -> Option<Self> {
        const TEMPLATES: [(&str, Template); 3] = [
            ("ws-initiator", Template::WsInitiator),
            ("ws-terminator", Template::WsTerminator),
            ("gateway", Template::Gateway),
        ];
        let mut fields = field.fields()?;
        let pod = Self {
            id: fields.required("id", "name the pod, such as `initiator`").and_then(label),
            template: fields
                .required("template", "write `ws-initiator`, `ws-terminator` or `gateway`")
                .and_then(|field| one_of(&field, "template", &TEMPLATES)),
            cluster: fields.required("cluster", "write the `id` of one of `clusters`").and_then(label),
            expose: fields.optional("expose").and_then(|field| located(&field, read_namespace)),
            namespace: fields.optional("namespace").and_then(label),
            port: fields.optional("port").and_then(|field| located(&field, port)),
            replicas: fields.optional("replicas").and_then(|field| located(&field, replicas)),
            auto_trigger: fields.optional("auto_trigger").and_then(|field| {
                field.number(0..=1_000_000).map(|value| Located { value, position: field.position.clone() })
            }),
        };
        fields.finish();
        Some(pod)
    }

    fn build(self) -> Option<Pod> {
        Some(Pod {
            id: self.id?.value,
            template: self.template?.value,
            cluster: self.cluster?.value,
            expose: self.expose.map(|located| located.value),
            auto_trigger: self.auto_trigger.map_or(5, |located| located.value),
            namespace: self.namespace.map(|located| located.value),
            port: self.port.map(|located| located.value),
            replicas: self.replicas.map_or(1, |located| located.value),
        })
    }
}

impl RawConnection {
    fn read(field: &Field<'_>) -> Option<Self> {
        let mut fields = field.fields()?;
        let connection = Self {
            position: field.position.clone(),
            from: fields.required("from", "write the `id` of the pod that connects").and_then(label),
            to: fields.required("to", "write the `id` of the pod that is connected to").and_then(label),
        };
        fields.finish();
        Some(connection)
    }

    fn build(self) -> Option<Connection> {
        Some(Connection { from: self.from?.value, to: self.to?.value })
    }
}

fn read_image(field: &Field<'_>) -> Option<(ImageName, Tag)> {
    let mut fields = field.fields()?;
    let image = fields.required("image", "name the images, such as `fast-international-ferry`");
    let image = image.and_then(|field| field.text(str::parse)).map(|located| located.value);
    let tag = fields.required("tag", "name the version of the images, such as `dev`");
    let tag = tag.and_then(|field| field.text(str::parse)).map(|located| located.value);
    fields.finish();
    Some((image?, tag?))
}

fn read_tunnel(field: &Field<'_>) -> Option<RawSettings> {
    let mut fields = field.fields()?;
    let tunnel = Settings::read(&mut fields);
    fields.finish();
    Some(tunnel)
}

fn read_storage(field: &Field<'_>) -> Option<Storage> {
    let mut fields = field.fields()?;
    let mut storage = Storage::default();
    fields.read("size", &mut storage.size, |field| match size(MIB)(field.clone())? {
        size if size.is_multiple_of(MIB) => Some(size),
        _ => field.problem("not a whole number of MiB", "write a size such as `1GiB`"),
    });
    storage.class = fields.optional("class").and_then(label).map(|located| located.value);
    fields.finish();
    Some(storage)
}

/// `{namespace: …}`
fn read_namespace(field: &Field<'_>) -> Option<Label> {
    let mut fields = field.fields()?;
    let namespace = fields.required("namespace", "name the namespace that may come in, such as `monitoring`");
    let namespace = namespace.and_then(label).map(|located| located.value);
    fields.finish();
    namespace
}

/// `{endpoint: http://HOST:PORT}`
fn read_traces(field: &Field<'_>) -> Option<HostPort> {
    let mut fields = field.fields()?;
    let hint = "write where the collector takes OTLP over HTTP, such as `http://collector.monitoring.svc:4318`";
    let endpoint = fields.required("endpoint", hint).and_then(|field| {
        field.text(|text| {
            let address = text.strip_prefix("http://").and_then(|rest| rest.trim_end_matches('/').parse().ok());
            address.ok_or_else(|| ValueError::new(format!("{} is not `http://HOST:PORT`", quoted(text)), hint))
        })
    });
    fields.finish();
    endpoint.map(|located| located.value)
}

fn list<'d, T>(
    fields: &mut Fields<'d>,
    key: &'static str,
    hint: &str,
    read: impl FnMut(&Field<'d>) -> Option<T>,
) -> (Vec<T>, Option<Position>) {
    items(fields.required(key, hint), key, hint, read)
}

/// The items of a list that must have some, and where it stands.
fn items<'d, T>(
    field: Option<Field<'d>>,
    key: &str,
    hint: &str,
    read: impl FnMut(&Field<'d>) -> Option<T>,
) -> (Vec<T>, Option<Position>) {
    let Some(field) = field else { return (Vec::new(), None) };
    if field.is_empty_list() {
        field.problem::<()>(format!("no {key}"), hint);
        return (Vec::new(), None);
    }
    (field.items().iter().filter_map(read).collect(), Some(field.position.clone()))
}

/// What `read` makes of a field, with where it stands.
fn located<'d, T>(field: &Field<'d>, read: impl FnOnce(&Field<'d>) -> Option<T>) -> Option<Located<T>> {
    read(field).map(|value| Located { value, position: field.position.clone() })
}

pub(super) fn label(field: Field<'_>) -> Option<Located<Label>> {
    field.text(str::parse)
}

/// Text that may stand in a comment or a quoted word of a script.
fn one_line(field: &Field<'_>) -> Option<Located<String>> {
    field.text(|text| match text.is_empty() || text.len() > 253 || text.chars().any(char::is_control) {
        false => Ok(text.to_owned()),
        true => Err(ValueError::new(format!("{} does not fit", quoted(text)), "write one line of up to 253 bytes")),
    })
}

/// Each replica asks all others who they are, so there is a bound.
fn replicas(field: &Field<'_>) -> Option<u16> {
    field.number(1..=32).and_then(|count| u16::try_from(count).ok())
}

fn port(field: &Field<'_>) -> Option<u16> {
    let port = field.number(1..=65_535)?;
    match u16::try_from(port) {
        Ok(port @ 30_000..=32_767) => Some(port),
        _ => field.problem(
            format!("port {port} cannot be opened on the nodes"),
            "choose one from 30000 to 32767, the range that Kubernetes keeps for it",
        ),
    }
}

fn read_bool(field: &Field<'_>) -> Option<bool> {
    one_of(field, "answer", &[("true", true), ("false", false)]).map(|located| located.value)
}

/// Reads one of a few words.
fn one_of<T: Copy>(field: &Field<'_>, what: &str, words: &[(&str, T)]) -> Option<Located<T>> {
    field.scalar(|text| {
        let known = words.iter().find(|(word, _)| *word == text);
        known.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
            let next = ["ws-relay", "ws-fan-out", "ws-fan-in"].contains(&text);
            let message = match next {
                true => format!("the {what} {} is not there yet", quoted(text)),
                false => format!("there is no {what} {}", quoted(text)),
            };
            ValueError::new(message, format!("what there is: {}", words.join(", ")))
        })
    })
}

/// Reads the only word that there is so far.
fn expect_word(field: &Field<'_>, word: &str, what: &str) {
    one_of(field, what, &[(word, ())]);
}
