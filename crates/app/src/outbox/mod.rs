//! Messages accepted here and not yet acknowledged by the far web-app.
//!
//! This is the outbox in memory; the committer stores it. A message *waits* from [`Outbox::enqueue`] until it is
//! stored, then gets its number and may be confirmed and sent: nothing leaves this outbox that a restart would not restore.

mod entries;
mod handle;
mod keys;
mod limits;
mod message;
mod pool;
mod state;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use crate::limits::take_bounded;
use crate::message::{Message, MessageId, SenderId};
use crate::payload::Payload;
use crate::spans::Sending;
use crate::store::{Fate, KeyRecord, StoreError};
use crate::wire::{Ack, WireError};
use entries::Entries;
pub(crate) use handle::MessageHandle;
use keys::Keys;
pub(crate) use limits::Limits;
use limits::REPLY_FACTOR;
pub(crate) use message::{NewMessage, NumberedMessage};
use pool::Held;
pub(crate) use pool::Pool;
use state::{State, WaitingMessage};

/// Why an outbox takes no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OutboxError {
    /// The far side is not taking messages as fast as they come.
    #[error("the outbox is full: the far side takes messages more slowly than they come, or is away; try again")]
    Full,
    /// Its site has been forgotten meanwhile.
    #[error("the site has just been forgotten; GET /status lists those that are known")]
    Forgotten,
}

/// What became of a message at the far side.
#[derive(Debug, Clone)]
pub(crate) enum Verdict {
    /// It is in the far output; with what the far hook returned.
    Delivered(Option<Payload>),
    /// The far hook kept refusing it, and why.
    Dead(String),
}

/// An idempotency key as a client gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdempotencyKey {
    pub(crate) text: String,
    /// Of the trigger, to tell a retry from another trigger under the same key.
    pub(crate) digest: u64,
}

/// A message that the far side has acknowledged, and that has left the outbox.
#[derive(Debug)]
pub(crate) struct AckedMessage {
    pub(crate) id: MessageId,
    /// What the far hook said if it kept refusing the message.
    pub(crate) dead: Option<String>,
    /// From acceptance, or the web-app's start, to acknowledgement.
    pub(crate) age: Duration,
    pub(crate) span: Option<Box<Sending>>,
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
    /// What all outboxes of this web-app hold.
    pool: Arc<Pool>,
    /// A watch is the lock and the wake-up in one.
    state: watch::Sender<State>,
}

impl Outbox {
    /// An outbox with what the store holds of it.
    pub(crate) fn new(
        pool: Arc<Pool>,
        sender: SenderId,
        limits: Limits,
        acked: u64,
        stored: Vec<(Message, String)>,
        mut headers: HashMap<u64, Arc<str>>,
        keys: Vec<(String, KeyRecord)>,
    ) -> Self {
        let mut state = State { entries: Entries::after(acked), keys: Keys::new(keys), ..State::default() };
        for (message, text) in stored {
            let Message { seq, id, payload, .. } = message;
            let headers = headers.remove(&seq);
            let bytes = payload.len() + headers.as_ref().map_or(0, |headers| headers.len()) + limits.overhead;
            let numbered = NumberedMessage { seq, id, text: text.into(), headers, span: None, bytes, key: None };
            state.entries.push(numbered, Instant::now(), Vec::new());
        }
        state.entries.mark_sent();
        pool.add(Held::default(), state.held());
        Self { sender, limits, pool, state: watch::Sender::new(state) }
    }

    pub(crate) fn sender(&self) -> &SenderId {
        &self.sender
    }

    /// Adds a message, to be stored after those added before.
    pub(crate) fn enqueue(
        &self,
        message: NewMessage,
        key: Option<IdempotencyKey>,
    ) -> Result<MessageHandle, OutboxError> {
        let mut result = Err(OutboxError::Full);
        self.modify(|state| {
            let bytes = message.content_bytes() + self.limits.overhead;
            if state.closed {
                result = Err(OutboxError::Forgotten);
                return false;
            }
            if !self.fits(state, bytes, 1) {
                return false;
            }
            let (stored, stored_receiver) = oneshot::channel();
            let (verdict, verdict_receiver) = oneshot::channel();
            state.waiting_bytes += bytes;
            let accepted = Instant::now();
            state.waiting.push_back(WaitingMessage { message: Arc::new(message), key, accepted, stored, verdict });
            result = Ok(MessageHandle { id: None, stored: stored_receiver, verdict: verdict_receiver });
            true
        });
        result
    }

    /// Whether a payload of this size would be accepted now.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.fits(&self.state.borrow(), bytes + self.limits.overhead, 1)
    }

    /// Waits until [`Self::has_room`], or until the outbox takes nothing any more.
    pub(crate) async fn room(&self, bytes: usize) {
        self.wait_for_room(bytes + self.limits.overhead, 1).await;
    }

    /// Waits until a reply may be added.
    pub(crate) async fn reply_room(&self) {
        self.wait_for_room(1, REPLY_FACTOR).await;
    }

    /// Room is what is left of the bounds on all outboxes together. Where that is used up, each still has its share, so that
    /// a site that is away holds up no other.
    fn fits(&self, state: &State, bytes: usize, factor: usize) -> bool {
        let own = state.held();
        self.pool.has_room(own, bytes, &self.limits, factor)
    }

    async fn wait_for_room(&self, bytes: usize, factor: usize) {
        let (mut own, mut pool) = (self.state.subscribe(), self.pool.subscribe());
        loop {
            let fits = {
                let state = own.borrow_and_update();
                pool.mark_unchanged();
                state.closed || self.fits(&state, bytes, factor)
            };
            if fits {
                return;
            }
            // Fails only if a watch's sender is gone, which `self` owns.
            tokio::select! {
                _ = own.changed() => {}
                _ = pool.changed() => {}
            }
        }
    }

    /// Waits until everything accepted is acknowledged.
    pub(crate) async fn empty(&self) {
        self.wait_for(|state| state.depth().messages == 0).await;
    }

    /// Whether messages wait to be stored.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.state.borrow().waiting.is_empty()
    }

    /// Numbers these replies and then messages that wait, without changing anything.
    pub(crate) fn number(
        &self,
        replies: &[&NewMessage],
        max_messages: usize,
        max_bytes: usize,
    ) -> Vec<NumberedMessage> {
        let state = self.state.borrow();
        let bytes = |waiting: &&WaitingMessage| waiting.message.content_bytes() + self.limits.overhead;
        let waiting = take_bounded(state.waiting.iter(), max_messages, max_bytes, bytes);
        let waiting = waiting.map(|waiting| (&*waiting.message, waiting.key.as_ref()));
        let all = replies.iter().map(|reply| (*reply, None)).chain(waiting);
        let first = state.entries.last() + 1;
        (first..).zip(all).map(|(seq, (message, key))| self.numbered(seq, message, key)).collect()
    }

    fn numbered(&self, seq: u64, message: &NewMessage, key: Option<&IdempotencyKey>) -> NumberedMessage {
        let id = self.sender.message(seq);
        let NewMessage { payload, hop, in_reply_to, headers, span } = message;
        let (bytes, trail) = (message.content_bytes() + self.limits.overhead, vec![hop.clone()]);
        let message =
            Message { seq, id: id.clone(), payload: payload.clone(), trail, in_reply_to: in_reply_to.clone() };
        // Nothing in a message can fail to be JSON: its payload is already, and its maps have text for keys.
        let text = serde_json::to_string(&message).unwrap_or_default().into();
        let key = key.map(|key| (key.text.clone(), KeyRecord { seq, digest: key.digest, fate: Fate::Plain }));
        NumberedMessage { seq, id, text, headers: headers.clone(), span: span.clone(), bytes, key }
    }

    /// Call when these are stored; the first `replies` of them are replies.
    pub(crate) fn mark_stored(&self, numbered: Vec<NumberedMessage>, replies: usize) {
        if numbered.is_empty() {
            return;
        }
        self.modify(|state| {
            if state.closed {
                return false;
            }
            for (i, mut numbered) in numbered.into_iter().enumerate() {
                let waiting = if i < replies { None } else { state.waiting.pop_front() };
                if let Some(key) = numbered.key.take() {
                    state.keys.push(key, |own| self.pool.has_too_many_keys(own));
                }
                let Some(WaitingMessage { message, accepted, stored, verdict, .. }) = waiting else {
                    state.entries.push(numbered, Instant::now(), Vec::new());
                    continue;
                };
                state.waiting_bytes -= message.content_bytes() + self.limits.overhead;
                // The receiver may be gone.
                let _ = stored.send(Ok(numbered.id.clone()));
                state.entries.push(numbered, accepted, vec![verdict]);
            }
            true
        });
    }

    /// Drops everything that waits, because it cannot be stored.
    pub(crate) fn reject_waiting(&self, error: &StoreError) {
        self.modify(|state| {
            state.reject_waiting(error);
            true
        });
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.borrow().closed
    }

    /// Drops everything that it holds and takes nothing more, because its site is forgotten. Returns the number of its last
    /// message.
    pub(crate) fn close(&self) -> u64 {
        let mut last = 0;
        self.modify(|state| {
            state.closed = true;
            state.reject_waiting(&StoreError::Failed(OutboxError::Forgotten.to_string()));
            last = state.entries.last();
            for entry in state.entries.clear() {
                for waiter in entry.waiters {
                    let _ = waiter.send(Verdict::Dead("its site was forgotten before it was delivered".into()));
                }
            }
            state.keys = Keys::default();
            true
        });
        last
    }

    /// Waits for the message after `sent`, once the window has room for it. The flag tells whether it has been handed
    /// out before. Cancel-safe.
    pub(crate) async fn next(&self, sent: u64) -> (NumberedMessage, bool) {
        loop {
            self.wait_for(|state| state.entries.sendable(sent, &self.limits).is_some()).await;
            let mut next = None;
            self.state.send_if_modified(|state| {
                next = state.entries.hand_out(sent, &self.limits);
                false
            });
            if let Some(next) = next {
                return next;
            }
        }
    }

    /// Applies the far side's watermark, and drops what it covers.
    pub(crate) fn ack(&self, ack: Ack) -> Result<Vec<AckedMessage>, WireError> {
        let mut result = Ok(Vec::new());
        self.modify(|state| {
            result = state.ack(ack);
            result.as_ref().is_ok_and(|acked| !acked.is_empty())
        });
        result
    }

    /// Gives the reply to a message of ours to the requests that wait for it.
    pub(crate) fn resolve_reply(&self, to: &MessageId, payload: &Payload) {
        let Some((sender, seq)) = to.split() else { return };
        if sender != self.sender.as_str() {
            return;
        }
        self.state.send_if_modified(|state| {
            if let Some(entry) = state.entries.entry_mut(seq) {
                entry.reply = Some(payload.clone());
            }
            for waiter in state.replies.remove(&seq).into_iter().flatten() {
                let _ = waiter.send(Verdict::Delivered(Some(payload.clone())));
            }
            false
        });
    }

    /// What an idempotency key stands for, and its message. If that is delivered or dead already, its verdict is there soon.
    pub(crate) fn find_key(&self, key: &str) -> Option<(KeyRecord, MessageHandle)> {
        let mut found = None;
        self.state.send_if_modified(|state| {
            let Some(key) = state.keys.find(key) else { return false };
            let (waiter, verdict) = oneshot::channel();
            match state.entries.entry_mut(key.seq) {
                Some(entry) => entry.waiters.push(waiter),
                None => match key.fate {
                    // This cannot fail: the receiver is below.
                    Fate::Plain => drop(waiter.send(Verdict::Delivered(None))),
                    Fate::Dead => drop(waiter.send(Verdict::Dead("the far hook kept refusing it".into()))),
                    // The reply is in the output or will come. If the output has dropped it, the waiter waits in vain.
                    Fate::Replied => state.replies.entry(key.seq).or_default().push(waiter),
                },
            }
            let (_, stored) = oneshot::channel();
            found = Some((key, MessageHandle { id: Some(self.sender.message(key.seq)), stored, verdict }));
            false
        });
        found
    }

    /// Keys whose fate is to be stored.
    pub(crate) fn fates(&self) -> Vec<(String, KeyRecord)> {
        self.state.borrow().keys.unstored().cloned().collect()
    }

    /// Call when the first `count` of [`Self::fates`] are stored.
    pub(crate) fn mark_fates_stored(&self, count: usize) {
        self.state.send_if_modified(|state| {
            state.keys.mark_stored(count);
            false
        });
    }

    /// The keys of messages up to here are forgotten.
    pub(crate) fn keys_start(&self) -> u64 {
        self.state.borrow().keys.start()
    }

    /// The watermark: every message up to here has been acknowledged.
    pub(crate) fn acked(&self) -> u64 {
        self.state.borrow().entries.acked()
    }

    pub(crate) fn depth(&self) -> Depth {
        self.state.borrow().depth()
    }

    /// Changes the state, tells the pool, and the committer if there may be something to store.
    fn modify(&self, change: impl FnOnce(&mut State) -> bool) {
        let (mut before, mut after) = (Held::default(), Held::default());
        let modified = self.state.send_if_modified(|state| {
            before = state.held();
            let modified = change(state);
            after = state.held();
            modified
        });
        if modified {
            self.pool.add(before, after);
            self.pool.work.notify_one();
        }
    }

    async fn wait_for(&self, ready: impl FnMut(&State) -> bool) {
        // Fails only if the watch's sender is gone, which `self` owns.
        let _ = self.state.subscribe().wait_for(ready).await;
    }
}

#[cfg(test)]
mod tests;
