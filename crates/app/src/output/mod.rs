//! Messages that have arrived, and how far each sender's have been taken.
//!
//! This is the output in memory; the committer stores it. A change *waits* from [`Output::add`] until it is stored, and
//! only then is it shown or acknowledged. A result, its sender's watermark and its reply are one change.

mod dead_letters;
mod results;
mod senders;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::watch;

use crate::limits::{MAX_OUTPUT_BYTES, WINDOW_MESSAGES};
use crate::message::{Arrival, DeadMessage, MessageId, SenderId};
use crate::outbox::NewMessage;
use crate::payload::Payload;
use crate::peer::PeerName;
use crate::sites::Site;
use crate::wire::{Ack, WireError};
pub(crate) use dead_letters::BeginRetryError;
use dead_letters::{DeadLetter, DeadLetters};
use results::Results;
pub(crate) use results::{Batch, Page, UnknownCursor};
use senders::Senders;

/// A page ends before it holds more bytes than this, but holds at least one result.
const MAX_PAGE_BYTES: usize = 4 << 20;
/// Changes that wait to be stored before no more are added.
const MAX_WAITING_CHANGES: usize = 2 * WINDOW_MESSAGES;
const MAX_WAITING_BYTES: usize = 16 << 20;

/// How much an output holds and shows at a time.
#[derive(Debug, Clone, Copy)]
struct Limits {
    messages: usize,
    bytes: usize,
    page_bytes: usize,
}

pub(crate) struct Output {
    limits: Limits,
    /// A watch is the lock and the wake-up in one.
    state: watch::Sender<State>,
}

#[derive(Default)]
struct State {
    results: Results,
    senders: Senders,
    dead: DeadLetters,
    waiting: VecDeque<Arc<Change>>,
    waiting_bytes: usize,
}

/// What the store holds of an output.
#[derive(Debug, Default)]
pub(crate) struct StoredOutput {
    pub(crate) results: Vec<(u64, Arrival)>,
    pub(crate) watermarks: Vec<(SenderId, u64)>,
    pub(crate) peers: Vec<(SenderId, PeerName)>,
    pub(crate) dead: Vec<(u64, DeadMessage)>,
}

/// One message processed, or one dead message retried.
pub(crate) struct Change {
    pub(crate) source: Source,
    pub(crate) outcome: Outcome,
    /// The reply, and for whom it is.
    pub(crate) reply: Option<(Arc<Site>, NewMessage)>,
}

/// Where a change comes from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// This message of a sender.
    Message(SenderId, u64),
    /// The dead message with this number.
    DeadLetter(u64),
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
        let reply = self.reply.as_ref().map_or(0, |(_, reply)| reply.bytes());
        let kept = match &self.outcome {
            Outcome::Result(arrival) => arrival.bytes(),
            Outcome::Dead(dead) => dead.bytes(),
        };
        kept + reply
    }
}

impl Output {
    /// An output that keeps the newest `max_messages` results, with what the store holds of it. `replied` are the messages
    /// whose replies are still in the outbox.
    pub(crate) fn new(max_messages: usize, stored: StoredOutput, replied: &[MessageId]) -> Self {
        Self::limited(
            Limits { messages: max_messages, bytes: MAX_OUTPUT_BYTES, page_bytes: MAX_PAGE_BYTES },
            stored,
            replied,
        )
    }

    fn limited(limits: Limits, stored: StoredOutput, replied: &[MessageId]) -> Self {
        let StoredOutput { results, watermarks, peers, dead } = stored;
        let senders = Senders::new(watermarks, peers, &dead, replied);
        let state = State {
            results: Results::new(results, &limits),
            senders,
            dead: DeadLetters::new(dead),
            ..State::default()
        };
        Self { limits, state: watch::Sender::new(state) }
    }

    /// Registers a sender whose messages up to `acked` have been acknowledged, and returns the number of the last message
    /// processed for it. A new sender may be at any number, because this end may have forgotten what it processed before.
    /// A known one cannot be ahead: another web-app uses its id, or this store is an old copy. From the first connection
    /// on that came through the tunnel of a peer, a sender is that peer's.
    pub(crate) fn register_sender(
        &self,
        sender: &SenderId,
        acked: u64,
        peer: Option<&PeerName>,
    ) -> Result<u64, WireError> {
        let mut last = Ok(0);
        self.state.send_modify(|state| last = state.senders.register(sender, acked, peer));
        last
    }

    /// The peer whose sender this is, if that is known.
    pub(crate) fn peer_of(&self, sender: &SenderId) -> Option<PeerName> {
        self.state.borrow().senders.peer_of(sender).cloned()
    }

    /// The same for the sender of a message.
    pub(crate) fn peer_of_message(&self, id: &MessageId) -> Option<PeerName> {
        let (sender, _) = id.split()?;
        self.peer_of(&SenderId::try_from(sender.to_owned()).ok()?)
    }

    /// Waits until another change may be added.
    pub(crate) async fn room(&self) {
        self.wait_for(|state| state.waiting.len() < MAX_WAITING_CHANGES && state.waiting_bytes < MAX_WAITING_BYTES)
            .await;
    }

    /// Adds a change, unless its message has been processed before. It is stored after those added before.
    pub(crate) fn add(&self, change: Change) {
        self.state.send_if_modified(|state| {
            let fresh = match &change.source {
                Source::Message(sender, seq) => state.senders.advance(sender, *seq),
                Source::DeadLetter(_) => true,
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

    /// At most `max` changes that wait to be stored, and the positions of the oldest result to keep and of the next.
    pub(crate) fn waiting(&self, max: usize) -> (Vec<Arc<Change>>, u64, u64) {
        let state = self.state.borrow();
        (state.waiting.iter().take(max).cloned().collect(), state.results.start(), state.results.end())
    }

    /// Dead messages before this number are not kept.
    pub(crate) fn dead_start(&self) -> u64 {
        self.state.borrow().dead.start()
    }

    /// The number of the next dead message.
    pub(crate) fn next_dead(&self) -> u64 {
        self.state.borrow().dead.next()
    }

    /// Call when the first `count` waiting changes are stored. Returns how many old results, and which dead messages, they
    /// displaced.
    pub(crate) fn mark_stored(&self, count: usize) -> (u64, Vec<u64>) {
        let mut dropped = (0, Vec::new());
        if count == 0 {
            return dropped;
        }
        self.state.send_modify(|state| {
            for change in state.waiting.drain(..count).collect::<Vec<_>>() {
                state.waiting_bytes -= change.bytes();
                state.senders.mark_stored(&change);
                if let Source::DeadLetter(number) = &change.source {
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

    /// Waits until the sender's watermark is above `reported`, and returns the next ack for it. Woken by what is stored of this
    /// sender alone: with many sites, the changes of all would wake each. Cancel-safe.
    pub(crate) async fn next_ack(&self, sender: &SenderId, reported: u64) -> Ack {
        loop {
            let stored = self.state.borrow().senders.subscribe(sender);
            let ack = self.state.borrow().senders.ack_after(sender, reported);
            if let Some(ack) = ack.filter(|ack| ack.seq > reported) {
                return ack;
            }
            match stored {
                Some(mut stored) => _ = stored.changed().await,
                // Not registered yet.
                None => _ = self.state.subscribe().changed().await,
            }
        }
    }

    /// The first ack on a new WebSocket: the sender's watermark, and the dead messages that it may not know of.
    pub(crate) fn first_ack(&self, sender: &SenderId, acked: u64) -> Ack {
        let ack = self.state.borrow().senders.ack_after(sender, acked);
        ack.unwrap_or(Ack { seq: acked, dead: Vec::new(), replied: Vec::new() })
    }

    /// At most `limit` results after the one with id `after`, or from the oldest.
    pub(crate) fn page(&self, after: Option<&str>, limit: usize) -> Result<Page, UnknownCursor> {
        self.state.borrow().results.page(after, limit, &self.limits)
    }

    /// The payload of the reply to this message from the site that it was sent to, whether the hook here accepted the reply or
    /// not.
    pub(crate) fn reply_to(&self, id: &MessageId, site: Option<&PeerName>) -> Option<Payload> {
        let state = self.state.borrow();
        let waiting = state.waiting.iter().rev().map(|change| change.arrival());
        let mut all = waiting.chain(state.results.newest_first()).chain(state.dead.newest_first());
        // What was taken before the site had a name has none.
        let is_reply = |arrival: &&Arrival| {
            arrival.in_reply_to.as_ref() == Some(id) && (arrival.site.is_none() || arrival.site.as_ref() == site)
        };
        all.find(is_reply).map(|reply| reply.payload.clone())
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
    pub(crate) fn dead(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(usize, Vec<Arc<DeadMessage>>), UnknownCursor> {
        let state = self.state.borrow();
        Ok((state.dead.kept(), state.dead.page(after, limit, self.limits.page_bytes)?))
    }

    /// How many dead messages of each site are kept.
    pub(crate) fn dead_by_site(&self) -> HashMap<Option<PeerName>, usize> {
        self.state.borrow().dead.by_site()
    }

    /// Starts a retry of a dead message. No other retry of it can start until this one ends.
    pub(crate) fn begin_retry(&self, id: &str) -> Result<DeadLetter, BeginRetryError> {
        let mut letter = Err(BeginRetryError::Unknown);
        self.state.send_if_modified(|state| {
            letter = state.dead.begin_retry(id);
            false
        });
        letter
    }

    /// Ends a retry. The dead message is kept, unless a change has removed it.
    pub(crate) fn end_retry(&self, number: u64) {
        self.state.send_if_modified(|state| {
            state.dead.end_retry(number);
            false
        });
    }

    /// Waits until a dead message has been removed.
    pub(crate) async fn dead_removed(&self, number: u64) {
        self.wait_for(|state| !state.dead.contains(number)).await;
    }

    async fn wait_for(&self, ready: impl FnMut(&State) -> bool) {
        // Fails only if the watch's sender is gone, which `self` owns.
        let _ = self.state.subscribe().wait_for(ready).await;
    }
}

#[cfg(test)]
mod tests;
