//! What `/status` says: `docs/observability.md` describes it.

use anyhow::{Context as _, bail};
use ferry_text::Foreign;
use reqwest::Url;
use serde::Deserialize;

/// The form of `/status` that this program reads.
const VERSION: u32 = 1;

/// What a tunnel is, and what it carries. Text in it is the tunnel's, and shown as foreign.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Status {
    version: u32,
    pub(crate) ferry: String,
    pub(crate) name: String,
    pub(crate) instance: String,
    pub(crate) uptime_seconds: f64,
    pub(crate) draining: bool,
    #[serde(default)]
    pub(crate) unbound: Vec<Unbound>,
    pub(crate) settings: Settings,
    pub(crate) totals: Totals,
    pub(crate) peers: Vec<Peer>,
    #[serde(default)]
    pub(crate) limits: Vec<Limit>,
    pub(crate) sessions: Vec<Session>,
}

/// An address for applications that cannot be listened on.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Unbound {
    pub(crate) listen: String,
    pub(crate) problem: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Settings {
    pub(crate) rotation_every_seconds: f64,
    pub(crate) resume_window_seconds: f64,
}

/// Over all sessions, also those that are not listed.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Totals {
    pub(crate) sessions: usize,
    pub(crate) detached: usize,
    pub(crate) buffered: u64,
    pub(crate) oldest_key_seconds: f64,
    pub(crate) links_open: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) resumes: u64,
    pub(crate) rotations: u64,
    pub(crate) rotations_failed: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Peer {
    pub(crate) name: String,
    reachable: bool,
    pub(crate) problem: Option<String>,
    pub(crate) dialled: bool,
    pub(crate) round_trip_seconds: Option<f64>,
    pub(crate) choice: Option<Choice>,
    pub(crate) warm: Warm,
    pub(crate) sessions: usize,
    pub(crate) detached: usize,
}

/// What carries a peer's links, where that is chosen by what is measured.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Choice {
    pub(crate) carrier: String,
    pub(crate) reason: String,
}

impl Choice {
    /// What carries the links of this peer, and why.
    pub(crate) fn sentence(&self, peer: &str) -> String {
        let told = format!("{peer}: links are carried by {}: {}", self.carrier.to_uppercase(), self.reason);
        Foreign(&told).to_string()
    }
}

/// What the sessions of one entry of the configuration have, and what they may have.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Limit {
    pub(crate) scope: String,
    pub(crate) name: String,
    pub(crate) sessions: Option<MostSessions>,
    pub(crate) bytes_per_second: Option<MostBytes>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct MostSessions {
    pub(crate) used: u32,
    pub(crate) limit: u32,
    pub(crate) refused: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct MostBytes {
    pub(crate) limit: u64,
    pub(crate) sent: Pace,
    pub(crate) received: Pace,
}

/// Bytes in the last second, and sessions that are held back.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Pace {
    pub(crate) used: u64,
    pub(crate) waiting: u64,
}

impl Limit {
    /// What is limited: `peer c/guest`.
    pub(crate) fn entry(&self) -> String {
        format!("{} {}", Foreign(&self.scope), Foreign(&self.name))
    }

    /// The sessions that there are, of those that there may be.
    pub(crate) fn used_sessions(&self) -> String {
        self.sessions.as_ref().map_or_else(none, |most| format!("{} of {}", most.used, most.limit))
    }

    /// Sessions that were refused so far.
    pub(crate) fn refused(&self) -> String {
        self.sessions.as_ref().map_or_else(none, |most| most.refused.to_string())
    }

    /// What `text` makes of its limit of bytes.
    pub(crate) fn of_bytes(&self, text: impl Fn(&MostBytes) -> String) -> String {
        self.bytes_per_second.as_ref().map_or_else(none, text)
    }

    /// Somebody waits for it, or would be refused.
    pub(crate) fn holds_back(&self) -> bool {
        let is_full = self.sessions.as_ref().is_some_and(|most| most.used >= most.limit);
        is_full || self.bytes_per_second.as_ref().is_some_and(|rate| rate.sent.waiting + rate.received.waiting > 0)
    }
}

/// What stands where an entry has no such limit.
fn none() -> String {
    "-".to_owned()
}

/// Links ready for sessions of this end, and for the peer's.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Warm {
    pub(crate) own: usize,
    pub(crate) offered: usize,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) peer: String,
    pub(crate) side: String,
    pub(crate) service: String,
    pub(crate) carrier: Option<String>,
    pub(crate) key_age_seconds: f64,
    pub(crate) age_seconds: f64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) buffered: u64,
    pub(crate) detached_seconds: Option<f64>,
    pub(crate) resumes: u32,
    pub(crate) longest_pause_seconds: f64,
}

impl Status {
    /// Reads the answer of the endpoint at this URL.
    pub(crate) fn parse(text: &str, url: &Url) -> anyhow::Result<Self> {
        let what =
            || format!("{url} answers, but not as a tunnel of this version of ferry; is it a tunnel's admin endpoint?");
        let status: Self = serde_json::from_str(text).with_context(what)?;
        if status.version != VERSION {
            bail!(
                "{url} answers in form {}, and this ferry reads form {VERSION}: use the ferry of that tunnel",
                status.version
            );
        }
        Ok(status)
    }
}

impl Peer {
    /// It answers, or sessions have links to it.
    pub(crate) fn is_there(&self) -> bool {
        self.reachable || self.sessions > self.detached
    }
}
