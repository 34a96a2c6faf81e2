use std::io::{self, IoSlice, IoSliceMut, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ferry_config::{DnsName, Identity, PublicKey};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ProtocolVersion, ServerConfig, ServerConnection};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::TlsError;
use super::hello::{ClientHello, alert_bytes};
use super::policy::{self, ALPN_WITH_ORIGIN, JOIN_PROTOCOLS, KEY_EXCHANGE, LINK_PROTOCOLS, ROLL_PROTOCOLS};
use super::record::{HEADER, MAX_RECORD, RecordDecryptor, RecordEncryptor};
use crate::net::Stream;
use crate::transport::hint::Hint;

/// A handshake is over after this many bytes, or it is none.
const MAX_HANDSHAKE: usize = 64 * 1024;

/// Dials one peer. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ClientHandshake {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    protocols: &'static [&'static [u8]],
}

/// Accepts any listed peer, or whoever wants to join. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ServerHandshake {
    config: Arc<ServerConfig>,
    protocols: &'static [&'static [u8]],
}

/// What both ends proved in a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proven {
    /// The peer's key.
    pub(crate) key: PublicKey,
    /// Both ends know the frame Origin.
    pub(crate) tells_origin: bool,
    pub(crate) cipher: &'static str,
}

/// A connection whose handshake is done.
pub(crate) struct Established {
    pub(crate) stream: Box<dyn Stream>,
    pub(crate) encryptor: RecordEncryptor,
    pub(crate) decryptor: RecordDecryptor,
    pub(crate) proven: Proven,
    /// Where the connection came from, if the peer dialled.
    pub(crate) from: Option<IpAddr>,
    /// Bytes that came behind the handshake.
    pub(crate) rest: Vec<u8>,
    /// This end's last flight, still to be sent: what comes behind it can go along.
    pub(crate) flight: Vec<u8>,
    /// From this end's flight to the answer: the path's round trip and what the peer computes.
    pub(crate) round_trip: Option<Duration>,
}

impl ClientHandshake {
    /// `keys`: those of the one peer that this dials. `name`: what the ClientHello carries for routers on the way.
    pub(crate) fn new(
        identity: &Identity,
        keys: impl Into<Arc<[PublicKey]>>,
        name: Option<&DnsName>,
    ) -> Result<Self, TlsError> {
        let mut config = policy::dialling(identity, keys)?;
        config.enable_sni = name.is_some();
        // A name is required by the API; without one of the user's it is neither sent nor looked at.
        let name = name.map_or("ferry", DnsName::as_str).to_owned();
        let name = ServerName::try_from(name).map_err(|_| TlsError::Policy("server name"))?;
        Ok(Self { config: Arc::new(config), name, protocols: LINK_PROTOCOLS })
    }

    /// The same, to redeem an invitation.
    pub(crate) fn for_joining(self) -> Self {
        self.speaking(JOIN_PROTOCOLS)
    }

    /// The same, to replace a key.
    pub(crate) fn for_rolling(self) -> Self {
        self.speaking(ROLL_PROTOCOLS)
    }

    fn speaking(mut self, protocols: &'static [&'static [u8]]) -> Self {
        self.protocols = protocols;
        Arc::make_mut(&mut self.config).alpn_protocols = policy::alpn(protocols);
        self
    }

    /// `wanted`: the one process of the peer that is, for whoever can lead there.
    pub(crate) async fn handshake(
        &self,
        stream: Box<dyn Stream>,
        wanted: Option<Hint>,
    ) -> Result<Established, TlsError> {
        // What is agreed on is among `protocols`: nobody speaks the one that stands for a process.
        let offered = policy::alpn(self.protocols).into_iter().chain(wanted.map(Hint::to_alpn)).collect();
        let connection = ClientConnection::new_with_alpn(self.config.clone(), self.name.clone(), offered)?;
        Handshake::new(stream, connection.into(), None).run().await?.establish(self.protocols)
    }
}

impl ServerHandshake {
    /// `keys`: those of all peers.
    pub(crate) fn new(identity: &Identity, keys: impl Into<Arc<[PublicKey]>>) -> Result<Self, TlsError> {
        Ok(Self { config: Arc::new(policy::accepting(identity, keys)?), protocols: LINK_PROTOCOLS })
    }

    /// Accepts peers as [`new`](Self::new) does, for requests about their keys or this end's.
    pub(crate) fn for_rolls(identity: &Identity, keys: impl Into<Arc<[PublicKey]>>) -> Result<Self, TlsError> {
        Ok(Self { config: Arc::new(policy::accepting_rolls(identity, keys)?), protocols: ROLL_PROTOCOLS })
    }

    /// Accepts whoever has an invitation, which is looked at afterwards.
    pub(crate) fn for_joiners(identity: &Identity) -> Result<Self, TlsError> {
        Ok(Self { config: Arc::new(policy::accepting_joiners(identity)?), protocols: JOIN_PROTOCOLS })
    }

    /// Answers a ClientHello: computes for it, and neither waits nor sends.
    ///
    /// # Errors
    /// With the alert for the dialler, when the ClientHello does not follow the policy.
    pub(crate) fn answer(&self, hello: ClientHello) -> Result<Answer, (TlsError, Alert)> {
        let ClientHello { accepted, rest, records } = hello;
        let connection = accepted.into_connection(self.config.clone());
        wipe_stack();
        match connection {
            Ok(connection) => Ok(Answer { connection, protocols: self.protocols, rest, length: records.len() }),
            Err((error, alert)) => Err((error.into(), Alert(alert_bytes(alert)))),
        }
    }
}

/// A ClientHello's answer, still to be sent.
pub(crate) struct Answer {
    connection: ServerConnection,
    protocols: &'static [&'static [u8]],
    rest: Vec<u8>,
    length: usize,
}

impl Answer {
    /// Sends the answer and takes the dialler's. Whatever is computed for that has its turn by `turns`.
    pub(crate) async fn finish(self, stream: Box<dyn Stream>, turns: &Semaphore) -> Result<Established, TlsError> {
        let mut handshake = Handshake::new(stream, self.connection.into(), Some(turns));
        (handshake.received, handshake.total) = (self.rest, self.length);
        handshake.run().await?.establish(self.protocols)
    }
}

/// What a dialler is told whose ClientHello was refused.
pub(crate) struct Alert(Vec<u8>);

impl Alert {
    /// Tells it, if it is still there.
    pub(crate) async fn send(self, stream: &mut dyn Stream) {
        let _ = send(stream, &self.0).await;
    }
}

/// Sends all of `bytes`.
pub(crate) async fn send(stream: &mut dyn Stream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = std::future::poll_fn(|cx| stream.poll_write(cx, &[IoSlice::new(bytes)])).await?;
        bytes = &bytes[written..];
    }
    Ok(())
}

/// Length of the handshake record at the start of `bytes`; `None` while it is incomplete.
pub(super) fn record_length(bytes: &[u8]) -> Result<Option<usize>, TlsError> {
    // "legacy_record_version" is 3.1 to 3.3; change_cipher_spec, alert, handshake, application_data are 20 to 23.
    let plausible =
        bytes.first().is_none_or(|kind| (20..=23).contains(kind)) && bytes.get(1).is_none_or(|&major| major == 3);
    if !plausible {
        return Err(TlsError::Record("that is not TLS"));
    }
    let Some((header, body)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    if HEADER + length > MAX_RECORD {
        return Err(TlsError::Record("of impossible length"));
    }
    Ok((body.len() >= length).then_some(HEADER + length))
}

/// Receives more behind `received`.
pub(crate) fn receive(
    stream: &mut dyn Stream,
    received: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), TlsError>> {
    let mut chunk = [0; 4096];
    let count = ready!(stream.poll_read(cx, &mut [IoSliceMut::new(&mut chunk)]))?;
    if count == 0 {
        return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
    }
    received.extend_from_slice(&chunk[..count]);
    Poll::Ready(Ok(()))
}

/// A handshake, and what came of it.
pub(super) struct Handshake<'a> {
    pub(super) stream: Box<dyn Stream>,
    pub(super) connection: Connection,
    /// Received and not yet given to the connection: it gets one record at a time, so that none of those behind the
    /// handshake is swallowed.
    pub(super) received: Vec<u8>,
    total: usize,
    /// When the flight began to leave that is not answered yet.
    asked: Option<Instant>,
    round_trip: Option<Duration>,
    /// Where strangers' messages wait for their turn to be computed for.
    turns: Option<&'a Semaphore>,
}

impl<'a> Handshake<'a> {
    pub(super) fn new(stream: Box<dyn Stream>, connection: Connection, turns: Option<&'a Semaphore>) -> Self {
        Self { stream, connection, received: Vec::new(), total: 0, asked: None, round_trip: None, turns }
    }

    /// Shakes hands. This end's last flight is left to be sent.
    pub(super) async fn run(mut self) -> Result<Self, TlsError> {
        while self.connection.is_handshaking() {
            // A flight is answered as a whole, in one piece.
            if let Some(length) = record_length(&self.received)? {
                self.process(length).await?;
                continue;
            }
            if self.connection.wants_write() {
                // Only the first flight waits for the peer: what a client sends amid the server's flight does not. Its time
                // counts from before it leaves: the answer may be here before this task goes on.
                self.asked = self.round_trip.is_none().then(Instant::now);
            }
            while self.connection.wants_write() {
                let (connection, stream) = (&mut self.connection, &mut *self.stream);
                std::future::poll_fn(|cx| write(connection, stream, cx)).await?;
            }
            std::future::poll_fn(|cx| receive(&mut *self.stream, &mut self.received, cx)).await?;
            if let Some(asked) = self.asked.take() {
                self.round_trip = Some(asked.elapsed());
            }
        }
        Ok(self)
    }

    /// Gives the first record to the connection. On failure the peer gets the alert, if it can still be sent.
    async fn process(&mut self, length: usize) -> Result<(), TlsError> {
        self.total += length;
        if self.total > MAX_HANDSHAKE {
            return Err(TlsError::Record("of a handshake without end"));
        }
        let turn = match self.turns {
            // It is never closed.
            Some(turns) => turns.acquire().await.ok(),
            None => None,
        };
        let mut record = &self.received[..length];
        let mut outcome = Ok(());
        while !record.is_empty() && outcome.is_ok() {
            self.connection.read_tls(&mut record)?;
            outcome = self.connection.process_new_packets().map(drop);
        }
        drop(turn);
        self.received.drain(..length);
        if let Err(error) = outcome {
            let (connection, stream) = (&mut self.connection, &mut *self.stream);
            while connection.wants_write() && std::future::poll_fn(|cx| write(connection, stream, cx)).await.is_ok() {}
            return Err(error.into());
        }
        Ok(())
    }

    /// The connection of a link, whose ends were to agree on one of `protocols`.
    fn establish(mut self, protocols: &[&[u8]]) -> Result<Established, TlsError> {
        let proven = prove(&self.connection, protocols)?;
        let flight = self.last_flight()?;
        let (encryptor, decryptor) = keys(self.connection)?;
        wipe_stack();
        Ok(Established {
            stream: self.stream,
            encryptor,
            decryptor,
            proven,
            from: None,
            rest: self.received,
            flight,
            round_trip: self.round_trip,
        })
    }

    /// This end's last flight, to be sent.
    pub(super) fn last_flight(&mut self) -> Result<Vec<u8>, TlsError> {
        let mut flight = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut flight)?;
        }
        Ok(flight)
    }
}

/// Both directions' keys. Not inlined: what it leaves on the stack is below that of its caller.
#[inline(never)]
pub(super) fn keys(connection: Connection) -> Result<(RecordEncryptor, RecordDecryptor), TlsError> {
    let secrets = connection.dangerous_extract_secrets()?;
    Ok((RecordEncryptor::new(secrets.tx.0, &secrets.tx.1)?, RecordDecryptor::new(secrets.rx.0, &secrets.rx.1)?))
}

/// Overwrites the stack below: moves of keys leave copies there, which nothing else would wipe.
#[inline(never)]
fn wipe_stack() {
    std::hint::black_box([0_u8; 64 * 1024]);
}

/// What the handshake agreed on, checked against the policy once more.
fn prove(connection: &Connection, protocols: &[&[u8]]) -> Result<Proven, TlsError> {
    if connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return Err(TlsError::Policy("protocol version"));
    }
    let protocol = connection.alpn_protocol().filter(|protocol| protocols.contains(protocol));
    let protocol = protocol.ok_or(TlsError::Policy("application protocol"))?;
    let tells_origin = protocol == ALPN_WITH_ORIGIN;
    let group = connection.negotiated_key_exchange_group().map(|group| group.name());
    if group != Some(KEY_EXCHANGE) {
        return Err(TlsError::Policy("key exchange"));
    }
    let cipher = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
    let Some([spki]) = connection.peer_certificates() else { return Err(TlsError::Policy("identity")) };
    Ok(Proven { key: PublicKey::from_spki_der(spki)?, tells_origin, cipher: cipher.unwrap_or_default() })
}

/// Writes what the connection has to say.
pub(super) fn write(
    connection: &mut Connection,
    stream: &mut dyn Stream,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    match connection.write_tls(&mut Blocking { stream, cx }) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

/// A stream as rustls wants it: an error where it would have to wait.
struct Blocking<'a, 'cx> {
    stream: &'a mut dyn Stream,
    cx: &'a mut Context<'cx>,
}

impl Write for Blocking<'_, '_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    /// A whole flight at once: rustls has each of its records in a buffer of its own.
    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.stream.poll_write(self.cx, bufs) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod residue;
#[cfg(test)]
mod tests;
