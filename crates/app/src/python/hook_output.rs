//! Logs what hooks and their child processes print, whatever and however much it is.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;
use tracing::{info, warn};

/// Log target of lines that are not Ferry's own.
const TARGET: &str = "hook";
/// Longest line that is logged in full, in bytes.
const MAX_LINE: usize = 8 * 1024;
/// Bytes logged per second and process, and in one burst. Each line costs `LINE_COST` on top of its length.
const MAX_RATE: usize = 256 * 1024;
const MAX_BURST: usize = 1024 * 1024;
const LINE_COST: usize = 128;

/// Logs lines until every process that holds the pipe has closed it. The pipe is always drained, so that hooks never block on
/// a `print`; what exceeds the rate is counted.
pub(super) async fn log(mut pipe: impl AsyncRead + Unpin) {
    let mut lines = Lines::new(Instant::now());
    let mut buffer = vec![0; MAX_LINE];
    // Treat a read error as the end.
    while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
        for entries in lines.push(&buffer[..length], Instant::now()) {
            entries.log();
        }
    }
    lines.end().into_iter().for_each(|entries| entries.log());
}

/// Something to log.
#[derive(Debug, PartialEq, Eq)]
enum Entry {
    Line(String),
    /// A truncated line and the number of bytes cut off.
    Cut(String, u64),
    /// The number of lines dropped before the next one.
    Dropped(u64),
}

impl Entry {
    fn log(&self) {
        match self {
            Self::Line(line) => info!(target: TARGET, "{line}"),
            Self::Cut(line, bytes) => info!(target: TARGET, cut_bytes = bytes, "{line}…"),
            Self::Dropped(lines) => warn!(lines, "a hook prints faster than Ferry logs: lines dropped"),
        }
    }
}

/// Splits bytes into lines and applies the limits.
struct Lines {
    line: Vec<u8>,
    /// Bytes cut off the current line.
    cut: u64,
    allowance: usize,
    count_error: Instant,
    dropped: u64,
}

impl Lines {
    fn new(now: Instant) -> Self {
        Self { line: Vec::new(), cut: 0, allowance: MAX_BURST, count_error: now, dropped: 0 }
    }

    fn push(&mut self, bytes: &[u8], now: Instant) -> Vec<Entry> {
        self.refill(now);
        let mut entries = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, is_whole) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            let kept = text.len().min(MAX_LINE - self.line.len());
            self.line.extend_from_slice(&text[..kept]);
            self.cut += (text.len() - kept) as u64;
            if is_whole {
                self.finish_line(&mut entries);
            }
        }
        entries
    }

    /// Flushes an unfinished line at the end of the pipe.
    fn end(&mut self) -> Vec<Entry> {
        let mut entries = Vec::new();
        if !self.line.is_empty() {
            self.finish_line(&mut entries);
        }
        if self.dropped > 0 {
            entries.push(Entry::Dropped(self.dropped));
        }
        entries
    }

    fn finish_line(&mut self, entries: &mut Vec<Entry>) {
        let cost = self.line.len() + LINE_COST;
        if cost > self.allowance {
            self.dropped += 1;
        } else {
            self.allowance -= cost;
            if self.dropped > 0 {
                entries.push(Entry::Dropped(std::mem::take(&mut self.dropped)));
            }
            let text = String::from_utf8_lossy(self.line.trim_ascii_end()).into_owned();
            entries.push(if self.cut > 0 { Entry::Cut(text, self.cut) } else { Entry::Line(text) });
        }
        self.line.clear();
        self.cut = 0;
    }

    fn refill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.count_error);
        let earned = (since.min(Duration::from_secs(60)).as_secs_f64() * MAX_RATE as f64) as usize;
        // Accumulate short intervals instead of rounding them down to nothing.
        if earned >= LINE_COST {
            self.allowance = (self.allowance + earned).min(MAX_BURST);
            self.count_error = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Entry {
        Entry::Line(text.into())
    }

    #[test]
    fn lines_are_logged_as_they_are_and_what_is_not_utf8_is_replaced() {
        let now = Instant::now();
        let mut lines = Lines::new(now);
        assert_eq!(lines.push(b"one\r\ntw", now), [line("one")]);
        assert_eq!(lines.push(b"o\n\xff\xfe\n\nend", now), [line("two"), line("\u{fffd}\u{fffd}"), line("")]);
        assert_eq!(lines.end(), [line("end")]);
    }

    #[test]
    fn a_line_without_an_end_takes_no_memory_and_is_cut() {
        let now = Instant::now();
        let mut lines = Lines::new(now);
        for _ in 0..1000 {
            assert_eq!(lines.push(&[b'x'; MAX_LINE], now), []);
            assert!(lines.line.capacity() <= 2 * MAX_LINE);
        }
        let entries = lines.push(b"\nnext\n", now);
        assert_eq!(entries, [Entry::Cut("x".repeat(MAX_LINE), 999 * MAX_LINE as u64), line("next")]);
    }

    #[test]
    fn a_flood_is_logged_up_to_a_rate_and_counted_beyond_it() {
        let start = Instant::now();
        let mut lines = Lines::new(start);
        let flood = b"\n".repeat(2 * MAX_BURST / LINE_COST);
        let fit = MAX_BURST / LINE_COST;
        assert_eq!(lines.push(&flood, start).len(), fit);
        let later = lines.push(b"later\n", start + Duration::from_secs(1));
        assert_eq!(later, [Entry::Dropped(fit as u64), line("later")]);
        // Frequent small refills must add up to the same rate.
        let mut logged = 0;
        for millis in 1000..2000 {
            let entries = lines.push(&b"\n".repeat(100), start + Duration::from_millis(millis));
            logged += entries.iter().filter(|entries| **entries == line("")).count();
        }
        let rate = MAX_RATE / LINE_COST;
        assert!(logged > rate && logged < 3 * rate, "{logged}");
        assert!(matches!(lines.end()[..], [Entry::Dropped(1..)]));
    }
}
