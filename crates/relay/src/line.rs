//! A constant-delay line: bytes come out in the order in which they went in, each a fixed time later.
//!
//! Pure: the clock is an argument. The delay is too, so that a change of it holds for bytes already on their way.

use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Bytes that wait for a receiver that takes none, beyond which the sender feels it.
const BACKLOG: usize = 256 * 1024;

/// Bytes on their way at most, whatever the delay: 100 ms at 5 Gbit/s.
const FLIGHT: usize = 64 * 1024 * 1024;

/// How the sender ended its direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By a FIN, which stays behind the last byte.
    Finish,
    /// By an RST, which waits for no receiver.
    Reset,
}

/// One direction of one connection.
#[derive(Debug, Default)]
pub(crate) struct Line {
    chunks: VecDeque<(Instant, Vec<u8>)>,
    /// Bytes of the first chunk that are already out.
    taken: usize,
    held: usize,
    end: Option<(Instant, End)>,
}

impl Line {
    /// Puts bytes in that were sent at `now`.
    pub(crate) fn push(&mut self, now: Instant, bytes: Vec<u8>) {
        self.held += bytes.len();
        self.chunks.push_back((now, bytes));
    }

    /// The sender ended at `now`; an RST after a FIN replaces it.
    pub(crate) fn end(&mut self, now: Instant, end: End) {
        self.end = Some((now, end));
    }

    /// How the sender ended, whether or not that has come out.
    pub(crate) fn ended(&self) -> Option<End> {
        self.end.map(|(_, end)| end)
    }

    /// Whether the sender may go on. Call it once what is due has been offered to the receiver: bytes still due are
    /// then bytes that the receiver did not want.
    pub(crate) fn has_room(&self, now: Instant, delay: Duration) -> bool {
        let blocked = self.chunks.front().is_some_and(|(at, _)| *at + delay <= now);
        self.held < if blocked { BACKLOG } else { FLIGHT }
    }

    /// The next bytes that have come out; [`Line::take`] removes them.
    pub(crate) fn due(&self, now: Instant, delay: Duration) -> Option<&[u8]> {
        let (at, bytes) = self.chunks.front()?;
        (*at + delay <= now).then(|| &bytes[self.taken..])
    }

    /// Removes `count` bytes of what [`Line::due`] returned.
    pub(crate) fn take(&mut self, count: usize) {
        self.taken += count;
        self.held -= count;
        if self.chunks.front().is_some_and(|(_, bytes)| bytes.len() <= self.taken) {
            self.chunks.pop_front();
            self.taken = 0;
        }
    }

    /// The end, once it has come out: a FIN after the last byte, an RST also before bytes that nobody took.
    pub(crate) fn end_due(&self, now: Instant, delay: Duration) -> Option<End> {
        let (at, end) = self.end?;
        (at + delay <= now && (end == End::Reset || self.chunks.is_empty())).then_some(end)
    }

    /// The next moment after `now` at which something comes out.
    pub(crate) fn next(&self, now: Instant, delay: Duration) -> Option<Instant> {
        let bytes = self.chunks.front().map(|(at, _)| *at + delay);
        let end = self.end.map(|(at, _)| at + delay);
        [bytes, end].into_iter().flatten().filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(40);

    #[test]
    fn bytes_come_out_in_order_each_after_its_delay() {
        let start = Instant::now();
        let later = start + Duration::from_millis(10);
        let mut line = Line::default();
        line.push(start, vec![1, 2, 3]);
        line.push(later, vec![4]);
        line.end(later, End::Finish);
        assert_eq!(line.due(later, DELAY), None);
        assert_eq!(line.next(later, DELAY), Some(start + DELAY));
        assert_eq!(line.due(start + DELAY, DELAY), Some(&[1, 2, 3][..]));
        line.take(2);
        assert_eq!(line.due(start + DELAY, DELAY), Some(&[3][..]));
        line.take(1);
        assert_eq!(line.due(start + DELAY, DELAY), None);
        assert_eq!(line.due(later + DELAY, DELAY), Some(&[4][..]));
        assert_eq!(line.end_due(later + DELAY, DELAY), None, "a FIN stays behind the last byte");
        line.take(1);
        assert_eq!(line.end_due(later + DELAY, DELAY), Some(End::Finish));
    }

    #[test]
    fn a_shorter_delay_holds_for_bytes_already_on_their_way() {
        let start = Instant::now();
        let mut line = Line::default();
        line.push(start, vec![1]);
        assert_eq!(line.due(start, DELAY), None);
        assert_eq!(line.due(start, Duration::ZERO), Some(&[1][..]));
    }

    #[test]
    fn a_reset_overtakes_bytes_that_nobody_took() {
        let start = Instant::now();
        let mut line = Line::default();
        line.push(start, vec![1]);
        line.end(start, End::Reset);
        assert_eq!(line.end_due(start, DELAY), None);
        assert_eq!(line.end_due(start + DELAY, DELAY), Some(End::Reset));
    }

    #[test]
    fn bytes_on_their_way_do_not_stop_the_sender_and_bytes_that_nobody_takes_do() {
        let start = Instant::now();
        let mut line = Line::default();
        for _ in 0..512 {
            assert!(line.has_room(start, DELAY));
            line.push(start, vec![0; 64 * 1024]);
        }
        assert!(!line.has_room(start + DELAY, DELAY));
        while line.due(start + DELAY, DELAY).is_some() {
            line.take(64 * 1024);
        }
        assert!(line.has_room(start + DELAY, DELAY));
    }
}
