//! TLS: who is spoken to, and how. The only place that names rustls.

mod cipher;
mod error;
mod handshake;
mod hello;
mod policy;
mod record;
mod verify;

pub use error::TlsError;
#[cfg(test)]
pub(crate) use handshake::Proven;
pub(crate) use handshake::{Acceptor, Dialler, Established};
pub(crate) use hello::ClientHello;
#[cfg(test)]
pub(crate) use record::tests::twins;
pub(crate) use record::{
    APPLICATION_DATA, HEADER as RECORD_HEADER, MAX_PLAINTEXT, MAX_RECORDS, Opened, Opener, SEAL as RECORD_SEAL, Sealer,
};
