//! How far each sender's messages have been processed, and what became of the last of them.

use std::collections::{HashMap, VecDeque};

use tokio::sync::watch;

use super::{Change, Outcome, Source};
use crate::limits::WINDOW_MESSAGES;
use crate::message::{DeadMessage, MessageId, SenderId};
use crate::peer::PeerName;
use crate::wire::{Ack, Dead, WireError};

/// Bytes of errors in one ack; as JSON they are six times as long at most.
const MAX_ACK_ERRORS: usize = 128 * 1024;

#[derive(Debug, Default)]
pub(super) struct Senders(HashMap<SenderId, SenderProgress>);

/// How far one sender's messages have been processed.
#[derive(Debug, Default)]
struct SenderProgress {
    /// The peer whose tunnel it comes through, once one has been told. No other peer may use its id.
    peer: Option<PeerName>,
    /// At least one of its messages has been processed; from then on its numbers have no gap.
    begun: bool,
    /// The last message processed, stored or not.
    last: u64,
    /// The last message stored.
    watermark: u64,
    /// Changes whenever something of this sender is stored.
    stored: watch::Sender<()>,
    /// Kept until the sender must know of it.
    dead: VecDeque<Dead>,
    replied: VecDeque<u64>,
}

impl Senders {
    pub(super) fn new(
        watermarks: Vec<(SenderId, u64)>,
        peers: Vec<(SenderId, PeerName)>,
        dead: &[(u64, DeadMessage)],
        replied: &[MessageId],
    ) -> Self {
        let progress =
            |watermark| SenderProgress { begun: true, last: watermark, watermark, ..SenderProgress::default() };
        let mut senders = Self(watermarks.into_iter().map(|(sender, mark)| (sender, progress(mark))).collect());
        for (sender, peer) in peers {
            senders.0.entry(sender).or_default().peer = Some(peer);
        }
        for (_, message) in dead {
            if let Some((progress, seq)) = senders.of(&message.arrival.id) {
                progress.dead.push_back(Dead { seq, id: message.arrival.id.clone(), error: message.error.clone() });
            }
        }
        for id in replied {
            if let Some((progress, seq)) = senders.of(id) {
                progress.replied.push_back(seq);
            }
        }
        senders.0.values_mut().for_each(SenderProgress::forget);
        senders
    }

    fn of(&mut self, id: &MessageId) -> Option<(&mut SenderProgress, u64)> {
        let (sender, seq) = id.split()?;
        let sender = SenderId::try_from(sender.to_owned()).ok()?;
        Some((self.0.get_mut(&sender)?, seq))
    }

    pub(super) fn register(
        &mut self,
        sender: &SenderId,
        acked: u64,
        peer: Option<&PeerName>,
    ) -> Result<u64, WireError> {
        // Nothing has been taken from the others of this peer that have not begun, so nothing is known of them. Those of other
        // peers may be about to begin.
        self.0.retain(|known, progress| progress.begun || known == sender || progress.peer.as_ref() != peer);
        let progress = self.0.entry(sender.clone()).or_default();
        if progress.begun && progress.peer.is_some() && progress.peer.as_ref() != peer {
            return Err(peer.cloned().map_or(WireError::UnknownPeer, WireError::ForeignSender));
        }
        progress.peer = peer.cloned();
        if !progress.begun {
            (progress.last, progress.watermark) = (acked, acked);
        }
        if acked > progress.last {
            return Err(WireError::Ahead { acked, last: progress.last });
        }
        progress.dead.retain(|row| row.seq > acked);
        progress.replied.retain(|seq| *seq > acked);
        Ok(progress.last)
    }

    #[cfg(test)]
    pub(super) fn known(&self) -> usize {
        self.0.len()
    }

    pub(super) fn peer_of(&self, sender: &SenderId) -> Option<&PeerName> {
        self.0.get(sender)?.peer.as_ref()
    }

    /// Advances to message `seq` if that is the next one.
    pub(super) fn advance(&mut self, sender: &SenderId, seq: u64) -> bool {
        let progress = self.0.entry(sender.clone()).or_default();
        let next = seq == progress.last + 1;
        if next {
            (progress.begun, progress.last) = (true, seq);
        }
        next
    }

    pub(super) fn mark_stored(&mut self, change: &Change) {
        let Source::Message(sender, seq) = &change.source else { return };
        let progress = self.0.entry(sender.clone()).or_default();
        progress.watermark = progress.watermark.max(*seq);
        if let Outcome::Dead(message) = &change.outcome {
            let (id, error) = (message.arrival.id.clone(), message.error.clone());
            progress.dead.push_back(Dead { seq: *seq, id, error });
        }
        if change.reply.is_some() {
            progress.replied.push_back(*seq);
        }
        progress.forget();
        progress.stored.send_replace(());
    }

    /// Changes whenever something of this sender is stored.
    pub(super) fn subscribe(&self, sender: &SenderId) -> Option<watch::Receiver<()>> {
        self.0.get(sender).map(|progress| progress.stored.subscribe())
    }

    /// The next ack for a sender that has the acks up to `reported`.
    pub(super) fn ack_after(&self, sender: &SenderId, reported: u64) -> Option<Ack> {
        let progress = self.0.get(sender)?;
        let mut news = progress.dead.iter().filter(|row| row.seq > reported);
        let (mut seq, mut bytes, mut dead) = (progress.watermark, 0, Vec::new());
        for row in news.by_ref() {
            bytes += row.error.len();
            // A frame too large for the far side would be sent again for ever. The rest goes into the next ack.
            if bytes > MAX_ACK_ERRORS && !dead.is_empty() {
                seq = row.seq - 1;
                break;
            }
            dead.push(row.clone());
        }
        let replied = progress.replied.iter().filter(|reply| **reply > reported && **reply <= seq).copied().collect();
        Some(Ack { seq, dead, replied })
    }
}

impl SenderProgress {
    /// A sender is at most its window ahead of what it knows to be acknowledged.
    fn forget(&mut self) {
        let old = |seq: u64| seq + WINDOW_MESSAGES as u64 <= self.watermark;
        while self.dead.front().is_some_and(|row| old(row.seq)) {
            self.dead.pop_front();
        }
        while self.replied.front().is_some_and(|seq| old(*seq)) {
            self.replied.pop_front();
        }
    }
}
