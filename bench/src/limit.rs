//! What cannot be saved: the cipher's cost, and that of the comparing in the bench itself.

use anyhow::{Result, anyhow};
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;

/// Bytes that each cost is measured with.
const BYTES: usize = 256 << 20;

const RECORD: usize = 16 * 1024;

/// Processor seconds of this thread per GiB that `step` needs for `size` bytes a time.
fn per_gib(size: usize, mut step: impl FnMut() -> Result<()>) -> Result<f64> {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
    };
    let start = now();
    for _ in 0..BYTES / size {
        step()?;
    }
    Ok((now() - start) * f64::from(1 << 30) / BYTES as f64)
}

/// Processor seconds per GiB of comparing what arrived with what is due.
pub(crate) fn compare() -> f64 {
    let (came, due) = (vec![7_u8; 256 * 1024], vec![7_u8; 256 * 1024]);
    let compared = per_gib(came.len(), || {
        anyhow::ensure!(black_box(&came) == black_box(&due));
        Ok(())
    });
    compared.unwrap_or_default()
}

/// Seals and opens records of full size with a library whose `aead` is that of aws-lc-rs and ring.
macro_rules! seal_and_open {
    ($aead:path) => {{
        use $aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
        let broken = |_| anyhow!("AES-256-GCM does not work");
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).map_err(broken)?);
        // The same nonce for all: nothing is kept secret here.
        let nonce = || Nonce::assume_unique_for_key([1; NONCE_LEN]);
        let mut record = vec![7; RECORD];
        per_gib(RECORD, || {
            let tag = key.seal_in_place_separate_tag(nonce(), Aad::empty(), &mut record).map_err(broken)?;
            record.extend_from_slice(tag.as_ref());
            key.open_in_place(nonce(), Aad::empty(), &mut record).map_err(broken)?;
            record.truncate(RECORD);
            Ok(())
        })
    }};
}

/// Processor seconds per GiB of sealing and opening records of full size with AES-256-GCM, by the library that is faster
/// at it here.
///
/// # Errors
/// When a library refuses.
pub(crate) fn cipher() -> Result<f64> {
    Ok(f64::min(seal_and_open!(aws_lc_rs::aead)?, seal_and_open!(ring::aead)?))
}
