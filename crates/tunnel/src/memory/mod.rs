//! Memory for buffers: bounded over all sessions, shared out between peers.
//!
//! Each session reserves a floor when it opens. What is left is lent as sessions show that they need it, and given
//! back when they rest. One half of all is kept for the peers, an equal part for each; the other is whoever's comes
//! first.

pub(crate) mod kernel_buffers;
pub(crate) mod path;
pub(crate) mod scratch;

use std::sync::Arc;

use ferry_config::Name;
use ferry_session::{INITIAL_WINDOW, Session};
use parking_lot::Mutex;

use crate::limits::shares::Shares;
use crate::memory::path::{RoundTrip, max_useful_buffer};

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
        let mut lease = Lease { memory: self.clone(), peer: peer.clone(), held: Capacities { replay: 0, receive: 0 } };
        if !self.add(peer, FLOOR.total()) {
            return None;
        }
        lease.held = FLOOR;
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

    fn remove(&self, peer: &Name, bytes: u64) {
        self.used.lock().give_back(peer, bytes);
    }
}

/// What one session holds; given back when dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    memory: Arc<Memory>,
    peer: Name,
    held: Capacities,
}

impl Lease {
    pub(crate) fn held(&self) -> Capacities {
        self.held
    }

    fn grow_to(&mut self, wanted: Capacities) -> bool {
        let more = wanted.total().saturating_sub(self.held.total());
        let grown = more > 0 && self.memory.add(&self.peer, more);
        if grown {
            self.held = wanted;
        }
        grown
    }

    /// Gives a session that its buffers hold up twice the room, if it can be lent: up to `most` for each, and to what is
    /// of use on the `path`. Says whether there is more room now.
    pub(crate) fn grow_if_short(&mut self, session: &mut Session, most: u64, path: &RoundTrip) -> bool {
        let mut wanted = self.held;
        let twice =
            |held: u64, least: u64| (held * 2).min(max_useful_buffer(path.least()).max(held)).min(most.max(least));
        if session.is_replay_limited() {
            wanted.replay = twice(wanted.replay, FLOOR.replay);
        }
        if session.take_window_limited() {
            wanted.receive = twice(wanted.receive, FLOOR.receive);
        }
        let grown = wanted != self.held && self.grow_to(wanted);
        if grown {
            session.set_capacities(self.held.replay, self.held.receive);
        }
        grown
    }

    /// Gives back what a session at rest has no use for. The window that the peer was told stays promised.
    pub(crate) fn shrink_idle(&mut self, session: &mut Session) {
        if session.replay_buffered() == 0 && self.held.replay > START.replay {
            self.memory.remove(&self.peer, self.held.replay - START.replay);
            self.held.replay = START.replay;
            session.set_capacities(self.held.replay, self.held.receive);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.memory.remove(&self.peer, self.held.total());
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
        while greedy.grow_to(Capacities { replay: greedy.held.replay + 1024 * 1024, ..greedy.held }) {}
        assert!(memory.used() <= limit * 3 / 4, "{} of {limit} lent to one of two peers", memory.used());
        let mut modest = memory.reserve(&name("modest")).expect("room for another peer");
        assert!(modest.grow_to(Capacities { replay: limit / 5, ..modest.held }));
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
