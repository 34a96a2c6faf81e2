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
#[derive(Default)]
pub(crate) struct Sessions {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
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
    /// The limit is reached.
    Full,
}

impl Sessions {
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

    /// Adds a session, unless there are `limit`, or it is there already: two links may bring its Hello at once.
    pub(crate) fn add(&self, entry: Arc<Entry>, limit: usize) -> Added {
        let mut state = self.state();
        if state.live.contains_key(&entry.key) {
            return Added::Taken;
        }
        if state.live.len() >= limit {
            return Added::Full;
        }
        state.live.insert(entry.key.clone(), entry);
        Added::New
    }

    /// The session is over. `forgotten`: the peer knows; otherwise a tombstone stays for the resume window.
    pub(crate) fn remove(&self, key: &Key, received: u64, forgotten: bool, resume_window: Duration) {
        let mut state = self.state();
        state.live.remove(key);
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
        let sessions = Sessions::default();
        let first = entry(1);
        assert_eq!(sessions.add(first.clone(), 2), Added::New);
        assert_eq!(sessions.add(entry(1), 2), Added::Taken);
        let Found::Live(found) = sessions.find(&first.key) else { panic!("it lives") };
        assert!(Arc::ptr_eq(&found, &first), "the first one stays");
        assert_eq!(sessions.add(entry(2), 2), Added::New);
        assert_eq!((sessions.add(entry(3), 2), sessions.add(entry(2), 2)), (Added::Full, Added::Taken));
    }
}
