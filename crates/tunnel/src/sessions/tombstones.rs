//! Sessions that have ended, for as long as a late Hello may still ask for one of them.

use std::collections::{HashMap, VecDeque};

use ferry_config::Name;
use tokio::time::Instant;

use crate::sessions::handle::SessionName;

/// Tombstones of all peers together. A peer can have them all only while no other needs any.
const MAX_TOMBSTONES: usize = 10_000;

/// Sessions that ended without both ends knowing it. A tombstone keeps a late Open from opening its session twice, and
/// tells a resuming opener that there is nothing left to resume.
#[derive(Default)]
pub(crate) struct Tombstones {
    received: HashMap<SessionName, u64>,
    /// Of each peer, the oldest first.
    expiries: HashMap<Name, VecDeque<(Instant, SessionName)>>,
}

impl Tombstones {
    /// How much the session had received when it ended.
    pub(crate) fn find(&self, name: &SessionName) -> Option<u64> {
        self.received.get(name).copied()
    }

    /// Remembers the end of a session until `expiry`. Says whether the oldest tombstone of the peer that has most of them
    /// had to make way, before its time.
    pub(crate) fn add(&mut self, name: SessionName, received: u64, expiry: Instant) -> bool {
        self.drop_expired(&name.peer);
        let is_full = self.received.len() >= MAX_TOMBSTONES;
        if is_full {
            self.drop_one();
        }
        self.expiries.entry(name.peer.clone()).or_default().push_back((expiry, name.clone()));
        self.received.insert(name, received);
        is_full
    }

    fn drop_expired(&mut self, peer: &Name) {
        let Some(expiries) = self.expiries.get_mut(peer) else { return };
        let now = Instant::now();
        while let Some((_, name)) = expiries.pop_front_if(|(expiry, _)| *expiry <= now) {
            self.received.remove(&name);
        }
    }

    fn drop_one(&mut self) {
        let Some(expiries) = self.expiries.values_mut().max_by_key(|expiries| expiries.len()) else { return };
        if let Some((_, name)) = expiries.pop_front() {
            self.received.remove(&name);
        }
        self.expiries.retain(|_, expiries| !expiries.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ferry_session::{SessionId, Side};

    use super::*;

    const WINDOW: Duration = Duration::from_secs(300);

    fn name(peer: &str, id: usize) -> SessionName {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&id.to_be_bytes());
        SessionName { peer: peer.parse().unwrap(), side: Side::Acceptor, id: SessionId(bytes) }
    }

    #[tokio::test(start_paused = true)]
    async fn the_10_001st_takes_the_place_of_the_oldest_of_the_peer_that_has_most_and_says_so() {
        let mut tombstones = Tombstones::default();
        let expiry = Instant::now() + WINDOW;
        assert!(!tombstones.add(name("b/modest", 0), 7, expiry));
        let forgot = (0..MAX_TOMBSTONES - 1).filter(|id| tombstones.add(name("a/greedy", *id), 0, expiry)).count();
        assert_eq!(forgot, 0, "up to the bound each is kept");
        assert!(tombstones.add(name("a/greedy", MAX_TOMBSTONES), 0, expiry));
        assert_eq!(tombstones.find(&name("a/greedy", 0)), None, "the oldest");
        assert_eq!(tombstones.find(&name("a/greedy", 1)), Some(0));
        assert_eq!(tombstones.find(&name("b/modest", 0)), Some(7), "of another peer, and older");
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_expired_makes_room_before_anything_is_forgotten() {
        let mut tombstones = Tombstones::default();
        let expiry = Instant::now() + WINDOW;
        let forgot = (0..MAX_TOMBSTONES).any(|id| tombstones.add(name("a/peer", id), 0, expiry));
        assert!(!forgot);
        tokio::time::advance(WINDOW).await;
        assert!(!tombstones.add(name("a/peer", MAX_TOMBSTONES), 0, Instant::now() + WINDOW));
        assert_eq!(tombstones.received.len(), 1);
    }
}
