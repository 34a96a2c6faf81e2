//! A WebSocket (RFC 6455) as a byte stream: binary messages, whatever their bounds.

use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{Sink as _, Stream as _};
use tokio::io::AsyncWrite as _;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use crate::net::{Carrier, Stream};
use crate::transport::layer::{Io, Layer, Layered};

/// Bytes of one message at most: what a link writes at once.
const MAX_SENT: usize = 64 * 1024;

/// Bytes of a message that the other end, or a middlebox, may send.
const MAX_RECEIVED: usize = 1024 * 1024;

pub(super) struct WebSocket {
    socket: WebSocketStream<Io>,
    /// What is left of the last message.
    received: Bytes,
    role: Role,
    max_life: Option<Duration>,
}

impl WebSocket {
    /// A WebSocket whose Upgrade is done; `rest` came behind it.
    pub(super) async fn start(
        stream: Box<dyn Stream>,
        rest: Vec<u8>,
        role: Role,
        max_life: Option<Duration>,
    ) -> Box<dyn Stream> {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_RECEIVED))
            .max_frame_size(Some(MAX_RECEIVED))
            .write_buffer_size(0);
        let socket = WebSocketStream::from_partially_read(Io::new(stream), rest, role, Some(config)).await;
        Layered::new(Self { socket, received: Bytes::new(), role, max_life })
    }
}

fn to_io(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

impl Layer for WebSocket {
    fn io(&self) -> &Io {
        self.socket.get_ref()
    }

    fn io_mut(&mut self) -> &mut Io {
        self.socket.get_mut()
    }

    fn carrier(&self) -> Option<Carrier> {
        Some(Carrier::WebSocket)
    }

    fn max_life(&self) -> Option<Duration> {
        self.max_life
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        while self.received.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.received = bytes,
                // Pings are answered by the socket.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a text message")));
                }
                Some(Ok(Message::Close(_))) | None | Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) => {
                    return Poll::Ready(Ok(0));
                }
                Some(Err(error)) => return Poll::Ready(Err(to_io(error))),
            }
        }
        let mut filled = 0;
        for buf in bufs {
            let count = buf.len().min(self.received.len());
            buf[..count].copy_from_slice(&self.received.split_to(count));
            filled += count;
        }
        Poll::Ready(Ok(filled))
    }

    fn poll_take(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut socket = Pin::new(&mut self.socket);
        ready!(socket.as_mut().poll_ready(cx)).map_err(to_io)?;
        let length = bufs.iter().map(|buf| buf.len()).sum::<usize>().min(MAX_SENT);
        let mut message = Vec::with_capacity(length);
        for buf in bufs {
            message.extend_from_slice(&buf[..buf.len().min(length - message.len())]);
        }
        socket.start_send(Message::Binary(message.into())).map_err(to_io)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(to_io)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.socket).poll_close(cx)) {
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => {}
            Err(error) => return Poll::Ready(Err(to_io(error))),
        }
        // RFC 6455, 7.1.1: "the client SHOULD wait for the server to close the connection". Who closes first keeps its port.
        if self.role == Role::Client {
            while let Some(Ok(_)) = ready!(Pin::new(&mut self.socket).poll_next(cx)) {}
        }
        Pin::new(self.io_mut()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn a_client_leaves_it_to_the_server_to_close_the_connection_first() {
        let (near, mut far) = tokio::io::duplex(1024);
        let mut near = WebSocket::start(Box::new(near), Vec::new(), Role::Client, None).await;
        let mut cx = Context::from_waker(Waker::noop());
        // A Close with code 1000, and the connection goes on for a moment.
        far.write_all(&[0x88, 0x02, 0x03, 0xe8]).await.unwrap();
        let read = near.poll_read(&mut cx, &mut [IoSliceMut::new(&mut [0; 16])]);
        assert!(matches!(read, Poll::Ready(Ok(0))), "{read:?}");
        assert!(near.poll_shutdown(&mut cx).is_pending());
        far.shutdown().await.unwrap();
        assert!(matches!(near.poll_shutdown(&mut cx), Poll::Ready(Ok(()))));
    }
}
