//! Messages that have arrived, and how far each sender's have been taken. This one lives in memory.
//!
//! What a durable store has to keep: an arrival and its sender's watermark change together, and
//! [`Output::receipt`] and [`Output::since`] tell of what is stored only.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::watch;

use crate::message::{Arrival, MessageId, SenderId};
use crate::outbox::WINDOW;
use crate::wire::{Ack, Dead};

/// Bytes of payload kept, beside the number of messages that the user chose.
const BYTES_MAX: usize = 256 << 20;
/// A page ends before it holds more payload than this, but holds at least one result.
const PAGE_BYTES_MAX: usize = 16 << 20;

/// A slice of the output, oldest first.
#[derive(Debug)]
pub(crate) struct Page {
    /// Results kept in all.
    pub(crate) count: usize,
    pub(crate) results: Vec<Arc<Arrival>>,
}

/// What arrived after a position.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Results that were dropped before they could be read.
    pub(crate) missed: u64,
    pub(crate) results: Vec<Arc<Arrival>>,
    /// The position after the last of them.
    pub(crate) end: u64,
}

/// The result asked for is not, or no longer, in the output.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("result {0:?} is unknown or no longer kept; read without `after`, from the oldest that is")]
pub(crate) struct Gone(pub(crate) String);

/// How much an output holds and shows at a time.
#[derive(Debug, Clone, Copy)]
struct Limits {
    messages: usize,
    bytes: usize,
    page_bytes: usize,
}

#[derive(Debug)]
pub(crate) struct Output {
    limits: Limits,
    /// A watch is the lock and the wake-up in one.
    state: watch::Sender<State>,
}

#[derive(Debug, Default)]
struct State {
    results: VecDeque<Arc<Arrival>>,
    bytes: usize,
    /// Results ever dropped: the position of the oldest kept.
    start: u64,
    positions: HashMap<MessageId, u64>,
    senders: HashMap<SenderId, Taken>,
}

/// What has been taken from one sender.
#[derive(Debug, Default)]
struct Taken {
    watermark: u64,
    /// Kept until the sender must have been told.
    dead: VecDeque<Dead>,
}

impl Output {
    /// An output that keeps the newest `messages_max` results.
    pub(crate) fn new(messages_max: usize) -> Self {
        Self::limited(Limits { messages: messages_max, bytes: BYTES_MAX, page_bytes: PAGE_BYTES_MAX })
    }

    fn limited(limits: Limits) -> Self {
        Self { limits, state: watch::Sender::new(State::default()) }
    }

    /// Meets a sender whose messages up to `acked` have been acknowledged, and returns its watermark. One below
    /// `acked` means that what we took from it is forgotten here, and is raised so that the rest can follow.
    pub(crate) fn meet(&self, sender: &SenderId, acked: u64) -> u64 {
        let mut watermark = 0;
        self.state.send_modify(|state| {
            let taken = state.senders.entry(sender.clone()).or_default();
            taken.dead.retain(|row| row.seq > acked);
            taken.watermark = taken.watermark.max(acked);
            watermark = taken.watermark;
        });
        watermark
    }

    /// Adds a result, unless it has been taken before. Returns how many old results it pushed out.
    pub(crate) fn append(&self, sender: &SenderId, seq: u64, arrival: Arrival) -> u64 {
        let mut dropped = 0;
        self.state.send_if_modified(|state| {
            if !state.take(sender, seq, None) {
                return false;
            }
            dropped = state.push(arrival, &self.limits);
            true
        });
        dropped
    }

    /// Takes a message that the receiving hook kept refusing: it has its place in the order, but no result.
    pub(crate) fn bury(&self, sender: &SenderId, row: Dead) {
        self.state.send_if_modified(|state| state.take(sender, row.seq, Some(row)));
    }

    /// Waits until the sender's watermark is above `told`, and returns what to tell it. Cancel-safe.
    pub(crate) async fn receipt(&self, sender: &SenderId, told: u64) -> Ack {
        let mut ack = Ack { seq: told, dead: Vec::new() };
        let ready = |state: &State| match state.senders.get(sender) {
            Some(taken) if taken.watermark > told => {
                ack = taken.receipt(told);
                true
            }
            _ => false,
        };
        // An error would mean that the watch's sender is gone, which `self` owns.
        let _ = self.state.subscribe().wait_for(ready).await;
        ack
    }

    /// What to tell the sender first on a new WebSocket: its watermark, and the dead that it may not know of.
    pub(crate) fn first_receipt(&self, sender: &SenderId, acked: u64) -> Ack {
        match self.state.borrow().senders.get(sender) {
            Some(taken) => taken.receipt(acked),
            None => Ack { seq: acked, dead: Vec::new() },
        }
    }

    /// At most `limit` results after the one with id `after`, or from the oldest.
    pub(crate) fn page(&self, after: Option<&str>, limit: usize) -> Result<Page, Gone> {
        let state = self.state.borrow();
        let position = match after {
            None => state.start,
            Some(id) => state.position(id).ok_or_else(|| Gone(id.chars().take(100).collect()))? + 1,
        };
        Ok(Page { count: state.results.len(), results: state.slice(position, limit, &self.limits) })
    }

    /// The position after the newest result.
    pub(crate) fn end(&self) -> u64 {
        self.state.borrow().end()
    }

    /// Waits for results at `position` and after. Cancel-safe.
    pub(crate) async fn since(&self, position: u64, limit: usize) -> Batch {
        let mut arrivals = self.state.subscribe();
        let Ok(state) = arrivals.wait_for(|state| state.end() > position).await else {
            // The watch's sender is gone, which `self` owns.
            return std::future::pending().await;
        };
        let start = state.start.max(position);
        let results = state.slice(start, limit, &self.limits);
        Batch { missed: start - position, end: start + results.len() as u64, results }
    }

    /// How many results are kept.
    pub(crate) fn kept(&self) -> usize {
        self.state.borrow().results.len()
    }
}

impl State {
    fn end(&self) -> u64 {
        self.start + self.results.len() as u64
    }

    fn position(&self, id: &str) -> Option<u64> {
        self.positions.get(&MessageId::try_from(id.to_owned()).ok()?).copied()
    }

    fn slice(&self, position: u64, limit: usize, limits: &Limits) -> Vec<Arc<Arrival>> {
        let skip = usize::try_from(position.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let mut bytes = 0;
        self.results
            .iter()
            .skip(skip)
            .take(limit)
            .take_while(|arrival| {
                let first = bytes == 0;
                bytes += arrival.payload.get().len();
                first || bytes <= limits.page_bytes
            })
            .cloned()
            .collect()
    }

    /// Moves the sender's watermark to `seq` if that is the next one.
    fn take(&mut self, sender: &SenderId, seq: u64, dead: Option<Dead>) -> bool {
        let taken = self.senders.entry(sender.clone()).or_default();
        if seq != taken.watermark + 1 {
            return false;
        }
        taken.watermark = seq;
        taken.dead.extend(dead);
        // A sender is at most its window ahead of what it knows to be acknowledged.
        while taken.dead.front().is_some_and(|row| row.seq + WINDOW as u64 <= seq) {
            taken.dead.pop_front();
        }
        true
    }

    fn push(&mut self, arrival: Arrival, limits: &Limits) -> u64 {
        self.positions.insert(arrival.id.clone(), self.end());
        self.bytes += arrival.payload.get().len();
        self.results.push_back(Arc::new(arrival));
        let before = self.start;
        while self.results.len() > limits.messages || (self.bytes > limits.bytes && self.results.len() > 1) {
            let Some(oldest) = self.results.pop_front() else { break };
            self.positions.remove(&oldest.id);
            self.bytes -= oldest.payload.get().len();
            self.start += 1;
        }
        self.start - before
    }
}

impl Taken {
    fn receipt(&self, told: u64) -> Ack {
        let dead = self.dead.iter().filter(|row| row.seq > told).cloned().collect();
        Ack { seq: self.watermark, dead }
    }
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
