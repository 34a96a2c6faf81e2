//! Links that carry no session: bounded over all, shared out between peers.

use std::sync::Arc;

use ferry_config::Name;
use parking_lot::{Mutex, MutexGuard};

use crate::limits::shares::Shares;

/// How many links may be without a session, and whose they are.
#[derive(Debug)]
pub(crate) struct IdleLinks(Mutex<Shares>);

/// One such link; free again when dropped.
#[derive(Debug)]
pub(crate) struct IdleLink {
    links: Arc<IdleLinks>,
    peer: Name,
}

impl IdleLinks {
    pub(crate) fn new(limit: usize, peers: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Shares::new(limit as u64, peers))))
    }

    fn shares(&self) -> MutexGuard<'_, Shares> {
        self.0.lock()
    }

    /// The configuration has another number of peers.
    pub(crate) fn share_among(&self, peers: usize) {
        self.shares().share_among(peers);
    }

    /// Another link of this peer, if it may have one more.
    pub(crate) fn hold(self: &Arc<Self>, peer: &Name) -> Option<IdleLink> {
        let fits = self.shares().take(peer, 1);
        fits.then(|| IdleLink { links: self.clone(), peer: peer.clone() })
    }
}

impl Drop for IdleLink {
    fn drop(&mut self) {
        self.links.shares().give_back(&self.peer, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_cannot_take_the_links_of_another() {
        let links = IdleLinks::new(8, 2);
        let [greedy, modest] = ["greedy", "modest"].map(|name| name.parse().expect("a name"));
        let held: Vec<_> = std::iter::from_fn(|| links.hold(&greedy)).collect();
        assert_eq!(held.len(), 6);
        assert!(links.hold(&modest).is_some());
        drop(held);
        assert_eq!(links.shares().total(), 0);
    }
}
