//! What was seen of a path lately, and how fast TCP can be over one that loses so much.

use std::time::Duration;

use tokio::time::Instant;

use crate::net::PathCounts;

/// What was seen counts half as much after this long.
const HALF_LIFE: Duration = Duration::from_secs(20);

/// Losses that make a verdict on TCP.
const MIN_LOSSES: usize = 3;

/// A round trip that is this much longer than the shortest one is a queue's.
const QUEUE_SHARE: f64 = 0.5;
const QUEUE_FLOOR: Duration = Duration::from_millis(5);

/// What was counted of one connection between two looks at it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) before: PathCounts,
    pub(crate) now: PathCounts,
    pub(crate) within: Duration,
}

impl Seen {
    /// Most of the bytes were sent by this end.
    pub(super) fn has_sent_most(&self) -> bool {
        let [sent, received] = [
            self.now.sent_bytes.saturating_sub(self.before.sent_bytes),
            self.now.received_bytes.saturating_sub(self.before.received_bytes),
        ];
        sent >= received
    }

    /// Something has filled a queue: what was lost meanwhile was lost to a full path.
    fn has_queue(&self) -> bool {
        let least = self.now.least_round_trip;
        self.now.round_trip.max(self.before.round_trip) > least + least.mul_f64(QUEUE_SHARE) + QUEUE_FLOOR
    }
}

/// Packets of one direction, and what went wrong with them, of late.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    packets: f64,
    losses: f64,
    at: Instant,
    /// Packets per second within the last looks at which something was lost.
    paces: [f64; MIN_LOSSES],
}

impl Evidence {
    pub(super) fn new(now: Instant) -> Self {
        Self { packets: 0.0, losses: 0.0, at: now, paces: [0.0; MIN_LOSSES] }
    }

    pub(super) fn note(&mut self, now: Instant, packets: u64, losses: u64, within: Duration) {
        let age = now.saturating_duration_since(self.at).div_duration_f64(HALF_LIFE);
        let kept = 0.5_f64.powf(age);
        self.packets = self.packets * kept + packets as f64;
        self.losses = self.losses * kept + losses as f64;
        self.at = now;
        if losses > 0 {
            self.paces.rotate_left(1);
            self.paces[MIN_LOSSES - 1] = packets as f64 / within.as_secs_f64().max(1e-6);
        }
    }

    /// There were losses enough to say something.
    pub(super) fn is_enough(&self) -> bool {
        self.losses >= MIN_LOSSES as f64
    }

    /// Losses by packet. Of what TCP counts, a look at which something was lost is one: what it takes for one reason to
    /// slow down is one, however many packets that were.
    pub(super) fn loss(&self) -> f64 {
        if self.packets > 0.0 { (self.losses / self.packets).min(1.0) } else { 0.0 }
    }

    /// What the loss may be without having shown yet.
    pub(super) fn most_loss(&self) -> f64 {
        ((self.losses + 1.0) / self.packets.max(1.0)).min(1.0)
    }

    /// Bits per second with packets of `segment` bytes, where there are losses: before its first one every sender is fast,
    /// and behind the next ones those that bear them still are.
    pub(super) fn rate_at_losses(&self, segment: u32) -> f64 {
        self.paces.iter().sum::<f64>() / MIN_LOSSES as f64 * f64::from(segment) * 8.0
    }
}

/// What one look tells of the direction that this end sends over TCP: packets and losses. Behind a sender that bears losses
/// they say nothing.
pub(super) fn sent(seen: &Seen) -> (u64, u64) {
    let lost = seen.now.lost > seen.before.lost && !seen.has_queue() && !seen.now.bears_loss;
    (seen.now.sent.saturating_sub(seen.before.sent), lost.into())
}

/// The same of the direction that it receives, where a loss is seen by what comes before it is repaired.
pub(super) fn received(seen: &Seen) -> (u64, u64) {
    let lost = seen.now.early > seen.before.early && !seen.has_queue();
    (seen.now.received.saturating_sub(seen.before.received), lost.into())
}

/// What one look tells of QUIC, which is not slowed down by losses and counts all of them.
pub(super) fn over_quic(seen: &Seen) -> (u64, u64) {
    (seen.now.sent.saturating_sub(seen.before.sent), seen.now.lost.saturating_sub(seen.before.lost))
}

/// About the bits per second of one TCP connection by Reno or CUBIC, the defaults of most hosts, over a path that loses
/// this share of its packets at random: the larger of their average windows by RFC 9438 §5.1 (Reno's is that of Mathis,
/// Semke, Mahdavi and Ott, 1997), each round trip.
pub(super) fn tcp_limit(round_trip: Duration, loss: f64, segment: u32) -> f64 {
    let round_trip = round_trip.as_secs_f64().max(1e-6);
    if loss <= 0.0 {
        return f64::INFINITY;
    }
    let reno = 1.2 / loss.sqrt();
    let cubic = 1.054 * (round_trip / loss).powf(0.75);
    reno.max(cubic) * f64::from(segment) * 8.0 / round_trip
}
