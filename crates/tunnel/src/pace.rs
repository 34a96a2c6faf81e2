//! How long a path is, and how much of a buffer it takes to fill it.
//!
//! A buffer larger than bandwidth times delay makes nothing faster: the bytes wait in it, and fall out of the caches.
//! `docs/decisions/0031`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ferry_session::Time;
use tokio::time::Instant;

/// A round trip counts for this long at least, and for twice as long at most.
const KEPT: Duration = Duration::from_secs(120);

/// Shorter than this, a burst passes for a pace.
const LEAST: Duration = Duration::from_millis(10);

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
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = match *seen {
            Some(kept) if now.duration_since(kept.since) < KEPT => Seen { least: kept.least.min(round_trip), ..kept },
            kept => {
                let before = kept.map_or(round_trip, |kept| kept.least);
                Seen { since: now, least: round_trip, before }
            }
        };
        *seen = Some(next);
    }

    /// This one was measured after the path had failed, and is perhaps another's: what was before counts no more.
    pub(crate) fn restart(&self, round_trip: Option<Duration>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.note(round_trip);
    }

    /// The shortest that counts; zero if none was measured.
    pub(crate) fn least(&self) -> Duration {
        let seen = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.map_or(Duration::ZERO, |seen| seen.least.min(seen.before))
    }
}

/// How fast a direction is, from one look to the next.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    since: Time,
    offset: u64,
}

impl Pace {
    /// Whether the path holds most of `capacity` bytes at the pace of late, as it does when they wait for a round trip.
    pub(crate) fn fills(&mut self, round_trip: Duration, capacity: u64, offset: u64, now: Time) -> bool {
        let elapsed = now.since(self.since);
        if elapsed < round_trip.max(LEAST) {
            return false;
        }
        let carried = offset.saturating_sub(self.offset);
        *self = Self { since: now, offset };
        let on_the_way = u128::from(carried) * round_trip.as_nanos() / elapsed.as_nanos();
        on_the_way * 3 >= u128::from(capacity) * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    /// Bytes come at `rate` a second until the buffer is full, and again a round trip later: says whether the pace calls
    /// for more.
    fn calls_for_more(rate: u64, round_trip: Duration, capacity: u64) -> bool {
        let mut pace = Pace::default();
        let (mut now, mut offset) = (Time::ZERO, 0);
        let mut called = false;
        for _ in 0..100 {
            let turn = Duration::from_secs_f64(capacity as f64 / rate as f64).max(round_trip);
            (now, offset) = (now + turn, offset + capacity);
            called |= pace.fills(round_trip, capacity, offset, now);
        }
        called
    }

    #[test]
    fn a_buffer_grows_until_the_path_is_full() {
        let (gigabit, round_trip) = (125_000_000, Duration::from_millis(100));
        assert!([1, 2, 4, 8].iter().all(|mib| calls_for_more(gigabit, round_trip, mib * MIB)));
        assert!(!calls_for_more(gigabit, round_trip, 32 * MIB), "the path holds 12 MiB");
    }

    #[test]
    fn a_short_path_needs_no_large_buffer_however_fast_it_is() {
        assert!(!calls_for_more(2_000_000_000, Duration::from_micros(50), MIB / 2));
        assert!(!calls_for_more(2_000_000_000, Duration::ZERO, MIB / 2), "nor one that nobody has measured");
    }

    #[test]
    fn a_burst_after_a_pause_is_no_pace() {
        let (mut pace, round_trip) = (Pace::default(), Duration::from_millis(1));
        let paused = Time::ZERO + Duration::from_secs(60);
        assert!(!pace.fills(round_trip, MIB, MIB, paused));
        assert!(!pace.fills(round_trip, MIB, 2 * MIB, paused + LEAST / 2), "too soon to tell");
        assert!(!pace.fills(round_trip, MIB, 3 * MIB, paused + LEAST));
    }

    #[tokio::test(start_paused = true)]
    async fn the_shortest_round_trip_of_late_counts_and_an_old_one_is_forgotten() {
        let path = RoundTrip::default();
        let note = |millis| path.note(Some(Duration::from_millis(millis)));
        assert_eq!(path.least(), Duration::ZERO);
        for millis in [20, 10, 30] {
            note(millis);
        }
        assert_eq!(path.least(), Duration::from_millis(10));
        tokio::time::advance(KEPT).await;
        note(50);
        assert_eq!(path.least(), Duration::from_millis(10), "of the last few minutes still");
        tokio::time::advance(KEPT).await;
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
