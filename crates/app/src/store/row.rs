//! How a row is sealed against damage: a CRC-32 over the row's number and text, the number, the text.

use super::StoreError;

/// What an idempotency key stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyRecord {
    /// The message that was accepted with it.
    pub(crate) seq: u64,
    /// A digest of the trigger, to tell a retry from another trigger under the same key.
    pub(crate) digest: u64,
    pub(crate) fate: Fate,
}

/// What became of a message, as far as that does not follow from its being in the outbox or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Under way, or delivered without a reply.
    #[default]
    Plain,
    /// Delivered; its reply is in the output or will come.
    Replied,
    /// The far hook kept refusing it.
    Dead,
}

impl Fate {
    /// What follows the digest in a row.
    fn mark(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Replied => "r",
            Self::Dead => "d",
        }
    }
}

/// Bytes before the text: the checksum and the number.
const HEADER_BYTES: usize = 12;

/// A row of `number` and `text`.
pub(super) fn seal(number: u64, text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + text.len());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    let sum = checksum(&bytes[4..]);
    bytes[..4].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// The number and text of a row of `table`.
pub(super) fn unseal<'a>(table: &'static str, bytes: &'a [u8]) -> Result<(u64, &'a str), StoreError> {
    let damaged = || StoreError::damaged(format!("a row of {table} does not match its checksum"));
    let (sum, rest) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
    let (number, text) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
    if u32::from_le_bytes(*sum) != checksum(rest) {
        return Err(damaged());
    }
    Ok((u64::from_le_bytes(*number), std::str::from_utf8(text).map_err(|_| damaged())?))
}

pub(super) fn seal_key(key: &str, row: KeyRecord) -> Vec<u8> {
    seal(row.seq, &format!("{}{} {key}", row.digest, row.fate.mark()))
}

pub(super) fn unseal_key(key: &str, bytes: &[u8]) -> Result<KeyRecord, StoreError> {
    let (seq, text) = unseal("keys", bytes)?;
    match text.split_once(' ') {
        Some((digest, same)) if same == key => match marked(digest) {
            Some((digest, fate)) => Ok(KeyRecord { seq, digest, fate }),
            None => Err(StoreError::damaged("a digest is not a number".into())),
        },
        _ => Err(StoreError::damaged("a row of keys belongs to another key".into())),
    }
}

fn marked(digest: &str) -> Option<(u64, Fate)> {
    let all = [Fate::Replied, Fate::Dead];
    let marked = all.into_iter().find_map(|fate| Some((digest.strip_suffix(fate.mark())?, fate)));
    let (digest, fate) = marked.unwrap_or((digest, Fate::Plain));
    Some((digest.parse().ok()?, fate))
}

pub(super) fn seal_peer(sender: &str, peer: &str) -> Vec<u8> {
    seal(0, &format!("{sender} {peer}"))
}

/// The peer whose sender this is.
pub(super) fn unseal_peer(sender: &str, bytes: &[u8]) -> Result<String, StoreError> {
    let (_, text) = unseal("peers", bytes)?;
    match text.split_once(' ') {
        Some((same, peer)) if same == sender => Ok(peer.to_owned()),
        _ => Err(StoreError::damaged("a row of peers belongs to another sender".into())),
    }
}

/// CRC-32 as in IEEE 802.3. Stored databases depend on the polynomial.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_known_one() {
        assert_eq!(checksum(b"123456789"), 0xcbf4_3926);
        assert_eq!(checksum(b""), 0);
        assert_eq!(checksum(b"The quick brown fox jumps over the lazy dog"), 0x414f_a339);
    }

    #[test]
    fn rows_of_stored_databases_can_be_read() {
        // As the first version wrote it: checksum, number, text, the integers in little-endian order.
        const ROW: &[u8] = b"\xff\x07\xb0\x87\x07\x00\x00\x00\x00\x00\x00\x00{\"seq\":7,\"id\":\"0123456789abcdef01234567-7\",\"payload\":{\"n\":1},\"trail\":[]}";
        const TEXT: &str = r#"{"seq":7,"id":"0123456789abcdef01234567-7","payload":{"n":1},"trail":[]}"#;
        assert_eq!(unseal("outbox", ROW).unwrap(), (7, TEXT));
        assert_eq!(seal(7, TEXT), ROW);
    }

    #[test]
    fn a_keys_row_tells_what_became_of_its_message() {
        for fate in [Fate::Plain, Fate::Replied, Fate::Dead] {
            let key = KeyRecord { seq: 7, digest: u64::MAX, fate };
            assert_eq!(unseal_key("a key", &seal_key("a key", key)).unwrap(), key);
        }
    }

    #[test]
    fn any_flipped_bit_of_a_row_is_found() {
        let row = seal(7, "{\"n\":1}");
        assert_eq!(unseal("outbox", &row).unwrap(), (7, "{\"n\":1}"));
        for bit in 0..row.len() * 8 {
            let mut damaged = row.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal("outbox", &damaged).is_err(), "bit {bit}");
        }
        assert!(unseal("outbox", &row[..11]).is_err());
    }
}
