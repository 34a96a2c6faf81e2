//! `tunnel.yaml` as far as it could be read, with the places that its values come from.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::address::{Address, HostPort, WebSocketUrl, is_url_path, parse_listen};
use crate::fields::{Field, Fields, Located, Position, Problems};
use crate::key::PublicKey;
use crate::name::{Name, ServiceName};
use crate::report::{ValueError, quoted};
use crate::settings::{RawSettings, Settings, duration, size};
use crate::tunnel::{Egress, EntryLimits, Ingress, Keeper, Peer, Prefer, ProxyProtocol, Route, Tunnel};
use crate::yaml::Value;

/// The slowest that the sessions of an entry may be made.
const MIN_BYTES_PER_SECOND: u64 = 1 << 10;

/// What was read. A value that must be there is `None` if it is not, and then there is a problem.
pub(crate) struct RawTunnel {
    pub(crate) name: Option<Located<Name>>,
    pub(crate) identity: Option<Located<PathBuf>>,
    pub(crate) state: Option<PathBuf>,
    keeper: Option<Keeper>,
    pub(crate) admin: Option<Located<SocketAddr>>,
    pub(crate) listen: Option<Located<SocketAddr>>,
    pub(crate) listen_quic: Option<Located<SocketAddr>>,
    pub(crate) listen_ws: Option<Located<SocketAddr>>,
    ws_path: Option<String>,
    ws_max_life: Option<Duration>,
    pub(crate) replicas: Vec<Located<HostPort>>,
    pub(crate) peers: Vec<RawPeer>,
    pub(crate) egress: Vec<RawEgress>,
    pub(crate) ingress: Vec<RawIngress>,
    pub(crate) settings: RawSettings,
}

pub(crate) struct RawPeer {
    pub(crate) position: Position,
    pub(crate) name: Option<Located<Name>>,
    pub(crate) keys: Vec<Located<PublicKey>>,
    pub(crate) addresses: Vec<Address>,
    route: Route,
    limits: EntryLimits,
}

pub(crate) struct RawEgress {
    pub(crate) listen: Option<Located<SocketAddr>>,
    pub(crate) peer: Option<Located<Name>>,
    pub(crate) service: Option<ServiceName>,
    pub(crate) limits: EntryLimits,
}

pub(crate) struct RawIngress {
    pub(crate) service: Option<Located<ServiceName>>,
    pub(crate) forward: Option<HostPort>,
    pub(crate) allow: Vec<Located<Name>>,
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    pub(crate) limits: EntryLimits,
}

impl RawTunnel {
    /// Reads a document. `None` only if it is not a mapping at all.
    pub(crate) fn read(document: &Value, dir: &Path, problems: &Problems) -> Option<Self> {
        let mut fields = Field::root(document, problems).fields()?;
        let top = &mut fields;
        let raw = Self {
            name: top.required("name", "name this tunnel, such as `cluster-a/initiator`").and_then(name),
            identity: top
                .required("identity", "name the key file that `ferry keygen --out FILE` wrote")
                .and_then(|field| path(&field, dir)),
            state: top.optional("state").and_then(|field| path(&field, dir)).map(|located| located.value),
            keeper: top.optional("keeper").and_then(|field| keeper(&field, dir)),
            admin: top.optional("admin").and_then(listen),
            listen: top.optional("listen").and_then(listen),
            listen_quic: top.optional("listen_quic").and_then(listen),
            listen_ws: top.optional("listen_ws").and_then(listen),
            ws_path: top.optional("ws_path").and_then(url_path),
            ws_max_life: top.optional("ws_max_life").and_then(duration(WebSocketUrl::MAX_LIFE)),
            replicas: list(top, "replicas", |field| field.scalar(str::parse)),
            peers: list(top, "peers", |field| RawPeer::read(&field, dir)),
            egress: list(top, "egress", |field| RawEgress::read(&field)),
            ingress: list(top, "ingress", |field| RawIngress::read(&field)),
            settings: Settings::read(top),
        };
        fields.finish();
        Some(raw)
    }

    /// The tunnel, with `identity` in it. `None` only if something was missing, which is a problem.
    pub(crate) fn build<I>(self, identity: I) -> Option<Tunnel<I>> {
        Some(Tunnel {
            name: self.name?.value,
            identity,
            state: self.state,
            keeper: self.keeper,
            admin: self.admin.map(|located| located.value),
            listen: self.listen.map(|located| located.value),
            listen_quic: self.listen_quic.map(|located| located.value),
            listen_ws: self.listen_ws.map(|located| located.value),
            ws_path: self.ws_path.unwrap_or_else(|| WebSocketUrl::PATH.to_owned()),
            ws_max_life: self.ws_max_life,
            replicas: self.replicas.into_iter().map(|located| located.value).collect(),
            peers: self.peers.into_iter().map(RawPeer::build).collect::<Option<_>>()?,
            egress: self.egress.into_iter().map(RawEgress::build).collect::<Option<_>>()?,
            ingress: self.ingress.into_iter().map(RawIngress::build).collect::<Option<_>>()?,
            settings: self.settings.settings,
        })
    }
}

impl RawPeer {
    pub(crate) fn read(field: &Field<'_>, dir: &Path) -> Option<Self> {
        let mut fields = field.fields()?;
        let keys_hint = "list the public keys of the peer: `keys: [\"ferry:pub:…\"]`";
        let keys = fields.required("keys", keys_hint);
        let peer = Self {
            position: field.position.clone(),
            name: fields.required("name", "write the `name` of the peer's own tunnel.yaml").and_then(name),
            keys: keys
                .map(|field| non_empty_list(&field, "keys", keys_hint))
                .unwrap_or_default()
                .iter()
                .filter_map(|field| field.scalar(str::parse))
                .collect(),
            addresses: list(&mut fields, "addresses", |field| address(&field, dir)),
            route: route(&mut fields, dir),
            limits: EntryLimits::read(&mut fields),
        };
        fields.finish();
        Some(peer)
    }

    fn build(self) -> Option<Peer> {
        Some(Peer {
            name: self.name?.value,
            keys: self.keys.into_iter().map(|located| located.value).collect(),
            addresses: self.addresses,
            route: self.route,
            limits: self.limits,
        })
    }
}

impl RawEgress {
    fn read(field: &Field<'_>) -> Option<Self> {
        let mut fields = field.fields()?;
        let egress = Self {
            listen: fields
                .required("listen", "write where apps connect to, such as `127.0.0.1:18001`")
                .and_then(listen),
            peer: fields.required("peer", "write the name of one of `peers`").and_then(name),
            service: fields
                .required("service", "write the name of a service in the peer's `ingress`")
                .and_then(service)
                .map(|located| located.value),
            limits: EntryLimits::read(&mut fields),
        };
        fields.finish();
        Some(egress)
    }

    fn build(self) -> Option<Egress> {
        let Self { listen, peer, service, limits } = self;
        Some(Egress { listen: listen?.value, peer: peer?.value, service: service?, limits })
    }
}

impl RawIngress {
    fn read(field: &Field<'_>) -> Option<Self> {
        let mut fields = field.fields()?;
        let allow_hint = "list the names of the peers that may reach the service";
        let ingress = Self {
            service: fields.required("service", "name the service, as the peers' `egress` does").and_then(service),
            forward: fields
                .required("forward", "write where the app listens, such as `127.0.0.1:8000`")
                .and_then(forward),
            allow: fields
                .required("allow", allow_hint)
                .map(|field| non_empty_list(&field, "peers", allow_hint))
                .unwrap_or_default()
                .into_iter()
                .filter_map(name)
                .collect(),
            proxy_protocol: fields.optional("proxy_protocol").and_then(proxy_protocol),
            limits: EntryLimits::read(&mut fields),
        };
        fields.finish();
        Some(ingress)
    }

    fn build(self) -> Option<Ingress> {
        Some(Ingress {
            service: self.service?.value,
            forward: self.forward?,
            allow: self.allow.into_iter().map(|located| located.value).collect(),
            proxy_protocol: self.proxy_protocol,
            limits: self.limits,
        })
    }
}

fn list<'d, T>(fields: &mut Fields<'d>, key: &'static str, read: impl FnMut(Field<'d>) -> Option<T>) -> Vec<T> {
    let items = fields.optional(key).map(|field| field.items());
    items.unwrap_or_default().into_iter().filter_map(read).collect()
}

/// The items of a list that must have some.
fn non_empty_list<'d>(field: &Field<'d>, what: &str, hint: &str) -> Vec<Field<'d>> {
    if field.is_empty_list() {
        field.problem::<()>(format!("no {what}"), hint);
    }
    field.items()
}

fn name(field: Field<'_>) -> Option<Located<Name>> {
    field.text(str::parse)
}

fn proxy_protocol(field: Field<'_>) -> Option<ProxyProtocol> {
    let located = field.text(|text| match text {
        "v2" => Ok(ProxyProtocol::V2),
        _ => Err(ValueError::new(format!("{} is no version of the PROXY protocol", quoted(text)), "write `v2`")),
    });
    located.map(|located| located.value)
}

pub(crate) fn service(field: Field<'_>) -> Option<Located<ServiceName>> {
    field.text(str::parse)
}

pub(crate) fn forward(field: Field<'_>) -> Option<HostPort> {
    field.scalar(str::parse).map(|located| located.value)
}

pub(crate) fn listen(field: Field<'_>) -> Option<Located<SocketAddr>> {
    field.scalar(parse_listen)
}

fn path(field: &Field<'_>, dir: &Path) -> Option<Located<PathBuf>> {
    field.text(|text| match text {
        "" => Err(ValueError::new("an empty path", "write the path of a file")),
        _ => Ok(dir.join(text)),
    })
}

fn keeper(field: &Field<'_>, dir: &Path) -> Option<Keeper> {
    let Located { value, .. } = path(field, dir)?;
    Some(if value == dir.join(Keeper::OFF) { Keeper::Off } else { Keeper::At(value) })
}

fn address(field: &Field<'_>, dir: &Path) -> Option<Address> {
    let located = field.scalar(|text| match text.strip_prefix("file:") {
        Some("") => Err(ValueError::new("`file:` without a path", "write the path of a file behind it")),
        Some(path) => Ok(Address::File(dir.join(path))),
        None => text.parse(),
    });
    located.map(|located| located.value)
}

fn route(fields: &mut Fields<'_>, dir: &Path) -> Route {
    Route {
        proxy: fields.optional("proxy").and_then(|field| field.scalar(str::parse)).map(|located| located.value),
        proxy_credentials: fields
            .optional("proxy_credentials")
            .and_then(|field| path(&field, dir))
            .map(|located| located.value),
        server_name: fields
            .optional("server_name")
            .and_then(|field| field.text(str::parse))
            .map(|located| located.value),
        ca_file: fields.optional("ca_file").and_then(|field| path(&field, dir)).map(|located| located.value),
        prefer: fields.optional("prefer").and_then(prefer).unwrap_or_default(),
    }
}

impl EntryLimits {
    /// Takes `limits` out of the mapping of an entry. The caller finishes the mapping.
    pub fn read(entry: &mut Fields<'_>) -> Self {
        let Some(mut fields) = entry.optional("limits").and_then(|field| field.fields()) else {
            return Self::default();
        };
        let limits = Self {
            sessions: fields.optional("sessions").and_then(|field| field.number(1..=u32::MAX)),
            bytes_per_second: fields.optional("bytes_per_second").and_then(size(MIN_BYTES_PER_SECOND)),
        };
        fields.finish();
        limits
    }
}

fn prefer(field: Field<'_>) -> Option<Prefer> {
    let located = field.text(|text| match text {
        "order" => Ok(Prefer::Order),
        "auto" => Ok(Prefer::Auto),
        _ => Err(ValueError::new(
            format!("{} is no way to choose among addresses", quoted(text)),
            "write `order` for the first that answers, or `auto` for what suits the path",
        )),
    });
    located.map(|located| located.value)
}

fn url_path(field: Field<'_>) -> Option<String> {
    let located = field.text(|text| match is_url_path(text) {
        true => Ok(text.to_owned()),
        false => Err(ValueError::new(
            format!("{} is not the path of a URL", quoted(text)),
            "write it from the slash on, such as `/ferry`",
        )),
    });
    located.map(|located| located.value)
}
