//! The initiator's side of the WebSocket: it dials the terminator, and dials again whenever the WebSocket ends.

use std::time::Duration;

use axum::http::header::{AUTHORIZATION, HOST, SEC_WEBSOCKET_PROTOCOL};
use axum::http::{HeaderValue, Uri};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::connect_async_with_config;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tracing::{debug, info, warn};

use crate::app::App;
use crate::delivery;
use crate::socket::{self, Socket};
use crate::token::Token;
use crate::wire::{self, ADDITIONS, HEADERS_ADDITION, SUBPROTOCOL};

/// From connecting to the end of the WebSocket handshake. The tunnel accepts the connection at once, but an answer takes
/// the far side; giving up costs nothing, since nothing has been sent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const MIN_RETRY_DELAY: Duration = Duration::from_millis(100);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(2);

/// A peer address that can be dialled.
#[derive(Debug, Clone)]
pub(crate) struct PeerUrl(Uri);

impl PeerUrl {
    /// Parses `ws://host:port/path`; the error says what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
        match uri.scheme_str() {
            Some("ws") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(Self(uri)),
            Some("ws") => Err("it has no host".into()),
            Some("wss") => Err("it must be plain ws://, because the tunnel encrypts".into()),
            _ => Err("it must start with ws://".into()),
        }
    }
}

/// Keeps a WebSocket to `peer` until the web-app shuts down.
pub(crate) async fn run(app: &App, peer: &PeerUrl) {
    let mut backoff = MIN_RETRY_DELAY;
    let mut quiet = false;
    let site = app.sites.first();
    while !app.phases.closing.is_cancelled() {
        let connected = tokio::select! {
            connected = connect(peer, app.access.peer_token.as_ref()) => connected,
            () = app.phases.closing.cancelled() => return,
        };
        match connected {
            Ok(socket) => {
                let before = app.metrics.far_connects.get();
                let reason = delivery::run(app, &site, socket, std::future::pending()).await;
                info!(ended = %reason, "disconnected from the far web-app");
                // Keep the longer delay if the far side failed before or during its hello, or either end broke the protocol.
                if app.metrics.far_connects.get() > before && !reason.is_refusal() {
                    (backoff, quiet) = (MIN_RETRY_DELAY, false);
                }
            }
            // Warn once per outage: the next attempts fail in the same way.
            Err(error) if quiet => debug!(%error, peer = %peer.0, "still cannot connect to the far web-app"),
            Err(error) => {
                warn!(%error, peer = %peer.0, "cannot connect to the far web-app yet, retrying");
                quiet = true;
            }
        }
        tokio::select! {
            () = sleep(jittered(backoff)) => backoff = (backoff * 2).min(MAX_RETRY_DELAY),
            () = app.phases.closing.cancelled() => return,
        }
    }
}

/// Why there is no WebSocket to the far side.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("no answer within {CONNECT_TIMEOUT:?}")]
    TimedOut,
    #[error("refused with {status}: {body}")]
    Refused { status: u16, body: String },
    #[error(transparent)]
    WebSocket(tungstenite::Error),
}

impl From<tungstenite::Error> for ConnectError {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Http(response) => Self::Refused {
                status: response.status().as_u16(),
                body: response.body().as_deref().map(one_line).unwrap_or_default(),
            },
            error => Self::WebSocket(error),
        }
    }
}

async fn connect(peer: &PeerUrl, token: Option<&Token>) -> Result<Socket, ConnectError> {
    let mut request = peer.0.clone().into_client_request()?;
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    request.headers_mut().insert(ADDITIONS, HeaderValue::from_static(HEADERS_ADDITION));
    // The name of the tunnel here means nothing there: the far web-app only accepts local names.
    request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    // A token is visible ASCII.
    if let Some(bearer) = token.and_then(|token| HeaderValue::from_str(&token.bearer()).ok()) {
        request.headers_mut().insert(AUTHORIZATION, bearer);
    }
    let no_delay = true;
    let connecting = connect_async_with_config(request, Some(socket::config()), no_delay);
    let (websocket, response) = timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| ConnectError::TimedOut)??;
    Ok(Socket { takes_headers: wire::takes_headers(response.headers()), ..websocket.into() })
}

/// The start of an error's body, fit for one log line.
fn one_line(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().filter(|c| !c.is_control()).take(500).collect()
}

/// Between half of `pause` and all of it, so that many initiators do not dial in step.
fn jittered(pause: Duration) -> Duration {
    // Without randomness there is no jitter; the back-off still holds.
    let fraction = f64::from(getrandom::u32().unwrap_or(u32::MAX)) / f64::from(u32::MAX);
    pause.mul_f64(0.5 + fraction / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_that_cannot_be_dialled_are_refused_with_a_reason() {
        assert!(PeerUrl::parse("ws://127.0.0.1:18001/ws").is_ok());
        assert!(PeerUrl::parse("wss://far/ws").unwrap_err().contains("ws://"));
        for wrong in ["127.0.0.1:18001", "http://far/ws", "ws://", "ws:///ws", "", "a b"] {
            assert!(PeerUrl::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn jitter_stays_within_the_pause() {
        for _ in 0..1000 {
            let pause = jittered(MAX_RETRY_DELAY);
            assert!(pause >= MAX_RETRY_DELAY / 2 && pause <= MAX_RETRY_DELAY, "{pause:?}");
        }
    }
}
