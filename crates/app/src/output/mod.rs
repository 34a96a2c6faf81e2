//! Messages that have arrived, and how far each sender's have been taken.
//!
//! This is the output in memory; the committer stores it. A change *waits* from [`Output::take`] until it is stored, and
//! only then is it shown or acknowledged. A result, its sender's watermark and its reply are one change.

mod dead;
mod results;
mod senders;

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use crate::message::{Arrival, DeadMessage, MessageId, SenderId};
use crate::outbox::{Draft, WINDOW};
use crate::payload::Payload;
use crate::wire::{Ack, WireError};
use dead::Graveyard;
pub(crate) use dead::{Grave, MAX_DEAD_BYTES, NoGrave};
use results::Results;
pub(crate) use results::{Batch, Gone, Page};
use senders::Senders;

/// Bytes kept, beside the number of messages that the user chose.
pub(crate) const MAX_OUTPUT_BYTES: usize = 144 << 20;
/// A page ends before it holds more bytes than this, but holds at least one result.
const MAX_PAGE_BYTES: usize = 4 << 20;
/// Changes that wait to be stored before no more are taken.
const WAITING_MAX: usize = 2 * WINDOW;
const WAITING_BYTES_MAX: usize = 16 << 20;

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
    results: Results,
    senders: Senders,
    dead: Graveyard,
    waiting: VecDeque<Arc<Change>>,
    waiting_bytes: usize,
}

/// What the store holds of an output.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) results: Vec<(u64, Arrival)>,
    pub(crate) watermarks: Vec<(SenderId, u64)>,
    pub(crate) dead: Vec<(u64, DeadMessage)>,
}

/// One message taken, or raised from the dead.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) source: Source,
    pub(crate) outcome: Outcome,
    pub(crate) reply: Option<Draft>,
}

/// Where a change comes from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// This message of a sender.
    Message(SenderId, u64),
    /// The dead message with this number.
    Grave(u64),
}

/// What became of the message.
#[derive(Debug)]
pub(crate) enum Outcome {
    Result(Arc<Arrival>),
    Dead(Arc<DeadMessage>),
}

impl Change {
    fn arrival(&self) -> &Arrival {
        match &self.outcome {
            Outcome::Result(arrival) => arrival,
            Outcome::Dead(dead) => &dead.arrival,
        }
    }

    fn bytes(&self) -> usize {
        let reply = self.reply.as_ref().map_or(0, Draft::bytes);
        let kept = match &self.outcome {
            Outcome::Result(arrival) => arrival.bytes(),
            Outcome::Dead(dead) => dead.bytes(),
        };
        kept + reply
    }
}

impl Output {
    /// An output that keeps the newest `messages_max` results, with what the store holds of it. `replied` are the messages
    /// whose replies are still in the outbox.
    pub(crate) fn new(messages_max: usize, stored: Stored, replied: &[MessageId]) -> Self {
        Self::limited(
            Limits { messages: messages_max, bytes: MAX_OUTPUT_BYTES, page_bytes: MAX_PAGE_BYTES },
            stored,
            replied,
        )
    }

    fn limited(limits: Limits, stored: Stored, replied: &[MessageId]) -> Self {
        let Stored { results, watermarks, dead } = stored;
        let senders = Senders::new(watermarks, &dead, replied);
        let state =
            State { results: Results::new(results, &limits), senders, dead: Graveyard::new(dead), ..State::default() };
        Self { limits, state: watch::Sender::new(state) }
    }

    /// Meets a sender whose messages up to `acked` have been acknowledged, and returns the number of the last message
    /// taken from it. A sender that is new here may be at any number, because what was taken from it before may be forgotten.
    /// One that is known cannot be ahead of what was taken: somebody else says hello in its name, or this store is an old copy.
    pub(crate) fn meet(&self, sender: &SenderId, acked: u64) -> Result<u64, WireError> {
        let mut last = Ok(0);
        self.state.send_modify(|state| last = state.senders.meet(sender, acked));
        last
    }

    /// Waits until another change may be added.
    pub(crate) async fn room(&self) {
        self.wait_for(|state| state.waiting.len() < WAITING_MAX && state.waiting_bytes < WAITING_BYTES_MAX).await;
    }

    /// Adds a change, unless its message has been taken before. It is stored after those added before.
    pub(crate) fn take(&self, change: Change) {
        self.state.send_if_modified(|state| {
            let fresh = match &change.source {
                Source::Message(sender, seq) => state.senders.take(sender, *seq),
                Source::Grave(_) => true,
            };
            if fresh {
                state.waiting_bytes += change.bytes();
                state.waiting.push_back(Arc::new(change));
            }
            fresh
        });
    }

    /// Waits until there is something to store.
    pub(crate) async fn unstored(&self) {
        self.wait_for(|state| !state.waiting.is_empty()).await;
    }

    /// Waits until nothing waits to be stored.
    pub(crate) async fn all_stored(&self) {
        self.wait_for(|state| state.waiting.is_empty()).await;
    }

    /// What waits to be stored, at most so many changes, and the positions of the oldest result to keep and of the next.
    pub(crate) fn waiting(&self, max: usize) -> (Vec<Arc<Change>>, u64, u64) {
        let state = self.state.borrow();
        (state.waiting.iter().take(max).cloned().collect(), state.results.start(), state.results.end())
    }

    /// Dead messages before this number are not kept.
    pub(crate) fn dead_start(&self) -> u64 {
        self.state.borrow().dead.start()
    }

    /// The number of the next dead message.
    pub(crate) fn next_grave(&self) -> u64 {
        self.state.borrow().dead.next()
    }

    /// Takes note that the first so many changes that waited are stored. Returns how many old results and dead messages
    /// they pushed out.
    pub(crate) fn stored(&self, count: usize) -> (u64, Vec<u64>) {
        let mut dropped = (0, Vec::new());
        if count == 0 {
            return dropped;
        }
        self.state.send_modify(|state| {
            for change in state.waiting.drain(..count).collect::<Vec<_>>() {
                state.waiting_bytes -= change.bytes();
                state.senders.stored(&change);
                if let Source::Grave(number) = &change.source {
                    state.dead.remove(*number);
                }
                match &change.outcome {
                    Outcome::Result(arrival) => dropped.0 += state.results.push(arrival.clone(), &self.limits),
                    Outcome::Dead(dead) => dropped.1.extend(state.dead.push(dead.clone())),
                }
            }
        });
        dropped
    }

    /// Waits until the sender's watermark is above `told`, and returns what to tell it. Cancel-safe.
    pub(crate) async fn receipt(&self, sender: &SenderId, told: u64) -> Ack {
        let mut ack = Ack { seq: told, dead: Vec::new(), replied: Vec::new() };
        self.wait_for(|state| match state.senders.receipt(sender, told) {
            Some(news) if news.seq > told => {
                ack = news;
                true
            }
            _ => false,
        })
        .await;
        ack
    }

    /// What to tell the sender first on a new WebSocket: its watermark, and the dead that it may not know of.
    pub(crate) fn first_receipt(&self, sender: &SenderId, acked: u64) -> Ack {
        let ack = self.state.borrow().senders.receipt(sender, acked);
        ack.unwrap_or(Ack { seq: acked, dead: Vec::new(), replied: Vec::new() })
    }

    /// At most `limit` results after the one with id `after`, or from the oldest.
    pub(crate) fn page(&self, after: Option<&str>, limit: usize) -> Result<Page, Gone> {
        self.state.borrow().results.page(after, limit, &self.limits)
    }

    /// The payload of the reply to this message, whether the hook here took the reply or not.
    pub(crate) fn reply_to(&self, id: &MessageId) -> Option<Payload> {
        let state = self.state.borrow();
        let waiting = state.waiting.iter().rev().map(|change| change.arrival());
        let mut all = waiting.chain(state.results.newest_first()).chain(state.dead.newest_first());
        all.find(|arrival| arrival.in_reply_to.as_ref() == Some(id)).map(|reply| reply.payload.clone())
    }

    /// The position after the newest result.
    pub(crate) fn end(&self) -> u64 {
        self.state.borrow().results.end()
    }

    /// Waits for results at `position` and after. Cancel-safe.
    pub(crate) async fn since(&self, position: u64, limit: usize) -> Batch {
        self.wait_for(|state| state.results.end() > position).await;
        self.state.borrow().results.since(position, limit, &self.limits)
    }

    /// How many results are kept.
    pub(crate) fn kept(&self) -> usize {
        self.state.borrow().results.kept()
    }

    /// How many dead messages are kept, and at most `limit` of them after the one with id `after`, or from the oldest.
    pub(crate) fn dead(&self, after: Option<&str>, limit: usize) -> Result<(usize, Vec<Arc<DeadMessage>>), Gone> {
        let state = self.state.borrow();
        Ok((state.dead.kept(), state.dead.page(after, limit, self.limits.page_bytes)?))
    }

    /// Opens the grave of a dead message, so that nobody else does until it is closed again or the message is raised.
    pub(crate) fn open_grave(&self, id: &str) -> Result<Grave, NoGrave> {
        let mut grave = Err(NoGrave::Unknown);
        self.state.send_if_modified(|state| {
            grave = state.dead.open(id);
            false
        });
        grave
    }

    /// Closes a grave that was opened, its message still in it.
    pub(crate) fn close_grave(&self, number: u64) {
        self.state.send_if_modified(|state| {
            state.dead.close(number);
            false
        });
    }

    /// Waits until a grave is empty.
    pub(crate) async fn raised(&self, number: u64) {
        self.wait_for(|state| !state.dead.holds(number)).await;
    }

    async fn wait_for(&self, ready: impl FnMut(&State) -> bool) {
        // An error would mean that the watch's sender is gone, which `self` owns.
        let _ = self.state.subscribe().wait_for(ready).await;
    }
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
