//! Tracks the lines of a `ferry send` from input to delivery.

use std::collections::VecDeque;

use ferry_text::Foreign;

use crate::client::Notice;

/// Most bytes and lines in flight. They are kept until delivered, to be sent again after a lost connection; a web-app
/// remembers twice as many keys.
const MAX_BYTES: usize = 64 << 20;
const MAX_LINES: usize = 50_000;

/// What became of the lines so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    /// Lines that are not JSON objects.
    pub(super) bad: u64,
    pub(super) sent: u64,
    pub(super) accepted: u64,
    pub(super) refused: u64,
    pub(super) delivered: u64,
    pub(super) dead: u64,
}

/// Lines in flight, in order. Each has a number in this series, starting at 1.
#[derive(Debug, Default)]
pub(super) struct Job {
    pub(super) tally: Tally,
    under_way: VecDeque<UnderWay>,
    /// The number of the first line in flight.
    first: u64,
    bytes: usize,
    /// The number that the web-app answers next on this connection.
    answered: u64,
    pub(super) input_ended: bool,
}

#[derive(Debug)]
struct UnderWay {
    payload: String,
    line: u64,
    id: Option<String>,
    settled: bool,
}

/// How a line ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Delivered,
    /// With the reason.
    Failed(String),
}

impl Job {
    pub(super) fn new() -> Self {
        Self { first: 1, answered: 1, ..Self::default() }
    }

    /// Adds a line and returns what to send.
    pub(super) fn add(&mut self, line: u64, payload: String) -> String {
        self.tally.sent += 1;
        self.bytes += payload.len();
        self.under_way.push_back(UnderWay { payload: payload.clone(), line, id: None, settled: false });
        payload
    }

    pub(super) fn has_room(&self) -> bool {
        self.bytes < MAX_BYTES && self.under_way.len() < MAX_LINES
    }

    /// Whether the input has ended and the outcome of every line is known.
    pub(super) fn is_settled(&self) -> bool {
        self.input_ended && self.under_way.is_empty()
    }

    /// Starts a new connection. Returns the number of the first line to send on it.
    pub(super) fn connect(&mut self) -> u64 {
        self.answered = self.first;
        self.first
    }

    /// The number of the first line in flight.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The payload to resend for a number; its outcome may be known already.
    pub(super) fn again(&self, number: u64) -> Option<String> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.under_way.get(index).map(|line| line.payload.clone())
    }

    /// The number of the next new line.
    pub(super) fn next_number(&self) -> u64 {
        self.first + self.under_way.len() as u64
    }

    /// The last input line up to which the web-app has stored everything.
    pub(super) fn stored_to(&self) -> Option<u64> {
        let is_known = |line: &&UnderWay| line.id.is_some() || line.settled;
        let known = self.under_way.iter().take_while(is_known).last().map(|line| line.line);
        known.or_else(|| self.under_way.front().map(|line| line.line - 1)).filter(|line| *line > 0)
    }

    /// Handles what the web-app says about a line.
    pub(super) fn handle(&mut self, notice: Notice) -> Option<Outcome> {
        let outcome = match notice {
            Notice::Accepted { id } => {
                if let Some(line) = self.answer()
                    && line.id.replace(id).is_none()
                {
                    self.tally.accepted += 1;
                }
                None
            }
            Notice::Refused { error } => {
                let line = self.answer().filter(|line| !line.settled)?;
                line.settled = true;
                let text = format!("line {}: refused by the web-app: {}", line.line, Foreign(&error));
                self.tally.refused += 1;
                Some(Outcome::Failed(text))
            }
            Notice::Delivered { id } => {
                self.settle(&id)?;
                self.tally.delivered += 1;
                Some(Outcome::Delivered)
            }
            Notice::Dead { id, error } => {
                let line = self.settle(&id)?;
                self.tally.dead += 1;
                Some(Outcome::Failed(format!(
                    "line {line}, message {id}: the far side's hook kept refusing it: {}",
                    Foreign(&error)
                )))
            }
            // The far side's messages are for `ferry output`.
            Notice::Arrived(_) | Notice::Missed => None,
        };
        while self.under_way.front().is_some_and(|line| line.settled) && self.first < self.answered {
            self.bytes -= self.under_way.pop_front().map_or(0, |line| line.payload.len());
            self.first += 1;
        }
        outcome
    }

    /// The line that this answer is for.
    fn answer(&mut self) -> Option<&mut UnderWay> {
        let index = usize::try_from(self.answered.checked_sub(self.first)?).ok()?;
        self.answered += 1;
        self.under_way.get_mut(index)
    }

    /// Marks the line of a message as settled. Returns its number in the input unless it was settled before.
    fn settle(&mut self, id: &str) -> Option<u64> {
        let line = self.under_way.iter_mut().find(|line| line.id.as_deref() == Some(id) && !line.settled)?;
        line.settled = true;
        Some(line.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(id: &str) -> Notice {
        Notice::Accepted { id: id.into() }
    }

    fn delivered(id: &str) -> Notice {
        Notice::Delivered { id: id.into() }
    }

    #[test]
    fn a_lost_connection_sends_again_what_is_not_delivered_and_counts_nothing_twice() {
        let mut job = Job::new();
        assert_eq!(job.connect(), 1);
        for line in [1, 2, 4, 5] {
            assert_eq!(job.add(line, format!("{{{line}}}")), format!("{{{line}}}"));
        }
        job.input_ended = true;
        assert_eq!(job.handle(accepted("a")), None);
        assert_eq!(job.handle(delivered("a")), Some(Outcome::Delivered));
        assert_eq!(job.handle(accepted("b")), None);
        let refused = job.handle(Notice::Refused { error: "no".into() });
        assert_eq!(refused, Some(Outcome::Failed("line 4: refused by the web-app: no".into())));
        assert_eq!(job.stored_to(), Some(4));
        // The connection is lost. The web-app has the last line, too, and had no time to say so.
        assert_eq!((job.connect(), job.next_number()), (2, 5));
        let again: Vec<_> = (2..5).map(|number| job.again(number).unwrap()).collect();
        assert_eq!((again, job.again(5)), (vec!["{2}".into(), "{4}".into(), "{5}".into()], None));
        assert_eq!(job.handle(accepted("b")), None);
        assert_eq!(job.handle(Notice::Refused { error: "no".into() }), None);
        assert_eq!(job.handle(accepted("d")), None);
        assert!(!job.is_settled());
        assert_eq!(job.handle(delivered("b")), Some(Outcome::Delivered));
        let dead = job.handle(Notice::Dead { id: "d".into(), error: "never".into() });
        assert!(matches!(dead, Some(Outcome::Failed(text)) if text.starts_with("line 5, message d:")));
        assert!(job.is_settled());
        let tally = Tally { bad: 0, sent: 4, accepted: 3, refused: 1, delivered: 2, dead: 1 };
        assert_eq!((job.tally, job.bytes), (tally, 0));
    }

    #[test]
    fn what_the_far_side_says_is_one_line_that_drives_no_terminal() {
        let mut job = Job::new();
        job.connect();
        job.add(1, "{}".into());
        job.add(2, "{}".into());
        job.handle(accepted("a"));
        let said = || format!("no\nerror: forged \u{1b}[2J{}", "x".repeat(1000));
        let dead = job.handle(Notice::Dead { id: "a".into(), error: said() });
        let refused = job.handle(Notice::Refused { error: said() });
        for outcome in [dead, refused] {
            let Some(Outcome::Failed(text)) = outcome else { panic!("{outcome:?}") };
            assert!(!text.contains(['\n', '\u{1b}']) && text.len() < 400, "{text:?}");
        }
    }

    #[test]
    fn what_is_kept_for_sending_it_again_is_bounded() {
        let mut job = Job::new();
        job.connect();
        let line = "x".repeat(1 << 20);
        while job.has_room() {
            job.add(1, line.clone());
        }
        assert_eq!(job.bytes, MAX_BYTES);
        job.handle(accepted("a"));
        job.handle(delivered("a"));
        assert!(job.has_room());
    }
}
