//! Messages accepted here and not yet acknowledged by the far web-app. This one lives in memory.
//!
//! What a durable store has to keep: [`Outbox::accept`] fixes the order at once, [`Accepted::stored`] is when the
//! message may be confirmed to its sender, and [`Outbox::next`] hands out stored messages only.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use tokio::sync::{oneshot, watch};

use crate::message::{Hop, Message, MessageId, SenderId};
use crate::wire::{Dead, WireError};

/// How much an outbox holds, and how much of it may be on its way unacknowledged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Messages held.
    pub(crate) messages: usize,
    /// Bytes of payload held.
    pub(crate) bytes: usize,
    /// Messages sent and not acknowledged.
    pub(crate) window_messages: usize,
    /// Bytes of payload sent and not acknowledged; one message may always be sent.
    pub(crate) window_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { messages: 100_000, bytes: 64 << 20, window_messages: WINDOW, window_bytes: 8 << 20 }
    }
}

/// The default for [`Limits::window_messages`]: enough for 10,000 messages a second over 100 ms there and back.
pub(crate) const WINDOW: usize = 1024;

/// The outbox is full: the far side is not taking messages as fast as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the outbox is full: the far side takes messages more slowly than they come, or is away; try again")]
pub(crate) struct Full;

/// What became of a message at the far side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Delivered,
    /// The far hook kept refusing it, and why.
    Dead(String),
}

/// A message that the outbox has taken.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) id: MessageId,
    verdict: oneshot::Receiver<Verdict>,
}

impl Accepted {
    /// Returns once the message is as safe as this outbox makes it. In memory that is at once.
    pub(crate) async fn stored(&mut self) {}

    /// Waits for the far side. Cancel-safe until it has returned.
    pub(crate) async fn verdict(&mut self) -> Verdict {
        (&mut self.verdict).await.unwrap_or_else(|_| Verdict::Dead("the web-app ended".into()))
    }
}

/// A message that has left the outbox.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) id: MessageId,
    pub(crate) verdict: Verdict,
    /// From acceptance to acknowledgement.
    pub(crate) age: Duration,
}

/// What the outbox holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Depth {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

#[derive(Debug)]
pub(crate) struct Outbox {
    sender: SenderId,
    limits: Limits,
    /// A watch is the lock and the wake-up in one.
    state: watch::Sender<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The far watermark: the entries' sequence numbers follow it.
    acked: u64,
    /// The highest sequence number ever handed out for sending.
    sent: u64,
    entries: VecDeque<Entry>,
    /// Payload bytes accepted and acknowledged, ever.
    bytes_in: usize,
    bytes_out: usize,
}

#[derive(Debug)]
struct Entry {
    message: Arc<Message>,
    /// `State::bytes_in` with this entry counted.
    bytes_end: usize,
    accepted: Instant,
    verdict: oneshot::Sender<Verdict>,
}

impl Outbox {
    pub(crate) fn new(sender: SenderId, limits: Limits) -> Self {
        Self { sender, limits, state: watch::Sender::new(State::default()) }
    }

    pub(crate) fn sender(&self) -> &SenderId {
        &self.sender
    }

    /// Takes a message and gives it its place in the order.
    pub(crate) fn accept(&self, payload: Box<RawValue>, hop: Hop) -> Result<Accepted, Full> {
        let mut result = Err(Full);
        self.state.send_if_modified(|state| {
            let bytes = payload.get().len();
            if !state.has_room(bytes, &self.limits) {
                return false;
            }
            let seq = state.last() + 1;
            let id = self.sender.message(seq);
            let (sender, verdict) = oneshot::channel();
            state.bytes_in += bytes;
            state.entries.push_back(Entry {
                message: Arc::new(Message { seq, id: id.clone(), payload, trail: vec![hop] }),
                bytes_end: state.bytes_in,
                accepted: Instant::now(),
                verdict: sender,
            });
            result = Ok(Accepted { id, verdict });
            true
        });
        result
    }

    /// Whether a payload of so many bytes would be taken now.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.state.borrow().has_room(bytes, &self.limits)
    }

    /// Waits until [`Self::has_room`].
    pub(crate) async fn room(&self, bytes: usize) {
        self.wait_for(|state| state.has_room(bytes, &self.limits)).await;
    }

    /// Waits until everything accepted is acknowledged.
    pub(crate) async fn empty(&self) {
        self.wait_for(|state| state.entries.is_empty()).await;
    }

    /// Waits for the message after `sent`, once the window has room for it. The flag tells whether it has been handed
    /// out before. Cancel-safe.
    pub(crate) async fn next(&self, sent: u64) -> (Arc<Message>, bool) {
        loop {
            self.wait_for(|state| state.sendable(sent, &self.limits).is_some()).await;
            let mut next = None;
            self.state.send_if_modified(|state| {
                if let Some(message) = state.sendable(sent, &self.limits) {
                    next = Some((message.clone(), message.seq <= state.sent));
                    state.sent = state.sent.max(message.seq);
                }
                false
            });
            if let Some(next) = next {
                return next;
            }
        }
    }

    /// Takes the far side's watermark, and drops what it covers.
    pub(crate) fn ack(&self, seq: u64, dead: Vec<Dead>) -> Result<Vec<Settled>, WireError> {
        let mut result = Ok(Vec::new());
        self.state.send_if_modified(|state| {
            if seq < state.acked || seq > state.sent {
                result = Err(WireError::Ack { got: seq, acked: state.acked, sent: state.sent });
                return false;
            }
            let count = usize::try_from(seq - state.acked).unwrap_or(usize::MAX);
            result = Ok(state.settle(count, dead));
            state.acked = seq;
            count > 0
        });
        result
    }

    /// The watermark: every message up to here has been acknowledged.
    pub(crate) fn acked(&self) -> u64 {
        self.state.borrow().acked
    }

    pub(crate) fn depth(&self) -> Depth {
        self.state.borrow().depth()
    }

    async fn wait_for(&self, ready: impl FnMut(&State) -> bool) {
        // An error would mean that the watch's sender is gone, which `self` owns.
        let _ = self.state.subscribe().wait_for(ready).await;
    }
}

impl State {
    fn last(&self) -> u64 {
        self.acked + self.entries.len() as u64
    }

    fn depth(&self) -> Depth {
        Depth { messages: self.entries.len(), bytes: self.bytes_in - self.bytes_out }
    }

    fn has_room(&self, bytes: usize, limits: &Limits) -> bool {
        let held = self.depth();
        held.messages < limits.messages && held.bytes + bytes <= limits.bytes
    }

    fn sendable(&self, sent: u64, limits: &Limits) -> Option<&Arc<Message>> {
        let ahead = usize::try_from(sent.checked_sub(self.acked)?).ok()?;
        let entry = self.entries.get(ahead)?;
        let fits = ahead < limits.window_messages && entry.bytes_end - self.bytes_out <= limits.window_bytes;
        (ahead == 0 || fits).then_some(&entry.message)
    }

    fn settle(&mut self, count: usize, mut dead: Vec<Dead>) -> Vec<Settled> {
        let gone: Vec<_> = self.entries.drain(..count.min(self.entries.len())).collect();
        if let Some(last) = gone.last() {
            self.bytes_out = last.bytes_end;
        }
        gone.into_iter()
            .map(|entry| {
                let seq = entry.message.seq;
                let verdict = match dead.iter().position(|row| row.seq == seq) {
                    Some(row) => Verdict::Dead(dead.swap_remove(row).error),
                    None => Verdict::Delivered,
                };
                // Nobody may be waiting any more.
                let _ = entry.verdict.send(verdict.clone());
                Settled { id: entry.message.id.clone(), verdict, age: entry.accepted.elapsed() }
            })
            .collect()
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
