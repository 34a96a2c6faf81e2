//! How far each sender's messages have been taken, and what became of the last of them.

use std::collections::{HashMap, VecDeque};

use super::{Change, Outcome, Source};
use crate::message::{DeadMessage, MessageId, SenderId};
use crate::outbox::WINDOW;
use crate::wire::{Ack, Dead};

#[derive(Debug, Default)]
pub(super) struct Senders(HashMap<SenderId, Taken>);

/// What has been taken from one sender.
#[derive(Debug, Default)]
struct Taken {
    /// The last message taken, stored or not.
    last: u64,
    /// The last message stored.
    watermark: u64,
    /// Kept until the sender must have been told.
    dead: VecDeque<Dead>,
    replied: VecDeque<u64>,
}

impl Senders {
    pub(super) fn new(watermarks: Vec<(SenderId, u64)>, dead: &[(u64, DeadMessage)], replied: &[MessageId]) -> Self {
        let taken = |watermark| Taken { last: watermark, watermark, ..Taken::default() };
        let mut senders = Self(watermarks.into_iter().map(|(sender, mark)| (sender, taken(mark))).collect());
        for (_, message) in dead {
            if let Some((taken, seq)) = senders.of(&message.arrival.id) {
                taken.dead.push_back(Dead { seq, id: message.arrival.id.clone(), error: message.error.clone() });
            }
        }
        for id in replied {
            if let Some((taken, seq)) = senders.of(id) {
                taken.replied.push_back(seq);
            }
        }
        senders.0.values_mut().for_each(Taken::forget);
        senders
    }

    fn of(&mut self, id: &MessageId) -> Option<(&mut Taken, u64)> {
        let (sender, seq) = id.split()?;
        let sender = SenderId::try_from(sender.to_owned()).ok()?;
        Some((self.0.get_mut(&sender)?, seq))
    }

    pub(super) fn meet(&mut self, sender: &SenderId, acked: u64) -> u64 {
        let taken = self.0.entry(sender.clone()).or_default();
        taken.dead.retain(|row| row.seq > acked);
        taken.replied.retain(|seq| *seq > acked);
        taken.watermark = taken.watermark.max(acked);
        taken.last = taken.last.max(acked);
        taken.last
    }

    /// Moves on to message `seq` if that is the next one.
    pub(super) fn take(&mut self, sender: &SenderId, seq: u64) -> bool {
        let taken = self.0.entry(sender.clone()).or_default();
        let next = seq == taken.last + 1;
        if next {
            taken.last = seq;
        }
        next
    }

    pub(super) fn stored(&mut self, change: &Change) {
        let Source::Message(sender, seq) = &change.source else { return };
        let taken = self.0.entry(sender.clone()).or_default();
        taken.watermark = taken.watermark.max(*seq);
        if let Outcome::Dead(message) = &change.outcome {
            let (id, error) = (message.arrival.id.clone(), message.error.clone());
            taken.dead.push_back(Dead { seq: *seq, id, error });
        }
        if change.reply.is_some() {
            taken.replied.push_back(*seq);
        }
        taken.forget();
    }

    /// What to tell a sender that knows of everything up to `told`.
    pub(super) fn receipt(&self, sender: &SenderId, told: u64) -> Option<Ack> {
        let taken = self.0.get(sender)?;
        let dead = taken.dead.iter().filter(|row| row.seq > told).cloned().collect();
        let replied = taken.replied.iter().filter(|seq| **seq > told).copied().collect();
        Some(Ack { seq: taken.watermark, dead, replied })
    }
}

impl Taken {
    /// A sender is at most its window ahead of what it knows to be acknowledged.
    fn forget(&mut self) {
        let old = |seq: u64| seq + WINDOW as u64 <= self.watermark;
        while self.dead.front().is_some_and(|row| old(row.seq)) {
            self.dead.pop_front();
        }
        while self.replied.front().is_some_and(|seq| old(*seq)) {
            self.replied.pop_front();
        }
    }
}
