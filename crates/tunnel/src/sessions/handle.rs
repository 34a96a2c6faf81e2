//! What others see of a session.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ferry_config::Name;
use ferry_session::{Epoch, Instance, SessionId, Side};
use parking_lot::Mutex;
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
        self.count += 1;
        pause
    }

    pub(crate) fn last(&self) -> Duration {
        Duration::from_millis(self.last_ms.into())
    }

    pub(crate) fn longest(&self) -> Duration {
        Duration::from_millis(self.longest_ms.into())
    }
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
    /// Bytes sent and not acknowledged.
    pub(crate) buffered: AtomicU64,
    /// Bytes that had gone both ways when the link was attached.
    before_link: AtomicU64,
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
            buffered: AtomicU64::new(0),
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
