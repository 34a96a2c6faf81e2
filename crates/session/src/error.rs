use std::borrow::Cow;

use thiserror::Error;

use crate::{DecodeError, Epoch, Reject, RejectCode};

/// The peer broke the protocol: the session ends, and both applications are reset.
///
/// TLS guarantees that these bytes are what the peer sent, so this is a defect at the other end and would come again
/// over another link.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// What came is not a frame.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// A frame did not end with its record.
    #[error("a frame that its record cuts off")]
    Cut,
    /// The frame has no place in this state of the link.
    #[error("{0} frame out of place")]
    OutOfPlace(&'static str),
    /// Data or Finish lies beyond what has been received.
    #[error("gap in offsets: {offset} came after {received}")]
    Gap {
        /// Where the frame starts.
        offset: u64,
        /// Where it had to start at the latest.
        received: u64,
    },
    /// More was acknowledged than was ever sent.
    #[error("ack of {received}, beyond the {sent} that were sent")]
    AckBeyondSent {
        /// What the peer claims to hold.
        received: u64,
        /// Offset after the last byte sent.
        sent: u64,
    },
    /// More was sent than the window allows.
    #[error("data up to {end}, beyond the window of {window}")]
    BeyondWindow {
        /// Offset after the last byte that came.
        end: u64,
        /// The highest offset that was granted.
        window: u64,
    },
    /// Data or a second Finish came beyond the Finish.
    #[error("data up to {end}, beyond the finish at {finish}")]
    BeyondFinish {
        /// Offset after the last byte that came.
        end: u64,
        /// Where the direction had ended.
        finish: u64,
    },
}

/// Why an opener cannot attach now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AttachError {
    /// The session has ended.
    #[error("the session has ended")]
    Closed,
    /// Another attach is under way.
    #[error("an attach is already under way")]
    InFlight,
    /// A rotate needs a link to move away from, an open must be the first.
    #[error("the intent does not fit the session's state")]
    WrongState,
    /// The acceptor does not attach.
    #[error("only the opener attaches")]
    NotOpener,
    /// 2^32 links have been used.
    #[error("the session has used up its epochs")]
    Exhausted,
}

/// Why an acceptor refuses a Hello for a session that it has.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Rejection {
    /// A higher epoch was seen: the Hello is late.
    #[error("epoch {offered} came after epoch {seen}")]
    Stale {
        /// The Hello's.
        offered: Epoch,
        /// The highest seen.
        seen: Epoch,
    },
    /// A rotate came for a session that has lost its link.
    #[error("this end has lost the session's link: resume")]
    NotAttached,
    /// A rotate came before the one before it had ended.
    #[error("the rotation before has not ended yet")]
    Rotating,
    /// The session has ended.
    #[error("the session has ended")]
    Closed {
        /// Everything below this offset had been received.
        received: u64,
    },
    /// The Hello breaks the protocol.
    #[error(transparent)]
    Violation(#[from] Violation),
}

impl Rejection {
    /// The frame that tells the opener.
    pub fn to_reject(&self) -> Reject<'static> {
        let (code, received) = match self {
            Self::Stale { .. } => (RejectCode::Stale, 0),
            Self::NotAttached => (RejectCode::NotAttached, 0),
            Self::Rotating => (RejectCode::Limit, 0),
            Self::Closed { received } => (RejectCode::Closed, *received),
            Self::Violation(_) => (RejectCode::Protocol, 0),
        };
        Reject { code, received, reason: Cow::Owned(self.to_string()) }
    }
}
