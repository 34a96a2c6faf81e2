//! One direction's traffic key, in the library that is fastest with it on this processor. `docs/decisions/0040`.

use super::TlsError;
use aws_lc_rs::aead as aws_lc;
use ring::aead as ring;
use rustls::ConnectionTrafficSecrets;
use std::hint::black_box;

/// Length of the tag behind every ciphertext: the same for AES-GCM and for ChaCha20-Poly1305, as is that of the nonce.
pub(super) const TAG: usize = 16;

pub(super) type Nonce = [u8; 12];

const NO_KEY: TlsError = TlsError::Policy("traffic key");
const NOT_SEALED: TlsError = TlsError::Record("cannot be sealed");
const NOT_OPENED: TlsError = TlsError::Record("that does not authenticate");

/// Who computes AES-GCM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Library {
    /// Four blocks of AES in one instruction where there is AVX-512, one elsewhere; and whatever Arm offers.
    AwsLc,
    /// Two blocks of AES in one instruction where there is AVX2 with VAES.
    Ring,
}

impl Library {
    /// The faster one on this processor.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn here() -> Self {
        let vaes = is_x86_feature_detected!("vaes") && is_x86_feature_detected!("vpclmulqdq");
        let two = vaes && is_x86_feature_detected!("avx2");
        let four = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl");
        if two && !four { Self::Ring } else { Self::AwsLc }
    }

    /// The faster one on this processor.
    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn here() -> Self {
        Self::AwsLc
    }
}

/// A key of either library.
pub(super) enum Key {
    AwsLc(aws_lc::LessSafeKey),
    Ring(Box<ZeroizingRingKey>),
}

impl Key {
    /// The key of these secrets, and what its nonces are made from; `library` computes it if it is one of AES.
    pub(super) fn new(library: Library, secrets: &ConnectionTrafficSecrets) -> Result<(Self, Nonce), TlsError> {
        let (key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => {
                (Self::aes(library, &aws_lc::AES_128_GCM, &ring::AES_128_GCM, key.as_ref())?, iv)
            }
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => {
                (Self::aes(library, &aws_lc::AES_256_GCM, &ring::AES_256_GCM, key.as_ref())?, iv)
            }
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (Self::aws_lc(&aws_lc::CHACHA20_POLY1305, key.as_ref())?, iv)
            }
            _ => return Err(TlsError::Policy("cipher suite")),
        };
        let iv = iv.as_ref().try_into().map_err(|_| TlsError::Policy("traffic IV"))?;
        Ok((key, iv))
    }

    fn aes(
        library: Library,
        aws_lc: &'static aws_lc::Algorithm,
        ring: &'static ring::Algorithm,
        key: &[u8],
    ) -> Result<Self, TlsError> {
        match library {
            Library::AwsLc => Self::aws_lc(aws_lc, key),
            Library::Ring => Ok(Self::Ring(Box::new(ZeroizingRingKey(ring_key(ring, key)?)))),
        }
    }

    fn aws_lc(algorithm: &'static aws_lc::Algorithm, key: &[u8]) -> Result<Self, TlsError> {
        let key = aws_lc::UnboundKey::new(algorithm, key).map_err(|_| NO_KEY)?;
        Ok(Self::AwsLc(aws_lc::LessSafeKey::new(key)))
    }

    /// Encrypts the plaintext where it is.
    pub(super) fn seal(
        &self,
        nonce: Nonce,
        header: &[u8],
        plaintext: &mut [u8],
        tag: &mut [u8],
    ) -> Result<(), TlsError> {
        match self {
            Self::AwsLc(key) => {
                let nonce = aws_lc::Nonce::assume_unique_for_key(nonce);
                let made = key.seal_in_place_separate_tag(nonce, aws_lc::Aad::from(header), plaintext);
                tag.copy_from_slice(made.map_err(|_| NOT_SEALED)?.as_ref());
            }
            Self::Ring(key) => {
                let nonce = ring::Nonce::assume_unique_for_key(nonce);
                let made = key.0.seal_in_place_separate_tag(nonce, ring::Aad::from(header), plaintext);
                tag.copy_from_slice(made.map_err(|_| NOT_SEALED)?.as_ref());
            }
        }
        Ok(())
    }

    /// Encrypts a plaintext that begins in `body`, where it stays, and ends with `payload`; at the end of `body` is room for
    /// the tag.
    pub(super) fn seal_from(
        &self,
        nonce: Nonce,
        header: &[u8],
        body: &mut [u8],
        payload: &[u8],
    ) -> Result<(), TlsError> {
        let (plaintext, tag) = body.split_at_mut(body.len() - TAG);
        let front = plaintext.len() - payload.len();
        match self {
            Self::AwsLc(key) if key.algorithm() == &aws_lc::AES_256_GCM => {
                let nonce = aws_lc::Nonce::assume_unique_for_key(nonce);
                let (front, rest) = body.split_at_mut(front);
                let sealed = key.seal_in_place_scatter(nonce, aws_lc::Aad::from(header), front, payload, rest);
                sealed.map_err(|_| NOT_SEALED)
            }
            // aws-lc computes what is apart block by block with any other cipher, and ring cannot: a copy is cheaper.
            Self::AwsLc(_) | Self::Ring(_) => {
                plaintext[front..].copy_from_slice(payload);
                self.seal(nonce, header, plaintext, tag)
            }
        }
    }

    /// Decrypts `body`, which ends with the tag, where it is; what it gives is the plaintext.
    pub(super) fn open<'a>(&self, nonce: Nonce, header: &[u8], body: &'a mut [u8]) -> Result<&'a mut [u8], TlsError> {
        match self {
            Self::AwsLc(key) => {
                let nonce = aws_lc::Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, aws_lc::Aad::from(header), body).map_err(|_| NOT_OPENED)
            }
            Self::Ring(key) => {
                let nonce = ring::Nonce::assume_unique_for_key(nonce);
                key.0.open_in_place(nonce, ring::Aad::from(header), body).map_err(|_| NOT_OPENED)
            }
        }
    }

    /// Decrypts what stands `from` bytes into `bytes` and ends, like them, with the tag. What it gives is the plaintext, which
    /// is at the front then.
    pub(super) fn open_to_front<'a>(
        &self,
        nonce: Nonce,
        header: &[u8],
        bytes: &'a mut [u8],
        from: usize,
    ) -> Result<&'a mut [u8], TlsError> {
        match self {
            // aws-lc has nothing for that: a copy of what the processor has at hand is cheap.
            Self::AwsLc(_) => {
                let length = self.open(nonce, header, &mut bytes[from..])?.len();
                bytes.copy_within(from..from + length, 0);
                Ok(&mut bytes[..length])
            }
            Self::Ring(key) => {
                let nonce = ring::Nonce::assume_unique_for_key(nonce);
                key.0.open_within(nonce, ring::Aad::from(header), bytes, from..).map_err(|_| NOT_OPENED)
            }
        }
    }

    /// Decrypts `body`, which ends with the tag, into `room` for just its plaintext.
    pub(super) fn open_into(&self, nonce: Nonce, header: &[u8], body: &[u8], room: &mut [u8]) -> Result<(), TlsError> {
        let (ciphertext, tag) = body.split_at(body.len() - TAG);
        match self {
            Self::AwsLc(key) => {
                let nonce = aws_lc::Nonce::assume_unique_for_key(nonce);
                let opened = key.open_separate_gather(nonce, aws_lc::Aad::from(header), ciphertext, tag, room);
                opened.map_err(|_| NOT_OPENED)
            }
            Self::Ring(key) => {
                let nonce = ring::Nonce::assume_unique_for_key(nonce);
                let tag = tag.try_into().map_err(|_| NOT_OPENED)?;
                room.copy_from_slice(ciphertext);
                let opened = key.0.open_in_place_separate_tag(nonce, ring::Aad::from(header), tag, room, 0..);
                opened.map(drop).map_err(|_| NOT_OPENED)
            }
        }
    }
}

/// A key of ring's, which leaves its keys in memory where aws-lc overwrites them.
pub(super) struct ZeroizingRingKey(ring::LessSafeKey);

impl ZeroizingRingKey {
    /// Puts nobody's key in its place.
    fn wipe(&mut self) {
        if let Ok(nobodys) = ring_key(&ring::AES_256_GCM, &[0; 32]) {
            self.0 = nobodys;
            black_box(&self.0);
        }
    }
}

impl Drop for ZeroizingRingKey {
    fn drop(&mut self) {
        self.wipe();
    }
}

fn ring_key(algorithm: &'static ring::Algorithm, key: &[u8]) -> Result<ring::LessSafeKey, TlsError> {
    ring::UnboundKey::new(algorithm, key).map(ring::LessSafeKey::new).map_err(|_| NO_KEY)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tells keys apart.
    fn tag(key: &ring::LessSafeKey) -> Vec<u8> {
        let nonce = ring::Nonce::assume_unique_for_key([0; 12]);
        let tag = key.seal_in_place_separate_tag(nonce, ring::Aad::empty(), &mut []);
        tag.expect("a tag").as_ref().to_vec()
    }

    #[test]
    fn a_key_of_rings_that_is_wiped_is_nobodys() {
        let new = |byte| ring_key(&ring::AES_256_GCM, &[byte; 32]).expect("a key");
        let mut key = ZeroizingRingKey(new(7));
        assert_eq!(tag(&key.0), tag(&new(7)));
        key.wipe();
        assert_eq!(tag(&key.0), tag(&new(0)));
    }
}
