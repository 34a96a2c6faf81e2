//! What is left of a link's secrets in this process's memory once the link is gone.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use aws_lc_rs::hkdf;
use parking_lot::Mutex;
use rustls::KeyLog;
use tokio::io::duplex;

use super::tests::shake_as;
use super::*;

/// Secrets are kept as their complement, so that the scan does not find what the test itself holds.
#[derive(Debug, Default)]
struct Secrets(Mutex<Vec<Vec<u8>>>);

impl KeyLog for Secrets {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        if !label.contains("TRAFFIC_SECRET_0") {
            return;
        }
        let mut secrets = self.0.lock();
        secrets.push(secret.iter().map(|byte| !byte).collect());
        // RFC 8446 section 7.3: HKDF-Expand-Label(Secret, "key", "", 32), whose label is written out here.
        let prk = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA384, secret);
        let mut key = [0; 32];
        let okm = prk.expand(&[b"\x00\x20\x09tls13 key\x00"], hkdf::HKDF_SHA256).unwrap();
        okm.fill(&mut key).unwrap();
        secrets.push(key.iter_mut().map(|byte| !std::mem::take(byte)).collect());
    }
}

/// How often each secret is in writable memory.
fn copies(complements: &[Vec<u8>]) -> Vec<usize> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let memory = File::open("/proc/self/mem").unwrap();
    let mut counts = vec![0; complements.len()];
    let mut begins = [false; 256];
    complements.iter().for_each(|complement| begins[usize::from(!complement[0])] = true);
    let mut chunk = vec![0; 1 << 20];
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let [start, end] = [start, end].map(|address| u64::from_str_radix(address, 16).unwrap());
        let mut at = start;
        while at < end {
            let length = usize::try_from(end - at).unwrap().min(chunk.len());
            let Ok(read) = memory.read_at(&mut chunk[..length], at) else { break };
            for begin in (0..read).filter(|begin| begins[usize::from(chunk[*begin])]) {
                for (complement, count) in complements.iter().zip(&mut counts) {
                    let window = chunk[begin..read].iter().take(complement.len());
                    *count += usize::from(window.copied().eq(complement.iter().map(|byte| !byte)));
                }
            }
            chunk.fill(0);
            at += read.max(1) as u64;
        }
    }
    counts
}

/// The traffic secrets that they are made from may stay: the library gives them back to the allocator as they are.
#[tokio::test]
async fn a_link_that_is_gone_leaves_no_copy_of_its_keys_in_memory() {
    let secrets = Arc::new(Secrets::default());
    for _ in 0..2 {
        let (near, far) = duplex(MAX_HANDSHAKE);
        let log = secrets.clone();
        drop(shake_as(near, far, move |dialler| Arc::make_mut(&mut dialler.config).key_log = log).await);
    }
    let complements = secrets.0.lock().clone();
    assert_eq!(complements.len(), 8, "two directions of two links, a secret and a key each");
    let counts = copies(&complements);
    println!("copies of secret, key, secret, key of each link: {counts:?}");
    assert!(counts.iter().skip(1).step_by(2).all(|keys| *keys == 0), "{counts:?}");
}
