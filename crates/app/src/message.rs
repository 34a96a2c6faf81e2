//! What travels: a message, its id, and the trail that it leaves.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::headers::TraceHeaders;
use crate::payload::Payload;
use crate::peer::PeerName;
use crate::time;

/// The longest pod or cluster name that Kubernetes allows.
const MAX_NAME_BYTES: usize = 253;
const MAX_ID_BYTES: usize = 64;
/// What a kept message takes in memory in addition to its JSON.
pub(crate) const KEPT_OVERHEAD: usize = 256;
/// What kept headers take in memory in addition to their values.
const HEADERS_OVERHEAD: usize = 192;
/// The most hops of a trail. A message passes two web-apps today.
pub(crate) const MAX_HOPS: usize = 16;

/// Names one outbox for as long as its store lives: sequence numbers are only ever compared under the same `SenderId`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct SenderId(String);

impl SenderId {
    /// A new id; 96 random bits.
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0u8; 12];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of this sender's message number `seq`: unique at both ends because the sender's is.
    pub(crate) fn message(&self, seq: u64) -> MessageId {
        MessageId(format!("{}-{seq}", self.0))
    }
}

impl TryFrom<String> for SenderId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        checked_id(text).map(Self)
    }
}

/// A message's public id, `[0-9A-Za-z_-]+`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct MessageId(String);

impl MessageId {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of its sender, and its number there.
    pub(crate) fn split(&self) -> Option<(&str, u64)> {
        let (sender, seq) = self.0.rsplit_once('-')?;
        Some((sender, seq.parse().ok()?))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for MessageId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        checked_id(text).map(Self)
    }
}

/// Where a web-app runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Location {
    pub(crate) pod: String,
    pub(crate) cluster: String,
}

impl Location {
    /// A hop through this location, now.
    pub(crate) fn hop(&self) -> Hop {
        Hop { pod: self.pod.clone(), cluster: self.cluster.clone(), at: time::now() }
    }

    /// Names go into logs and trails as they are, so they hold no control characters.
    pub(crate) fn check(&self) -> Result<(), String> {
        check_name("pod", &self.pod)?;
        check_name("cluster", &self.cluster)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster, self.pod)
    }
}

/// One entry of a trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hop {
    pod: String,
    cluster: String,
    at: String,
}

impl Hop {
    /// Its length as JSON.
    pub(crate) fn bytes(&self) -> usize {
        const NAMES: usize = r#"{"pod":"","cluster":"","at":""},"#.len();
        NAMES + self.pod.len() + self.cluster.len() + self.at.len()
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        check_name("pod", &self.pod)?;
        check_name("cluster", &self.cluster)?;
        check_name("at", &self.at)
    }
}

/// A message on its way, as the outbox keeps it and the wire carries it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Message {
    /// Contiguous from 1 per sender.
    pub(crate) seq: u64,
    pub(crate) id: MessageId,
    /// As it was accepted.
    #[serde(deserialize_with = "stored_payload")]
    pub(crate) payload: Payload,
    pub(crate) trail: Vec<Hop>,
    /// The message that this one is the reply to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) in_reply_to: Option<MessageId>,
}

/// A message that has arrived, exactly as `/output` and `/stream` show it where there are several sites.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Arrival {
    pub(crate) id: MessageId,
    #[serde(deserialize_with = "stored_payload")]
    pub(crate) payload: Payload,
    pub(crate) trail: Vec<Hop>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) in_reply_to: Option<MessageId>,
    /// The peer whose tunnel it came through, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) site: Option<PeerName>,
    /// Versions that do not know them leave them out when they read a store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) headers: Option<Box<TraceHeaders>>,
}

/// A message that has arrived, but that the receiving hook kept refusing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DeadMessage {
    pub(crate) arrival: Arrival,
    /// The text that came, if it is not a payload; `arrival` then has `null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) raw: Option<String>,
    /// What the hook said last.
    pub(crate) error: String,
    /// When it was given up.
    pub(crate) at: String,
}

impl Arrival {
    /// What it takes where it is kept: all of its JSON, and [`KEPT_OVERHEAD`].
    pub(crate) fn bytes(&self) -> usize {
        const NAMES: usize = r#"{"id":"","payload":,"trail":[],"in_reply_to":""}"#.len();
        let ids = self.id.as_str().len() + self.in_reply_to.as_ref().map_or(0, |id| id.as_str().len());
        let trail: usize = self.trail.iter().map(Hop::bytes).sum();
        let site = self.site.as_ref().map_or(0, |site| r#","site":"""#.len() + site.as_str().len());
        let headers = self.headers.as_ref().map_or(0, |headers| HEADERS_OVERHEAD + headers.bytes());
        KEPT_OVERHEAD + NAMES + ids + self.payload.len() + trail + site + headers
    }
}

impl DeadMessage {
    /// As [`Arrival::bytes`].
    pub(crate) fn bytes(&self) -> usize {
        self.arrival.bytes() + self.raw.as_ref().map_or(0, String::len) + self.error.len() + self.at.len()
    }

    /// A message that is given up now.
    pub(crate) fn new(arrival: Arrival, raw: Option<String>, error: String) -> Self {
        Self { arrival, raw, error, at: time::now() }
    }
}

fn stored_payload<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Payload, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Payload::stored)
}

fn checked_id(text: String) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    match text.len() {
        1..=MAX_ID_BYTES if text.bytes().all(allowed) => Ok(text),
        _ => Err(format!("not an id: {:?}", text.chars().take(MAX_ID_BYTES).collect::<String>())),
    }
}

fn check_name(what: &str, name: &str) -> Result<(), String> {
    if name.is_empty() {
        Err(format!("{what} is empty"))
    } else if name.len() > MAX_NAME_BYTES {
        Err(format!("{what} is longer than {MAX_NAME_BYTES} bytes"))
    } else if name.chars().any(char::is_control) {
        Err(format!("{what} holds control characters"))
    } else {
        Ok(())
    }
}
