//! What a session delivers within a round trip, and so how large a buffer it makes use of. `docs/decisions/0112`.

use std::time::Duration;

use ferry_session::Time;

use crate::memory::Capacities;

/// A buffer holds what this many round trips deliver. One that is the limit is delivered once a round trip, and so may
/// become twice as large; one that is not has as much in front of the path as is on it.
const ROUND_TRIPS: u64 = 2;

/// A path whose round trip nobody knows is looked at for so long, and then perhaps somebody does.
const LONGEST: Duration = Duration::from_secs(10);

/// Which of a session's buffers are too small for what there is to move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Short {
    pub(crate) replay: bool,
    pub(crate) receive: bool,
}

/// How far a session is: everything below these offsets was delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delivered {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// One round trip of a session, from its beginning on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trip {
    begun: Time,
    looked_at_for: Duration,
    from: Delivered,
    short: Short,
    /// It says nothing of the path.
    void: bool,
    /// Memory has become scarce: what is beyond the unmeasured bound is given back as it is delivered.
    pub(crate) gives_back: bool,
}

impl Trip {
    pub(crate) fn begin(now: Time, round_trip: Duration, from: Delivered) -> Self {
        Self {
            begun: now,
            looked_at_for: round_trip.min(LONGEST),
            from,
            short: Short::default(),
            void: false,
            gives_back: false,
        }
    }

    pub(crate) fn note(&mut self, short: Short) {
        self.short.replay |= short.replay;
        self.short.receive |= short.receive;
    }

    /// The session has another link: what was acknowledged at once, when it resumed, says nothing of the path.
    pub(crate) fn forget(&mut self) {
        self.void = true;
    }

    pub(crate) fn is_over(&self, now: Time) -> bool {
        now.since(self.begun) >= self.looked_at_for
    }

    /// A buffer was short in it.
    pub(crate) fn was_short(&self) -> bool {
        self.short.replay || self.short.receive
    }

    /// What each buffer that was short makes use of, at the pace of this trip, over a path with this round trip; nothing for
    /// one that was not. What queues add is not the path's: they would make a slow one look like a long one.
    pub(crate) fn uses(&self, now: Time, round_trip: Duration, to: Delivered) -> Capacities {
        let took = now.since(self.begun).as_nanos().max(1);
        let uses = |short: bool, from: u64, to: u64| {
            let short = short && !self.void;
            let bytes = u128::from(ROUND_TRIPS * to.saturating_sub(from)) * round_trip.as_nanos() / took;
            if short { u64::try_from(bytes).unwrap_or(u64::MAX) } else { 0 }
        };
        Capacities {
            replay: uses(self.short.replay, self.from.sent, to.sent),
            receive: uses(self.short.receive, self.from.received, to.received),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(100);

    fn at(millis: u64) -> Time {
        Time::from_origin(Duration::from_millis(millis))
    }

    #[test]
    fn two_round_trips_of_what_was_delivered_are_of_use_however_long_it_was_looked_at() {
        for millis in [100, 250, 10_000] {
            let mut trip = Trip::begin(at(0), ROUND_TRIP, Delivered { sent: 1 << 40, received: 7 });
            trip.note(Short { replay: true, receive: false });
            assert!(trip.is_over(at(millis)));
            // 1 MB a millisecond each way.
            let to = Delivered { sent: (1 << 40) + millis * 1_000_000, received: 7 + millis * 1_000_000 };
            assert_eq!(trip.uses(at(millis), ROUND_TRIP, to), Capacities { replay: 200_000_000, receive: 0 });
        }
    }

    #[test]
    fn before_a_round_trip_is_over_nothing_is_judged() {
        assert!(!Trip::begin(at(0), ROUND_TRIP, Delivered::default()).is_over(at(99)));
        let unknown = Trip::begin(at(0), Duration::MAX, Delivered::default());
        assert!(!unknown.is_over(at(9_999)) && unknown.is_over(at(10_000)));
    }
}
