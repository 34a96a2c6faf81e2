//! What the configuration says, in the form that the running tunnel asks it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ferry_config::{Ingress, Name, PublicKey, ServiceName, Tunnel};

use crate::peer::Peer;
use crate::tls::{Acceptor, TlsError};

/// The configuration in force. Replaced as a whole when it is read again.
pub(crate) struct Plan {
    pub(crate) config: Tunnel,
    pub(crate) peers: BTreeMap<Name, Arc<Peer>>,
    pub(crate) acceptor: Acceptor,
    keys: HashMap<PublicKey, Name>,
    ingress: HashMap<ServiceName, Ingress>,
}

impl Plan {
    /// `peers` already know their configuration.
    pub(crate) fn new(config: Tunnel, peers: BTreeMap<Name, Arc<Peer>>) -> Result<Self, TlsError> {
        let keys: HashMap<PublicKey, Name> =
            config.peers.iter().flat_map(|peer| peer.keys.iter().map(|key| (*key, peer.name.clone()))).collect();
        let acceptor = Acceptor::new(&config.identity, keys.keys().copied().collect::<Vec<_>>())?;
        let ingress = config.ingress.iter().map(|entry| (entry.service.clone(), entry.clone())).collect();
        Ok(Self { config, peers, acceptor, keys, ingress })
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
