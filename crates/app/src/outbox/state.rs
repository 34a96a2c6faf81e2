//! The state of an outbox: stored messages, those that wait to be, and who waits for them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::entries::{Entries, Entry};
use super::keys::Keys;
use super::pool::Held;
use super::{AckedMessage, Depth, IdempotencyKey, NewMessage, Verdict};
use crate::message::MessageId;
use crate::store::{Fate, StoreError};
use crate::wire::{Ack, WireError};

#[derive(Debug, Default)]
pub(super) struct State {
    /// Nothing enters it any more.
    pub(super) closed: bool,
    pub(super) entries: Entries,
    pub(super) waiting: VecDeque<WaitingMessage>,
    pub(super) waiting_bytes: usize,
    pub(super) keys: Keys,
    /// Requests that wait for the reply to a message that is acknowledged.
    pub(super) replies: HashMap<u64, Vec<oneshot::Sender<Verdict>>>,
}

/// A message that is not stored yet.
#[derive(Debug)]
pub(super) struct WaitingMessage {
    pub(super) message: Arc<NewMessage>,
    pub(super) key: Option<IdempotencyKey>,
    pub(super) accepted: Instant,
    pub(super) stored: oneshot::Sender<Result<MessageId, StoreError>>,
    pub(super) verdict: oneshot::Sender<Verdict>,
}

impl State {
    pub(super) fn depth(&self) -> Depth {
        let stored = self.entries.depth();
        Depth { messages: stored.messages + self.waiting.len(), bytes: stored.bytes + self.waiting_bytes }
    }

    pub(super) fn held(&self) -> Held {
        let Depth { messages, bytes } = self.depth();
        Held { messages, bytes, keys: self.keys.len() }
    }

    pub(super) fn reject_waiting(&mut self, error: &StoreError) {
        self.waiting_bytes = 0;
        for waiting in self.waiting.drain(..) {
            let _ = waiting.stored.send(Err(error.clone()));
        }
    }

    pub(super) fn ack(&mut self, ack: Ack) -> Result<Vec<AckedMessage>, WireError> {
        self.replies.retain(|_, waiters| waiters.iter().any(|waiter| !waiter.is_closed()));
        let Ack { mut dead, replied, .. } = ack;
        let mut acked = Vec::new();
        for Entry { seq, id, accepted, waiters, reply, span, .. } in self.entries.ack(ack.seq)? {
            let error = dead.iter().position(|row| row.seq == seq).map(|row| dead.swap_remove(row).error);
            match &error {
                Some(_) => self.keys.mark(seq, Fate::Dead),
                None if reply.is_some() || replied.contains(&seq) => self.keys.mark(seq, Fate::Replied),
                None => {}
            }
            let verdict = match &error {
                Some(error) => Verdict::Dead(error.clone()),
                None if reply.is_none() && replied.contains(&seq) => {
                    self.replies.entry(seq).or_default().extend(waiters);
                    acked.push(AckedMessage { id, dead: None, age: accepted.elapsed(), span });
                    continue;
                }
                None => Verdict::Delivered(reply),
            };
            for waiter in waiters {
                let _ = waiter.send(verdict.clone());
            }
            acked.push(AckedMessage { id, dead: error, age: accepted.elapsed(), span });
        }
        Ok(acked)
    }
}
