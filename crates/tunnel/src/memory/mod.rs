//! Memory for buffers: bounded over all sessions, shared out between peers.
//!
//! Each session reserves a floor when it opens. What is left is lent as sessions show that they need it, and given
//! back when they rest. One half of all is kept for the peers, an equal part for each; the other is whoever's comes
//! first.

pub(crate) mod kernel_buffers;
mod lease;
pub(crate) mod path;
pub(crate) mod scratch;
mod trip;

use std::sync::Arc;

use ferry_config::Name;
use ferry_session::INITIAL_WINDOW;
use parking_lot::Mutex;

use crate::limits::shares::Shares;

pub(crate) use lease::{Bound, Lease};

/// Replay and receive bytes that every session has for certain.
const FLOOR: Capacities = Capacities { replay: 8 * 1024, receive: INITIAL_WINDOW };

/// What a session starts with while memory is plentiful.
const START: Capacities = Capacities { replay: 64 * 1024, receive: 64 * 1024 };

/// Bytes that a session's two buffers may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capacities {
    pub(crate) replay: u64,
    pub(crate) receive: u64,
}

impl Capacities {
    fn total(self) -> u64 {
        self.replay + self.receive
    }
}

/// All the memory that sessions may use.
#[derive(Debug)]
pub(crate) struct Memory {
    limit: u64,
    used: Mutex<Shares>,
}

impl Memory {
    pub(crate) fn new(limit: u64, peers: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: Mutex::new(Shares::new(limit, peers)) })
    }

    /// The configuration has another number of peers.
    pub(crate) fn share_among(&self, peers: usize) {
        self.used.lock().share_among(peers);
    }

    /// The floor for a new session, if there is as much.
    pub(crate) fn reserve(self: &Arc<Self>, peer: &Name) -> Option<Lease> {
        if !self.add(peer, FLOOR.total()) {
            return None;
        }
        let mut lease = Lease::new(self.clone(), peer.clone(), FLOOR);
        if self.used() < self.limit / 4 {
            lease.grow_to(START);
        }
        Some(lease)
    }

    /// Bytes reserved and lent.
    pub(crate) fn used(&self) -> u64 {
        self.used.lock().total()
    }

    /// Takes `bytes` for a peer, if enough is left for the others' parts.
    fn add(&self, peer: &Name, bytes: u64) -> bool {
        self.used.lock().take(peer, bytes)
    }

    /// The same for buffers of a size that few need: one half of all memory is for what every session may have.
    fn add_from_spare(&self, peer: &Name, bytes: u64) -> bool {
        let mut used = self.used.lock();
        used.total() + bytes <= self.limit / 2 && used.take(peer, bytes)
    }

    /// Who has more than others is to give it back.
    fn is_scarce(&self) -> bool {
        self.used() > self.limit / 4 * 3
    }

    fn remove(&self, peer: &Name, bytes: u64) {
        self.used.lock().give_back(peer, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    #[test]
    fn a_session_is_refused_when_its_floor_does_not_fit() {
        let memory = Memory::new(3 * FLOOR.total(), 1);
        let leases: Vec<_> = (0..3).map(|_| memory.reserve(&name("a"))).collect();
        assert!(leases.iter().all(Option::is_some));
        assert!(memory.reserve(&name("a")).is_none());
        drop(leases);
        assert_eq!(memory.used(), 0);
        assert!(memory.reserve(&name("a")).is_some());
    }

    /// Leases of one peer until it gets no more.
    fn floors(memory: &Arc<Memory>, peer: &str) -> Vec<Lease> {
        std::iter::from_fn(|| memory.reserve(&name(peer))).collect()
    }

    #[test]
    fn one_peer_cannot_take_the_others_share() {
        let limit = 100 * 1024 * 1024;
        let memory = Memory::new(limit, 2);
        let mut greedy = memory.reserve(&name("greedy")).expect("room");
        while greedy.grow_to(Capacities { replay: greedy.held().replay + 1024 * 1024, ..greedy.held() }) {}
        assert!(memory.used() <= limit * 3 / 4, "{} of {limit} lent to one of two peers", memory.used());
        let mut modest = memory.reserve(&name("modest")).expect("room for another peer");
        assert!(modest.grow_to(Capacities { replay: limit / 5, ..modest.held() }));
    }

    #[test]
    fn nor_can_it_with_nothing_but_floors() {
        let memory = Memory::new(40 * FLOOR.total(), 2);
        let first = memory.reserve(&name("modest")).expect("room");
        let _greedy = floors(&memory, "greedy");
        let greedy = memory.used() - first.held().total();
        assert!(greedy <= 30 * FLOOR.total(), "{greedy} is more than half and its own part");
        let rest = 10 * FLOOR.total() - first.held().total();
        assert!(floors(&memory, "modest").len() as u64 >= rest / FLOOR.total());
    }

    #[test]
    fn each_of_many_peers_finds_its_part_whatever_the_others_take() {
        let memory = Memory::new(80 * FLOOR.total(), 10);
        let _greedy: Vec<_> = (0..9).flat_map(|peer| floors(&memory, &format!("greedy{peer}"))).collect();
        assert_eq!(floors(&memory, "last").len(), 4);
    }

    #[test]
    fn a_peer_that_joins_by_a_reload_finds_its_part() {
        let memory = Memory::new(40 * FLOOR.total(), 1);
        memory.share_among(2);
        let _old = floors(&memory, "old");
        assert_eq!(floors(&memory, "new").len(), 10);
    }
}
