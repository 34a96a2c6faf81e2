//! How a row is sealed against damage: a CRC-32 over the row's number and text, the number, the text.

use super::StoreError;

/// What an idempotency key stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    /// The message that was accepted with it.
    pub(crate) seq: u64,
    /// A digest of the trigger, to tell a retry from another trigger under the same key.
    pub(crate) digest: u64,
    pub(crate) fate: Fate,
}

/// What became of a message, as far as it cannot be told by whether the outbox still has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Under way, or delivered without a reply.
    #[default]
    Plain,
    /// Delivered; its reply is in the output, or comes.
    Replied,
    /// The far hook kept refusing it.
    Dead,
}

impl Fate {
    /// What stands behind the digest.
    fn mark(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Replied => "r",
            Self::Dead => "d",
        }
    }
}

const HEAD: usize = 12;

/// A row of `number` and `text`.
pub(super) fn seal(number: u64, text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + text.len());
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

pub(super) fn seal_key(key: &str, row: Key) -> Vec<u8> {
    seal(row.seq, &format!("{}{} {key}", row.digest, row.fate.mark()))
}

pub(super) fn unseal_key(key: &str, bytes: &[u8]) -> Result<Key, StoreError> {
    let (seq, text) = unseal("keys", bytes)?;
    match text.split_once(' ') {
        Some((digest, same)) if same == key => match marked(digest) {
            Some((digest, fate)) => Ok(Key { seq, digest, fate }),
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

/// CRC-32 as in IEEE 802.3, eight bytes at a time.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let low = crc ^ u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        let at = |table: usize, byte: u32| TABLES[table][(byte & 0xff) as usize];
        crc = at(7, low)
            ^ at(6, low >> 8)
            ^ at(5, low >> 16)
            ^ at(4, low >> 24)
            ^ at(3, chunk[4].into())
            ^ at(2, chunk[5].into())
            ^ at(1, chunk[6].into())
            ^ at(0, chunk[7].into());
    }
    for byte in chunks.remainder() {
        crc = (crc >> 8) ^ TABLES[0][((crc ^ u32::from(*byte)) & 0xff) as usize];
    }
    !crc
}

static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut i = 0;
    while i < 256 {
        let (mut crc, mut bit) = (i as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        tables[0][i] = crc;
        i += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut i = 0;
        while i < 256 {
            let before = tables[table - 1][i];
            tables[table][i] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            i += 1;
        }
        table += 1;
    }
    tables
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
    fn a_keys_row_tells_what_became_of_its_message() {
        for fate in [Fate::Plain, Fate::Replied, Fate::Dead] {
            let key = Key { seq: 7, digest: u64::MAX, fate };
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
