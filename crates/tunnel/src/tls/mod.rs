//! TLS: who is spoken to, and how. The only place that names rustls.

mod handshake;
mod policy;
mod record;
mod verify;

use ferry_config::ValueError;
use thiserror::Error;

pub(crate) use handshake::{Acceptor, Dialler, Established};
pub(crate) use record::{HEADER as RECORD_HEADER, MAX_PLAINTEXT, MAX_RECORDS, Opened, Opener, Sealer};

/// Why a secure connection cannot be made, or cannot go on.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The handshake failed: the peer is not who it must be, or does not follow the policy.
    #[error("TLS handshake: {0}")]
    Handshake(#[from] rustls::Error),
    /// The handshake ended in something that the policy does not allow.
    #[error("TLS handshake agreed on an unexpected {0}")]
    Policy(&'static str),
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
