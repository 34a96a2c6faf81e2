//! How much an outbox holds.

use crate::limits::WINDOW_MESSAGES;
use crate::message::{Hop, KEPT_OVERHEAD};

/// Replies may fill the outbox to this many times its limits, so that two full ends cannot wait for each other: triggers
/// are only accepted below the limits, and what a reply adds here, its message has freed there.
pub(super) const REPLY_FACTOR: usize = 3;

/// How much an outbox holds, and how much of it may be on its way unacknowledged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Messages held.
    pub(crate) messages: usize,
    /// Bytes held.
    pub(crate) bytes: usize,
    /// Messages sent and not acknowledged.
    pub(crate) window_messages: usize,
    /// Bytes sent and not acknowledged; one message may always be sent.
    pub(crate) window_bytes: usize,
    /// What each message counts in addition to its payload.
    pub(crate) overhead: usize,
}

impl Limits {
    /// The limits of a web-app whose messages begin with `hop`.
    pub(crate) fn for_hop(hop: &Hop) -> Self {
        const NAMES: usize = r#"{"seq":,"id":"","payload":,"trail":[],"in_reply_to":""}"#.len();
        // Two ids and a number, at their longest.
        const IDS: usize = 3 * 48;
        let overhead = KEPT_OVERHEAD + NAMES + IDS + hop.bytes();
        Self { messages: 100_000, bytes: 64 << 20, window_messages: WINDOW_MESSAGES, window_bytes: 8 << 20, overhead }
    }
}
