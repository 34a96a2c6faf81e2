//! When a session's keys are replaced.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Cuts rotations into slots, so that very many sessions stretch their intervals instead of spending the CPU on
/// handshakes.
pub(crate) struct Budget {
    next: Mutex<Option<Instant>>,
    slot: Duration,
}

impl Budget {
    /// At most `per_second` rotations begin in a second.
    pub(crate) fn new(per_second: u32) -> Self {
        Self { next: Mutex::new(None), slot: Duration::from_secs(1) / per_second.max(1) }
    }

    /// How long a rotation that is due now would wait.
    pub(crate) fn delay(&self) -> Duration {
        let next = *self.next.lock();
        next.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()))
    }

    /// Waits for this rotation's slot.
    pub(crate) async fn wait(&self) {
        let at = {
            let mut next = self.next.lock();
            let at = next.unwrap_or_else(Instant::now).max(Instant::now());
            *next = Some(at + self.slot);
            at
        };
        tokio::time::sleep_until(at).await;
    }
}

/// `interval`, shortened by up to a fifth at random: sessions that began together do not rotate together, and no key
/// lives longer than was asked for.
pub(crate) fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(jitter())
}

/// Four fifths to the whole.
pub(crate) fn jitter() -> f64 {
    let random = getrandom::u32().unwrap_or_default();
    1.0 - 0.2 * f64::from(random) / f64::from(u32::MAX)
}
