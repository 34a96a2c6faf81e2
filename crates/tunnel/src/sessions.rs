//! Which sessions live here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ferry_config::Name;
use ferry_session::{Epoch, Instance, SessionId, Side};
use tokio::time::Instant;

use crate::link::LinkFacts;
use crate::mailbox::Mailbox;
use crate::shares::Shares;

/// One peer's ids never hit another's, nor those that it opens those that it accepts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) peer: Name,
    /// This end's side.
    pub(crate) side: Side,
    pub(crate) id: SessionId,
}

/// What others see of a session.
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) service: Box<str>,
    pub(crate) opened: Instant,
    /// The peer's process that has the other end of the session.
    peer_instance: OnceLock<Instance>,
    pub(crate) mailbox: Mailbox,
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
    link: Mutex<Option<(Epoch, LinkFacts)>>,
    /// Bytes that had gone both ways when the link was attached.
    before_link: AtomicU64,
}

impl Entry {
    pub(crate) fn new(key: Key, service: &str, peer_instance: Option<Instance>) -> Self {
        Self {
            key,
            service: service.into(),
            opened: Instant::now(),
            peer_instance: peer_instance.map_or_else(OnceLock::new, OnceLock::from),
            mailbox: Mailbox::default(),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            link: Mutex::new(None),
            before_link: AtomicU64::new(0),
        }
    }

    /// The session's other end is in this process, and in no other one for as long as it lives.
    pub(crate) fn set_peer_instance(&self, instance: Instance) {
        self.peer_instance.get_or_init(|| instance);
    }

    pub(crate) fn peer_instance(&self) -> Option<Instance> {
        self.peer_instance.get().copied()
    }

    /// The link that carries the session now.
    pub(crate) fn link(&self) -> Option<(Epoch, LinkFacts)> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_link(&self, link: Option<(Epoch, LinkFacts)>) {
        let (sent, received) = self.bytes();
        self.before_link.store(sent + received, Ordering::Relaxed);
        *self.link.lock().unwrap_or_else(PoisonError::into_inner) = link;
    }

    /// Application bytes that have gone both ways under the current keys.
    pub(crate) fn key_bytes(&self) -> u64 {
        let (sent, received) = self.bytes();
        (sent + received).saturating_sub(self.before_link.load(Ordering::Relaxed))
    }

    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed))
    }
}

/// All sessions of this tunnel, and for a while those that ended before the peer knew.
pub(crate) struct Sessions {
    limit: usize,
    state: Mutex<State>,
}

struct State {
    /// The limit, shared out between peers.
    shares: Shares,
    live: HashMap<Key, Arc<Entry>>,
    /// Ended without both Dones: how much had been received, and until when that is kept.
    ended: HashMap<Key, (u64, Instant)>,
}

/// Tombstones kept at most: they only improve a message.
const MAX_TOMBSTONES: usize = 10_000;

/// What is known of a session.
pub(crate) enum Found {
    Live(Arc<Entry>),
    /// It ended here after this much was received.
    Ended(u64),
    Unknown,
}

/// What became of an added session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    New,
    /// There is one with this key.
    Taken,
    /// The limit is reached, or what is left of it is kept for other peers.
    Full,
}

impl Sessions {
    pub(crate) fn new(limit: usize, peers: usize) -> Self {
        let shares = Shares::new(limit as u64, peers);
        Self { limit, state: Mutex::new(State { shares, live: HashMap::new(), ended: HashMap::new() }) }
    }

    /// The configuration has another number of peers.
    pub(crate) fn share_among(&self, peers: usize) {
        self.state().shares.share_among(peers);
    }

    /// Why a session of this peer is one too many.
    pub(crate) fn full(&self, of_peer: usize) -> String {
        let (limit, live) = (self.limit, self.len());
        if live >= limit {
            format!("the limit of {limit} sessions is reached (limits.sessions)")
        } else {
            format!(
                "{of_peer} sessions of this peer are open, and what is left of {limit} is kept for other peers (limits.sessions)"
            )
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn find(&self, key: &Key) -> Found {
        let state = self.state();
        match (state.live.get(key), state.ended.get(key)) {
            (Some(entry), _) => Found::Live(entry.clone()),
            (None, Some((received, _))) => Found::Ended(*received),
            (None, None) => Found::Unknown,
        }
    }

    /// Adds a session, unless its peer has as many as it may, or it is there already: two links may bring its Hello at once.
    pub(crate) fn add(&self, entry: Arc<Entry>) -> Added {
        let mut state = self.state();
        if state.live.contains_key(&entry.key) {
            return Added::Taken;
        }
        if !state.shares.take(&entry.key.peer, 1) {
            return Added::Full;
        }
        state.live.insert(entry.key.clone(), entry);
        Added::New
    }

    /// The session is over. `forgotten`: the peer knows; otherwise a tombstone stays for the resume window.
    pub(crate) fn remove(&self, key: &Key, received: u64, forgotten: bool, resume_window: Duration) {
        let mut state = self.state();
        if state.live.remove(key).is_some() {
            state.shares.give_back(&key.peer, 1);
        }
        if !forgotten {
            let now = Instant::now();
            if state.ended.len() >= MAX_TOMBSTONES {
                state.ended.retain(|_, (_, until)| *until > now);
            }
            if state.ended.len() < MAX_TOMBSTONES {
                state.ended.insert(key.clone(), (received, now + resume_window));
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.state().live.len()
    }

    /// Every live session, or the first `limit` of them.
    pub(crate) fn list(&self, limit: usize) -> Vec<Arc<Entry>> {
        self.state().live.values().take(limit).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u8) -> Arc<Entry> {
        let peer = "a/peer".parse().unwrap();
        Arc::new(Entry::new(Key { peer, side: Side::Acceptor, id: SessionId([id; 16]) }, "echo", None))
    }

    #[test]
    fn a_session_that_lives_is_not_added_again() {
        let sessions = Sessions::new(2, 1);
        let first = entry(1);
        assert_eq!(sessions.add(first.clone()), Added::New);
        assert_eq!(sessions.add(entry(1)), Added::Taken);
        let Found::Live(found) = sessions.find(&first.key) else { panic!("it lives") };
        assert!(Arc::ptr_eq(&found, &first), "the first one stays");
        assert_eq!(sessions.add(entry(2)), Added::New);
        assert_eq!((sessions.add(entry(3)), sessions.add(entry(2))), (Added::Full, Added::Taken));
    }
    #[test]
    fn a_peer_that_opens_all_it_can_leaves_others_their_part_and_its_end_makes_room() {
        let sessions = Sessions::new(40, 2);
        let of = |peer: &str, id: u8| {
            let peer = peer.parse().unwrap();
            Arc::new(Entry::new(Key { peer, side: Side::Acceptor, id: SessionId([id; 16]) }, "echo", None))
        };
        let greedy: Vec<_> = (0..40).map(|id| of("a/greedy", id)).collect();
        let taken = greedy.iter().filter(|entry| sessions.add((*entry).clone()) == Added::New).count();
        assert_eq!(taken, 30, "half, and its own part of the other");
        assert!(sessions.full(30).contains("kept for other peers"));
        let modest: Vec<_> = (0..10).map(|id| of("b/modest", id)).collect();
        assert!(modest.iter().all(|entry| sessions.add(entry.clone()) == Added::New));
        assert!(sessions.full(30).contains("the limit of 40 sessions is reached"));
        sessions.remove(&greedy[0].key, 0, true, Duration::ZERO);
        // Twice is once.
        sessions.remove(&greedy[0].key, 0, true, Duration::ZERO);
        assert_eq!((sessions.add(of("a/greedy", 90)), sessions.add(of("a/greedy", 91))), (Added::New, Added::Full));
    }
}
