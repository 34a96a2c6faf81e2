//! What only shows when the values of a `tunnel.yaml` are held against each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::fields::{Located, Position, Problems};
use crate::key::PublicKey;
use crate::name::Name;
use crate::raw::{RawPeer, RawTunnel};
use crate::report::{Problem, ValueError};

impl RawTunnel {
    /// Reports what does not go together. `own` is our public key, if it is known.
    pub(crate) fn check(&self, own: Option<PublicKey>, problems: &Problems) {
        self.check_names(problems);
        self.check_keys(own, problems);
        self.check_references(problems);
        self.check_sockets(problems);
        self.check_replicas(problems);
        self.settings.check(problems);
    }

    /// What looks wrong but can be worked with. Only meaningful where [`check`](Self::check) found nothing.
    pub(crate) fn warnings(&self) -> Vec<Problem> {
        let mut warnings = self.unreachable();
        warnings.extend(self.idle_peers());
        warnings.sort_by_key(|warning| (warning.line, warning.column));
        // One that was made to invite gets its services with its peers.
        let is_to_be_joined = self.peers.is_empty() && self.state.is_some();
        if self.egress.is_empty() && self.ingress.is_empty() && !is_to_be_joined {
            let message = "neither `egress` nor `ingress`, so there is nothing to carry";
            let hint = "add an `egress` for apps here, or an `ingress` for apps of peers";
            warnings.push(Problem::of_document(ValueError::new(message, hint)));
        }
        warnings
    }

    fn check_names(&self, problems: &Problems) {
        let mut seen = BTreeMap::new();
        for name in self.peers.iter().filter_map(|peer| peer.name.as_ref()) {
            if self.name.as_ref().is_some_and(|own| own.value == name.value) {
                let message = format!("`{}` is our own name", name.value);
                let hint = "list only the other tunnels, and give each a name of its own";
                problems.add(&name.position, ValueError::new(message, hint));
            }
            unique(&mut seen, name, problems, "put all keys and addresses of a peer into one entry");
        }
        let mut seen = BTreeMap::new();
        for service in self.ingress.iter().filter_map(|ingress| ingress.service.as_ref()) {
            unique(&mut seen, service, problems, "give each service a name of its own");
        }
    }

    fn check_keys(&self, own: Option<PublicKey>, problems: &Problems) {
        let mut seen: BTreeMap<PublicKey, (usize, &RawPeer)> = BTreeMap::new();
        for (i, peer) in self.peers.iter().enumerate() {
            for key in &peer.keys {
                if own == Some(key.value) {
                    let hint = "list the peer's public key, which `ferry pubkey FILE` prints over there";
                    problems.add(&key.position, ValueError::new("this is our own key", hint));
                }
                let (first, other) = *seen.entry(key.value).or_insert((i, peer));
                if first != i {
                    let message = format!("the key of both {} and {}", describe(other), describe(peer));
                    let hint = "a key tells peers apart, so each needs its own";
                    problems.add(&key.position, ValueError::new(message, hint));
                }
            }
        }
    }

    fn check_references(&self, problems: &Problems) {
        let listed: BTreeSet<&Name> = self.peers.iter().filter_map(RawPeer::name_or_none).collect();
        let egress = self.egress.iter().filter_map(|egress| egress.peer.as_ref());
        let allowed = self.ingress.iter().flat_map(|ingress| &ingress.allow);
        for name in egress.chain(allowed).filter(|name| !listed.contains(&name.value)) {
            let message = format!("`{}` is not a listed peer", name.value);
            let hint = match listed.len() {
                0 => "list it under `peers`".into(),
                1..=8 => {
                    let names: Vec<_> = listed.iter().map(ToString::to_string).collect();
                    format!("list it under `peers`, where there is {}", names.join(", "))
                }
                _ => "list it under `peers`, or look for a slip in the name".into(),
            };
            problems.add(&name.position, ValueError::new(message, hint));
        }
    }

    /// Reports sockets that could not be open at the same time. `listen_quic` is UDP: it is in nobody's way.
    fn check_sockets(&self, problems: &Problems) {
        let egress = self.egress.iter().filter_map(|egress| egress.listen.as_ref());
        let mut taken: BTreeMap<(u16, IpAddr), &Position> = BTreeMap::new();
        for located in self.admin.iter().chain(&self.listen).chain(&self.listen_ws).chain(egress) {
            if located.value.port() == 0 {
                continue;
            }
            if let Some(other) = clash(&taken, located.value) {
                let message = format!("{} is in use by `{other}`", located.value);
                problems.add(&located.position, ValueError::new(message, "choose another port"));
            } else {
                taken.insert(socket(located.value), &located.position);
            }
        }
    }

    /// Replicas reach each other where they accept plain links.
    fn check_replicas(&self, problems: &Problems) {
        if let (Some(first), None) = (self.replicas.first(), &self.listen) {
            let hint = "write `listen`, such as `listen: 0.0.0.0:18000`, and that port behind each of `replicas`";
            problems.add(&first.position, ValueError::new("`replicas` without `listen`", hint));
        }
    }

    /// Warnings about peers that are needed but have no way to meet us.
    fn unreachable(&self) -> Vec<Problem> {
        if self.listen.is_some() || self.listen_quic.is_some() || self.listen_ws.is_some() {
            return Vec::new();
        }
        let dialled: BTreeSet<&Name> =
            self.peers.iter().filter(|peer| !peer.addresses.is_empty()).filter_map(RawPeer::name_or_none).collect();
        let hint = "give the peer `addresses`, or `listen` so that it can dial us";
        let egress = self.egress.iter().filter_map(|egress| egress.peer.as_ref());
        let ingress = self.ingress.iter().filter_map(|ingress| {
            let unreachable = !ingress.allow.iter().any(|name| dialled.contains(&name.value));
            ingress.service.as_ref().filter(|_| unreachable)
        });
        egress
            .filter(|name| !dialled.contains(&name.value))
            .map(|name| {
                let message = format!("peer `{}` has no address yet and cannot dial us either", name.value);
                name.position.problem(ValueError::new(message, hint))
            })
            .chain(ingress.map(|service| {
                let message = format!("no peer can reach service `{}`", service.value);
                service.position.problem(ValueError::new(message, hint))
            }))
            .collect()
    }

    /// Warnings about peers that are listed for nothing.
    fn idle_peers(&self) -> Vec<Problem> {
        let egress = self.egress.iter().filter_map(|egress| egress.peer.as_ref());
        let allowed = self.ingress.iter().flat_map(|ingress| &ingress.allow);
        let used: BTreeSet<&Name> = egress.chain(allowed).map(|name| &name.value).collect();
        self.peers
            .iter()
            .filter(|peer| peer.addresses.is_empty())
            .filter_map(|peer| peer.name.as_ref())
            .filter(|name| !used.contains(&name.value))
            .map(|name| {
                let message = format!("peer `{}` is not used and has no address", name.value);
                let hint = "use it in `egress` or in an `allow`, or remove it";
                name.position.problem(ValueError::new(message, hint))
            })
            .collect()
    }
}

impl RawPeer {
    fn name_or_none(&self) -> Option<&Name> {
        self.name.as_ref().map(|name| &name.value)
    }
}

/// The peer in a message: by its name, or by its position while it has none.
fn describe(peer: &RawPeer) -> String {
    match peer.name_or_none() {
        Some(name) => format!("peer `{name}`"),
        None => format!("`{}`", peer.position),
    }
}

fn unique<'d, T: Ord + std::fmt::Display>(
    seen: &mut BTreeMap<&'d T, &'d Position>,
    located: &'d Located<T>,
    problems: &Problems,
    hint: &str,
) {
    match seen.get(&located.value) {
        Some(first) => {
            let message = format!("`{}` is already the name at `{first}`", located.value);
            problems.add(&located.position, ValueError::new(message, hint));
        }
        None => {
            seen.insert(&located.value, &located.position);
        }
    }
}

/// Who holds a socket that keeps `address` from being bound: the same one, or with the same port an unspecified address
/// on either side, as that means all interfaces (and `::` IPv4 too).
fn clash<'d>(taken: &BTreeMap<(u16, IpAddr), &'d Position>, address: SocketAddr) -> Option<&'d Position> {
    let (port, ip) = socket(address);
    if ip.is_unspecified() {
        let least = (port, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        return taken.range(least..).next().filter(|((other, _), _)| *other == port).map(|(_, position)| *position);
    }
    [ip, Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
        .into_iter()
        .find_map(|ip| taken.get(&(port, ip)).copied())
}

fn socket(address: SocketAddr) -> (u16, IpAddr) {
    (address.port(), address.ip().to_canonical())
}
