//! TLS 1.3 records (RFC 8446 §5) over the traffic secrets of a finished handshake.
//!
//! rustls makes the handshake; after it nothing is left of TLS but records. Sealing them into the send buffer and
//! opening them where they were received saves what dominates a tunnel's cost: the copies. `docs/decisions/0001`.

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::ConnectionTrafficSecrets;

use super::TlsError;

/// Type, version and length in front of every record.
pub(crate) const HEADER: usize = 5;

/// Longest plaintext of a record.
pub(crate) const MAX_PLAINTEXT: usize = 1 << 14;

/// Longest record body: plaintext, content type, padding, tag (RFC 8446 §5.2).
const MAX_BODY: usize = MAX_PLAINTEXT + 256;

const TAG: usize = 16;
const VERSION: [u8; 2] = [3, 3];

/// AES-GCM protects 2^24.5 full records under one key (RFC 8446 §5.5); the last one is kept for the close_notify.
pub(crate) const MAX_RECORDS: u64 = 23_726_566;

const ALERT: u8 = 21;
const APPLICATION_DATA: u8 = 23;

/// One direction's key, and how often it was used.
struct Cipher {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    records: u64,
}

impl Cipher {
    fn new(first: u64, secrets: &ConnectionTrafficSecrets) -> Result<Self, TlsError> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(TlsError::Policy("cipher suite")),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| TlsError::Policy("traffic key"))?;
        let iv = iv.as_ref().try_into().map_err(|_| TlsError::Policy("traffic IV"))?;
        Ok(Self { key: LessSafeKey::new(key), iv, records: first })
    }

    /// "The 64-bit record sequence number is [...] padded to the left with zeros to iv_length.
    /// \[It\] is XORed with the static iv" (§5.3).
    fn next_nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        let sequence = self.records.to_be_bytes();
        nonce[NONCE_LEN - sequence.len()..].iter_mut().zip(sequence).for_each(|(byte, number)| *byte ^= number);
        self.records += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Makes records of one direction.
pub(crate) struct Sealer(Cipher);

impl Sealer {
    pub(super) fn new(first: u64, secrets: &ConnectionTrafficSecrets) -> Result<Self, TlsError> {
        Cipher::new(first, secrets).map(Self)
    }

    /// Records made with this key.
    pub(crate) fn records(&self) -> u64 {
        self.0.records
    }

    /// Starts a record in `out`: append at most [`MAX_PLAINTEXT`] bytes, then call [`seal`](Self::seal) with the value.
    pub(crate) fn begin(out: &mut Vec<u8>) -> usize {
        let start = out.len();
        out.extend_from_slice(&[APPLICATION_DATA, VERSION[0], VERSION[1], 0, 0]);
        start
    }

    /// Seals what was appended to `out` since [`begin`](Self::begin) returned `start`.
    pub(crate) fn seal(&mut self, out: &mut Vec<u8>, start: usize) -> Result<(), TlsError> {
        if self.0.records >= MAX_RECORDS {
            return Err(TlsError::KeyExhausted);
        }
        self.seal_as(APPLICATION_DATA, out, start)
    }

    /// Tells the peer that nothing follows.
    pub(crate) fn close_notify(&mut self, out: &mut Vec<u8>) -> Result<(), TlsError> {
        let start = Self::begin(out);
        out.extend_from_slice(&[1, 0]);
        self.seal_as(ALERT, out, start)
    }

    fn seal_as(&mut self, content: u8, out: &mut Vec<u8>, start: usize) -> Result<(), TlsError> {
        out.push(content);
        let body = out.len() - start - HEADER;
        let length = u16::try_from(body + TAG).ok().filter(|_| body <= MAX_PLAINTEXT + 1);
        let length = length.ok_or(TlsError::Record("longer than a record may be"))?;
        out[start + 3..start + HEADER].copy_from_slice(&length.to_be_bytes());
        let (header, plaintext) = out[start..].split_at_mut(HEADER);
        let nonce = self.0.next_nonce();
        let tag = self.0.key.seal_in_place_separate_tag(nonce, Aad::from(&*header), plaintext);
        out.extend_from_slice(tag.map_err(|_| TlsError::Record("cannot be sealed"))?.as_ref());
        Ok(())
    }
}

/// What a record held.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened<'a> {
    /// Application data.
    Data(&'a [u8]),
    /// Nothing follows.
    CloseNotify,
}

/// Opens records of one direction.
pub(crate) struct Opener(Cipher);

impl Opener {
    pub(super) fn new(first: u64, secrets: &ConnectionTrafficSecrets) -> Result<Self, TlsError> {
        Cipher::new(first, secrets).map(Self)
    }

    /// Records opened with this key.
    pub(crate) fn records(&self) -> u64 {
        self.0.records
    }

    /// Length of the record at the start of `bytes`; `None` while it is incomplete.
    pub(crate) fn length(bytes: &[u8]) -> Result<Option<usize>, TlsError> {
        let Some((header, body)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if header[0] != APPLICATION_DATA || header[1..3] != VERSION {
            return Err(TlsError::Record("not a TLS 1.3 record"));
        }
        if !(TAG + 1..=MAX_BODY).contains(&length) {
            return Err(TlsError::Record("of impossible length"));
        }
        Ok((body.len() >= length).then_some(HEADER + length))
    }

    /// Opens one whole record where it stands.
    pub(crate) fn open<'a>(&mut self, record: &'a mut [u8]) -> Result<Opened<'a>, TlsError> {
        let (header, body) = record.split_at_mut(HEADER);
        let nonce = self.0.next_nonce();
        let inner = self.0.key.open_in_place(nonce, Aad::from(&*header), body);
        let inner = inner.map_err(|_| TlsError::Record("that does not authenticate"))?;
        // The content type is the last byte that is not padding (§5.4).
        let end = inner.iter().rposition(|&byte| byte != 0).ok_or(TlsError::Record("without content type"))?;
        let (content, inner) = (inner[end], &inner[..end]);
        if inner.len() > MAX_PLAINTEXT {
            return Err(TlsError::Record("of impossible length"));
        }
        match (content, inner) {
            (APPLICATION_DATA, data) => Ok(Opened::Data(data)),
            (ALERT, [_, 0]) => Ok(Opened::CloseNotify),
            (ALERT, [_, description]) => Err(TlsError::of_alert(*description)),
            // No tickets, no key updates: our rotation is a new link.
            _ => Err(TlsError::Record("of a type that has no place after the handshake")),
        }
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
