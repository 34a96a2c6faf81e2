//! One WebSocket, whichever library it came from.

use std::pin::Pin;
use std::time::Duration;

use axum::extract::ws;
use futures_util::future::ready;
use futures_util::stream::BoxStream;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite;

use crate::peer::SessionId;
use crate::wire::MAX_FRAME_BYTES;

/// An idle WebSocket sends a ping this often.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(30);
/// A WebSocket is given up after this much silence: longer than a tunnel's resume window of 10 minutes, so that an outage
/// which the tunnel survives is only a pause here.
pub(crate) const SILENCE_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// How long a close may take to reach the other end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Smaller than the libraries' 128 KiB: many `/stream` clients are idle.
const BUFFER_BYTES: usize = 16 * 1024;

/// What is received from a WebSocket.
#[derive(Debug)]
pub(crate) enum Incoming {
    Text(String),
    Binary,
    /// A ping or a pong; the library answers pings.
    Alive,
    Closed {
        code: u16,
        reason: String,
    },
}

/// What is sent to a WebSocket.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Text(String),
    Ping,
    Close { code: u16, reason: String },
}

/// A WebSocket that failed, and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SocketError(String);

impl From<axum::Error> for SocketError {
    fn from(error: axum::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<tungstenite::Error> for SocketError {
    fn from(error: tungstenite::Error) -> Self {
        Self(error.to_string())
    }
}

/// The receiving half.
pub(crate) type Reader = BoxStream<'static, Result<Incoming, SocketError>>;
/// The sending half. `feed` buffers a bounded amount and then waits for the network; `flush` empties it.
pub(crate) type Writer = Pin<Box<dyn Sink<Outgoing, Error = SocketError> + Send>>;

pub(crate) struct Socket {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    /// The other end reads the headers of messages.
    pub(crate) takes_headers: bool,
    /// The session of the tunnels that it lies in, where that is known.
    pub(crate) session: Option<SessionId>,
}

impl Socket {
    /// Closes the WebSocket. Reads to the end, because unread data would make the kernel reset the connection before the
    /// close frame has arrived.
    pub(crate) async fn close(mut self, code: u16, reason: &str) {
        // RFC 6455 5.5: a control frame holds 125 bytes, two of them the code.
        let reason = reason.chars().scan(0, |bytes, c| {
            *bytes += c.len_utf8();
            (*bytes <= 123).then_some(c)
        });
        let close = Outgoing::Close { code, reason: reason.collect() };
        // The peer may be gone or not answer.
        let _ = timeout(CLOSE_TIMEOUT, async {
            if self.writer.send(close).await.is_ok() {
                while let Some(Ok(_)) = self.reader.next().await {}
            }
        })
        .await;
    }
}

/// Limits for an accepted WebSocket.
pub(crate) fn limited(upgrade: ws::WebSocketUpgrade) -> ws::WebSocketUpgrade {
    upgrade
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_message_size(MAX_FRAME_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
}

/// Limits for a dialled WebSocket.
pub(crate) fn config() -> tungstenite::protocol::WebSocketConfig {
    tungstenite::protocol::WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_message_size(Some(MAX_FRAME_BYTES))
        .max_frame_size(Some(MAX_FRAME_BYTES))
}

impl From<ws::WebSocket> for Socket {
    fn from(socket: ws::WebSocket) -> Self {
        split(
            socket,
            |message| match message {
                ws::Message::Text(text) => Incoming::Text(text.as_str().to_owned()),
                ws::Message::Binary(_) => Incoming::Binary,
                ws::Message::Ping(_) | ws::Message::Pong(_) => Incoming::Alive,
                ws::Message::Close(frame) => closed(frame.map(|frame| (frame.code, frame.reason.to_string()))),
            },
            |outgoing| match outgoing {
                Outgoing::Text(text) => ws::Message::Text(text.into()),
                Outgoing::Ping => ws::Message::Ping(Default::default()),
                Outgoing::Close { code, reason } => {
                    ws::Message::Close(Some(ws::CloseFrame { code, reason: reason.into() }))
                }
            },
        )
    }
}

impl<S> From<tokio_tungstenite::WebSocketStream<S>> for Socket
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    fn from(socket: tokio_tungstenite::WebSocketStream<S>) -> Self {
        use tungstenite::Message;
        split(
            socket,
            |message| match message {
                Message::Text(text) => Incoming::Text(text.as_str().to_owned()),
                Message::Binary(_) => Incoming::Binary,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Incoming::Alive,
                Message::Close(frame) => closed(frame.map(|frame| (frame.code.into(), frame.reason.to_string()))),
            },
            |outgoing| match outgoing {
                Outgoing::Text(text) => Message::Text(text.into()),
                Outgoing::Ping => Message::Ping(Default::default()),
                Outgoing::Close { code, reason } => {
                    Message::Close(Some(tungstenite::protocol::CloseFrame { code: code.into(), reason: reason.into() }))
                }
            },
        )
    }
}

fn split<W, M, E>(socket: W, incoming: fn(M) -> Incoming, outgoing: fn(Outgoing) -> M) -> Socket
where
    W: Stream<Item = Result<M, E>> + Sink<M, Error = E> + Send + 'static,
    M: Send + 'static,
    E: 'static,
    SocketError: From<E>,
{
    let (writer, reader) = socket.split();
    Socket {
        reader: reader.map(move |result| Ok(incoming(result?))).boxed(),
        writer: Box::pin(writer.with(move |item| ready(Ok::<_, SocketError>(outgoing(item))))),
        takes_headers: false,
        session: None,
    }
}

fn closed(frame: Option<(u16, String)>) -> Incoming {
    // RFC 6455 7.1.5: 1005 stands for a close frame without a code.
    let (code, reason) = frame.unwrap_or((1005, String::new()));
    Incoming::Closed { code, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lost_socket_can_be_used_on_and_closed_without_harm() {
        let (near, far) = tokio::io::duplex(64);
        let websocket = tokio_tungstenite::WebSocketStream::from_raw_socket(
            near,
            tungstenite::protocol::Role::Server,
            Some(config()),
        );
        let mut socket = Socket::from(websocket.await);
        drop(far);
        for _ in 0..3 {
            assert!(socket.writer.send(Outgoing::Text("x".into())).await.is_err());
        }
        assert!(!matches!(socket.reader.next().await, Some(Ok(_))));
        socket.close(1001, "bye").await;
    }
}
