//! The configuration in force, in the form that the running tunnel asks it.

mod changes;
pub(crate) mod reload;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ferry_config::{Ingress, Name, PublicKey, ServiceName, Tunnel};

use crate::limits::entries::Entries;
use crate::peer::Peer;
use crate::transport::replicas::mark::MarkKey;
use crate::transport::tls::{ServerHandshake, TlsError};

/// One reading of the configuration. Replaced as a whole when it is read again.
pub(crate) struct ConfigSnapshot {
    pub(crate) tunnel: Tunnel,
    pub(crate) peers: BTreeMap<Name, Arc<Peer>>,
    pub(crate) handshake: ServerHandshake,
    /// For those who have an invitation.
    pub(crate) joiners: ServerHandshake,
    /// What this replica and the others know each other by, if it is one of several.
    pub(crate) marks: Option<MarkKey>,
    /// For peers that replace a key.
    pub(crate) rolls: ServerHandshake,
    keys: HashMap<PublicKey, Name>,
    ingress: HashMap<ServiceName, Ingress>,
    /// What the sessions of each entry may take.
    pub(crate) limits: Entries,
}

impl ConfigSnapshot {
    /// `peers` already know their configuration. `before` are the limits of the one before it.
    pub(crate) fn new(tunnel: Tunnel, peers: BTreeMap<Name, Arc<Peer>>, before: &Entries) -> Result<Self, TlsError> {
        let keys: HashMap<PublicKey, Name> =
            tunnel.peers.iter().flat_map(|peer| peer.keys.iter().map(|key| (*key, peer.name.clone()))).collect();
        let handshake = ServerHandshake::new(&tunnel.identity, keys.keys().copied().collect::<Vec<_>>())?;
        let rolls = ServerHandshake::for_rolls(&tunnel.identity, keys.keys().copied().collect::<Vec<_>>())?;
        let joiners = ServerHandshake::for_joiners(&tunnel.identity)?;
        let ingress = tunnel.ingress.iter().map(|entry| (entry.service.clone(), entry.clone())).collect();
        let marks = (!tunnel.replicas.is_empty()).then(|| MarkKey::of(&tunnel.identity));
        // Last: it changes those that are in force.
        let limits = Entries::new(&tunnel, before);
        Ok(Self { tunnel, peers, handshake, joiners, rolls, marks, keys, ingress, limits })
    }

    /// Whose key this is.
    pub(crate) fn peer_of(&self, key: &PublicKey) -> Option<&Arc<Peer>> {
        self.peers.get(self.keys.get(key)?)
    }

    /// The service, if `peer` may reach it. Whether it exists is nobody else's business.
    pub(crate) fn service(&self, service: &str, peer: &Name) -> Option<&Ingress> {
        let service: ServiceName = service.parse().ok()?;
        self.ingress.get(&service).filter(|entry| entry.allow.contains(peer))
    }
}
