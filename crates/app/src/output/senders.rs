//! How far each sender's messages have been taken, and what became of the last of them.

use std::collections::{HashMap, VecDeque};

use super::{Change, Outcome, Source};
use crate::message::{DeadMessage, MessageId, SenderId};
use crate::outbox::WINDOW;
use crate::wire::{Ack, Dead, WireError};

/// Bytes of errors in one ack; as JSON they are six times as long at most.
const MAX_ACK_ERRORS: usize = 128 * 1024;

#[derive(Debug, Default)]
pub(super) struct Senders(HashMap<SenderId, Taken>);

/// What has been taken from one sender.
#[derive(Debug, Default)]
struct Taken {
    /// A message of its has been taken, ever: from then on its numbers have no gap.
    begun: bool,
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
        let taken = |watermark| Taken { begun: true, last: watermark, watermark, ..Taken::default() };
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

    pub(super) fn meet(&mut self, sender: &SenderId, acked: u64) -> Result<u64, WireError> {
        let taken = self.0.entry(sender.clone()).or_default();
        if !taken.begun {
            (taken.last, taken.watermark) = (acked, acked);
        }
        if acked > taken.last {
            return Err(WireError::Ahead { acked, last: taken.last });
        }
        taken.dead.retain(|row| row.seq > acked);
        taken.replied.retain(|seq| *seq > acked);
        Ok(taken.last)
    }

    /// Moves on to message `seq` if that is the next one.
    pub(super) fn take(&mut self, sender: &SenderId, seq: u64) -> bool {
        let taken = self.0.entry(sender.clone()).or_default();
        let next = seq == taken.last + 1;
        if next {
            (taken.begun, taken.last) = (true, seq);
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
        let mut news = taken.dead.iter().filter(|row| row.seq > told);
        let (mut seq, mut bytes, mut dead) = (taken.watermark, 0, Vec::new());
        for row in news.by_ref() {
            bytes += row.error.len();
            // A frame too large for the far side would come again for ever. What is left comes with the next.
            if bytes > MAX_ACK_ERRORS && !dead.is_empty() {
                seq = row.seq - 1;
                break;
            }
            dead.push(row.clone());
        }
        let replied = taken.replied.iter().filter(|reply| **reply > told && **reply <= seq).copied().collect();
        Some(Ack { seq, dead, replied })
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
