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

use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::limits::MAX_ERROR_CHARS;
use crate::message::{Location, MessageId, SenderId};
use crate::payload::MAX_PAYLOAD_BYTES;
use crate::peer::PeerName;

/// The name in `Sec-WebSocket-Protocol`; an end that speaks another is refused.
pub const SUBPROTOCOL: &str = "ferry.app.v1";

/// A header of both sides of the WebSocket's handshake: which additions to version 1 an end reads. An end that does not know
/// it does not get them.
pub(crate) const ADDITIONS: &str = "ferry-app-additions";
/// The addition that a message has headers.
pub(crate) const HEADERS_ADDITION: &str = "headers";

/// The largest WebSocket message: a payload with its envelope.
pub(crate) const MAX_FRAME_BYTES: usize = MAX_PAYLOAD_BYTES + 64 * 1024;

/// Whether the end whose part of the WebSocket's handshake has these headers reads those of messages.
pub(crate) fn takes_headers(handshake: &HeaderMap) -> bool {
    let listed = handshake.get_all(ADDITIONS).iter().filter_map(|value| value.to_str().ok());
    listed.flat_map(|value| value.split(',')).any(|addition| addition.trim() == HEADERS_ADDITION)
}

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
    /// Only where the receiver knows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) headers: Option<Box<RawValue>>,
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

    /// The frame of a message that is JSON already, as its headers are.
    pub(crate) fn of_message(text: &str, headers: Option<&str>) -> String {
        match (headers, text.strip_suffix('}')) {
            (Some(headers), Some(open)) => format!("{{\"message\":{open},\"headers\":{headers}}}}}"),
            _ => format!("{{\"message\":{text}}}"),
        }
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
        let headers = self.headers.as_ref().map_or(0, |headers| headers.get().len());
        self.payload.get().len() + self.trail.get().len() + headers
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
    const FROZEN: [&str; 5] = [
        r#"{"hello":{"sender":"0123456789abcdef01234567","pod":"initiator-0","cluster":"cluster-a","acked":7}}"#,
        r#"{"message":{"seq":8,"id":"0123456789abcdef01234567-8","payload":{"n": 1.50},"trail":[{"pod":"initiator-0","cluster":"cluster-a","at":"2025-06-01T12:00:00.000Z"}]}}"#,
        r#"{"ack":{"seq":8}}"#,
        r#"{"ack":{"seq":9,"dead":[{"seq":9,"id":"0123456789abcdef01234567-9","error":"no"}]}}"#,
        r#"{"message":{"seq":9,"id":"0123456789abcdef01234567-9","payload":{},"trail":[],"headers":{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","tracestate":"a=1","baggage":"b=2"}}}"#,
    ];

    #[test]
    fn frames_are_written_as_they_have_always_been_and_read_back() {
        for text in FROZEN {
            let frame = Frame::decode(text).unwrap();
            assert_eq!(frame.encode().unwrap(), text);
        }
        let names: Vec<_> = FROZEN.iter().map(|text| Frame::decode(text).unwrap().name()).collect();
        assert_eq!(names, ["hello", "message", "ack", "ack", "message"]);
    }

    #[test]
    fn headers_are_added_to_a_message_where_they_are_read() {
        let headers = r#"{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","tracestate":"a=1","baggage":"b=2"}"#;
        let message = r#"{"seq":9,"id":"0123456789abcdef01234567-9","payload":{},"trail":[]}"#;
        assert_eq!(Frame::of_message(message, Some(headers)), FROZEN[4]);
        assert_eq!(Frame::of_message(message, None), format!(r#"{{"message":{message}}}"#));
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
