//! How long the segments of links may be: some paths drop long packets and do not tell.

use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

/// Longest segments, from what the system thinks fit down to what every path takes (RFC 9293: 536 over IPv4).
const LIMITS: [Option<u16>; 3] = [None, Some(1200), Some(536)];

/// Dials, one after another, that connect and get no answer to their first long packet, before the next limit is tried.
const MAX_UNANSWERED: u32 = 2;

/// What ends a connection sooner than this is no silence: a path that drops long packets leaves both ends waiting, and the
/// first to give up is a listener in a crowd, after 2 s.
const MIN_SILENCE: Duration = Duration::from_secs(1);

/// How often one dial tries whether the path takes full segments again.
const FULL_SEGMENTS_INTERVAL: Duration = Duration::from_secs(600);

/// What the dials to one peer have shown.
#[derive(Default)]
pub(crate) struct Segments(Mutex<State>);

#[derive(Default)]
struct State {
    /// Which of the limits is in force.
    step: usize,
    /// Dials in a row that were not answered, and when the last one was counted.
    unanswered: u32,
    counted: Option<Instant>,
    /// When full segments are tried again.
    full_at: Option<Instant>,
}

/// What one dial uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    step: usize,
    started: Instant,
}

impl Size {
    /// No segment is to be longer.
    pub(crate) fn largest(self) -> Option<u16> {
        LIMITS.get(self.step).copied().flatten()
    }
}

impl Segments {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// For the next dial.
    pub(crate) fn size(&self, now: Instant) -> Size {
        let mut state = self.state();
        let tries_full = state.full_at.is_some_and(|at| at <= now);
        if tries_full {
            // Only this dial: the others rely on what has worked.
            state.full_at = Some(now + FULL_SEGMENTS_INTERVAL);
        }
        Size { step: if tries_full { 0 } else { state.step }, started: now }
    }

    /// The peer has answered.
    pub(crate) fn on_answered(&self, size: Size) {
        let mut state = self.state();
        if size.step == 0 {
            *state = State::default();
        } else if size.step == state.step {
            state.unanswered = 0;
        }
    }

    /// A connection was made and the first long packet got no answer. Returns the new limit, if there is one now.
    ///
    /// A path that is lost in the middle of handshakes leaves any number of such connections; but then none is made
    /// afterwards. So a dial counts only if it began after the one before it was counted.
    pub(crate) fn on_unanswered(&self, size: Size, now: Instant) -> Option<u16> {
        let mut state = self.state();
        if now < size.started + MIN_SILENCE {
            return None;
        }
        if size.step != state.step || state.counted.is_some_and(|at| size.started < at) {
            return None;
        }
        state.counted = Some(now);
        state.unanswered += 1;
        if state.unanswered < MAX_UNANSWERED {
            return None;
        }
        state.unanswered = 0;
        state.step = (state.step + 1) % LIMITS.len();
        state.full_at = (state.step > 0).then(|| now + FULL_SEGMENTS_INTERVAL);
        LIMITS[state.step]
    }

    /// Long packets get no answer.
    pub(crate) fn is_suspect(&self) -> bool {
        let state = self.state();
        state.step > 0 || state.unanswered > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_path_that_takes_no_long_packets_gets_shorter_ones_until_they_are_answered() {
        let (segments, mut now) = (Segments::default(), Instant::now());
        let mut limits = Vec::new();
        for _ in 0..6 {
            let size = segments.size(now);
            now += 3 * SECOND;
            segments.on_unanswered(size, now);
            limits.push(size.largest());
        }
        assert_eq!(limits, [None, None, Some(1200), Some(1200), Some(536), Some(536)]);
        assert_eq!(segments.size(now).largest(), None, "it is not that: from the beginning");
    }

    #[test]
    fn what_was_answered_is_used_and_full_segments_are_tried_now_and_then() {
        let (segments, mut now) = (Segments::default(), Instant::now());
        for _ in 0..MAX_UNANSWERED {
            let size = segments.size(now);
            now += 3 * SECOND;
            segments.on_unanswered(size, now);
        }
        segments.on_answered(segments.size(now));
        now += FULL_SEGMENTS_INTERVAL;
        let [trial, other] = [segments.size(now), segments.size(now)];
        assert_eq!((trial.largest(), other.largest()), (None, Some(1200)));
        segments.on_unanswered(trial, now + 3 * SECOND);
        assert_eq!(segments.size(now + 3 * SECOND).largest(), Some(1200));
        now += FULL_SEGMENTS_INTERVAL + SECOND;
        segments.on_answered(segments.size(now));
        assert_eq!(segments.size(now).largest(), None, "the path takes them again");
        assert!(!segments.is_suspect());
    }

    #[test]
    fn a_connection_that_is_ended_at_once_says_nothing_about_their_size() {
        let (segments, mut now) = (Segments::default(), Instant::now());
        for _ in 0..6 {
            let size = segments.size(now);
            now += SECOND / 10;
            assert_eq!(segments.on_unanswered(size, now), None);
        }
        assert!(!segments.is_suspect());
    }

    #[test]
    fn a_path_that_is_lost_amid_many_handshakes_says_nothing_about_their_size() {
        let (segments, now) = (Segments::default(), Instant::now());
        let sizes = [(); 6].map(|()| segments.size(now));
        for size in sizes {
            assert_eq!(segments.on_unanswered(size, now + 3 * SECOND), None);
        }
        let later = segments.size(now + 4 * SECOND);
        assert_eq!(later.largest(), None);
        segments.on_answered(later);
        assert!(!segments.is_suspect());
    }
}
