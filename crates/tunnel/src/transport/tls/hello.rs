//! The first message of a connection: read whole and bounded before anything is computed for it.

use rustls::server::{Accepted, AcceptedAlert, Acceptor};

use super::TlsError;
use super::handshake::{receive, record_length, send};
use super::policy::{JOIN_ALPN, ROLL_ALPN};
use super::record::HEADER;
use crate::net::Stream;
use crate::transport::hint::Hint;

/// Most bytes of records that a ClientHello may take; an honest one takes 1,400.
pub(super) const MAX_CLIENT_HELLO: usize = 16 * 1024;

/// The ContentType of a handshake record, and the HandshakeType of a ClientHello (RFC 8446 §5.1, §4).
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// A whole ClientHello that parses, and what came behind it.
pub(crate) struct ClientHello {
    pub(super) accepted: Accepted,
    pub(super) rest: Vec<u8>,
    /// The records that it took.
    pub(super) records: Vec<u8>,
}

impl ClientHello {
    /// It asks for no link: it has an invitation.
    pub(crate) fn wants_to_join(&self) -> bool {
        self.offers(JOIN_ALPN)
    }

    /// It asks for no link: a key is to be replaced.
    pub(crate) fn wants_to_roll(&self) -> bool {
        self.offers(ROLL_ALPN)
    }

    fn offers(&self, protocol: &[u8]) -> bool {
        self.accepted.client_hello().alpn().is_some_and(|mut offered| offered.any(|name| name == protocol))
    }

    /// Which process it asks for.
    pub(crate) fn hint(&self) -> Option<Hint> {
        self.accepted.client_hello().alpn()?.find_map(Hint::of_alpn)
    }

    /// As it came.
    pub(crate) fn records(&self) -> &[u8] {
        &self.records
    }

    /// What came behind it.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.rest
    }

    /// Reads it from the beginning of a connection. Nothing is computed, and nothing is kept but its bytes.
    ///
    /// # Errors
    /// When what comes cannot become a ClientHello, as soon as that is seen.
    pub(crate) async fn read(stream: &mut dyn Stream) -> Result<Self, TlsError> {
        Self::read_behind(stream, Vec::new()).await
    }

    /// As [`read`](Self::read), where its beginning has been `received`.
    pub(crate) async fn read_behind(stream: &mut dyn Stream, mut received: Vec<u8>) -> Result<Self, TlsError> {
        let mut acceptor = Acceptor::default();
        let mut records = Vec::new();
        loop {
            check_beginning(&received, records.is_empty())?;
            let Some(record) = record_length(&received)? else {
                if records.len() + received.len() >= MAX_CLIENT_HELLO {
                    return Err(TlsError::Record("of a ClientHello without end"));
                }
                std::future::poll_fn(|cx| receive(stream, &mut received, cx)).await?;
                continue;
            };
            if records.len() + record > MAX_CLIENT_HELLO {
                return Err(TlsError::Record("of a ClientHello without end"));
            }
            let mut bytes = &received[..record];
            while !bytes.is_empty() {
                acceptor.read_tls(&mut bytes)?;
            }
            records.extend(received.drain(..record));
            match acceptor.accept() {
                Ok(Some(accepted)) => return Ok(Self { accepted, rest: received, records }),
                Ok(None) => {}
                Err((error, alert)) => {
                    // Who is not there any more needs no alert.
                    let _ = send(stream, &alert_bytes(alert)).await;
                    return Err(error.into());
                }
            }
        }
    }
}

/// The bytes of an alert, or none.
pub(super) fn alert_bytes(mut alert: AcceptedAlert) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to memory does not fail.
    let _ = alert.write_all(&mut bytes);
    bytes
}

/// Refuses what cannot become a ClientHello without waiting for the rest of it. `first`: no record was taken yet.
fn check_beginning(received: &[u8], first: bool) -> Result<(), TlsError> {
    if received.first().is_some_and(|kind| *kind != HANDSHAKE) {
        return Err(TlsError::Record("that begins no handshake"));
    }
    if !first {
        return Ok(());
    }
    let message = received.get(HEADER..).unwrap_or_default();
    if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(TlsError::Record("that begins no handshake"));
    }
    if let [_, high, middle, low, ..] = *message
        && u32::from_be_bytes([0, high, middle, low]) as usize > MAX_CLIENT_HELLO
    {
        return Err(TlsError::Record("of a ClientHello without end"));
    }
    Ok(())
}
