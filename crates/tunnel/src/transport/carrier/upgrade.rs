//! The HTTP/1.1 Upgrade that begins a WebSocket (RFC 6455 §4), at either end.

use std::time::Duration;

use base64::Engine as _;
use ferry_config::WebSocketUrl;
use thiserror::Error;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::head::{self, HeadError, MAX_FIELDS};
use super::websocket::WebSocket;
use crate::net::Stream;
use crate::transport::tls::send;

/// Where load balancers ask whether this end is there.
const HEALTH_PATH: &str = "/healthz";

/// Why an endpoint did not become a WebSocket.
#[derive(Debug, Error)]
pub(crate) enum UpgradeError {
    #[error("the endpoint {0}")]
    Head(#[from] HeadError),
    #[error("the endpoint redirects ({0}): write the address that it redirects to")]
    Redirected(u16),
    #[error("the endpoint asks for a login ({0}): tunnels prove themselves by their keys; let the path through")]
    LoginWanted(u16),
    #[error(
        "nothing accepts WebSockets at this path (404): compare it with `ws_path` of the peer, and with the route to it"
    )]
    NotFound,
    #[error("the load balancer has no tunnel behind it ({0}): is the peer's tunnel running, with `listen_ws`?")]
    NoBackend(u16),
    #[error("the endpoint answered {0} and no WebSocket: does what is in front of the tunnel pass Upgrade on?")]
    Status(u16),
    #[error("the endpoint answered 101 with a wrong Sec-WebSocket-Accept: is a cache in front of it?")]
    WrongKey,
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
}

/// Asks an endpoint for a WebSocket.
pub(crate) async fn request(mut stream: Box<dyn Stream>, url: &WebSocketUrl) -> Result<Box<dyn Stream>, UpgradeError> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(UpgradeError::Random)?;
    let key = base64::engine::general_purpose::STANDARD.encode(nonce);
    let default_port = if url.secure { 443 } else { 80 };
    let endpoint = url.endpoint.to_string();
    let host = endpoint.strip_suffix(&format!(":{default_port}")).unwrap_or(&endpoint);
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n\
         Sec-WebSocket-Version: 13\r\n\r\n",
        url.path
    );
    send(&mut *stream, request.as_bytes()).await.map_err(HeadError::from)?;
    let (bytes, length) = head::read(&mut *stream).await?;
    match head::status(&bytes[..length])? {
        101 => {}
        code @ 300..=399 => return Err(UpgradeError::Redirected(code)),
        code @ (401 | 403 | 407) => return Err(UpgradeError::LoginWanted(code)),
        404 => return Err(UpgradeError::NotFound),
        code @ 502..=504 => return Err(UpgradeError::NoBackend(code)),
        code => return Err(UpgradeError::Status(code)),
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let _ = response.parse(&bytes[..length]);
    if head::field(response.headers, "sec-websocket-accept") != Some(&derive_accept_key(key.as_bytes())) {
        return Err(UpgradeError::WrongKey);
    }
    Ok(WebSocket::start(stream, bytes[length..].to_vec(), Role::Client, url.max_life))
}

/// Why a connection to this end did not become a WebSocket. It has been answered.
#[derive(Debug, Error)]
pub(crate) enum NotUpgraded {
    #[error("{0}")]
    Head(#[from] HeadError),
    #[error("it was a request that asks for no WebSocket, answered {0}")]
    Answered(u16),
}

/// Answers a request: with a WebSocket at `path`, with what a load balancer wants to know elsewhere.
pub(crate) async fn answer(
    mut stream: Box<dyn Stream>,
    path: &str,
    max_life: Option<Duration>,
) -> Result<Box<dyn Stream>, NotUpgraded> {
    let (bytes, length) = head::read(&mut *stream).await?;
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request.parse(&bytes[..length]).is_ok_and(|status| status.is_complete());
    let field = |name| head::field(request.headers, name);
    let asked_path = request.path.unwrap_or_default().split('?').next().unwrap_or_default();
    let upgrades = head::lists(field("upgrade"), "websocket") && head::lists(field("connection"), "upgrade");
    let key = field("sec-websocket-key").filter(|key| key.len() == 24);
    let refusal = match (request.method, key) {
        _ if !parsed => (400, "Bad Request", ""),
        (Some("GET" | "HEAD"), _) if asked_path == HEALTH_PATH => (200, "OK", ""),
        _ if asked_path != path => (404, "Not Found", ""),
        (Some("GET"), Some(key)) if upgrades && field("sec-websocket-version") == Some("13") => {
            let accept = derive_accept_key(key.as_bytes());
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            send(&mut *stream, answer.as_bytes()).await.map_err(HeadError::from)?;
            return Ok(WebSocket::start(stream, bytes[length..].to_vec(), Role::Server, max_life));
        }
        _ => (426, "Upgrade Required", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
    };
    let (code, reason, more) = refusal;
    let answer = format!("HTTP/1.1 {code} {reason}\r\n{more}Connection: close\r\nContent-Length: 0\r\n\r\n");
    send(&mut *stream, answer.as_bytes()).await.map_err(HeadError::from)?;
    let _ = std::future::poll_fn(|cx| stream.poll_shutdown(cx)).await;
    Err(NotUpgraded::Answered(code))
}
