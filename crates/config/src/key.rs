//! Public keys: what a tunnel is known by.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::published::is_published;
use crate::report::{ValueError, quoted};

const PREFIX: &str = "ferry:pub:";
const HINT: &str = "copy the line `ferry:pub:…` that `ferry pubkey FILE` prints for the peer's identity";

/// DER of everything in an Ed25519 SubjectPublicKeyInfo that comes before the key (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// An Ed25519 public key.
///
/// As text, and for serde, `ferry:pub:` and the 32 raw bytes in base64url without padding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The key whose raw bytes these are (RFC 8032, section 5.1.2).
    ///
    /// # Errors
    ///
    /// If it is a point of small order, as all zeros are. Anybody can make signatures that such a key accepts, so a
    /// place-holder left in a configuration would let the whole world in. The same goes for a key whose private half is
    /// published.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, ValueError> {
        if is_small_order(&bytes) {
            let message = "a key that everybody could sign for";
            return Err(ValueError::new(message, HINT));
        }
        if is_published(&bytes) {
            let message = "the private half of this key is published, so anybody could use it";
            return Err(ValueError::new(
                message,
                "make a new identity with `ferry keygen`, and list the key that it prints",
            ));
        }
        Ok(Self(bytes))
    }

    /// The raw bytes of the key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key as a SubjectPublicKeyInfo in DER (RFC 8410): what a raw public key in TLS is.
    pub fn spki_der(&self) -> [u8; 44] {
        let mut der = [0; 44];
        der[..12].copy_from_slice(&SPKI_PREFIX);
        der[12..].copy_from_slice(&self.0);
        der
    }

    /// The key in a SubjectPublicKeyInfo.
    ///
    /// # Errors
    ///
    /// If `der` is anything but [`spki_der`](Self::spki_der) of a key.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, ValueError> {
        der.strip_prefix(&SPKI_PREFIX)
            .and_then(|raw| raw.try_into().ok())
            .ok_or_else(|| ValueError::new("not an Ed25519 public key in DER", ""))
            .and_then(Self::from_bytes)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let Some(encoded) = text.strip_prefix(PREFIX) else {
            let message = format!("{} is not a public key", quoted(text));
            return Err(ValueError::new(message, HINT));
        };
        // The engine also refuses padding and stray bits at the end: one key, one text.
        let raw = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| {
            let message = format!("{} is not a public key: not base64url", quoted(text));
            ValueError::new(message, HINT)
        })?;
        let raw = <[u8; 32]>::try_from(raw.as_slice()).map_err(|_| {
            let message = format!("a public key of {} bytes instead of 32", raw.len());
            ValueError::new(message, HINT)
        })?;
        Self::from_bytes(raw)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl de::Visitor<'_> for Text {
            type Value = PublicKey;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a public key, `{PREFIX}…`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PublicKey, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// Whether these are the bytes of a point whose order divides the cofactor, in any of its encodings.
fn is_small_order(bytes: &[u8; 32]) -> bool {
    /// y of the points of order 8.
    const ORDER_8: [[u8; 32]; 2] = [
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
            0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
            0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ],
    ];
    // The top bit is the sign of x, the rest is y in little endian.
    let mut y = *bytes;
    y[31] &= 0x7f;
    let zero_or_one = y[0] <= 1 && y[1..].iter().all(|&b| b == 0);
    // p - 1, and p and p + 1, which are 0 and 1 again; p = 2^255 - 19.
    let around_p = (0xec..=0xee).contains(&y[0]) && y[1..31].iter().all(|&b| b == 0xff) && y[31] == 0x7f;
    zero_or_one || around_p || ORDER_8.contains(&y)
}
