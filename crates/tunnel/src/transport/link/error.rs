//! How a link fails, and who is told what of it.

use std::borrow::Cow;
use std::io;

use ferry_session::{DecodeError, Reject, RejectCode, Violation};
use thiserror::Error;

use crate::telemetry::metrics::LinkFailure;
use crate::transport::tls::TlsError;

/// Why a link is no more.
#[derive(Debug, Error)]
pub(crate) enum LinkError {
    /// The peer ended it.
    #[error("closed by the peer")]
    Closed,
    /// The connection under it failed.
    #[error("lost: {0}")]
    Lost(#[from] io::Error),
    /// It is no secure connection any more.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The peer sent what is no frame.
    #[error("protocol violated: {0}")]
    Decode(#[source] DecodeError),
    /// A frame did not end with its record.
    #[error("protocol violated: a frame that its record cuts off")]
    Cut,
    /// The peer sent a frame that has no place here.
    #[error("protocol violated: {0} frame out of place")]
    OutOfPlace(&'static str),
    /// This end holds as many unused links of the peer as it may.
    #[error("too many links that carry no session")]
    TooMany,
    /// The peer took too long for its part of the handshake.
    #[error("no handshake in time")]
    TimedOut,
    /// The peer refused the link.
    #[error("refused by the peer: {1}")]
    Refused(RejectCode, String),
    /// The peer speaks another version.
    #[error(transparent)]
    Version(DecodeError),
}

impl From<DecodeError> for LinkError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Version(_) => Self::Version(error),
            error => Self::Decode(error),
        }
    }
}

impl LinkError {
    /// How a link that failed with this is counted.
    pub(crate) fn failure(&self) -> LinkFailure {
        match self {
            Self::Closed | Self::Lost(_) => LinkFailure::Closed,
            Self::Tls(error) => error.failure(),
            Self::Decode(_) | Self::Cut | Self::OutOfPlace(_) => LinkFailure::Protocol,
            Self::Version(_) | Self::Refused(RejectCode::Version, _) => LinkFailure::Version,
            Self::TooMany | Self::Refused(RejectCode::Limit, _) => LinkFailure::Limit,
            Self::TimedOut => LinkFailure::Timeout,
            Self::Refused(..) => LinkFailure::Protocol,
        }
    }

    /// How the peer broke the protocol, if that is what happened.
    pub(crate) fn violation(&self) -> Option<Violation> {
        match self {
            Self::Decode(error) => Some(Violation::Malformed(*error)),
            Self::Cut => Some(Violation::Cut),
            Self::OutOfPlace(name) => Some(Violation::OutOfPlace(name)),
            _ => None,
        }
    }

    /// What a peer that broke the protocol is told. Nothing, if there is nobody to tell or nothing to be told.
    pub(crate) fn to_reject(&self) -> Option<Reject<'static>> {
        let code = match self {
            Self::Version(_) => RejectCode::Version,
            Self::TooMany => RejectCode::Limit,
            Self::Decode(_) | Self::Cut | Self::OutOfPlace(_) => RejectCode::Protocol,
            Self::Closed | Self::Lost(_) | Self::Tls(_) | Self::TimedOut | Self::Refused(..) => return None,
        };
        Some(Reject { code, received: 0, reason: Cow::Owned(self.to_string()) })
    }
}
