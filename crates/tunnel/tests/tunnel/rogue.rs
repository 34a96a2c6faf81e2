//! A peer that breaks the rules: plain rustls, and frames made by hand.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use ferry_session::{Frame, Instance, LinkKind, Preface, Reject, RejectCode, Reset, ResetCode, VERSION, decode};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConnection, Connection, ServerConnection};
use tokio::net::{TcpListener, TcpStream};

use crate::manners::Manners;
use crate::watch::PATIENCE;

/// One connection, from its handshake on.
pub struct Rogue {
    stream: TcpStream,
    pub tls: Connection,
    plain: Vec<u8>,
}

/// How the other end let go.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Closed,
    Reset,
    Alert(AlertDescription),
}

impl Rogue {
    /// Dials and shakes hands. In TLS 1.3 that may succeed before the other end has judged our key.
    pub async fn dial(addr: SocketAddr, manners: &Manners) -> Result<Self, rustls::Error> {
        let stream = TcpStream::connect(addr).await.unwrap();
        let name = ServerName::try_from("ferry").unwrap();
        let tls = ClientConnection::new(Arc::new(manners.client()), name)?;
        Self::handshake(stream, tls.into()).await
    }

    /// Is dialled and shakes hands.
    pub async fn accept(listener: &TcpListener, manners: &Manners) -> Result<Self, rustls::Error> {
        let accepted = tokio::time::timeout(PATIENCE, listener.accept()).await;
        let (stream, _) = accepted.expect("the other end dials").unwrap();
        Self::handshake(stream, ServerConnection::new(Arc::new(manners.server()))?.into()).await
    }

    async fn handshake(stream: TcpStream, tls: Connection) -> Result<Self, rustls::Error> {
        stream.set_nodelay(true).unwrap();
        let mut rogue = Self { stream, tls, plain: Vec::new() };
        while rogue.tls.is_handshaking() {
            rogue.flush().await;
            if rogue.tls.is_handshaking() && !rogue.fill().await? {
                return Err(rustls::Error::General("closed during the handshake".to_owned()));
            }
        }
        rogue.flush().await;
        Ok(rogue)
    }

    /// The connection under it all.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Writes what waits; that the other end has gone shows when reading.
    pub async fn flush(&mut self) {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Trying(&self.stream)) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.stream.writable().await.unwrap(),
                Err(_) => return,
            }
        }
    }

    /// Reads once; says whether there was something.
    async fn fill(&mut self) -> Result<bool, rustls::Error> {
        loop {
            let readable = tokio::time::timeout(PATIENCE, self.stream.readable());
            readable.await.expect("the other end says something").unwrap();
            match self.tls.read_tls(&mut Trying(&self.stream)) {
                Ok(0) => return Ok(false),
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(rustls::Error::General(format!("{:?}", error.kind()))),
            }
        }
        let taken = self.take_plain();
        if taken.is_err() {
            // The other end is told.
            self.flush().await;
        }
        taken.map(|()| true)
    }

    fn take_plain(&mut self) -> Result<(), rustls::Error> {
        let count = self.tls.process_new_packets()?.plaintext_bytes_to_read();
        let held = self.plain.len();
        self.plain.resize(held + count, 0);
        self.tls.reader().read_exact(&mut self.plain[held..]).unwrap();
        Ok(())
    }

    /// Sends these bytes in one record.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.tls.writer().write_all(bytes).unwrap();
        self.flush().await;
    }

    pub async fn say(&mut self, frame: &Frame<'_>) {
        self.send(&encode(frame)).await;
    }

    /// Sends a Preface and takes the other end's.
    pub async fn preface(&mut self, kind: LinkKind) {
        self.say(&preface(VERSION, kind)).await;
        self.until(|frame| matches!(frame, Frame::Preface(_)).then_some(())).await;
    }

    /// Takes frames until `take` has what it wants.
    pub async fn until<T>(&mut self, mut take: impl FnMut(&Frame<'_>) -> Option<T>) -> T {
        loop {
            while let Some((frame, length)) = decode(&self.plain).unwrap() {
                let taken = take(&frame);
                self.plain.drain(..length);
                if let Some(taken) = taken {
                    return taken;
                }
            }
            assert!(self.fill().await.unwrap(), "the link ended before what was waited for came");
        }
    }

    /// Whether a Reset has come by now.
    pub fn is_told_to_stop(&mut self) -> bool {
        if self.tls.read_tls(&mut Trying(&self.stream)).is_ok() {
            self.take_plain().unwrap();
        }
        let mut rest = &self.plain[..];
        while let Some((frame, length)) = decode(rest).unwrap() {
            if matches!(frame, Frame::Reset(_)) {
                return true;
            }
            rest = &rest[length..];
        }
        false
    }

    /// The Reject that the other end ends the link with.
    pub async fn rejected(&mut self) -> (RejectCode, String) {
        let told = self.until(|frame| match frame {
            Frame::Reject(Reject { code, reason, .. }) => Some((*code, reason.to_string())),
            _ => None,
        });
        let told = told.await;
        assert_eq!(self.end().await, End::Closed, "after the Reject");
        told
    }

    /// The Reset that the other end ends the session and the link with.
    pub async fn reset(&mut self) -> (ResetCode, String) {
        let told = self.until(|frame| match frame {
            Frame::Reset(Reset { code, reason }) => Some((*code, reason.to_string())),
            _ => None,
        });
        let told = told.await;
        assert_eq!(self.end().await, End::Closed, "after the Reset");
        told
    }

    /// Reads to the end, whatever comes.
    pub async fn end(&mut self) -> End {
        loop {
            match self.fill().await {
                Ok(true) => {}
                Ok(false) => return End::Closed,
                Err(rustls::Error::AlertReceived(alert)) => return End::Alert(alert),
                Err(rustls::Error::General(kind)) if kind == "ConnectionReset" => return End::Reset,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

pub fn encode(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let payload = frame.encode(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

/// The process that every rogue says it is.
pub const INSTANCE: Instance = Instance([0xee; 16]);

pub fn preface(version: u16, kind: LinkKind) -> Frame<'static> {
    Frame::Preface(Preface { version, instance: INSTANCE, kind })
}

/// A stream as rustls wants it, without waiting.
struct Trying<'a>(&'a TcpStream);

impl Read for Trying<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buf)
    }
}

impl Write for Trying<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.try_write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
