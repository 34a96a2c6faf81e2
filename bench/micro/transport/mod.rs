//! What carries links, compiled here alone: it is private to the tunnel, and stays so.

#[path = "../../../crates/tunnel/src/transport/tls/outer/ciphers.rs"]
mod ciphers;
#[allow(dead_code, reason = "only what carries data is run")]
#[path = "../../../crates/tunnel/src/transport/layer.rs"]
mod layer;
#[path = "../../../crates/tunnel/src/transport/tls/outer/records.rs"]
mod records;
#[path = "../../../crates/tunnel/src/transport/tls/outer/endpoint.rs"]
mod test_endpoint;
#[allow(dead_code, reason = "links are not run")]
#[path = "../../../crates/tunnel/src/transport/unsent.rs"]
mod unsent;
#[path = "../../../crates/tunnel/src/transport/carrier/websocket/mod.rs"]
mod websocket;

mod endpoint;

/// The record layer, where the tunnel has it.
mod tls {
    pub(super) use crate::tls::{
        HEADER as RECORD_HEADER, MAX_PLAINTEXT, MAX_RECORD, Opened, RecordDecryptor, RecordEncryptor,
        SEAL as RECORD_SEAL, TlsError,
    };
}

use std::error::Error;

use tokio_tungstenite::tungstenite::protocol::Role;

use crate::carried::wire::Ends;
use crate::net::Stream;

/// A WebSocket over a stream.
pub(crate) fn websocket(stream: Box<dyn Stream>, role: Role) -> Box<dyn Stream> {
    websocket::WebSocket::start(stream, Vec::new(), role, None)
}

/// Both ends of a connection in TLS, as they are after its handshake.
pub(crate) fn outer_tls((near, far): Ends) -> Result<Ends, Box<dyn Error>> {
    let (near_keys, far_keys) = endpoint::agree()?;
    let start = |stream, keys| records::start(stream, keys, Vec::new(), Vec::new());
    Ok((start(near, near_keys), start(far, far_keys)))
}
