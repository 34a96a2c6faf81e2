//! A checked stream: every byte says where it belongs.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const WORD: usize = 8;

/// The eight bytes at word `index` of the stream called `key`.
fn word(key: u64, index: u64) -> [u8; WORD] {
    let mut mixed = (key ^ index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^= mixed >> 29;
    mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9).to_be_bytes()
}

/// Writes words until `stop` says so, then ends the direction; returns how many bytes.
pub async fn write_until(mut to: impl AsyncWrite + Unpin, key: u64, mut stop: impl FnMut(u64) -> bool) -> u64 {
    let mut index = 0;
    let mut chunk = Vec::with_capacity(4096);
    loop {
        chunk.clear();
        for _ in 0..4096 / WORD {
            chunk.extend_from_slice(&word(key, index));
            index += 1;
        }
        to.write_all(&chunk).await.expect("the application's connection stays open");
        if stop(index * WORD as u64) {
            to.shutdown().await.expect("the application's connection stays open");
            return index * WORD as u64;
        }
        tokio::task::yield_now().await;
    }
}

/// Writes the `count` words from word `index` on.
pub async fn write_words(mut to: impl AsyncWrite + Unpin, key: u64, index: u64, count: u64) {
    let words: Vec<_> = (index..index + count).flat_map(|index| word(key, index)).collect();
    to.write_all(&words).await.expect("the application's connection stays open");
}

/// Reads to the end and checks every byte; returns how many.
pub async fn check(mut from: impl AsyncRead + Unpin, key: u64) -> u64 {
    let mut buffer = vec![0; 64 * 1024];
    let mut held = 0;
    let mut index = 0;
    loop {
        let count = from.read(&mut buffer[held..]).await.expect("the application's connection stays open");
        if count == 0 {
            assert_eq!(held, 0, "the stream ends in the middle of a word");
            return index * WORD as u64;
        }
        held += count;
        let whole = held / WORD * WORD;
        for piece in buffer[..whole].chunks_exact(WORD) {
            assert_eq!(piece, word(key, index), "stream {key:#x} is wrong at byte {}", index * WORD as u64);
            index += 1;
        }
        buffer.copy_within(whole..held, 0);
        held -= whole;
    }
}
