//! What others see of a session.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use ferry_config::Name;
use ferry_session::{Epoch, Instance, SessionId, Side};
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
