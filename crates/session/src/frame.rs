use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use crate::codec::{DATA_HEADER, MAX_FRAME};
use crate::{Epoch, Instance, Payload, SessionId};

/// The protocol version that this crate speaks.
pub const VERSION: u16 = 1;

/// Most application bytes in one Data frame: with its header it fills a TLS record (2^14 bytes, RFC 8446 §5.1).
pub const MAX_PAYLOAD: usize = MAX_FRAME - DATA_HEADER;

/// Longest service name, in bytes.
pub const MAX_SERVICE: usize = 253;

/// Longest reason in a Reject or Reset, in bytes of UTF-8; longer ones are cut.
pub const MAX_REASON: usize = 200;

/// Everything that two tunnels say to each other on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// First on every link, both ways.
    Preface(Preface),
    /// Opener: attach a session to this link.
    Hello(Hello<'a>),
    /// Acceptor: the session is attached.
    Accept(Accept),
    /// The link or the attach is refused; nothing follows.
    Reject(Reject<'a>),
    /// Application bytes, the first of which is at `offset`.
    Data {
        /// Offset of the first byte.
        offset: u64,
        /// 1 to [`MAX_PAYLOAD`] bytes.
        payload: Payload<'a>,
    },
    /// What has arrived, and how far the other end may send.
    Ack {
        /// Everything below this offset is held by this end.
        received: u64,
        /// The highest offset that may be sent.
        window: u64,
    },
    /// The application closed this direction. Occupies one offset.
    Finish {
        /// The offset after the direction's last byte.
        offset: u64,
    },
    /// The last frame of this direction on this link: it ends at `end`, what follows goes on the next link.
    Retire {
        /// Offset after the last byte that was sent on this link.
        end: u64,
    },
    /// This end has sent and received everything.
    Done,
    /// The session ends here and now.
    Reset(Reset<'a>),
    /// Asks for a Pong.
    Ping {
        /// Comes back in the Pong.
        token: u64,
    },
    /// Answers a Ping.
    Pong {
        /// The Ping's token.
        token: u64,
    },
    /// The sender's process took over from this instance, whose sessions are lost.
    Gone {
        /// The instance that is no more.
        instance: Instance,
    },
    /// Opener: where the application of the session connected from, whose Hello follows.
    Origin(Origin),
}

/// Who speaks on this link, and who may open a session on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preface {
    /// Protocol version, [`VERSION`].
    pub version: u16,
    /// The sender's instance.
    pub instance: Instance,
    /// Who sends the Hello; the accepting end repeats what the dialler said.
    pub kind: LinkKind,
}

/// Which end of a link sends the Hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkKind {
    /// The end that dialled.
    Own,
    /// The end that was dialled.
    Offered,
}

/// The application's connection at the opener. Both addresses are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Where the application connected from.
    pub source: SocketAddr,
    /// Where it connected to.
    pub destination: SocketAddr,
}

/// The request to attach a session to a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Which session.
    pub session: SessionId,
    /// The number of this link within the session.
    pub epoch: Epoch,
    /// Why.
    pub intent: Intent,
    /// Everything below this offset is held by the opener.
    pub received: u64,
    /// The highest offset that the acceptor may send.
    pub window: u64,
    /// How long the opener keeps the session without a link, in whole milliseconds on the wire.
    pub resume_window: Duration,
    /// What to connect to, 1 to [`MAX_SERVICE`] bytes.
    pub service: Cow<'a, str>,
}

/// Why a session is attached to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Intent {
    /// The session is new.
    Open,
    /// Its link is gone or suspect: never read again.
    Resume,
    /// Its link is fine: make before break.
    Rotate,
}

/// The answer to a Hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    /// Everything below this offset is held by the acceptor.
    pub received: u64,
    /// The highest offset that the opener may send.
    pub window: u64,
    /// How long the acceptor keeps the session without a link, in whole milliseconds on the wire.
    pub resume_window: Duration,
}

/// The refusal of a link or an attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject<'a> {
    /// For the machine.
    pub code: RejectCode,
    /// With [`RejectCode::Closed`]: everything below this offset was held by the acceptor. Otherwise zero.
    pub received: u64,
    /// For people, at most [`MAX_REASON`] bytes.
    pub reason: Cow<'a, str>,
}

/// Why a link or an attach is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RejectCode {
    /// The other end speaks another protocol version.
    Version = 1,
    /// The other end broke the protocol.
    Protocol = 2,
    /// No such service for this peer, or it may not be reached: the answer does not tell which.
    Service = 3,
    /// The application refused the connection, or could not be reached.
    Unreachable = 4,
    /// A limit of this end is reached.
    Limit = 5,
    /// This end is shutting down.
    Draining = 6,
    /// No such session: this process never had it.
    Unknown = 7,
    /// The session was here and has ended.
    Closed = 8,
    /// A higher epoch was seen.
    Stale = 9,
    /// A rotate came while the session was not attached to a link.
    NotAttached = 10,
}

/// The end of a session without regard to what is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reset<'a> {
    /// For the machine.
    pub code: ResetCode,
    /// For people, at most [`MAX_REASON`] bytes.
    pub reason: Cow<'a, str>,
}

/// Why a session was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ResetCode {
    /// The application reset its connection.
    Application = 1,
    /// The tunnel is shutting down.
    Draining = 2,
    /// The peer, or its right to reach the service, was withdrawn.
    Withdrawn = 3,
    /// The other end broke the protocol.
    Protocol = 4,
    /// The application could not be reached.
    Unreachable = 5,
}

/// `reason`, cut at a character boundary to what a frame may carry.
pub(crate) fn bounded(reason: &str) -> &str {
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

impl Frame<'_> {
    /// The frame's name in logs and errors.
    pub fn name(&self) -> &'static str {
        match self {
            Frame::Preface(_) => "Preface",
            Frame::Hello(_) => "Hello",
            Frame::Accept(_) => "Accept",
            Frame::Reject(_) => "Reject",
            Frame::Data { .. } => "Data",
            Frame::Ack { .. } => "Ack",
            Frame::Finish { .. } => "Finish",
            Frame::Retire { .. } => "Retire",
            Frame::Done => "Done",
            Frame::Reset(_) => "Reset",
            Frame::Ping { .. } => "Ping",
            Frame::Pong { .. } => "Pong",
            Frame::Gone { .. } => "Gone",
            Frame::Origin(_) => "Origin",
        }
    }
}
