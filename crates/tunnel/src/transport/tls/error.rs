use ferry_config::{PublicKey, ValueError};
use rustls::{AlertDescription, CertificateError, Error, OtherError};
use thiserror::Error;

use crate::telemetry::metrics::LinkFailure;

/// Why a secure connection cannot be made, or cannot go on.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The handshake failed: the peer does not follow the policy, or is no TLS end at all.
    #[error("TLS handshake: {0}")]
    Handshake(#[source] Error),
    /// The handshake ended in something that the policy does not allow.
    #[error("TLS handshake agreed on an unexpected {0}")]
    Policy(&'static str),
    /// The peer proved a key that is not listed for it.
    #[error("its key is {0}, which is not listed here under `keys`")]
    Unlisted(PublicKey),
    /// The peer presented a key and did not prove that it holds it.
    #[error("it presented the key {0}, and did not prove that it holds it")]
    Unproved(PublicKey),
    /// The peer does not let this end's key in.
    #[error("it refused this end's key: is the key listed there under `keys`?")]
    KeyRefused,
    /// The peer presented something that is not an Ed25519 key.
    #[error("peer key: {0}")]
    Key(#[from] ValueError),
    /// A record that no honest peer sends.
    #[error("TLS record {0}")]
    Record(&'static str),
    /// The peer gave up.
    #[error("TLS alert {0} from the peer")]
    Alert(u8),
    /// The key was used as often as its cipher allows.
    #[error("traffic key used up")]
    KeyExhausted,
    /// The connection under it failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl TlsError {
    /// What an alert that came after the handshake says.
    pub(super) fn of_alert(description: u8) -> Self {
        if refuses_key(description.into()) { Self::KeyRefused } else { Self::Alert(description) }
    }

    /// The peer does not speak what it was asked for.
    pub(crate) fn is_protocol_refused(&self) -> bool {
        matches!(self, Self::Handshake(Error::AlertReceived(AlertDescription::NoApplicationProtocol)))
    }

    /// How a link that failed with this is counted.
    pub(crate) fn failure(&self) -> LinkFailure {
        match self {
            Self::Unlisted(_) | Self::Unproved(_) | Self::KeyRefused | Self::Key(_) => LinkFailure::Key,
            Self::Handshake(Error::InvalidCertificate(_) | Error::NoCertificatesPresented) => LinkFailure::Key,
            Self::Handshake(Error::PeerIncompatible(_) | Error::NoApplicationProtocol | Error::AlertReceived(_)) => {
                LinkFailure::Policy
            }
            Self::Policy(_) | Self::Alert(_) => LinkFailure::Policy,
            Self::Handshake(_) | Self::Record(_) | Self::KeyExhausted => LinkFailure::Tls,
            // What is no WebSocket, where one carries the link.
            Self::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => LinkFailure::Carrier,
            Self::Io(_) => LinkFailure::Closed,
        }
    }
}

impl From<Error> for TlsError {
    fn from(error: Error) -> Self {
        match &error {
            Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => match other.downcast_ref() {
                Some(Refusal::Unlisted(key)) => Self::Unlisted(*key),
                Some(Refusal::Unproved(key)) => Self::Unproved(*key),
                None => Self::Handshake(error),
            },
            Error::AlertReceived(alert) if refuses_key(*alert) => Self::KeyRefused,
            _ => Self::Handshake(error),
        }
    }
}

/// Why a verifier refuses a key.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    #[error("{0} is not listed")]
    Unlisted(PublicKey),
    #[error("{0} was not proved")]
    Unproved(PublicKey),
}

/// Alerts by which stacks refuse what an end proved itself with (RFC 8446 §6.2).
fn refuses_key(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
            | AlertDescription::CertificateRequired
    )
}
