//! What the tunnel's record layer needs around it, so that it can be compiled here alone: it is private to the tunnel,
//! and stays so.

#[path = "../../crates/tunnel/src/transport/tls/cipher.rs"]
mod cipher;
#[allow(dead_code, reason = "only what carries data is run")]
#[path = "../../crates/tunnel/src/transport/tls/record/mod.rs"]
mod record;

use std::error::Error;

use rustls::crypto::cipher::Iv;
use rustls::{Connection, ConnectionTrafficSecrets};

pub(crate) use record::{HEADER, MAX_PLAINTEXT, MAX_RECORD, Opened, RecordDecryptor, RecordEncryptor, SEAL};

/// Why a record cannot be made or read.
#[allow(dead_code, reason = "its text is all that is shown")]
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("unexpected {0}")]
    Policy(&'static str),
    #[error("record {0}")]
    Record(&'static str),
    #[error("alert {0}")]
    Alert(u8),
    #[error("traffic key used up")]
    KeyExhausted,
    #[error("key refused")]
    KeyRefused,
}

impl TlsError {
    fn of_alert(description: u8) -> Self {
        Self::Alert(description)
    }
}

/// Both ends of one direction, under a key that is the same in every run.
pub(crate) fn ends() -> Result<(RecordEncryptor, RecordDecryptor), TlsError> {
    let secrets = || ConnectionTrafficSecrets::Aes256Gcm { key: [7; 32].into(), iv: Iv::new([1; 12]) };
    Ok((RecordEncryptor::new(0, &secrets())?, RecordDecryptor::new(0, &secrets())?))
}

/// What one end seals and opens with.
pub(crate) type Keys = (RecordEncryptor, RecordDecryptor);

/// What this end of a handshake has agreed on.
pub(crate) fn keys(connection: Connection) -> Result<Keys, Box<dyn Error>> {
    let secrets = connection.dangerous_extract_secrets()?;
    Ok((RecordEncryptor::new(secrets.tx.0, &secrets.tx.1)?, RecordDecryptor::new(secrets.rx.0, &secrets.rx.1)?))
}
