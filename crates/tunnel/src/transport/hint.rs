//! Which process of its peer a dialler wants: told in the clear, as one more name among its ClientHello's protocols.

use aws_lc_rs::digest::{SHA256, digest};
use ferry_session::Instance;

/// What the name begins with; 16 hexadecimal digits follow. `docs/protocol.md`, section 2.
const PREFIX: &str = "ferry-to/";

/// Stands for an instance, and tells nothing else about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Hint(pub(crate) [u8; Hint::LENGTH]);

impl Hint {
    /// Bytes of it: enough to tell the replicas of a peer apart.
    pub(crate) const LENGTH: usize = 8;

    /// "the first eight bytes of the SHA-256 of `ferry-to/` and the instance"
    pub(crate) fn of(instance: Instance) -> Self {
        let hash = digest(&SHA256, &[PREFIX.as_bytes(), &instance.0].concat());
        let mut hint = [0; Self::LENGTH];
        hint.copy_from_slice(&hash.as_ref()[..Self::LENGTH]);
        Self(hint)
    }

    /// The name of a protocol that nobody speaks (RFC 7301).
    pub(crate) fn to_alpn(self) -> Vec<u8> {
        format!("{PREFIX}{:016x}", u64::from_be_bytes(self.0)).into_bytes()
    }

    /// What such a name says.
    pub(crate) fn of_alpn(name: &[u8]) -> Option<Self> {
        let digits = std::str::from_utf8(name.strip_prefix(PREFIX.as_bytes())?).ok()?;
        let is_canonical =
            digits.len() == 2 * Self::LENGTH && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        let value = u64::from_str_radix(digits, 16).ok()?;
        is_canonical.then_some(Self(value.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frozen: the other end may be of another version.
    #[test]
    fn a_hint_is_written_as_ever_and_read_back() {
        let hint = Hint::of(Instance([7; 16]));
        assert_eq!(String::from_utf8(hint.to_alpn()).unwrap(), "ferry-to/85d122ca0594362f");
        assert_eq!(Hint::of_alpn(&hint.to_alpn()), Some(hint));
        assert_ne!(hint, Hint::of(Instance([8; 16])));
    }

    #[test]
    fn what_is_no_hint_is_none() {
        for name in [
            "ferry/1",
            "ferry-to/",
            "ferry-to/0",
            "ferry-to/00000000000000000",
            "ferry-to/000000000000000G",
            "ferry-to/+00000000000000f",
            "ferry-to/00000000000000AB",
        ] {
            assert_eq!(Hint::of_alpn(name.as_bytes()), None, "{name}");
        }
        assert_eq!(Hint::of_alpn(b"ferry-to/\xff"), None);
    }
}
