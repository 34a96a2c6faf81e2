//! What carries links, compiled here alone: it is private to the tunnel, and stays so.

#[path = "../../../crates/tunnel/src/transport/tls/outer/ciphers.rs"]
mod ciphers;
#[allow(dead_code, reason = "only what carries data is run")]
#[path = "../../../crates/tunnel/src/transport/layer.rs"]
mod layer;
#[path = "../../../crates/tunnel/src/transport/tls/outer/stream.rs"]
mod outer;
#[path = "../../../crates/tunnel/src/transport/tls/outer/endpoint.rs"]
mod test_endpoint;
#[path = "../../../crates/tunnel/src/transport/carrier/websocket/mod.rs"]
mod websocket;

pub(crate) mod endpoint;

use tokio_tungstenite::tungstenite::protocol::Role;

use crate::net::Stream;

/// A WebSocket over a stream.
pub(crate) fn websocket(stream: Box<dyn Stream>, role: Role) -> Box<dyn Stream> {
    websocket::WebSocket::start(stream, Vec::new(), role, None)
}
