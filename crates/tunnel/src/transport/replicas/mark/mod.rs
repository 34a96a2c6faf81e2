//! What one replica says to another in front of a connection, and how that is known to come from a replica.
//!
//! A PROXY v2 header with one TLV: what the connection is for, a number used once, and a MAC over all of that and what
//! the connection is marked for. The key is made of the identity, which replicas share and nobody else has.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aws_lc_rs::hmac::{self, HMAC_SHA256, Key, Tag};
use ferry_config::Identity;
use proxy_header::{ParseConfig, ProxiedAddress, ProxyHeader, Tlv};

use crate::net::Stream;
use crate::transport::hint::Hint;
use crate::transport::tls::{TlsError, receive};

/// The TLV's type, next to those that applications get (`docs/proxy-protocol.md`).
const MARK: u8 = 0xe3;

/// Bytes of a MAC, and of a number used once.
const MAC: usize = 32;
const NONCE: usize = 16;

/// A PROXY header is this long, and then as long as its last two bytes say.
const FIXED: usize = 16;

/// Longest header of a replica: IPv6 addresses and the TLV.
const MAX_HEADER: usize = FIXED + 36 + 3 + 1 + NONCE + MAC;

/// Instances that a replica may say that it is or was: as many as it remembers, and its own.
const MAX_HINTS: usize = 17;

/// What the key and each answer are made for: nothing else is ever under the same key.
const KEY_LABEL: &[u8] = b"ferry/1 key of marks between replicas";
const ANSWER_LABEL: &[u8] = b"ferry/1 answer of a replica";

/// A number used once.
pub(crate) type Nonce = [u8; NONCE];

/// Proves one replica to another.
pub(crate) struct MarkKey(Key);

/// What a marked connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It is a dialler's, whose ClientHello follows.
    Splice = 1,
    /// To be told which instances this replica is and was.
    Ask = 2,
}

/// A header as it came, whose MAC is still to be checked.
#[derive(Debug)]
pub(crate) struct Mark {
    pub(crate) purpose: Purpose,
    /// Where the dialler is.
    pub(crate) source: Option<SocketAddr>,
    nonce: Nonce,
    /// All but the MAC, and the MAC.
    header: Vec<u8>,
    mac: [u8; MAC],
}

impl MarkKey {
    pub(crate) fn of(identity: &Identity) -> Self {
        let secret = Key::new(HMAC_SHA256, identity.pkcs8_der().expose());
        Self(Key::new(HMAC_SHA256, hmac::sign(&secret, KEY_LABEL).as_ref()))
    }

    fn mac(&self, parts: &[&[u8]]) -> Tag {
        let mut context = hmac::Context::with_key(&self.0);
        parts.iter().for_each(|part| context.update(part));
        context.sign()
    }

    fn is_mac(&self, parts: &[&[u8]], mac: &[u8; MAC]) -> bool {
        // In a time that does not depend on where they differ.
        hmac::verify(&self.0, &parts.concat(), mac).is_ok()
    }

    /// What goes in front of a dialler's `hello`. Its addresses are as this end sees them.
    pub(crate) fn splice(
        &self,
        (source, destination): (SocketAddr, Option<SocketAddr>),
        hello: &[u8],
    ) -> Result<Vec<u8>, getrandom::Error> {
        Ok(self.header(Purpose::Splice, Some(addresses(source, destination)), fresh_nonce()?, hello))
    }

    /// What asks a replica which instances it is and was.
    pub(crate) fn ask(&self) -> Result<(Vec<u8>, Nonce), getrandom::Error> {
        let nonce = fresh_nonce()?;
        Ok((self.header(Purpose::Ask, None, nonce, &[]), nonce))
    }

    fn header(&self, purpose: Purpose, addresses: Option<ProxiedAddress>, nonce: Nonce, marked: &[u8]) -> Vec<u8> {
        let mut value = vec![purpose as u8];
        value.extend_from_slice(&nonce);
        value.extend_from_slice(&[0; MAC]);
        let mut header = Vec::with_capacity(MAX_HEADER);
        // It fails only beyond 64 KiB.
        let _ = ProxyHeader::with_tlvs(addresses, [Tlv::Custom(MARK, value.into())]).encode_v2(&mut header);
        header.truncate(header.len() - MAC);
        let mac = self.mac(&[&header, marked]);
        header.extend_from_slice(mac.as_ref());
        header
    }

    /// The mark is a replica's, and for what follows it.
    pub(crate) fn accepts(&self, mark: &Mark, marked: &[u8]) -> bool {
        self.is_mac(&[&mark.header, marked], &mark.mac)
    }

    /// The answer to an ask: which instances this replica is, and was.
    pub(crate) fn answer(&self, mark: &Mark, hints: impl Iterator<Item = Hint>) -> Vec<u8> {
        let hints: Vec<_> = hints.take(MAX_HINTS).flat_map(|hint| hint.0).collect();
        let mut answer = vec![(hints.len() / Hint::LENGTH) as u8];
        answer.extend_from_slice(&hints);
        let mac = self.mac(&[ANSWER_LABEL, &mark.nonce, &answer]);
        answer.extend_from_slice(mac.as_ref());
        answer
    }

    /// Reads that answer.
    pub(crate) async fn receive_answer(&self, stream: &mut dyn Stream, nonce: &Nonce) -> Result<Vec<Hint>, TlsError> {
        let no_replica = || TlsError::Record("that is no replica's answer");
        let mut received = Vec::new();
        loop {
            let hints = usize::from(received.first().copied().unwrap_or_default());
            if hints > MAX_HINTS {
                return Err(no_replica());
            }
            let length = 1 + hints * Hint::LENGTH;
            if hints > 0 && received.len() >= length + MAC {
                let (answer, rest) = received.split_at(length);
                let mac = rest[..MAC].try_into().map_err(|_| no_replica())?;
                let (hints, _) = answer[1..].as_chunks::<{ Hint::LENGTH }>();
                let is_one = self.is_mac(&[ANSWER_LABEL, nonce, answer], mac);
                return if is_one { Ok(hints.iter().copied().map(Hint).collect()) } else { Err(no_replica()) };
            }
            if !received.is_empty() && hints == 0 {
                return Err(no_replica());
            }
            std::future::poll_fn(|cx| receive(stream, &mut received, cx)).await?;
        }
    }
}

impl Mark {
    /// Reads a mark, if that is how the connection begins. `received` has what came behind it, or in its place.
    pub(crate) async fn read(stream: &mut dyn Stream, received: &mut Vec<u8>) -> Result<Option<Self>, TlsError> {
        loop {
            // A ClientHello's record begins with 22.
            if received.first().is_some_and(|first| *first != b'\r') {
                return Ok(None);
            }
            let length = match received.get(FIXED - 2..FIXED) {
                Some(&[high, low]) => FIXED + usize::from(u16::from_be_bytes([high, low])),
                _ => FIXED,
            };
            if length > MAX_HEADER {
                return Err(TlsError::Record("that is no replica's mark"));
            }
            if received.len() >= FIXED && received.len() >= length {
                let header: Vec<_> = received.drain(..length).collect();
                return Self::parse(header).map(Some).ok_or(TlsError::Record("that is no replica's mark"));
            }
            std::future::poll_fn(|cx| receive(stream, received, cx)).await?;
        }
    }

    fn parse(mut header: Vec<u8>) -> Option<Self> {
        let config = ParseConfig { include_tlvs: true, allow_v1: false, allow_v2: true };
        let (parsed, length) = ProxyHeader::parse(&header, config).ok()?;
        let source = parsed.proxied_address().map(|addresses| addresses.source);
        let mut tlvs = parsed.tlvs();
        // One TLV alone, so that the header ends with its MAC.
        let (Some(Ok(Tlv::Custom(MARK, value))), None) = (tlvs.next(), tlvs.next()) else { return None };
        let (&purpose, rest) = value.split_first()?;
        let (nonce, mac) = rest.split_first_chunk::<NONCE>()?;
        let purpose = match purpose {
            1 => Purpose::Splice,
            2 => Purpose::Ask,
            _ => return None,
        };
        let (nonce, mac) = (*nonce, mac.try_into().ok()?);
        header.truncate(length.checked_sub(MAC)?);
        Some(Self { purpose, source, nonce, header, mac })
    }
}

fn fresh_nonce() -> Result<Nonce, getrandom::Error> {
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce)?;
    Ok(nonce)
}

/// Both of one family, as the header wants them.
fn addresses(source: SocketAddr, destination: Option<SocketAddr>) -> ProxiedAddress {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let source = canonical(source);
    let nowhere = match source.ip() {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let destination = destination.map(canonical).filter(|address| address.is_ipv4() == source.is_ipv4());
    ProxiedAddress::stream(source, destination.unwrap_or(SocketAddr::new(nowhere, 0)))
}

impl From<getrandom::Error> for TlsError {
    fn from(error: getrandom::Error) -> Self {
        io::Error::other(error).into()
    }
}

#[cfg(test)]
mod tests;
