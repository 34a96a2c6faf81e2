//! How long a path is, and how much of a buffer it takes to fill it.
//!
//! A buffer larger than bandwidth times delay makes nothing faster: the bytes wait in it, and fall out of the caches.
//! `docs/decisions/0031`, `0041`.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A round trip counts for this long at least, and for twice as long at most.
const RTT_MAX_AGE: Duration = Duration::from_secs(120);

/// What a handshake takes beside the path: both ends compute.
const HANDSHAKE_CPU_ALLOWANCE: Duration = Duration::from_millis(1);

/// Covers what the ends themselves make the bytes wait.
const BASE_BUFFER: u64 = 640 * 1024;

/// Bytes per second of the fastest stream that there may be.
const MAX_STREAM_BYTES_PER_SECOND: u64 = 2_000_000_000;

/// The shortest round trip to a peer that was seen lately: what queues and busy processors add is not the path's.
#[derive(Debug, Default)]
pub(crate) struct RoundTrip(Mutex<Option<Seen>>);

#[derive(Clone, Copy, Debug)]
struct Seen {
    since: Instant,
    least: Duration,
    before: Duration,
}

impl RoundTrip {
    /// One was measured.
    pub(crate) fn note(&self, round_trip: Option<Duration>) {
        let Some(round_trip) = round_trip else { return };
        let now = Instant::now();
        let mut seen = self.0.lock();
        let next = match *seen {
            Some(kept) if now.duration_since(kept.since) < RTT_MAX_AGE => {
                Seen { least: kept.least.min(round_trip), ..kept }
            }
            kept => {
                let before = kept.map_or(round_trip, |kept| kept.least);
                Seen { since: now, least: round_trip, before }
            }
        };
        *seen = Some(next);
    }

    /// This one was measured after the path had failed, and is perhaps another's: what was before counts no more.
    pub(crate) fn restart(&self, round_trip: Option<Duration>) {
        *self.0.lock() = None;
        self.note(round_trip);
    }

    /// The shortest that counts; the longest there is if none was measured.
    pub(crate) fn least(&self) -> Duration {
        let seen = *self.0.lock();
        seen.map_or(Duration::MAX, |seen| seen.least.min(seen.before))
    }
}

/// The most that a buffer is good for over a path with this round trip: what the ends themselves make the bytes wait,
/// and what the fastest stream has on its way.
pub(crate) fn max_useful_buffer(round_trip: Duration) -> u64 {
    let path = round_trip.saturating_sub(HANDSHAKE_CPU_ALLOWANCE);
    u64::try_from(u128::from(MAX_STREAM_BYTES_PER_SECOND) * path.as_nanos() / 1_000_000_000)
        .unwrap_or(u64::MAX)
        .saturating_add(BASE_BUFFER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_takes_a_large_buffer() {
        assert!(max_useful_buffer(Duration::from_millis(100)) >= 16 * 1024 * 1024);
        assert!(max_useful_buffer(Duration::from_millis(3)) >= 4_000_000);
    }

    #[test]
    fn a_short_path_needs_no_large_buffer_however_fast_it_is() {
        assert_eq!(max_useful_buffer(Duration::from_micros(600)), BASE_BUFFER);
    }

    #[tokio::test(start_paused = true)]
    async fn the_shortest_round_trip_of_late_counts_and_an_old_one_is_forgotten() {
        let path = RoundTrip::default();
        let note = |millis| path.note(Some(Duration::from_millis(millis)));
        assert_eq!(path.least(), Duration::MAX);
        for millis in [20, 10, 30] {
            note(millis);
        }
        assert_eq!(path.least(), Duration::from_millis(10));
        tokio::time::advance(RTT_MAX_AGE).await;
        note(50);
        assert_eq!(path.least(), Duration::from_millis(10), "of the last few minutes still");
        tokio::time::advance(RTT_MAX_AGE).await;
        note(60);
        assert_eq!(path.least(), Duration::from_millis(50));
    }

    #[test]
    fn another_path_is_measured_anew() {
        let path = RoundTrip::default();
        path.note(Some(Duration::from_millis(1)));
        path.restart(Some(Duration::from_millis(80)));
        assert_eq!(path.least(), Duration::from_millis(80));
    }
}
