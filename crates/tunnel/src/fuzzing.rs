//! Entry points of the fuzz targets into private code: what strangers and middleboxes send, in any pieces.

use std::io::{self, IoSlice, IoSliceMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use ferry_config::{Address, WebSocketUrl};
use futures_util::FutureExt as _;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::net::Stream;
use crate::transport::carrier::proxy::{self, ProxyServer};
use crate::transport::carrier::upgrade;
use crate::transport::tls::ClientHello;

/// Stands in an answer for the Sec-WebSocket-Accept that belongs to the request.
pub const ACCEPT: &str = "{accept}";

/// What became of a connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Why it is none, or nothing.
    pub refused: Option<String>,
    /// What this end sent; a key that is random is left out, frames under a random mask are not.
    pub written: Vec<u8>,
    /// What the connection carried, up to its end or an error.
    pub carried: Vec<u8>,
}

/// A request to a listener for WebSockets at `path`, then what it carries. `step`: bytes that arrive at once, or 0 for all.
pub fn upgrade_answer(input: &[u8], step: usize, path: &str) -> Outcome {
    let (stream, written) = Wire::open(input, step);
    let result = upgrade::answer(stream, path, None).now_or_never();
    outcome(result.map(|result| result.map_err(|error| error.to_string())), &written)
}

/// An endpoint's answer to the request for a WebSocket, then what it carries.
pub fn upgrade_request(input: &[u8], step: usize) -> Outcome {
    let (stream, written) = Wire::open(input, step);
    let result = upgrade::request(stream, &url()).now_or_never();
    outcome(result.map(|result| result.map_err(|error| error.to_string())), &written)
}

/// A proxy's answer to CONNECT.
pub fn connect(input: &[u8], step: usize) -> Outcome {
    let (mut stream, written) = Wire::open(input, step);
    let (Ok(server), Ok(peer)) = ("proxy.example:3128".parse(), "peer.example:443".parse()) else {
        unreachable!("these are addresses")
    };
    let server = ProxyServer::new(server, Some("user:password".to_owned()));
    let result = proxy::connect(&mut *stream, &server, &peer).now_or_never();
    outcome(result.map(|result| result.map(|()| stream).map_err(|error| error.to_string())), &written)
}

/// The beginning of a connection of Ferry's own TLS. `carried` is what came behind the ClientHello.
pub fn client_hello(input: &[u8], step: usize) -> Outcome {
    let (mut stream, written) = Wire::open(input, step);
    let (refused, mut carried) = match ClientHello::read(&mut *stream).now_or_never() {
        None => (Some("it waits".to_owned()), Vec::new()),
        Some(Err(error)) => (Some(error.to_string()), Vec::new()),
        Some(Ok(hello)) => (None, hello.rest().to_vec()),
    };
    if refused.is_none() {
        carried.extend(read_all(stream));
    }
    Outcome { refused, written: take(&written), carried }
}

/// What a WebSocket puts on the wire for `messages`: each is one write.
pub fn websocket(messages: &[&[u8]]) -> Vec<u8> {
    let (stream, written) = Wire::open(ANSWER.as_bytes(), 0);
    let Some(Ok(mut socket)) = upgrade::request(stream, &url()).now_or_never() else {
        unreachable!("the answer is right")
    };
    take(&written);
    let mut cx = Context::from_waker(std::task::Waker::noop());
    for message in messages {
        let mut rest = *message;
        while !rest.is_empty() {
            let Poll::Ready(Ok(count)) = socket.poll_write(&mut cx, &[IoSlice::new(rest)]) else {
                unreachable!("the wire takes all")
            };
            rest = &rest[count..];
        }
    }
    take(&written)
}

/// The right answer to a request for a WebSocket.
pub const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {accept}\r\n\r\n";

fn url() -> WebSocketUrl {
    match "ws://peer.example/ferry".parse() {
        Ok(Address::WebSocket(url)) => url,
        _ => unreachable!("this is a WebSocket's URL"),
    }
}

fn outcome(result: Option<Result<Box<dyn Stream>, String>>, written: &Written) -> Outcome {
    let (refused, carried) = match result {
        None => (Some("it waits".to_owned()), Vec::new()),
        Some(Err(refused)) => (Some(refused), Vec::new()),
        Some(Ok(stream)) => (None, read_all(stream)),
    };
    let text = String::from_utf8_lossy(&take(written)).into_owned();
    let known = key_in(&text).map_or(text.clone(), |key| text.replace(key, "{key}"));
    Outcome { refused, written: known.into_bytes(), carried }
}

/// All that the stream carries. It has to end: a stream that neither brings anything nor ends would never be read again.
fn read_all(mut stream: Box<dyn Stream>) -> Vec<u8> {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let (mut all, mut chunk) = (Vec::new(), [0; 777]);
    loop {
        match stream.poll_read(&mut cx, &mut [IoSliceMut::new(&mut chunk)]) {
            Poll::Ready(Ok(0) | Err(_)) => return all,
            Poll::Ready(Ok(count)) => all.extend_from_slice(&chunk[..count]),
            Poll::Pending => unreachable!("everything is there, and then the end"),
        }
    }
}

type Written = Arc<Mutex<Vec<u8>>>;

fn take(written: &Written) -> Vec<u8> {
    std::mem::take(&mut written.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The random key of a request.
fn key_in(request: &str) -> Option<&str> {
    request.split_once("Sec-WebSocket-Key: ")?.1.split("\r\n").next().filter(|key| !key.is_empty())
}

/// A stream that brings bytes, at most `step` of them at once, then ends, and takes whatever is written.
struct Wire {
    input: Vec<u8>,
    /// How many of them were read.
    read: usize,
    step: usize,
    written: Written,
}

impl Wire {
    fn open(input: &[u8], step: usize) -> (Box<dyn Stream>, Written) {
        let written = Written::default();
        let step = if step == 0 { usize::MAX } else { step };
        (Box::new(Self { input: input.to_vec(), read: 0, step, written: written.clone() }), written)
    }

    /// Puts what belongs to the request that was written in the place of [`ACCEPT`].
    fn fill_in(&mut self) {
        let request = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let at = self.input.windows(ACCEPT.len()).position(|window| window == ACCEPT.as_bytes());
        if let (Some(at), Some(key)) = (at, key_in(&String::from_utf8_lossy(&request))) {
            self.input.splice(at..at + ACCEPT.len(), derive_accept_key(key.as_bytes()).into_bytes());
        }
    }
}

impl Stream for Wire {
    fn poll_read(&mut self, _: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        if self.read == 0 {
            self.fill_in();
        }
        let from = self.read;
        let end = self.input.len().min(from.saturating_add(self.step));
        for buf in bufs {
            let count = buf.len().min(end - self.read);
            buf[..count].copy_from_slice(&self.input[self.read..self.read + count]);
            self.read += count;
        }
        Poll::Ready(Ok(self.read - from))
    }

    fn poll_write(&mut self, _: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        bufs.iter().for_each(|buf| written.extend_from_slice(buf));
        Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()))
    }

    fn poll_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn register_here(self: Box<Self>) -> Box<dyn Stream> {
        self
    }
}
