//! A message on its way into the outbox, and in it.

use std::sync::Arc;

use crate::message::{Hop, KEPT_OVERHEAD, MessageId};
use crate::payload::Payload;
use crate::spans::Sending;
use crate::store::KeyRecord;

/// A message before it has a number.
#[derive(Debug)]
pub(crate) struct NewMessage {
    pub(crate) payload: Payload,
    pub(crate) hop: Hop,
    pub(crate) in_reply_to: Option<MessageId>,
    /// Its headers as JSON.
    pub(crate) headers: Option<Arc<str>>,
    /// Where spans are exported.
    pub(crate) span: Option<Box<Sending>>,
}

impl NewMessage {
    /// What it counts where it waits.
    pub(crate) fn bytes(&self) -> usize {
        KEPT_OVERHEAD + self.content_bytes() + self.hop.bytes()
    }

    /// Payload and headers.
    pub(super) fn content_bytes(&self) -> usize {
        self.payload.len() + self.headers.as_ref().map_or(0, |headers| headers.len())
    }
}

/// A message with its number, as it is stored and sent.
#[derive(Debug, Clone)]
pub(crate) struct NumberedMessage {
    pub(crate) seq: u64,
    pub(crate) id: MessageId,
    /// The message as JSON.
    pub(crate) text: Arc<str>,
    /// Its headers as JSON, which not every far side reads.
    pub(crate) headers: Option<Arc<str>>,
    pub(super) span: Option<Box<Sending>>,
    /// What it counts.
    pub(super) bytes: usize,
    pub(crate) key: Option<(String, KeyRecord)>,
}

impl NumberedMessage {
    /// Its headers, as the store has them.
    pub(crate) fn stored_headers(&self) -> Option<(MessageId, Arc<str>)> {
        Some((self.id.clone(), self.headers.clone()?))
    }
}
