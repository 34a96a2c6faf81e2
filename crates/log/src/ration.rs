//! Lines whose rate others decide: so many in a while, the others as a number.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines of a kind that are logged in one interval.
const MAX_LINES: u32 = 20;
const INTERVAL: Duration = Duration::from_secs(10);

/// Says which lines of one kind are logged.
#[derive(Debug, Default)]
pub struct Ration(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    begun: Option<Instant>,
    logged: u32,
    left_out: u64,
}

impl Ration {
    /// Whether a line may be logged now, and if so, how many were left out before it.
    pub fn admit(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.begun.is_none_or(|begun| now.saturating_duration_since(begun) >= INTERVAL) {
            (state.begun, state.logged) = (Some(now), 0);
        }
        if state.logged == MAX_LINES {
            state.left_out += 1;
            return None;
        }
        state.logged += 1;
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_logged_in_part_and_the_next_line_tells_how_much_was_left_out() {
        let (ration, start) = (Ration::default(), Instant::now());
        let burst = |at: Duration| (0..1000).filter_map(|_| ration.admit(start + at)).collect::<Vec<_>>();
        assert_eq!(burst(Duration::ZERO), [0; MAX_LINES as usize]);
        assert_eq!(burst(INTERVAL / 2), []);
        let next = burst(INTERVAL);
        assert_eq!((next.len(), next[0], next[1]), (MAX_LINES as usize, 1980, 0));
    }
}
