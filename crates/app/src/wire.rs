//! The sub-protocol between two web-apps, version 1: JSON text frames over one WebSocket.
//!
//! Once the WebSocket is up, both ends do the same:
//!
//! 1. each sends `hello`: who it is, and up to where its own messages are acknowledged;
//! 2. each answers the other's `hello` with an `ack` of the watermark that it holds for that sender;
//! 3. each sends its messages after that watermark, and acknowledges what it receives.
//!
//! An `ack` is cumulative, and sent once what it covers is stored. `dead` lists messages up to it whose receiving hook
//! kept failing, `replied` those that have a reply, which is a message of its own; an entry is repeated until the sender is
//! known to have it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::limits::MAX_ERROR_CHARS;
use crate::message::{Location, MessageId, SenderId};
use crate::payload::MAX_PAYLOAD_BYTES;
use crate::peer::PeerName;

/// The name in `Sec-WebSocket-Protocol`; an end that speaks another is refused.
pub const SUBPROTOCOL: &str = "ferry.app.v1";

/// The largest WebSocket message: a payload with its envelope.
pub(crate) const MAX_FRAME_BYTES: usize = MAX_PAYLOAD_BYTES + 64 * 1024;

/// One frame.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Frame {
    Hello(Hello),
    Message(MessageFrame),
    Ack(Ack),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hello {
    pub(crate) sender: SenderId,
    pub(crate) pod: String,
    pub(crate) cluster: String,
    /// Messages up to here are acknowledged and no longer kept by the sender.
    pub(crate) acked: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ack {
    /// The receiver's watermark: every message up to here has been processed.
    pub(crate) seq: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) dead: Vec<Dead>,
    /// Messages that have a reply.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) replied: Vec<u64>,
}

/// A message as it arrives. Its content is checked later: a message with a number can be acknowledged, whatever else is
/// wrong with it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessageFrame {
    pub(crate) seq: u64,
    pub(crate) id: MessageId,
    pub(crate) payload: Box<RawValue>,
    pub(crate) trail: Box<RawValue>,
    /// The message that this one is the reply to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) in_reply_to: Option<MessageId>,
}

/// A message that was received, but that the receiving hook kept refusing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dead {
    pub(crate) seq: u64,
    pub(crate) id: MessageId,
    pub(crate) error: String,
}

/// The other end sent something that the sub-protocol does not allow.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("not a frame of {SUBPROTOCOL}: {0}")]
    Syntax(String),
    #[error("{frame} where {expected} was expected")]
    Unexpected { frame: &'static str, expected: &'static str },
    #[error("a binary WebSocket message; every frame is text")]
    Binary,
    #[error("message {got} follows message {last}: a gap")]
    Gap { last: u64, got: u64 },
    #[error("message {got} where {expected} was expected: an id is its sender's, with its number")]
    Id { got: MessageId, expected: MessageId },
    #[error("this sender belongs to another peer than {0}")]
    ForeignSender(PeerName),
    #[error("a peer's sender, but the tunnel names no peer: set proxy_protocol: v2 there")]
    UnknownPeer,
    #[error("{acked} acknowledged in this sender's name, but only {last} received here")]
    Ahead { acked: u64, last: u64 },
    #[error("an ack of {got}, but messages {acked} to {sent} are on their way")]
    Ack { got: u64, acked: u64, sent: u64 },
}

impl Frame {
    pub(crate) fn encode(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// The frame of a message that is JSON already.
    pub(crate) fn of_message(text: &str) -> String {
        format!("{{\"message\":{text}}}")
    }

    pub(crate) fn decode(text: &str) -> Result<Self, WireError> {
        let frame = serde_json::from_str(text).map_err(|error| WireError::Syntax(error.to_string()))?;
        let checked = match &frame {
            Self::Hello(hello) => hello.location().check(),
            Self::Message(_) | Self::Ack(_) => Ok(()),
        };
        checked.map_err(WireError::Syntax)?;
        Ok(frame.truncate_errors())
    }

    /// Cuts errors to the length that this version keeps.
    fn truncate_errors(mut self) -> Self {
        if let Self::Ack(ack) = &mut self {
            for row in &mut ack.dead {
                if let Some((end, _)) = row.error.char_indices().nth(MAX_ERROR_CHARS) {
                    row.error.truncate(end);
                }
            }
        }
        self
    }

    /// What this frame is called in an error.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Message(_) => "message",
            Self::Ack(_) => "ack",
        }
    }
}

impl MessageFrame {
    /// Roughly what it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.payload.get().len() + self.trail.get().len()
    }
}

impl Hello {
    pub(crate) fn location(&self) -> Location {
        Location { pod: self.pod.clone(), cluster: self.cluster.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One frame of each kind, as `ferry.app.v1` has it for ever.
    const FROZEN: [&str; 4] = [
        r#"{"hello":{"sender":"0123456789abcdef01234567","pod":"initiator-0","cluster":"cluster-a","acked":7}}"#,
        r#"{"message":{"seq":8,"id":"0123456789abcdef01234567-8","payload":{"n": 1.50},"trail":[{"pod":"initiator-0","cluster":"cluster-a","at":"2025-06-01T12:00:00.000Z"}]}}"#,
        r#"{"ack":{"seq":8}}"#,
        r#"{"ack":{"seq":9,"dead":[{"seq":9,"id":"0123456789abcdef01234567-9","error":"no"}]}}"#,
    ];

    #[test]
    fn frames_are_written_as_they_have_always_been_and_read_back() {
        for text in FROZEN {
            let frame = Frame::decode(text).unwrap();
            assert_eq!(frame.encode().unwrap(), text);
        }
        let names: Vec<_> = FROZEN.iter().map(|text| Frame::decode(text).unwrap().name()).collect();
        assert_eq!(names, ["hello", "message", "ack", "ack"]);
    }

    #[test]
    fn what_is_not_a_frame_is_refused_with_the_reason() {
        let long = "x".repeat(254);
        for (text, says) in [
            ("", "EOF"),
            ("{}", "expected"),
            (r#"{"ack":{"seq":1},"hello":{}}"#, "expected"),
            (r#"{"ack":{"seq":-1}}"#, "integer"),
            (r#"{"ack":{"seq":18446744073709551616}}"#, "expected u64"),
            (r#"{"ack":{"seq":1,"more":2}}"#, "unknown field `more`"),
            (r#"{"reply":{}}"#, "unknown variant `reply`"),
            (&FROZEN[0].replace("initiator-0", ""), "pod is empty"),
            (&FROZEN[0].replace("cluster-a", &long), "longer than 253 bytes"),
            (&FROZEN[1].replace("4567-8", "4567/8"), "not an id"),
            (&FROZEN[0].replace("0123456789abcdef01234567", ""), "not an id"),
        ] {
            match Frame::decode(text) {
                Err(WireError::Syntax(reason)) => assert!(reason.contains(says), "{text}: {reason:?}, not {says:?}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
