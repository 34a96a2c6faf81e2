//! A rate limit for log lines whose rate clients or peers control.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lines of one kind that are logged per interval.
const MAX_LINES: u32 = 20;
const LIMIT_INTERVAL: Duration = Duration::from_secs(10);

/// Limits the lines of one kind: the first ones of each interval are logged, and the next one after that says how many were
/// suppressed. Cheap enough for one call per message.
#[derive(Debug, Default)]
pub struct LineLimiter(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    begun: Option<Instant>,
    logged: u32,
    suppressed: u64,
}

impl LineLimiter {
    /// Calls `log`, unless the limit is reached, with the number of lines suppressed since the last call, if there are any.
    pub fn log(&self, log: impl FnOnce(Option<u64>)) {
        if let Some(suppressed) = self.admit(Instant::now()) {
            log((suppressed > 0).then_some(suppressed));
        }
    }

    /// Whether a line may be logged now; if so, how many were suppressed since the last one.
    fn admit(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        if state.begun.is_none_or(|begun| now.saturating_duration_since(begun) >= LIMIT_INTERVAL) {
            (state.begun, state.logged) = (Some(now), 0);
        }
        if state.logged == MAX_LINES {
            state.suppressed += 1;
            return None;
        }
        state.logged += 1;
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_logged_in_part_and_the_next_line_tells_how_much_was_suppressed() {
        let (limiter, start) = (LineLimiter::default(), Instant::now());
        let burst = |at: Duration| (0..1000).filter_map(|_| limiter.admit(start + at)).collect::<Vec<_>>();
        assert_eq!(burst(Duration::ZERO), [0; MAX_LINES as usize]);
        assert_eq!(burst(LIMIT_INTERVAL / 2), []);
        let next = burst(LIMIT_INTERVAL);
        assert_eq!((next.len(), next[0], next[1]), (MAX_LINES as usize, 1980, 0));
    }
}
