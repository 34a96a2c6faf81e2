//! Whether a session moves so much that others should not wait behind it.

use std::time::Duration;

use ferry_session::Time;

use crate::workers::Load;

/// A session is heavy that moves this much within [`HEAVY_WITHIN`], and light again once it has moved less for
/// [`LIGHT_AFTER`].
const HEAVY_BYTES: u64 = 2 * 1024 * 1024;
const HEAVY_WITHIN: Duration = Duration::from_millis(100);
const LIGHT_AFTER: Duration = Duration::from_secs(1);

/// A session's load, by what it has moved of late.
pub(super) struct Weight {
    load: Load,
    /// Since when bytes are counted, and how many had been moved by then.
    since: Time,
    before: u64,
}

impl Weight {
    /// A session, also one that had moved `bytes` in a process before this one, begins as a light one.
    pub(super) fn new(now: Time, bytes: u64) -> Self {
        Self { load: Load::Light, since: now, before: bytes }
    }

    /// The session has moved `bytes` so far. Says what its load is now, if that has changed.
    pub(super) fn weigh(&mut self, now: Time, bytes: u64) -> Option<Load> {
        let (is_much, lasting) = (bytes.saturating_sub(self.before) >= HEAVY_BYTES, now.since(self.since));
        let (load, is_over) = match self.load {
            Load::Light if is_much && lasting <= HEAVY_WITHIN => (Load::Heavy, true),
            Load::Heavy if !is_much && lasting >= LIGHT_AFTER => (Load::Light, true),
            Load::Light => (Load::Light, lasting > HEAVY_WITHIN),
            Load::Heavy => (Load::Heavy, is_much),
        };
        if is_over {
            (self.since, self.before) = (now, bytes);
        }
        let changed = (load != self.load).then_some(load);
        self.load = load;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the load became, and when, of a session that moves `bytes` each so many milliseconds.
    fn changes(
        weight: &mut Weight,
        from: u64,
        until: u64,
        every: usize,
        bytes: u64,
        moved: &mut u64,
    ) -> Vec<(u64, Load)> {
        let mut changes = Vec::new();
        for at in (from..until).step_by(every) {
            *moved += bytes;
            let now = Time::from_origin(Duration::from_millis(at));
            changes.extend(weight.weigh(now, *moved).map(|load| (at, load)));
        }
        changes
    }

    #[test]
    fn a_stream_is_heavy_soon_and_light_again_a_while_after() {
        let (mut weight, mut moved) = (Weight::new(Time::ZERO, 0), 0);
        let stream = changes(&mut weight, 0, 10_000, 1, 128 * 1024, &mut moved);
        assert_eq!(stream, [(15, Load::Heavy)], "once");
        let messages = changes(&mut weight, 10_000, 20_000, 10, 64, &mut moved);
        assert!(matches!(messages[..], [(10_000..=11_010, Load::Light)]), "{messages:?}");
    }

    #[test]
    fn messages_and_a_slow_stream_are_light() {
        for (every, bytes) in [(1, 64), (10, 128 * 1024), (1000, HEAVY_BYTES - 1)] {
            let (mut weight, mut moved) = (Weight::new(Time::ZERO, 0), 0);
            assert_eq!(changes(&mut weight, 0, 60_000, every, bytes, &mut moved), []);
        }
    }

    #[test]
    fn a_heavy_session_that_pauses_for_a_moment_stays_where_it_is() {
        let (mut weight, mut moved) = (Weight::new(Time::ZERO, 0), 0);
        changes(&mut weight, 0, 100, 1, 128 * 1024, &mut moved);
        for second in 1..20 {
            let at = second * 900;
            assert_eq!(changes(&mut weight, at, at + 20, 1, 128 * 1024, &mut moved), []);
        }
    }
}
