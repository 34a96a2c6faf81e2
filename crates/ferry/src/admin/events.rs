//! What `/events` says: server-sent events, and a sentence for each. `docs/observability.md` lists the kinds.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use ferry_text::Foreign;
use reqwest::{Client, Url};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::quantity::{plural, time};

/// The form of `/events` that this program reads.
const VERSION: u32 = 1;
/// A stream that says nothing for this long is lost: a quiet one says every 10 s that it is there.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(25);
/// Most bytes of one event: far more than any has.
const MAX_EVENT: usize = 1 << 20;

/// Something that happened. Text in it is the tunnel's, and shown as foreign.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Event {
    pub(crate) kind: String,
    at: Option<String>,
    version: Option<u32>,
    pub(crate) peer: Option<String>,
    pub(crate) service: Option<String>,
    pub(crate) text: Option<String>,
    pub(crate) problem: Option<String>,
    from: Option<String>,
    name: Option<String>,
    role: Option<String>,
    reason: Option<String>,
    carrier: Option<String>,
    listen: Option<String>,
    count: Option<u64>,
    sessions: Option<u64>,
    after_seconds: Option<f64>,
    within_seconds: Option<f64>,
}

/// Whether an event is good news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Plain,
    Good,
    Warning,
    Bad,
}

impl Event {
    /// When, by the tunnel's clock.
    pub(crate) fn at(&self) -> Option<SystemTime> {
        humantime::parse_rfc3339(self.at.as_deref()?).ok()
    }

    /// It happens all the time while all is well.
    pub(crate) fn is_routine(&self) -> bool {
        ["link_made", "session_opened", "session_rotated", "session_ended"].contains(&self.kind.as_str())
    }

    /// What happened, in the words of the page.
    pub(crate) fn sentence(&self) -> (Mood, String) {
        let or_nothing = |text: &Option<String>| text.clone().unwrap_or_default();
        let peer = or_nothing(&self.peer);
        let session = format!("{}, {peer}", or_nothing(&self.service));
        let reason = or_nothing(&self.reason);
        let reason = reason.strip_prefix("lost: ").unwrap_or(&reason);
        let (text, problem) = (or_nothing(&self.text), or_nothing(&self.problem));
        let (service, listen) = (or_nothing(&self.service), or_nothing(&self.listen));
        let after = time(self.after_seconds.unwrap_or_default());
        let (mood, sentence) = match self.kind.as_str() {
            "started" => (Mood::Plain, format!("The tunnel {} is up.", or_nothing(&self.name))),
            "peer_reachable" => (Mood::Good, format!("{peer} is reachable.")),
            "peer_unreachable" => (Mood::Bad, format!("{peer} is not reachable: {problem}")),
            "peer_connected" => (Mood::Good, format!("{peer} has connected.")),
            "carrier_chosen" => {
                let carrier = or_nothing(&self.carrier).to_uppercase();
                (Mood::Plain, format!("Links with {peer} are carried by {carrier} now: {reason}."))
            }
            "peer_lost" => (Mood::Bad, format!("{peer} is gone: none of its links is left.")),
            "link_made" => (Mood::Plain, format!("Link made with {peer}, as {}.", or_nothing(&self.role))),
            "link_refused" => {
                let with = self.peer.clone().unwrap_or_else(|| or_nothing(&self.from));
                (Mood::Warning, format!("No link with {with}: {text}"))
            }
            "link_lost" => (Mood::Bad, format!("Link lost under a session to {peer}: {reason}")),
            "session_opened" => (Mood::Plain, format!("Session opened: {session}.")),
            "session_detached" => (Mood::Warning, format!("Session without a link: {session}. {reason}")),
            "session_adopted" => (Mood::Good, format!("Session taken over from the process before: {session}.")),
            "session_resumed" => (Mood::Good, format!("Session resumed after {after}: {session}.")),
            "session_rotated" => (Mood::Plain, format!("Keys replaced: {session}.")),
            "rotation_failed" => (Mood::Warning, format!("Rotation postponed: {session}. {reason}")),
            "attach_rejected" => (Mood::Warning, format!("{peer} did not take a link: {reason}")),
            "session_ended" => (Mood::Plain, format!("Session ended: {session}.")),
            "session_lost" => (Mood::Bad, format!("{session}: {reason}")),
            "connection_refused" => (Mood::Bad, format!("Connection to {service} at {peer} not carried: {text}")),
            "session_refused" => (Mood::Warning, format!("{peer} does not get {service}: {text}")),
            "listener_down" => (Mood::Bad, format!("{listen} cannot be listened on: {problem}")),
            "listener_up" => (Mood::Good, format!("{listen} is listened on.")),
            "config_reloaded" => (Mood::Good, "Configuration read again.".to_owned()),
            "config_refused" => (Mood::Bad, format!("The changed configuration cannot be used: {problem}")),
            "draining" => {
                let within = time(self.within_seconds.unwrap_or_default());
                let sessions = plural(self.sessions.unwrap_or_default(), "session");
                (Mood::Warning, format!("Draining: {sessions}, {within} at most."))
            }
            "lost" => {
                let missed = plural(self.count.unwrap_or_default(), "event");
                (Mood::Warning, format!("{missed} missed: too many at once."))
            }
            other => (Mood::Plain, other.to_owned()),
        };
        (mood, Foreign(&sentence).to_string())
    }
}

/// Follows a tunnel's events, over as many streams as it takes.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    /// The id of the last event.
    newest: Option<String>,
}

impl Follower {
    /// Reads one stream to its end, which comes within a minute. What is not there yet comes with the next one.
    ///
    /// # Errors
    ///
    /// There is no stream, or it broke off.
    pub(crate) async fn follow(
        &mut self,
        client: &Client,
        url: &Url,
        tell: &mpsc::Sender<Vec<Event>>,
    ) -> anyhow::Result<()> {
        let mut at = url.join("/events").context("the URL cannot be used")?;
        if let Some(newest) = &self.newest {
            at.query_pairs_mut().append_pair("after", newest);
        }
        let read = tokio::time::timeout(SILENCE_TIMEOUT, client.get(at).send()).await;
        let mut answer = read.context("no answer in time")?.context("there is no stream of events")?;
        if !answer.status().is_success() {
            bail!("there is no stream of events: {}", answer.status());
        }
        let mut stream = Stream::default();
        loop {
            let chunk = tokio::time::timeout(SILENCE_TIMEOUT, answer.chunk()).await;
            let Some(chunk) = chunk.context("the stream of events is silent")?? else { return Ok(()) };
            let mut events = Vec::new();
            for (id, data) in stream.feed(&chunk)? {
                // Kinds and fields that are added are for readers that know them.
                let Ok(event) = serde_json::from_str::<Event>(&data) else { continue };
                if event.kind != "hello" {
                    events.push(event);
                } else if event.version != Some(VERSION) {
                    bail!("its events are of another form than the {VERSION} that this ferry reads");
                }
                self.newest = id.or(self.newest.take());
            }
            if !events.is_empty() && tell.send(events).await.is_err() {
                // No one listens any more.
                return Ok(());
            }
        }
    }
}

/// Bytes of a stream to events: id and data. Of the form's fields these are the ones that a tunnel sends.
#[derive(Debug, Default)]
struct Stream {
    line: Vec<u8>,
    id: Option<String>,
    data: Option<String>,
}

impl Stream {
    fn feed(&mut self, bytes: &[u8]) -> anyhow::Result<Vec<(Option<String>, String)>> {
        let mut complete = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if self.line.len() + self.data.as_ref().map_or(0, String::len) > MAX_EVENT {
                bail!("an event is longer than {MAX_EVENT} bytes; is this a tunnel's admin endpoint?");
            }
            if self.line.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                complete.extend(self.on_line(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n'])));
            }
        }
        Ok(complete)
    }

    fn on_line(&mut self, line: &str) -> Option<(Option<String>, String)> {
        if line.is_empty() {
            let id = self.id.take();
            return self.data.take().map(|data| (id, data));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match (field, &mut self.data) {
            ("id", _) => self.id = Some(value.to_owned()),
            ("data", Some(data)) => *data = format!("{data}\n{value}"),
            ("data", none) => *none = Some(value.to_owned()),
            // A comment says that the stream is there.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_their_bytes_are_cut() {
        let bytes = b"retry: 500\ndata: {\"kind\":\"hello\"}\n\n:\n\nid: a-1\r\ndata: {\"x\":\r\ndata: 1}\r\n\r\nid: a-2\ndata: ";
        for size in 1..bytes.len() {
            let mut stream = Stream::default();
            let read: Vec<_> = bytes.chunks(size).flat_map(|part| stream.feed(part).unwrap()).collect();
            let expected = [(None, "{\"kind\":\"hello\"}"), (Some("a-1".to_owned()), "{\"x\":\n1}")];
            assert_eq!(read, expected.map(|(id, data)| (id, data.to_owned())), "in parts of {size}");
        }
    }

    #[test]
    fn an_event_without_an_end_is_not_kept() {
        let mut stream = Stream::default();
        let endless = (0..=MAX_EVENT / 1000).any(|_| stream.feed(&[b'x'; 1000]).is_err());
        assert!(endless, "{} bytes are kept", stream.line.len());
    }

    #[test]
    fn every_kind_of_the_manual_has_a_sentence_and_none_drives_a_terminal() {
        let manual = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/observability.md");
        let manual = std::fs::read_to_string(manual).unwrap();
        let (_, table) = manual.split_once("| kind | when |").unwrap();
        let kinds: Vec<_> = table.lines().skip(2).map_while(|row| row.strip_prefix("| `")?.split('`').next()).collect();
        assert!(kinds.len() > 20, "{kinds:?}");
        for kind in kinds.into_iter().filter(|kind| *kind != "hello") {
            let event = format!("{{\"kind\":\"{kind}\",\"peer\":\"far\\u001b[2J\",\"new\":{{}}}}");
            let (_, sentence) = serde_json::from_str::<Event>(&event).unwrap().sentence();
            assert!(sentence.contains(' ') && !sentence.contains('\u{1b}'), "{kind}: {sentence}");
        }
    }
}
