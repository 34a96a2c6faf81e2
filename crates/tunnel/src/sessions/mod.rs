//! Which sessions live here.

pub(crate) mod driver;
pub(crate) mod handle;
pub(crate) mod intake;
pub(crate) mod mailbox;
pub(crate) mod opening;
mod tombstones;

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use ferry_session::{BUSY_PING_INTERVAL, IDLE_PING_INTERVAL};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::limits::shares::Shares;
use crate::sessions::handle::{SessionHandle, SessionName};
use crate::sessions::tombstones::Tombstones;
use crate::shared::Shared;
use crate::telemetry::repeats::{Kind, Line};

/// How often an opener's idle sessions ask the peer whether it still has their links, all together: so many sessions that
/// each would do so every [`BUSY_PING_INTERVAL`] do it less often instead.
const MAX_IDLE_PINGS_PER_SECOND: u32 = 100;

/// All sessions of this tunnel, and for a while those that ended before the peer knew.
pub(crate) struct Sessions {
    limit: usize,
    state: Mutex<State>,
}

struct State {
    /// The limit, shared out between peers.
    shares: Shares,
    live: HashMap<SessionName, Arc<SessionHandle>>,
    tombstones: Tombstones,
}

/// What is known of a session.
pub(crate) enum Found {
    Live(Arc<SessionHandle>),
    /// It ended here after this much was received.
    Ended(u64),
    Unknown,
}

/// Why a session is not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotRegistered {
    /// There is one of this name.
    Taken,
    /// The limit is reached, or what is left of it is kept for other peers.
    Full,
}

/// A session's place in the table, for as long as this is held.
pub(crate) struct Registration {
    sessions: Arc<Sessions>,
    handle: Arc<SessionHandle>,
}

impl Registration {
    /// The session is over, and a Hello for it may still come: a tombstone takes its place for the resume window. Says
    /// whether another one had to make way for it, before its time.
    fn bury(&self, received: u64, resume_window: Duration) -> bool {
        let mut state = self.sessions.state.lock();
        state.remove(&self.handle);
        state.tombstones.add(self.handle.name.clone(), received, Instant::now() + resume_window)
    }
}

impl Deref for Registration {
    type Target = SessionHandle;

    fn deref(&self) -> &SessionHandle {
        &self.handle
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.sessions.state.lock().remove(&self.handle);
    }
}

impl State {
    /// Another session of the same name stays.
    fn remove(&mut self, handle: &Arc<SessionHandle>) {
        if self.live.get(&handle.name).is_some_and(|live| Arc::ptr_eq(live, handle)) {
            self.live.remove(&handle.name);
            self.shares.give_back(&handle.name.peer, 1);
        }
    }
}

/// Ends a session's registration with a tombstone for the resume window. One that had to make way for it is told of.
pub(crate) fn bury(shared: &Shared, registration: &Registration, received: u64) {
    if registration.bury(received, shared.config().tunnel.settings.resume.window) {
        shared.metrics.tombstones_dropped.inc();
        let text = "more sessions have ended than are remembered for the resume window: the oldest is forgotten before its \
                    time, and an Open of it that is still on its way would be served again";
        shared.repeats.tell(Kind::new("tombstone"), Line::warn(text));
    }
}

impl Sessions {
    pub(crate) fn new(limit: usize, peers: usize) -> Arc<Self> {
        let shares = Shares::new(limit as u64, peers);
        let state = State { shares, live: HashMap::new(), tombstones: Tombstones::default() };
        Arc::new(Self { limit, state: Mutex::new(state) })
    }

    /// The configuration has another number of peers.
    pub(crate) fn share_among(&self, peers: usize) {
        self.state.lock().shares.share_among(peers);
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

    pub(crate) fn find(&self, name: &SessionName) -> Found {
        let state = self.state.lock();
        match (state.live.get(name), state.tombstones.find(name)) {
            (Some(handle), _) => Found::Live(handle.clone()),
            (None, Some(received)) => Found::Ended(received),
            (None, None) => Found::Unknown,
        }
    }

    /// Registers a session, unless its peer has as many as it may, or it is there already: two links may bring its Hello
    /// at once.
    pub(crate) fn register(self: &Arc<Self>, handle: SessionHandle) -> Result<Registration, NotRegistered> {
        let mut state = self.state.lock();
        if state.live.contains_key(&handle.name) {
            return Err(NotRegistered::Taken);
        }
        if !state.shares.take(&handle.name.peer, 1) {
            return Err(NotRegistered::Full);
        }
        let handle = Arc::new(handle);
        state.live.insert(handle.name.clone(), handle.clone());
        Ok(Registration { sessions: self.clone(), handle })
    }

    /// How soon a session without traffic asks whether the peer still has its link.
    pub(crate) fn idle_ping(&self) -> Duration {
        let sessions = u32::try_from(self.len()).unwrap_or(u32::MAX);
        let fair = Duration::from_secs(sessions.into()) / MAX_IDLE_PINGS_PER_SECOND;
        fair.clamp(BUSY_PING_INTERVAL, IDLE_PING_INTERVAL)
    }

    pub(crate) fn len(&self) -> usize {
        self.state.lock().live.len()
    }

    /// Every live session, or the first `limit` of them.
    pub(crate) fn list(&self, limit: usize) -> Vec<Arc<SessionHandle>> {
        self.state.lock().live.values().take(limit).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use ferry_session::{SessionId, Side};

    use super::*;

    fn handle(peer: &str, id: u16) -> SessionHandle {
        let id = SessionId(u128::from(id).to_be_bytes());
        let name = SessionName { peer: peer.parse().unwrap(), side: Side::Acceptor, id };
        SessionHandle::new(name, "echo", None)
    }

    #[test]
    fn a_session_that_lives_is_not_registered_again() {
        let sessions = Sessions::new(2, 1);
        let first = sessions.register(handle("a/peer", 1)).ok().unwrap();
        assert_eq!(sessions.register(handle("a/peer", 1)).err(), Some(NotRegistered::Taken));
        let Found::Live(found) = sessions.find(&first.name) else { panic!("it lives") };
        assert!(Arc::ptr_eq(&found, &first.handle), "the first one stays");
        let _second = sessions.register(handle("a/peer", 2)).ok().unwrap();
        assert_eq!(sessions.register(handle("a/peer", 3)).err(), Some(NotRegistered::Full));
        assert_eq!(sessions.register(handle("a/peer", 2)).err(), Some(NotRegistered::Taken));
    }

    #[test]
    fn a_registration_that_is_dropped_leaves_nothing_and_one_that_is_buried_a_tombstone() {
        let sessions = Sessions::new(1, 1);
        let first = sessions.register(handle("a/peer", 1)).ok().unwrap();
        let name = first.name.clone();
        drop(first);
        assert!(matches!(sessions.find(&name), Found::Unknown));
        let second = sessions.register(handle("a/peer", 1)).ok().unwrap();
        assert!(!second.bury(9, Duration::from_secs(1)));
        assert!(matches!(sessions.find(&name), Found::Ended(9)));
        let third = sessions.register(handle("a/peer", 1)).ok().unwrap();
        drop(second);
        assert!(matches!(sessions.find(&third.name), Found::Live(_)), "one of the same name stays");
    }

    #[test]
    fn idle_sessions_ask_each_second_while_they_are_few_and_share_a_hundred_pings_a_second() {
        let sessions = Sessions::new(2_000, 1);
        let register = |ids: Range<u16>| -> Vec<_> {
            ids.map(|id| sessions.register(handle("a/peer", id)).unwrap_or_else(|_| panic!("no room"))).collect()
        };
        let few = register(0..100);
        assert_eq!(sessions.idle_ping(), Duration::from_secs(1));
        let more = register(100..400);
        assert_eq!(sessions.idle_ping(), Duration::from_secs(4));
        let many = register(400..1300);
        assert_eq!(sessions.idle_ping(), Duration::from_secs(10), "no less often than load balancers need");
        drop((few, more, many));
        assert_eq!(sessions.idle_ping(), Duration::from_secs(1));
    }

    #[test]
    fn a_peer_that_opens_all_it_can_leaves_others_their_part_and_its_end_makes_room() {
        let sessions = Sessions::new(40, 2);
        let mut greedy: Vec<_> = (0..40).filter_map(|id| sessions.register(handle("a/greedy", id)).ok()).collect();
        assert_eq!(greedy.len(), 30, "half, and its own part of the other");
        assert!(sessions.full(30).contains("kept for other peers"));
        let modest: Vec<_> = (0..10).filter_map(|id| sessions.register(handle("b/modest", id)).ok()).collect();
        assert_eq!(modest.len(), 10);
        assert!(sessions.full(30).contains("the limit of 40 sessions is reached"));
        greedy.remove(0);
        let again = sessions.register(handle("a/greedy", 90));
        assert!(again.is_ok());
        assert_eq!(sessions.register(handle("a/greedy", 91)).err(), Some(NotRegistered::Full));
    }
}
