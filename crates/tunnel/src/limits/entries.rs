//! The limits of single entries of the configuration: of a peer, an egress or an ingress.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use ferry_config::{Egress, EntryLimits, Name, ServiceName, Tunnel};
use ferry_session::Side;
use parking_lot::Mutex;

use crate::limits::bucket::Bucket;
use crate::limits::pacing::Pacer;

/// What kind of entry a limit is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Peer,
    Egress,
    Ingress,
}

impl Scope {
    /// What it is in `/status` and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        }
    }
}

/// The limits of one entry, and what its sessions have of them. It is there also where none is set: what there is counts
/// when one is.
pub(crate) struct Limit {
    pub(crate) scope: Scope,
    /// The entry's, as the paths of problems and changes have it: `db` of `ingress[db]`.
    pub(crate) name: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sessions: u32,
    max_sessions: Option<u32>,
    refused: u64,
    rate: Option<Arc<Rate>>,
}

/// So many bytes a second each way.
pub(crate) struct Rate {
    /// From applications here to the peer.
    pub(crate) sent: Mutex<Bucket>,
    /// From the peer to applications here.
    pub(crate) received: Mutex<Bucket>,
}

/// What a limit says of itself.
pub(crate) struct Usage {
    pub(crate) sessions: u32,
    pub(crate) max_sessions: Option<u32>,
    pub(crate) refused: u64,
    pub(crate) rate: Option<Arc<Rate>>,
}

/// A session more than a limit lets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Exceeded {
    pub(crate) scope: Scope,
    name: String,
    max: u32,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (of, list) = match self.scope {
            Scope::Peer => ("peer", "peers"),
            Scope::Egress => ("egress", "egress"),
            Scope::Ingress => ("service", "ingress"),
        };
        let Self { name, max, .. } = self;
        write!(f, "the limit of {max} sessions of this {of} is reached ({list}[{name}].limits.sessions)")
    }
}

impl Limit {
    fn new(scope: Scope, name: impl fmt::Display) -> Arc<Self> {
        Arc::new(Self { scope, name: name.to_string(), state: Mutex::default() })
    }

    /// The configuration has these for it now.
    fn set(&self, limits: &EntryLimits) {
        let mut state = self.state.lock();
        state.max_sessions = limits.sessions;
        match (limits.bytes_per_second, &state.rate) {
            (Some(wanted), Some(rate)) => {
                for bucket in [&rate.sent, &rate.received] {
                    bucket.lock().set_rate(wanted);
                }
            }
            (wanted, _) => state.rate = wanted.map(|rate| Arc::new(Rate::new(rate))),
        }
    }

    /// A place for another session.
    fn take(self: &Arc<Self>) -> Result<Permit, Exceeded> {
        let mut state = self.state.lock();
        if let Some(max) = state.max_sessions.filter(|max| state.sessions >= *max) {
            state.refused += 1;
            return Err(Exceeded { scope: self.scope, name: self.name.clone(), max });
        }
        state.sessions += 1;
        Ok(Permit(self.clone()))
    }

    /// A place for a session that is there already, whatever the limit is.
    fn take_anyway(self: &Arc<Self>) -> Permit {
        self.state.lock().sessions += 1;
        Permit(self.clone())
    }

    pub(crate) fn usage(&self) -> Usage {
        let State { sessions, max_sessions, refused, rate } = &*self.state.lock();
        Usage { sessions: *sessions, max_sessions: *max_sessions, refused: *refused, rate: rate.clone() }
    }
}

impl Rate {
    fn new(rate: u64) -> Self {
        Self { sent: Mutex::new(Bucket::new(rate)), received: Mutex::new(Bucket::new(rate)) }
    }
}

/// A session's place under a limit, for as long as it is held.
pub(crate) struct Permit(Arc<Limit>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.state.lock().sessions -= 1;
    }
}

/// A session's places: under the limits of its peer, and of its service here.
pub(crate) struct Permits {
    peer: Option<Permit>,
    service: Option<Permit>,
}

impl Permits {
    /// The rates that hold for the session now.
    pub(crate) fn rates(&self) -> impl Iterator<Item = Arc<Rate>> {
        [&self.peer, &self.service].into_iter().flatten().filter_map(|permit| permit.0.state.lock().rate.clone())
    }
}

/// What a session has of its limits.
pub(crate) struct Limited {
    permits: Permits,
    /// Where a limit sets a pace.
    pub(crate) pacer: Option<Box<Pacer>>,
}

impl Limited {
    /// Boxed, because a session at rest is to be small.
    pub(crate) fn new(permits: Permits) -> Box<Self> {
        Box::new(Self { pacer: Pacer::new(&permits), permits })
    }

    /// The configuration was read again.
    pub(crate) fn update(&mut self) {
        self.pacer = Pacer::new(&self.permits);
    }
}

/// Which entry a session belongs to beside its peer's.
pub(crate) enum Service<'a> {
    /// It was opened by an application at this egress.
    Egress(SocketAddr, &'a str),
    /// It was opened by the peer.
    Ingress(&'a str),
}

/// The limits of all entries.
#[derive(Default)]
pub(crate) struct Entries {
    peers: BTreeMap<Name, Arc<Limit>>,
    egress: Vec<(Egress, Arc<Limit>)>,
    ingress: BTreeMap<ServiceName, Arc<Limit>>,
}

impl Entries {
    /// As the configuration has them. Those that were there before keep what they have counted.
    pub(crate) fn new(tunnel: &Tunnel, before: &Self) -> Self {
        let kept = |known: Option<&Arc<Limit>>, scope, name: &dyn fmt::Display, limits: &EntryLimits| {
            let limit = known.cloned().unwrap_or_else(|| Limit::new(scope, name));
            limit.set(limits);
            limit
        };
        let peers = tunnel.peers.iter().map(|entry| {
            let limit = kept(before.peers.get(&entry.name), Scope::Peer, &entry.name, &entry.limits);
            (entry.name.clone(), limit)
        });
        let egress = tunnel.egress.iter().map(|entry| {
            let known = before.egress.iter().find(|(known, _)| known.leads_as(entry)).map(|(_, limit)| limit);
            (entry.clone(), kept(known, Scope::Egress, &entry.listen, &entry.limits))
        });
        let ingress = tunnel.ingress.iter().map(|entry| {
            let known = before.ingress.get(&entry.service);
            (entry.service.clone(), kept(known, Scope::Ingress, &entry.service, &entry.limits))
        });
        Self { peers: peers.collect(), egress: egress.collect(), ingress: ingress.collect() }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Limit>> {
        self.peers.values().chain(self.egress.iter().map(|(_, limit)| limit)).chain(self.ingress.values())
    }

    /// Places for another session, if its limits have them.
    pub(crate) fn admit(&self, peer: &Name, service: &Service<'_>) -> Result<Permits, Exceeded> {
        let peer_limit = self.peers.get(peer).map(Limit::take).transpose()?;
        let service = self.find(peer, service).map(Limit::take).transpose()?;
        Ok(Permits { peer: peer_limit, service })
    }

    /// Places for a session that a process before this one had. It does not tell at which of several egresses to the same
    /// service its application connected: it has a place at the first.
    pub(crate) fn adopt(&self, peer: &Name, side: Side, service: &str) -> Permits {
        let limit = match side {
            Side::Acceptor => self.find(peer, &Service::Ingress(service)),
            Side::Opener => {
                let leads = |entry: &Egress| entry.peer == *peer && entry.service.as_str() == service;
                self.egress.iter().find(|(entry, _)| leads(entry)).map(|(_, limit)| limit)
            }
        };
        Permits { peer: self.peers.get(peer).map(Limit::take_anyway), service: limit.map(Limit::take_anyway) }
    }

    fn find(&self, peer: &Name, service: &Service<'_>) -> Option<&Arc<Limit>> {
        match service {
            Service::Egress(listen, service) => {
                let leads = |entry: &Egress| {
                    entry.listen == *listen && entry.peer == *peer && entry.service.as_str() == *service
                };
                self.egress.iter().find(|(entry, _)| leads(entry)).map(|(_, limit)| limit)
            }
            Service::Ingress(service) => self.ingress.get(&service.parse::<ServiceName>().ok()?),
        }
    }
}
