//! What others see of a session.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ferry_config::{Name, PublicKey};
use ferry_session::{Epoch, Instance, Origin, SessionId, Side};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::sessions::mailbox::Mailbox;
use crate::transport::link::LinkFacts;

/// Names a session by peer and side, so that neither peers nor opened and accepted sessions can collide.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SessionName {
    pub(crate) peer: Name,
    /// This end's side.
    pub(crate) side: Side,
    pub(crate) id: SessionId,
}

/// How long a session was without a link.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pauses {
    /// Since when it has none.
    pub(crate) since: Option<Instant>,
    /// How often it has got another one.
    pub(crate) count: u32,
    last_ms: u32,
    longest_ms: u32,
    total_ms: u32,
}

impl Pauses {
    fn note(&mut self, attached: bool) -> Duration {
        if !attached {
            self.since.get_or_insert_with(Instant::now);
            return Duration::ZERO;
        }
        let Some(since) = self.since.take() else { return Duration::ZERO };
        let pause = since.elapsed();
        self.last_ms = u32::try_from(pause.as_millis()).unwrap_or(u32::MAX);
        self.longest_ms = self.longest_ms.max(self.last_ms);
        self.total_ms = self.total_ms.saturating_add(self.last_ms);
        self.count += 1;
        pause
    }

    pub(crate) fn last(&self) -> Duration {
        Duration::from_millis(self.last_ms.into())
    }

    /// All of them together, and the one that lasts.
    pub(crate) fn total(&self) -> Duration {
        let lasting = self.since.map_or(Duration::ZERO, |since| since.elapsed());
        Duration::from_millis(self.total_ms.into()) + lasting
    }

    pub(crate) fn longest(&self) -> Duration {
        Duration::from_millis(self.longest_ms.into())
    }
}

/// What is told of a session when it ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Past {
    /// Where the application connected from and to, as far as it is known.
    pub(crate) origin: Option<Origin>,
    /// It was another process's before.
    pub(crate) adopted: bool,
    /// Each key that the peer proved on one of them.
    pub(crate) keys: Vec<PublicKey>,
    /// Where the last one came from, if the peer dialled it.
    pub(crate) link_from: Option<IpAddr>,
    pub(crate) rotations: u32,
}

/// What others see of a session.
pub(crate) struct SessionHandle {
    pub(crate) name: SessionName,
    pub(crate) service: Box<str>,
    pub(crate) opened: Instant,
    /// The peer's process that has the other end of the session.
    peer_instance: OnceLock<Instance>,
    pub(crate) mailbox: Mailbox,
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
    link: Mutex<Option<(Epoch, LinkFacts)>>,
    pauses: Mutex<Pauses>,
    past: Mutex<Box<Past>>,
    /// Bytes sent and not acknowledged.
    pub(crate) buffered: AtomicU64,
    /// Bytes that had gone both ways when the link was attached.
    before_link: AtomicU64,
    /// It moves so much that it is at a worker for such sessions.
    pub(crate) is_heavy: AtomicBool,
}

impl SessionHandle {
    pub(crate) fn new(name: SessionName, service: &str, peer_instance: Option<Instance>) -> Self {
        Self {
            name,
            service: service.into(),
            opened: Instant::now(),
            peer_instance: peer_instance.map_or_else(OnceLock::new, OnceLock::from),
            mailbox: Mailbox::default(),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            link: Mutex::new(None),
            pauses: Mutex::default(),
            past: Mutex::default(),
            buffered: AtomicU64::new(0),
            before_link: AtomicU64::new(0),
            is_heavy: AtomicBool::new(false),
        }
    }

    /// With where the application connected from and to.
    pub(crate) fn from(self, origin: Option<Origin>) -> Self {
        self.past_mut().origin = origin;
        self
    }

    /// Of a session that another process had before.
    pub(crate) fn adopted(name: SessionName, service: &str, peer_instance: Option<Instance>) -> Self {
        let handle = Self::new(name, service, peer_instance);
        handle.past_mut().adopted = true;
        handle
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
        self.link.lock().clone()
    }

    /// The session moves to this link, or has none. Says how long it had none before.
    pub(crate) fn set_link(&self, link: Option<(Epoch, LinkFacts)>) -> Duration {
        let pause = self.pauses.lock().note(link.is_some());
        let (sent, received) = self.bytes();
        self.before_link.store(sent + received, Ordering::Relaxed);
        *self.link.lock() = link;
        pause
    }

    /// Notes a link that carries the session now.
    pub(crate) fn note_link(&self, key: PublicKey, from: Option<IpAddr>, rotated: bool) {
        let mut past = self.past_mut();
        past.link_from = from;
        past.rotations += u32::from(rotated);
        if !past.keys.contains(&key) {
            past.keys.push(key);
        }
    }

    pub(crate) fn origin(&self) -> Option<Origin> {
        self.past_mut().origin
    }

    pub(crate) fn past(&self) -> Past {
        Past::clone(&self.past_mut())
    }

    fn past_mut(&self) -> MutexGuard<'_, Box<Past>> {
        self.past.lock()
    }

    pub(crate) fn pauses(&self) -> Pauses {
        *self.pauses.lock()
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
