//! What the hooks and their children print: to the log, whatever it is and however much.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;
use tracing::{info, warn};

/// The target of the log lines that are not Ferry's own.
const TARGET: &str = "hook";
/// Bytes of a line that are logged.
const MAX_LINE: usize = 8 * 1024;
/// Bytes that are logged per second, for each process, and at once after a pause. A line counts as some more than it has.
const MAX_RATE: usize = 256 * 1024;
const MAX_BURST: usize = 1024 * 1024;
const LINE_COST: usize = 128;

/// Logs what comes, line by line, until every process that holds the pipe has closed it. It is always read: what may not
/// be logged is counted, and the hook never waits.
pub(super) async fn log(mut pipe: impl AsyncRead + Unpin) {
    let mut lines = Lines::new(Instant::now());
    let mut buffer = vec![0; MAX_LINE];
    // A pipe that cannot be read has ended for us.
    while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
        for said in lines.take(&buffer[..length], Instant::now()) {
            said.log();
        }
    }
    lines.end().into_iter().for_each(|said| said.log());
}

/// What is to be logged.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Line(String),
    /// A line of which this many bytes are left out.
    Cut(String, u64),
    /// This many lines were left out before the next.
    LeftOut(u64),
}

impl Said {
    fn log(&self) {
        match self {
            Self::Line(line) => info!(target: TARGET, "{line}"),
            Self::Cut(line, bytes) => info!(target: TARGET, left_out_bytes = bytes, "{line}…"),
            Self::LeftOut(lines) => warn!(lines, "a hook prints faster than is logged: lines left out"),
        }
    }
}

/// Cuts bytes into lines, and lets through as many as may be logged.
struct Lines {
    line: Vec<u8>,
    /// Bytes of the line that were not kept.
    cut: u64,
    allowance: usize,
    counted: Instant,
    left_out: u64,
}

impl Lines {
    fn new(now: Instant) -> Self {
        Self { line: Vec::new(), cut: 0, allowance: MAX_BURST, counted: now, left_out: 0 }
    }

    fn take(&mut self, bytes: &[u8], now: Instant) -> Vec<Said> {
        self.refill(now);
        let mut said = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, is_whole) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            let kept = text.len().min(MAX_LINE - self.line.len());
            self.line.extend_from_slice(&text[..kept]);
            self.cut += (text.len() - kept) as u64;
            if is_whole {
                self.finish_line(&mut said);
            }
        }
        said
    }

    /// What is left when nothing more comes.
    fn end(&mut self) -> Vec<Said> {
        let mut said = Vec::new();
        if !self.line.is_empty() {
            self.finish_line(&mut said);
        }
        if self.left_out > 0 {
            said.push(Said::LeftOut(self.left_out));
        }
        said
    }

    fn finish_line(&mut self, said: &mut Vec<Said>) {
        let cost = self.line.len() + LINE_COST;
        if cost > self.allowance {
            self.left_out += 1;
        } else {
            self.allowance -= cost;
            if self.left_out > 0 {
                said.push(Said::LeftOut(std::mem::take(&mut self.left_out)));
            }
            let text = String::from_utf8_lossy(self.line.trim_ascii_end()).into_owned();
            said.push(if self.cut > 0 { Said::Cut(text, self.cut) } else { Said::Line(text) });
        }
        self.line.clear();
        self.cut = 0;
    }

    fn refill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.counted);
        let earned = (since.min(Duration::from_secs(60)).as_secs_f64() * MAX_RATE as f64) as usize;
        // What is less than a line is not counted yet, so that it is not rounded away.
        if earned >= LINE_COST {
            self.allowance = (self.allowance + earned).min(MAX_BURST);
            self.counted = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Said {
        Said::Line(text.into())
    }

    #[test]
    fn lines_are_logged_as_they_are_and_what_is_not_utf8_is_replaced() {
        let now = Instant::now();
        let mut lines = Lines::new(now);
        assert_eq!(lines.take(b"one\r\ntw", now), [line("one")]);
        assert_eq!(lines.take(b"o\n\xff\xfe\n\nend", now), [line("two"), line("\u{fffd}\u{fffd}"), line("")]);
        assert_eq!(lines.end(), [line("end")]);
    }

    #[test]
    fn a_line_without_an_end_takes_no_memory_and_is_cut() {
        let now = Instant::now();
        let mut lines = Lines::new(now);
        for _ in 0..1000 {
            assert_eq!(lines.take(&[b'x'; MAX_LINE], now), []);
            assert!(lines.line.capacity() <= 2 * MAX_LINE);
        }
        let said = lines.take(b"\nnext\n", now);
        assert_eq!(said, [Said::Cut("x".repeat(MAX_LINE), 999 * MAX_LINE as u64), line("next")]);
    }

    #[test]
    fn a_flood_is_logged_up_to_a_rate_and_counted_beyond_it() {
        let start = Instant::now();
        let mut lines = Lines::new(start);
        let flood = b"\n".repeat(2 * MAX_BURST / LINE_COST);
        let fit = MAX_BURST / LINE_COST;
        assert_eq!(lines.take(&flood, start).len(), fit);
        let later = lines.take(b"later\n", start + Duration::from_secs(1));
        assert_eq!(later, [Said::LeftOut(fit as u64), line("later")]);
        // A second gives what it gives, however often it is looked at.
        let mut logged = 0;
        for millis in 1000..2000 {
            let said = lines.take(&b"\n".repeat(100), start + Duration::from_millis(millis));
            logged += said.iter().filter(|said| **said == line("")).count();
        }
        let rate = MAX_RATE / LINE_COST;
        assert!(logged > rate && logged < 3 * rate, "{logged}");
        assert!(matches!(lines.end()[..], [Said::LeftOut(1..)]));
    }
}
