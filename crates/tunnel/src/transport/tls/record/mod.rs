//! TLS 1.3 records (RFC 8446 §5) over the traffic secrets of a finished handshake.
//!
//! rustls makes the handshake; after it nothing is left of TLS but records. Sealing them into the send buffer and
//! opening them where they were received saves what dominates a tunnel's cost: the copies. `docs/decisions/0001`.

use rustls::ConnectionTrafficSecrets;

use super::TlsError;
use super::cipher::{Key, Library, Nonce, TAG};

/// Type, version and length in front of every record.
pub(crate) const HEADER: usize = 5;

/// Longest plaintext of a record.
pub(crate) const MAX_PLAINTEXT: usize = 1 << 14;

/// Longest record body: plaintext, content type, padding, tag (RFC 8446 §5.2).
const MAX_BODY: usize = MAX_PLAINTEXT + 256;

/// Content type and tag behind every record's plaintext.
pub(crate) const SEAL: usize = 1 + TAG;

/// Longest record.
pub(crate) const MAX_RECORD: usize = HEADER + MAX_BODY;

const VERSION: [u8; 2] = [3, 3];

/// AES-GCM protects 2^24.5 full records under one key (RFC 8446 §5.5); the last one is kept for the close_notify.
pub(crate) const MAX_RECORDS: u64 = 23_726_566;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
pub(crate) const APPLICATION_DATA: u8 = 23;

/// One direction's key, and how often it was used.
struct Cipher {
    key: Key,
    iv: Nonce,
    records: u64,
}

impl Cipher {
    fn new(library: Library, first: u64, secrets: &ConnectionTrafficSecrets) -> Result<Self, TlsError> {
        let (key, iv) = Key::new(library, secrets)?;
        Ok(Self { key, iv, records: first })
    }

    /// "The 64-bit record sequence number is [...] padded to the left with zeros to iv_length.
    /// \[It\] is XORed with the static iv" (§5.3).
    #[inline]
    fn next_nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        let sequence = self.records.to_be_bytes();
        let place = nonce.len() - sequence.len();
        nonce[place..].iter_mut().zip(sequence).for_each(|(byte, number)| *byte ^= number);
        self.records += 1;
        nonce
    }
}

/// Makes records of one direction.
pub(crate) struct RecordEncryptor(Cipher);

impl RecordEncryptor {
    pub(super) fn new(first: u64, secrets: &ConnectionTrafficSecrets) -> Result<Self, TlsError> {
        Cipher::new(Library::here(), first, secrets).map(Self)
    }

    /// Records made with this key.
    pub(crate) fn records(&self) -> u64 {
        self.0.records
    }

    /// Seals the record in `record`: room for its header, the plaintext, and room for its [`SEAL`].
    pub(crate) fn seal(&mut self, record: &mut [u8]) -> Result<(), TlsError> {
        self.may_seal()?;
        self.seal_as(APPLICATION_DATA, record)
    }

    /// Seals a record whose plaintext ends with `payload`, which is read where it is and has the content type behind it. In
    /// `record` are room for the header, the plaintext in front of the payload, and room for all that is to come.
    #[inline]
    pub(crate) fn seal_from(&mut self, record: &mut [u8], payload: &[u8]) -> Result<(), TlsError> {
        self.may_seal()?;
        debug_assert_eq!(payload.last(), Some(&APPLICATION_DATA));
        let (header, body) = begin(record)?;
        if body.len() < payload.len() + TAG {
            return Err(TlsError::Record("without room for its payload"));
        }
        let nonce = self.0.next_nonce();
        self.0.key.seal_from(nonce, header, body, payload)
    }

    /// Tells the peer that nothing follows.
    pub(crate) fn close_notify(&mut self) -> Result<[u8; HEADER + 2 + SEAL], TlsError> {
        let mut record = [0; HEADER + 2 + SEAL];
        record[HEADER] = 1;
        self.seal_as(ALERT, &mut record)?;
        Ok(record)
    }

    fn may_seal(&self) -> Result<(), TlsError> {
        if self.0.records >= MAX_RECORDS { Err(TlsError::KeyExhausted) } else { Ok(()) }
    }

    #[inline]
    fn seal_as(&mut self, content: u8, record: &mut [u8]) -> Result<(), TlsError> {
        let (header, body) = begin(record)?;
        let (plaintext, tag) = body.split_at_mut(body.len() - TAG);
        plaintext[plaintext.len() - 1] = content;
        let nonce = self.0.next_nonce();
        self.0.key.seal(nonce, header, plaintext, tag)
    }
}

/// Writes a record's header in front of its body.
#[inline]
fn begin(record: &mut [u8]) -> Result<(&mut [u8; HEADER], &mut [u8]), TlsError> {
    let (header, body) =
        record.split_first_chunk_mut::<HEADER>().ok_or(TlsError::Record("without room for its header"))?;
    let bounds = SEAL..=MAX_PLAINTEXT + SEAL;
    let length = u16::try_from(body.len()).ok().filter(|_| bounds.contains(&body.len()));
    let [high, low] = length.ok_or(TlsError::Record("longer than a record may be"))?.to_be_bytes();
    *header = [APPLICATION_DATA, VERSION[0], VERSION[1], high, low];
    Ok((header, body))
}

/// What a record held.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened<'a> {
    /// Application data.
    Data(&'a [u8]),
    /// Messages of a handshake that is over: tickets, key updates. Links have none: their rotation is a new link.
    Messages(&'a [u8]),
    /// Nothing follows.
    CloseNotify,
}

impl<'a> Opened<'a> {
    /// What a link has: application data, or nothing that follows.
    pub(crate) fn data(self) -> Result<Option<&'a [u8]>, TlsError> {
        match self {
            Self::Data(data) => Ok(Some(data)),
            Self::CloseNotify => Ok(None),
            Self::Messages(_) => Err(TlsError::Record("of a type that has no place after the handshake")),
        }
    }
}

/// Opens records of one direction.
pub(crate) struct RecordDecryptor(Cipher);

impl RecordDecryptor {
    pub(super) fn new(first: u64, secrets: &ConnectionTrafficSecrets) -> Result<Self, TlsError> {
        Cipher::new(Library::here(), first, secrets).map(Self)
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
        read(self.0.key.open(nonce, header, body)?)
    }

    /// Opens one whole record, which stands `from` bytes into `bytes` and ends with them. What is in it is at the front then.
    pub(crate) fn open_to_front<'a>(&mut self, bytes: &'a mut [u8], from: usize) -> Result<Opened<'a>, TlsError> {
        let nonce = self.0.next_nonce();
        let header: [u8; HEADER] = std::array::from_fn(|at| bytes[from + at]);
        read(self.0.key.open_to_front(nonce, &header, bytes, from + HEADER)?)
    }

    /// Opens one whole record into `room`, which holds its [`inner_length`](Self::inner_length).
    pub(crate) fn open_into<'a>(&mut self, record: &[u8], room: &'a mut [u8]) -> Result<Opened<'a>, TlsError> {
        let (header, body) = record.split_at(HEADER);
        let inner = &mut room[..body.len() - TAG];
        let nonce = self.0.next_nonce();
        self.0.key.open_into(nonce, header, body, inner)?;
        read(inner)
    }

    /// How much is in a whole record of `length`: plaintext, content type and padding.
    pub(crate) fn inner_length(length: usize) -> usize {
        length - HEADER - TAG
    }
}

fn read(inner: &[u8]) -> Result<Opened<'_>, TlsError> {
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
        (HANDSHAKE, messages) => Ok(Opened::Messages(messages)),
        _ => Err(TlsError::Record("of a type that has no place after the handshake")),
    }
}

#[cfg(test)]
pub(crate) mod tests;
