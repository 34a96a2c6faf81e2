//! What the outboxes of one web-app hold together, and how their bounds are shared out.

use tokio::sync::{Notify, watch};

use super::Limits;

/// Idempotency keys remembered; beyond that the oldest are forgotten.
const MAX_KEYS: usize = 100_000;

/// Shared by the outboxes of one web-app.
#[derive(Debug)]
pub(crate) struct Pool {
    state: watch::Sender<Sum>,
    /// Tells the committer that there may be something to store.
    pub(crate) work: Notify,
}

#[derive(Debug)]
struct Sum {
    held: Held,
    outboxes: usize,
}

/// What an outbox holds, or all of them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Held {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    pub(crate) keys: usize,
}

impl Default for Pool {
    fn default() -> Self {
        Self { state: watch::Sender::new(Sum { held: Held::default(), outboxes: 1 }), work: Notify::new() }
    }
}

impl Pool {
    /// Shares the bounds out between so many outboxes.
    pub(crate) fn share_between(&self, outboxes: usize) {
        self.state.send_modify(|sum| sum.outboxes = outboxes.max(1));
    }

    /// What all of them hold.
    pub(crate) fn held(&self) -> Held {
        self.state.borrow().held
    }

    /// Counts what one outbox holds now instead of what it held before.
    pub(super) fn add(&self, before: Held, now: Held) {
        self.state.send_modify(|Sum { held, .. }| {
            held.messages = (held.messages + now.messages).saturating_sub(before.messages);
            held.bytes = (held.bytes + now.bytes).saturating_sub(before.bytes);
            held.keys = (held.keys + now.keys).saturating_sub(before.keys);
        });
    }

    /// Whether an outbox that holds `own` may take `bytes` more; `factor` widens the bounds.
    pub(super) fn has_room(&self, own: Held, bytes: usize, limits: &Limits, factor: usize) -> bool {
        let sum = self.state.borrow();
        let fits = |held: Held, share: usize| {
            held.messages < factor * limits.messages / share && held.bytes + bytes <= factor * limits.bytes / share
        };
        // A share may be smaller than a message.
        let has_none = own.messages == 0 && sum.held.bytes + bytes <= 2 * factor * limits.bytes;
        fits(sum.held, 1) || sum.outboxes > 1 && (fits(own, sum.outboxes) || has_none)
    }

    /// Whether an outbox with so many keys has to forget some: all have too many, and it has more than its share.
    pub(super) fn has_too_many_keys(&self, own: usize) -> bool {
        let sum = self.state.borrow();
        // Its own are counted as they were before this change.
        (sum.held.keys >= MAX_KEYS || own > MAX_KEYS) && own > MAX_KEYS / sum.outboxes
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<impl Sized> {
        self.state.subscribe()
    }
}
