//! What carries links into a cluster: how it is read, and what does not go together.

use std::collections::BTreeMap;
use std::mem::discriminant;

use super::raw::{RawBlueprint, RawCluster, label};
use super::{Carrier, Cluster, Front, Label, ObjectName, Scope, Template, WebSocket};
use ferry_config::fields::{Field, Located, Position, Problems};
use ferry_config::{Address, ValueError, WebSocketUrl, quoted};

/// What a tunnel answers load balancers at, instead of a WebSocket.
const HEALTH_PATH: &str = "/healthz";

/// The value of `links`.
pub(super) struct RawLinks {
    position: Position,
    carriers: Vec<Located<Carrier>>,
    /// Whether all could be read.
    whole: bool,
}

impl RawLinks {
    pub(super) fn read(field: &Field<'_>) -> Self {
        if field.is_empty_list() {
            field.problem::<()>("no links", "list what may carry them: `[tcp]`, or `[quic, tcp]`");
        }
        let items = field.items();
        let carriers: Vec<_> = items.iter().filter_map(read_carrier).collect();
        let whole = carriers.len() == items.len() && !items.is_empty();
        Self { position: field.position.clone(), carriers, whole }
    }

    pub(super) fn build(self) -> Vec<Carrier> {
        self.carriers.into_iter().map(|located| located.value).collect()
    }

    fn websocket(&self) -> Option<(&Position, &WebSocket)> {
        self.carriers.iter().find_map(|located| Some((&located.position, located.value.websocket()?)))
    }

    /// Whether the load balancer carries none, which can be told only if all are known.
    fn bypasses_load_balancer(&self) -> bool {
        self.whole && self.carriers.iter().all(|carrier| carrier.value.websocket().is_some())
    }

    fn check(&self, cluster: &RawCluster, problems: &Problems) {
        for (i, carrier) in self.carriers.iter().enumerate() {
            let (name, before) = (&carrier.value, &self.carriers[..i]);
            let is_same = |other: &Located<Carrier>| discriminant(&other.value) == discriminant(name);
            if before.iter().any(is_same) {
                let message = format!("`{name}` is listed twice");
                problems.add(&carrier.position, ValueError::new(message, "list each once, the preferred one first"));
            } else if name.websocket().is_some() {
                if i > 0 && i + 1 < self.carriers.len() {
                    let message = "`websocket` stands between two whose addresses are found out together";
                    problems.add(&carrier.position, ValueError::new(message, "put it first, or last"));
                }
            } else if !cluster.has_port {
                let message = format!("`{name}` needs a `port` of the cluster");
                let hint = "give the cluster one, such as `port: 30200`";
                problems.add(&carrier.position, ValueError::new(message, hint));
            }
        }
        if let Some((_, websocket)) = self.websocket().filter(|_| self.bypasses_load_balancer()) {
            cluster.check_unused(websocket, problems);
        }
    }
}

impl RawCluster {
    /// Whether tunnels elsewhere may dial those in this cluster.
    pub(super) fn is_dialable(&self) -> bool {
        self.has_port || self.links.as_ref().is_some_and(|links| links.websocket().is_some())
    }

    /// Whether there is no load balancer to be dialled.
    pub(super) fn bypasses_load_balancer(&self) -> bool {
        self.links.as_ref().is_some_and(RawLinks::bypasses_load_balancer)
    }

    /// Reports what is said of a load balancer that there is not.
    fn check_unused(&self, websocket: &WebSocket, problems: &Problems) {
        let keys = [
            ("port", self.has_port),
            ("address", self.address.is_some()),
            ("source_ranges", self.has_source_ranges()),
            ("static_address", self.static_address.is_some()),
        ];
        for (key, _) in keys.into_iter().filter(|(_, is_there)| *is_there) {
            let message = format!("`{key}` is of a load balancer, and links come in at {} alone", websocket.url);
            let hint = format!("remove `{key}`, or add `tcp` to `links`");
            let at = self.address.as_ref().filter(|_| key == "address").map(|address| &address.position);
            problems.add(at.unwrap_or(&self.position), ValueError::new(message, hint));
        }
    }
}

fn read_carrier(field: &Field<'_>) -> Option<Located<Carrier>> {
    if field.is_mapping() {
        let value = Carrier::WebSocket(Box::new(read_websocket(field)?));
        return Some(Located { value, position: field.position.clone() });
    }
    const WEBSOCKET: &str = "`{websocket: wss://ferry.example.com/ferry, ingress: {class: nginx}}`";
    field.text(|text| match text {
        "tcp" => Ok(Carrier::Tcp),
        "quic" => Ok(Carrier::Quic),
        "websocket" => Err(ValueError::new("`websocket` alone does not say where", format!("write {WEBSOCKET}"))),
        _ => {
            let message = format!("{} carries no links", quoted(text));
            Err(ValueError::new(message, format!("what does: `tcp`, `quic`, {WEBSOCKET}")))
        }
    })
}

fn read_websocket(field: &Field<'_>) -> Option<WebSocket> {
    let mut fields = field.fields()?;
    let url = fields.required("websocket", "write the URL that is dialled: `wss://ferry.example.com/ferry`");
    let url = url.and_then(|field| field.text(published_url)).map(|located| located.value);
    let (ingress, route) = (fields.optional("ingress"), fields.optional("http_route"));
    let front = match (&ingress, &route) {
        (Some(ingress), None) => read_ingress(ingress, url.as_ref()),
        (None, Some(route)) => read_route(route),
        (Some(_), Some(route)) => route.problem("there is an `ingress` already", "keep one of the two"),
        (None, None) => field.problem(
            "nothing leads from there to the tunnel",
            "add `ingress: {class: nginx}`, or `http_route: {gateway: NAME}`",
        ),
    };
    fields.finish();
    Some(WebSocket { url: url?, front: front? })
}

fn read_ingress(field: &Field<'_>, url: Option<&WebSocketUrl>) -> Option<Front> {
    let mut fields = field.fields()?;
    let class = fields.optional("class").and_then(|field| field.text(str::parse)).map(|located| located.value);
    let tls_secret = fields.optional("tls_secret");
    if let Some(secret) = tls_secret.as_ref().filter(|_| url.is_some_and(|url| !url.secure)) {
        let message = "a certificate for `ws://`, which has no TLS of its own";
        secret.problem::<()>(message, "write `wss://`, or remove the secret");
    }
    let tls_secret = tls_secret.and_then(|field| field.text(str::parse)).map(|located| located.value);
    let annotations = fields.optional("annotations").map(|field| read_annotations(&field)).unwrap_or_default();
    fields.finish();
    Some(Front::Ingress { class, tls_secret, annotations })
}

fn read_annotations(field: &Field<'_>) -> BTreeMap<String, String> {
    let entries = field.entries().into_iter().filter_map(|(key, field)| {
        let name = key.rsplit_once('/').map_or(key, |(_, name)| name);
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > 63 || !key.replacen('/', "", 1).chars().all(plain) {
            return field.problem(format!("{} is no annotation", quoted(key)), "write it as `PREFIX/NAME`");
        }
        let value = field.text(|text| Ok(text.to_owned()))?;
        Some((key.to_owned(), value.value))
    });
    entries.collect()
}

fn read_route(field: &Field<'_>) -> Option<Front> {
    let mut fields = field.fields()?;
    let gateway = fields.required("gateway", "name the Gateway that the route belongs to");
    let gateway = gateway.and_then(|field| field.text(str::parse)).map(|located| located.value);
    let namespace = fields.optional("namespace").and_then(label).map(|located| located.value);
    let listener = fields.optional("listener").and_then(|field| field.text(str::parse)).map(|located| located.value);
    fields.finish();
    Some(Front::HttpRoute { gateway: gateway?, namespace, listener })
}

/// Reads a URL whose host and path an Ingress and an HTTPRoute can have.
fn published_url(text: &str) -> Result<WebSocketUrl, ValueError> {
    let Address::WebSocket(url) = text.parse()? else {
        let message = format!("{} is not a WebSocket's URL", quoted(text));
        return Err(ValueError::new(message, "write `wss://ferry.example.com/ferry`"));
    };
    let host = &url.endpoint.host;
    if host.parse::<ObjectName>().is_err() || host.parse::<std::net::IpAddr>().is_ok() {
        let message = format!("{} is no host name for HTTP", quoted(host));
        return Err(ValueError::new(message, "write a DNS name in lower case, such as `ferry.example.com`"));
    }
    if url.path == HEALTH_PATH {
        let message = format!("`{HEALTH_PATH}` is what a tunnel answers load balancers at");
        return Err(ValueError::new(message, "choose another path"));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_/.".contains(c);
    if !url.path.chars().all(plain) || url.path.contains("//") || url.path.contains("/.") {
        let message = format!("{} is no path for an ingress controller", quoted(&url.path));
        return Err(ValueError::new(message, "use letters, digits, `-`, `_`, `.` and single slashes"));
    }
    Ok(url)
}

impl RawBlueprint {
    pub(super) fn check_links(&self, problems: &Problems) {
        let scope = self.network.as_ref().and_then(|network| network.scope.as_ref());
        let single = scope.is_some_and(|scope| scope.value == Scope::SingleCluster);
        for (cluster, links) in self.clusters.iter().filter_map(|cluster| Some((cluster, cluster.links.as_ref()?))) {
            if single {
                let message = "within one cluster, links are always over TCP";
                problems.add(&links.position, ValueError::new(message, "remove the key"));
                continue;
            }
            links.check(cluster, problems);
            let two = |id: &Label| self.has_terminator(id) && self.is_dialled(id);
            if let Some((position, websocket)) =
                links.websocket().filter(|_| cluster.id.as_ref().is_some_and(|id| two(&id.value)))
            {
                let message = format!("{} would lead to the terminator and to the gateway", websocket.url);
                let hint = "one tunnel of a cluster can be behind a WebSocket so far: list `tcp` or `quic` alone";
                problems.add(position, ValueError::new(message, hint));
            }
        }
    }

    fn has_terminator(&self, cluster: &Label) -> bool {
        self.pods.iter().any(|pod| pod.is(Template::WsTerminator) && pod.is_in(cluster))
    }
}

impl Carrier {
    fn websocket(&self) -> Option<&WebSocket> {
        match self {
            Self::WebSocket(websocket) => Some(websocket),
            Self::Tcp | Self::Quic => None,
        }
    }
}

impl Cluster {
    /// What carries links where a blueprint does not say it.
    pub(super) const DEFAULT_LINKS: [Carrier; 1] = [Carrier::Tcp];

    /// Whether links come in by this.
    pub(crate) fn takes(&self, carrier: &Carrier) -> bool {
        self.links.contains(carrier)
    }

    /// Whether some come in through the load balancer.
    pub(crate) fn has_load_balancer(&self) -> bool {
        self.takes(&Carrier::Tcp) || self.takes(&Carrier::Quic)
    }

    /// Where links come in as WebSockets.
    pub(crate) fn websocket(&self) -> Option<&WebSocket> {
        self.links.iter().find_map(Carrier::websocket)
    }

    /// Whether tunnels elsewhere may dial those in this cluster.
    pub(super) fn is_dialable(&self) -> bool {
        self.port.is_some() || self.websocket().is_some()
    }
}
