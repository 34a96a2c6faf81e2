//! What a tunnel that runs has refused of late, or was refused: faults that only a session shows.

use std::time::{Duration, SystemTime};

use ferry_config::Tunnel;
use ferry_text::Foreign;
use serde::Deserialize;

use super::Check;
use super::places::{WAIT_TIMEOUT, admin};

/// What is older does not count.
const RECENT: Duration = Duration::from_secs(600);

/// What is kept comes at once: after this long without more, that was it.
const QUIET_TIMEOUT: Duration = Duration::from_millis(300);

/// Most of the stream.
const MAX_LEN: usize = 4 << 20;

/// As far as it matters here.
#[derive(Deserialize)]
struct Event {
    kind: String,
    #[serde(default)]
    at: String,
    #[serde(default)]
    peer: String,
    #[serde(default)]
    service: String,
    #[serde(default)]
    ending: String,
    /// A label of a refusal, and words of a session's end.
    #[serde(default)]
    reason: String,
    #[serde(default)]
    text: String,
}

/// Refusals of one kind.
struct Refusals {
    subject: String,
    text: String,
    advice: &'static str,
    count: usize,
}

pub(super) async fn check(tunnel: &Tunnel) -> Vec<Check> {
    let Some(text) = kept(tunnel).await else { return Vec::new() };
    let events = text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok());
    let found = gather(events, SystemTime::now());
    if found.is_empty() {
        return vec![Check::ok("refused", &tunnel.name, "no session in the last 10 minutes, as far as is known")];
    }
    let warn = |Refusals { subject, text, advice, count }| {
        let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
        Check::warning("refused", subject, format!("{times} in the last 10 minutes: {text}"), advice)
    };
    found.into_iter().map(warn).collect()
}

/// The events that the running tunnel has kept.
async fn kept(tunnel: &Tunnel) -> Option<String> {
    let url = format!("http://{}/events", admin(tunnel)?);
    let client = reqwest::Client::builder().no_proxy().connect_timeout(WAIT_TIMEOUT).build().ok()?;
    let mut response = tokio::time::timeout(WAIT_TIMEOUT, client.get(url).send()).await.ok()?.ok()?;
    let mut kept = Vec::new();
    while kept.len() < MAX_LEN
        && let Ok(Ok(Some(chunk))) = tokio::time::timeout(QUIET_TIMEOUT, response.chunk()).await
    {
        kept.extend_from_slice(&chunk);
    }
    Some(String::from_utf8_lossy(&kept).into_owned())
}

fn gather(events: impl Iterator<Item = Event>, now: SystemTime) -> Vec<Refusals> {
    let mut found: Vec<Refusals> = Vec::new();
    for event in events {
        let at = humantime::parse_rfc3339(&event.at);
        let is_recent = at.is_ok_and(|at| now.duration_since(at).unwrap_or_default() <= RECENT);
        let (text, advice) = match &event.kind[..] {
            "connection_refused" | "session_refused" => (event.text, of_own(&event.reason)),
            "session_lost" if event.ending == "refused" => {
                let advice = of_peer(&event.reason);
                (event.reason, advice)
            }
            _ => continue,
        };
        if !is_recent {
            continue;
        }
        let subject = Foreign(&format!("{} ({})", event.service, event.peer)).to_string();
        let text = Foreign(&text).to_string();
        match found.iter_mut().find(|known| known.subject == subject && known.text == text) {
            Some(known) => known.count += 1,
            None => found.push(Refusals { subject, text, advice, count: 1 }),
        }
    }
    found
}

/// What to do where this end refuses, by the label of the reason.
fn of_own(reason: &str) -> &'static str {
    match reason {
        "no_link" => "no link was there in time: see what is said of the peer's addresses",
        "limit" => "raise `limits` of this tunnel, or find out what opens all these sessions",
        "peer_limit" | "service_limit" => "raise `limits` of that entry, or leave it: that is what it is for",
        "service" => "offer the service under `ingress`, with that peer in its `allow`, if it is to have it",
        "unreachable" => "start the application behind `forward`, or correct that",
        "draining" => "the tunnel was shutting down: nothing is wrong, if that was meant",
        _ => "see the log of this tunnel",
    }
}

/// What to do where the peer refuses, by its words.
fn of_peer(text: &str) -> &'static str {
    let says = |part: &str| text.contains(part);
    if says("no such service") {
        "offer it at the peer under `ingress`, with this tunnel's name in its `allow`, or correct `service` here"
    } else if says("cannot be reached") {
        "start the application at the peer, or correct `forward` there"
    } else if says("limit") || says("no memory") {
        "raise `limits` at the peer, or close sessions"
    } else if says("shutting down") {
        "the peer's tunnel was shutting down: try again"
    } else {
        "see the log of the peer's tunnel"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_one_kind_are_one_and_old_ones_none() {
        let now = humantime::parse_rfc3339("2026-01-31T09:15:00Z").unwrap();
        let event = |at: &str, text: &str| {
            let text = format!(
                r#"{{"kind":"connection_refused","at":"2026-01-31T{at}Z","peer":"b","service":"db","reason":"no_link","text":"{text}"}}"#
            );
            serde_json::from_str::<Event>(&text).unwrap()
        };
        let events = [event("08:00:00.1", "old"), event("09:10:00.2", "new"), event("09:14:00.3", "new")];
        let found = gather(events.into_iter(), now);
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].subject[..], &found[0].text[..], found[0].count), ("db (b)", "new", 2));
        assert!(found[0].advice.contains("no link was there"));
    }
}
