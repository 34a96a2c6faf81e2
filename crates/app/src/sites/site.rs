//! One site.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::connection_slot::ConnectionSlot;
use crate::message::{Location, SenderId};
use crate::outbox::{Limits, Outbox, Pool};
use crate::peer::PeerName;
use crate::store::{SiteRecord, StoredSite};

/// A far web-app, whether it is connected or not.
pub(crate) struct Site {
    /// Its key in the store.
    pub(crate) number: u64,
    name: OnceLock<PeerName>,
    pub(crate) outbox: Outbox,
    /// Where the far web-app runs, while it is connected.
    pub(crate) far: watch::Sender<Option<Location>>,
    /// Which WebSocket from the far side is served.
    pub(crate) slot: ConnectionSlot,
    /// The store does not have its name yet.
    unstored: AtomicBool,
    /// Up to where the store knows its messages to be acknowledged.
    trimmed: AtomicU64,
    /// As whom the far web-app said hello last.
    sender: Mutex<Option<SenderId>>,
}

impl Site {
    pub(super) fn new(number: u64, name: Option<PeerName>, outbox: Outbox) -> Self {
        Self {
            number,
            name: name.map_or_else(OnceLock::new, OnceLock::from),
            trimmed: AtomicU64::new(outbox.acked()),
            outbox,
            far: watch::Sender::new(None),
            slot: ConnectionSlot::default(),
            unstored: AtomicBool::new(true),
            sender: Mutex::new(None),
        }
    }

    pub(super) fn stored(stored: StoredSite, limits: Limits, pool: &Arc<Pool>) -> Self {
        let StoredSite { number, name, sender, acked, outbox, headers, keys } = stored;
        let outbox = Outbox::new(pool.clone(), sender, limits, acked, outbox, headers, keys);
        Self { unstored: AtomicBool::new(false), ..Self::new(number, name, outbox) }
    }

    pub(crate) fn name(&self) -> Option<&PeerName> {
        self.name.get()
    }

    /// Gives it this name, if it has none.
    pub(super) fn take_name(&self, name: &PeerName) -> bool {
        let taken = self.name.set(name.clone()).is_ok();
        if taken {
            self.unstored.store(true, Ordering::Relaxed);
        }
        taken
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.far.borrow().is_some()
    }

    /// What the store has to have of it, if it does not have that.
    pub(crate) fn record(&self) -> Option<SiteRecord> {
        let record = || SiteRecord { name: self.name().cloned(), sender: self.outbox.sender().clone() };
        self.unstored.load(Ordering::Relaxed).then(record)
    }

    /// Whether the store has to have more of it, and whether it has more than it needs.
    pub(crate) fn is_unstored(&self) -> (bool, bool) {
        let more = self.unstored.load(Ordering::Relaxed) || self.outbox.has_waiting();
        (more, self.outbox.acked() > self.trimmed.load(Ordering::Relaxed))
    }

    /// Call when this record, if there is one, and what is acknowledged up to here are stored.
    pub(crate) fn mark_stored(&self, record: Option<&SiteRecord>, acked: u64) {
        // A name may have come meanwhile.
        if record.is_some_and(|record| record.name.as_ref() == self.name()) {
            self.unstored.store(false, Ordering::Relaxed);
        }
        self.trimmed.store(acked, Ordering::Relaxed);
    }

    /// Notes as whom the far web-app says hello. Returns who it was before, if that was another.
    pub(crate) fn note_sender(&self, sender: &SenderId) -> Option<SenderId> {
        self.sender.lock().replace(sender.clone()).filter(|last| last != sender)
    }
}
