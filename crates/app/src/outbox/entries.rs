//! The stored messages of an outbox, in the order of their numbers, which have no gaps.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::{Depth, Limits, NumberedMessage, Verdict};
use crate::message::MessageId;
use crate::payload::Payload;
use crate::spans::Sending;
use crate::wire::WireError;

#[derive(Debug, Default)]
pub(super) struct Entries {
    /// The far watermark: the entries' numbers follow it.
    acked: u64,
    /// The highest number ever handed out for sending.
    sent: u64,
    queue: VecDeque<Entry>,
    /// Bytes accepted and acknowledged, ever.
    bytes_in: usize,
    bytes_out: usize,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) seq: u64,
    pub(super) id: MessageId,
    text: Arc<str>,
    headers: Option<Arc<str>>,
    pub(super) span: Option<Box<Sending>>,
    bytes: usize,
    /// `Entries::bytes_in` with this entry counted.
    bytes_end: usize,
    pub(super) accepted: Instant,
    pub(super) waiters: Vec<oneshot::Sender<Verdict>>,
    /// What the far hook returned, if that was here before the acknowledgement.
    pub(super) reply: Option<Payload>,
}

impl Entries {
    /// No entries, everything up to `acked` being acknowledged.
    pub(super) fn after(acked: u64) -> Self {
        Self { acked, sent: acked, ..Self::default() }
    }

    pub(super) fn acked(&self) -> u64 {
        self.acked
    }

    /// The highest number in use.
    pub(super) fn last(&self) -> u64 {
        self.acked + self.queue.len() as u64
    }

    pub(super) fn push(
        &mut self,
        numbered: NumberedMessage,
        accepted: Instant,
        waiters: Vec<oneshot::Sender<Verdict>>,
    ) {
        let NumberedMessage { seq, id, text, headers, span, bytes, .. } = numbered;
        self.bytes_in += bytes;
        let bytes_end = self.bytes_in;
        self.queue.push_back(Entry { seq, id, text, headers, span, bytes, bytes_end, accepted, waiters, reply: None });
    }

    pub(super) fn entry_mut(&mut self, seq: u64) -> Option<&mut Entry> {
        let index = usize::try_from(seq.checked_sub(self.acked + 1)?).ok()?;
        self.queue.get_mut(index)
    }

    pub(super) fn depth(&self) -> Depth {
        Depth { messages: self.queue.len(), bytes: self.bytes_in - self.bytes_out }
    }

    /// The message after `sent`, if the window has room for it.
    pub(super) fn sendable(&self, sent: u64, limits: &Limits) -> Option<&Entry> {
        let ahead = usize::try_from(sent.checked_sub(self.acked)?).ok()?;
        let entry = self.queue.get(ahead)?;
        let fits = ahead < limits.window_messages && entry.bytes_end - self.bytes_out <= limits.window_bytes;
        (ahead == 0 || fits).then_some(entry)
    }

    /// As [`Self::sendable`]; the flag tells whether it has been handed out before.
    pub(super) fn hand_out(&mut self, sent: u64, limits: &Limits) -> Option<(NumberedMessage, bool)> {
        let Entry { seq, id, text, headers, bytes, .. } = self.sendable(sent, limits)?;
        let (seq, bytes, headers) = (*seq, *bytes, headers.clone());
        let numbered =
            NumberedMessage { seq, id: id.clone(), text: text.clone(), headers, span: None, bytes, key: None };
        let again = seq <= self.sent;
        self.sent = self.sent.max(seq);
        Some((numbered, again))
    }

    /// Counts all of them as handed out: what was sent before a restart is unknown.
    pub(super) fn mark_sent(&mut self) {
        self.sent = self.last();
    }

    /// Removes all of them, as if they were acknowledged.
    pub(super) fn clear(&mut self) -> Vec<Entry> {
        (self.acked, self.sent, self.bytes_out) = (self.last(), self.last(), self.bytes_in);
        self.queue.drain(..).collect()
    }

    /// Removes what the far side's watermark covers.
    pub(super) fn ack(&mut self, seq: u64) -> Result<Vec<Entry>, WireError> {
        if seq < self.acked || seq > self.sent {
            return Err(WireError::Ack { got: seq, acked: self.acked, sent: self.sent });
        }
        let count = usize::try_from(seq - self.acked).unwrap_or(usize::MAX);
        let acked: Vec<_> = self.queue.drain(..count.min(self.queue.len())).collect();
        if let Some(last) = acked.last() {
            self.bytes_out = last.bytes_end;
        }
        self.acked = seq;
        Ok(acked)
    }
}
