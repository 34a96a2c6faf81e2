//! Lines of the log whose rate somebody else decides: the first of a kind at once, then a count every ten seconds.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use ferry_config::Name;
use ferry_session::SessionId;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::field::display;
use tracing::{Level, Span, debug, info, warn};

/// A kind of line is counted for this long before it is told again.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);

/// How often counts are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Lines of one peer, or of strangers, and for one reason that are told apart at once; all further ones are one kind.
const MAX_APART: usize = 16;

/// What makes two lines the same: who caused them and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    peer: Option<Name>,
    reason: &'static str,
    service: Option<Box<str>>,
    /// Somebody who is no peer.
    stranger: Option<Box<str>>,
}

impl Kind {
    pub(crate) fn new(reason: &'static str) -> Self {
        Self { reason, ..Self::default() }
    }

    pub(crate) fn peer(self, peer: &Name) -> Self {
        Self { peer: Some(peer.clone()), ..self }
    }

    pub(crate) fn service(self, service: impl Display) -> Self {
        Self { service: Some(service.to_string().into()), ..self }
    }

    pub(crate) fn stranger(self, stranger: impl Display) -> Self {
        Self { stranger: Some(stranger.to_string().into()), ..self }
    }

    fn is_of_many(&self) -> bool {
        self.service.is_some() || self.stranger.is_some()
    }

    fn is_beside(&self, other: &Self) -> bool {
        self.is_of_many() && (&self.peer, self.reason) == (&other.peer, other.reason)
    }
}

/// A line of the log, to be told or counted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    level: Level,
    text: String,
    session: Option<SessionId>,
    span: Option<Span>,
}

impl Line {
    fn new(level: Level, text: impl Into<String>) -> Self {
        Self { level, text: text.into(), session: None, span: None }
    }

    pub(crate) fn warn(text: impl Into<String>) -> Self {
        Self::new(Level::WARN, text)
    }

    pub(crate) fn info(text: impl Into<String>) -> Self {
        Self::new(Level::INFO, text)
    }

    pub(crate) fn debug(text: impl Into<String>) -> Self {
        Self::new(Level::DEBUG, text)
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// It is about what happens all the time while all is well.
    pub(crate) fn is_routine(&self) -> bool {
        self.level == Level::DEBUG
    }

    pub(crate) fn session(self, session: SessionId) -> Self {
        Self { session: Some(session), ..self }
    }

    /// The line is of what this span is about, whose fields it has.
    pub(crate) fn in_span(self, span: &Span) -> Self {
        Self { span: Some(span.clone()).filter(|span| !span.is_disabled()), ..self }
    }

    fn log(&self, kind: &Kind) {
        if let Some(span) = &self.span {
            let _entered = span.enter();
            return match self.level {
                Level::WARN => warn!("{}", self.text),
                Level::INFO => info!("{}", self.text),
                _ => debug!("{}", self.text),
            };
        }
        let (text, peer) = (&self.text, kind.peer.as_ref().map(display));
        let (session, service) = (self.session.map(display), kind.service.as_ref().map(display));
        match self.level {
            Level::WARN => warn!(session, peer, service, "{text}"),
            Level::INFO => info!(session, peer, service, "{text}"),
            _ => debug!(session, peer, service, "{text}"),
        }
    }
}

/// What has been told of one kind.
#[derive(Clone, Debug, PartialEq)]
struct Count {
    last: Line,
    since: Instant,
    more: u64,
}

impl Count {
    fn log(&self, kind: &Kind, now: Instant) {
        let (more, seconds) = (self.more, now.saturating_duration_since(self.since).as_secs());
        let text = format!("{} (and {more} more in the last {seconds} s)", self.last.text);
        Line { text, ..self.last.clone() }.log(kind);
    }
}

/// Counts by kind, as a value: the clock is an argument.
#[derive(Debug, Default)]
struct Counts(HashMap<Kind, Count>);

impl Counts {
    /// Another line; says whether it is to be told now.
    fn note(&mut self, mut kind: Kind, line: &Line, now: Instant) -> bool {
        if kind.is_of_many()
            && !self.0.contains_key(&kind)
            && self.0.keys().filter(|other| other.is_beside(&kind)).count() >= MAX_APART
        {
            (kind.service, kind.stranger) = (None, None);
        }
        if let Some(count) = self.0.get_mut(&kind) {
            count.more += 1;
            count.last = line.clone();
            return false;
        }
        self.0.insert(kind, Count { last: line.clone(), since: now, more: 0 });
        true
    }

    /// Kinds whose count is to be told by `now`. Those that were not repeated are forgotten.
    fn due(&mut self, now: Instant) -> Vec<(Kind, Count)> {
        let is_due = |count: &Count| count.since + COUNT_INTERVAL <= now;
        self.0.retain(|_, count| count.more > 0 || !is_due(count));
        let due = self.0.iter_mut().filter(|(_, count)| is_due(count));
        due.map(|(kind, count)| {
            let told = count.clone();
            (count.since, count.more) = (now, 0);
            (kind.clone(), told)
        })
        .collect()
    }
}

/// The lines that are counted in one running tunnel.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    counts: Mutex<Counts>,
    begun: Notify,
}

impl Repeats {
    /// Tells the line, or counts it; at DEBUG it is there in any case.
    pub(crate) fn tell(&self, kind: Kind, line: Line) {
        if line.level == Level::DEBUG {
            line.log(&kind);
        } else if self.counts.lock().note(kind.clone(), &line, Instant::now()) {
            self.begun.notify_one();
            line.log(&kind);
        } else {
            Line { level: Level::DEBUG, ..line }.log(&kind);
        }
    }

    /// Tells what was counted, until the tunnel stops and once more then.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let counting = async {
            loop {
                self.begun.notified().await;
                while !self.counts.lock().0.is_empty() {
                    tokio::time::sleep(LOOK_INTERVAL).await;
                    let (now, due) = (Instant::now(), self.counts.lock().due(Instant::now()));
                    due.iter().for_each(|(kind, count)| count.log(kind, now));
                }
            }
        };
        stop.run_until_cancelled(counting).await;
        let left = std::mem::take(&mut *self.counts.lock()).0;
        let repeated = left.iter().filter(|(_, count)| count.more > 0);
        repeated.for_each(|(kind, count)| count.log(kind, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reset(peer: &str) -> Kind {
        Kind::new("no link").peer(&peer.parse().expect("a name"))
    }

    #[test]
    fn the_first_line_is_told_at_once_and_the_rest_as_a_count() {
        let (mut counts, begun) = (Counts::default(), Instant::now());
        assert!(counts.note(reset("a"), &Line::warn("first"), begun));
        for _ in 0..856 {
            assert!(!counts.note(reset("a"), &Line::warn("again"), begun));
        }
        assert!(counts.note(reset("b"), &Line::warn("another peer"), begun));
        assert!(counts.note(reset("a").service("echo"), &Line::warn("another service"), begun));
        assert_eq!(counts.due(begun + COUNT_INTERVAL / 2), []);
        let told = counts.due(begun + COUNT_INTERVAL);
        assert_eq!(told, [(reset("a"), Count { last: Line::warn("again"), since: begun, more: 856 })]);
    }

    #[test]
    fn what_goes_on_is_told_every_ten_seconds_and_what_is_over_is_forgotten() {
        let (mut counts, begun) = (Counts::default(), Instant::now());
        counts.note(reset("a"), &Line::warn("first"), begun);
        for intervals in 1..4 {
            counts.note(reset("a"), &Line::warn("again"), begun);
            assert_eq!(counts.due(begun + COUNT_INTERVAL * intervals).len(), 1);
        }
        assert_eq!(counts.due(begun + COUNT_INTERVAL * 4), []);
        assert!(counts.0.is_empty());
        assert!(counts.note(reset("a"), &Line::warn("anew"), begun + COUNT_INTERVAL * 4));
    }

    #[test]
    fn strangers_and_invented_services_in_any_number_are_a_bounded_number_of_lines() {
        let (mut counts, now) = (Counts::default(), Instant::now());
        let knocks = (0..1000).filter(|key| counts.note(Kind::new("key").stranger(key), &Line::info("knocks"), now));
        assert_eq!(knocks.count(), MAX_APART + 1);
        let refusals = (0..1000).filter(|name| counts.note(reset("a").service(name), &Line::info("no such"), now));
        assert_eq!(refusals.count(), MAX_APART + 1);
        assert_eq!(counts.0.len(), 2 * (MAX_APART + 1));
        assert!(counts.note(reset("b").service(1), &Line::warn("another peer's line is told"), now));
    }
}
