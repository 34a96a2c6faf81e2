//! TLS: who is spoken to, and how. The only place that names rustls.

mod error;
mod handshake;
mod policy;
mod record;
mod verify;

pub use error::TlsError;
pub(crate) use handshake::{Acceptor, Dialler, Established};
pub(crate) use record::{HEADER as RECORD_HEADER, MAX_PLAINTEXT, MAX_RECORDS, Opened, Opener, Sealer};
