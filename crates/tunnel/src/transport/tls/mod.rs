//! TLS: who is spoken to, and how. The only place that names rustls.

mod cipher;
mod error;
mod handshake;
mod hello;
mod outer;
mod policy;
mod quic;
mod record;
mod verify;

pub use error::TlsError;
#[cfg(test)]
pub(crate) use handshake::Proven;
pub(crate) use handshake::{ClientHandshake, Established, ServerHandshake};
pub(crate) use handshake::{receive, send};
pub(crate) use hello::ClientHello;
pub(crate) use outer::OuterTls;
pub(crate) use policy::key_exchange;
pub(crate) use quic::{quic_accepting, quic_dialling};
#[cfg(test)]
pub(crate) use record::tests::handshaken_pair;
pub(crate) use record::{
    APPLICATION_DATA, HEADER as RECORD_HEADER, MAX_PLAINTEXT, MAX_RECORD, MAX_RECORDS, Opened, RecordDecryptor,
    RecordEncryptor, SEAL as RECORD_SEAL,
};
