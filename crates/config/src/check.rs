//! What only shows when the values of a `tunnel.yaml` are held against each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::{
    draft::{Draft, DraftPeer},
    fields::{Place, Sink, Spot},
    key::PublicKey,
    name::Name,
    report::{Problem, ValueError},
};

impl Draft {
    /// Reports what does not go together. `own` is our public key, if it is known.
    pub(crate) fn check(&self, own: Option<PublicKey>, sink: &Sink) {
        self.check_names(sink);
        self.check_keys(own, sink);
        self.check_references(sink);
        self.check_sockets(sink);
        self.settings.check(sink);
    }

    /// What looks wrong but can be worked with. Only meaningful where [`check`](Self::check) found nothing.
    pub(crate) fn warnings(&self) -> Vec<Problem> {
        let mut warnings = self.unreachable();
        warnings.extend(self.idle_peers());
        warnings.sort_by_key(|warning| (warning.line, warning.column));
        if self.egress.is_empty() && self.ingress.is_empty() {
            let message = "neither `egress` nor `ingress`, so there is nothing to carry";
            let hint = "add an `egress` for apps here, or an `ingress` for apps of peers";
            warnings.push(Problem::of_document(ValueError::new(message, hint)));
        }
        warnings
    }

    fn check_names(&self, sink: &Sink) {
        let mut seen = BTreeMap::new();
        for name in self.peers.iter().filter_map(|peer| peer.name.as_ref()) {
            if self.name.as_ref().is_some_and(|own| own.value == name.value) {
                let message = format!("`{}` is our own name", name.value);
                let hint = "list only the other tunnels, and give each a name of its own";
                sink.problem(&name.place, ValueError::new(message, hint));
            }
            unique(&mut seen, name, sink, "put all keys and addresses of a peer into one entry");
        }
        let mut seen = BTreeMap::new();
        for service in self.ingress.iter().filter_map(|ingress| ingress.service.as_ref()) {
            unique(&mut seen, service, sink, "give each service a name of its own");
        }
    }

    fn check_keys(&self, own: Option<PublicKey>, sink: &Sink) {
        let mut seen: BTreeMap<PublicKey, (usize, &DraftPeer)> = BTreeMap::new();
        for (i, peer) in self.peers.iter().enumerate() {
            for key in &peer.keys {
                if own == Some(key.value) {
                    let hint = "list the peer's public key, which `ferry pubkey FILE` prints over there";
                    sink.problem(&key.place, ValueError::new("this is our own key", hint));
                }
                let (first, other) = *seen.entry(key.value).or_insert((i, peer));
                if first != i {
                    let message = format!("the key of both {} and {}", called(other), called(peer));
                    let hint = "a key tells peers apart, so each needs its own";
                    sink.problem(&key.place, ValueError::new(message, hint));
                }
            }
        }
    }

    fn check_references(&self, sink: &Sink) {
        let listed: BTreeSet<&Name> = self.peers.iter().filter_map(DraftPeer::known_as).collect();
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
            sink.problem(&name.place, ValueError::new(message, hint));
        }
    }

    /// Reports sockets that could not be open at the same time.
    fn check_sockets(&self, sink: &Sink) {
        let egress = self.egress.iter().filter_map(|egress| egress.listen.as_ref());
        let mut taken: BTreeMap<(u16, IpAddr), &Place> = BTreeMap::new();
        for spot in self.admin.iter().chain(&self.listen).chain(egress) {
            if spot.value.port() == 0 {
                continue;
            }
            if let Some(other) = clash(&taken, spot.value) {
                let message = format!("{} is in use by `{other}`", spot.value);
                sink.problem(&spot.place, ValueError::new(message, "choose another port"));
            } else {
                taken.insert(socket(spot.value), &spot.place);
            }
        }
    }

    /// Warnings about peers that are needed but have no way to meet us.
    fn unreachable(&self) -> Vec<Problem> {
        if self.listen.is_some() {
            return Vec::new();
        }
        let dialled: BTreeSet<&Name> =
            self.peers.iter().filter(|peer| !peer.addresses.is_empty()).filter_map(DraftPeer::known_as).collect();
        let hint = "give the peer `addresses`, or `listen` so that it can dial us";
        let egress = self.egress.iter().filter_map(|egress| egress.peer.as_ref());
        let ingress = self.ingress.iter().filter_map(|ingress| {
            let nobody = !ingress.allow.iter().any(|name| dialled.contains(&name.value));
            ingress.service.as_ref().filter(|_| nobody)
        });
        egress
            .filter(|name| !dialled.contains(&name.value))
            .map(|name| {
                let message = format!("peer `{}` has no address yet and cannot dial us either", name.value);
                name.place.problem(ValueError::new(message, hint))
            })
            .chain(ingress.map(|service| {
                let message = format!("nobody can reach service `{}`", service.value);
                service.place.problem(ValueError::new(message, hint))
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
                name.place.problem(ValueError::new(message, hint))
            })
            .collect()
    }
}

impl DraftPeer {
    fn known_as(&self) -> Option<&Name> {
        self.name.as_ref().map(|name| &name.value)
    }
}

/// The peer in a message: by its name, or by its place while it has none.
fn called(peer: &DraftPeer) -> String {
    match peer.known_as() {
        Some(name) => format!("peer `{name}`"),
        None => format!("`{}`", peer.place),
    }
}

fn unique<'d, T: Ord + std::fmt::Display>(
    seen: &mut BTreeMap<&'d T, &'d Place>,
    spot: &'d Spot<T>,
    sink: &Sink,
    hint: &str,
) {
    match seen.get(&spot.value) {
        Some(first) => {
            let message = format!("`{}` is already the name at `{first}`", spot.value);
            sink.problem(&spot.place, ValueError::new(message, hint));
        }
        None => {
            seen.insert(&spot.value, &spot.place);
        }
    }
}

/// Who holds a socket that keeps `address` from being bound: the same one, or with the same port an unspecified address
/// on either side, as that means all interfaces (and `::` IPv4 too).
fn clash<'d>(taken: &BTreeMap<(u16, IpAddr), &'d Place>, address: SocketAddr) -> Option<&'d Place> {
    let (port, ip) = socket(address);
    if ip.is_unspecified() {
        let least = (port, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        return taken.range(least..).next().filter(|((other, _), _)| *other == port).map(|(_, place)| *place);
    }
    [ip, Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
        .into_iter()
        .find_map(|ip| taken.get(&(port, ip)).copied())
}

fn socket(address: SocketAddr) -> (u16, IpAddr) {
    (address.port(), address.ip().to_canonical())
}
