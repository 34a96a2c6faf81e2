//! What the kernel tells of a TCP connection (`TCP_INFO`, `struct tcp_info` of linux/tcp.h), read as words.

use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::GetStruct;

use crate::net::PathCounts;

/// Every kernel that can run this has so much.
type FirstWords = [u32; 37];

/// Linux 5.4 and later have so much.
type Words = [u32; 57];

/// The first version that has [`Words`].
const WORDS_SINCE: (u32, u32) = (5, 4);

#[derive(Clone, Copy)]
struct FirstInfo;

nix::getsockopt_impl!(FirstInfo, libc::IPPROTO_TCP, libc::TCP_INFO, FirstWords, GetStruct<FirstWords>);

#[derive(Clone, Copy)]
struct Info;

nix::getsockopt_impl!(Info, libc::IPPROTO_TCP, libc::TCP_INFO, Words, GetStruct<Words>);

// Where the words are.
const SEGMENT: usize = 4;
const UNACKED: usize = 6;
const ROUND_TRIP: usize = 17;
const RETRANSMITTED: usize = 25;
const BYTES_RECEIVED: usize = 32;
const UNSENT_BYTES: usize = 36;
const LEAST_ROUND_TRIP: usize = 37;
const DATA_RECEIVED: usize = 38;
const DATA_SENT: usize = 39;
const BYTES_SENT: usize = 50;
const OUT_OF_ORDER: usize = 56;

/// Segments that are not acknowledged, and bytes that wait to be sent.
pub(super) fn undelivered(socket: &impl AsFd) -> u64 {
    // A socket that is beyond asking holds nothing that could still arrive.
    let Ok(words) = getsockopt(socket, FirstInfo) else { return 0 };
    u64::from(words[UNSENT_BYTES]) + u64::from(words[UNACKED])
}

/// What has been counted of the path.
pub(super) fn path(socket: &impl AsFd, bears_loss: bool) -> Option<PathCounts> {
    let words = if tells_all() { getsockopt(socket, Info).ok()? } else { return None };
    let microseconds = |at: usize| Duration::from_micros(words[at].into());
    let bytes = |at: usize| {
        let (low, high) = if cfg!(target_endian = "big") { (at + 1, at) } else { (at, at + 1) };
        u64::from(words[high]) << 32 | u64::from(words[low])
    };
    Some(PathCounts {
        round_trip: microseconds(ROUND_TRIP),
        least_round_trip: microseconds(LEAST_ROUND_TRIP).min(microseconds(ROUND_TRIP)),
        segment: words[SEGMENT],
        sent: words[DATA_SENT].into(),
        sent_bytes: bytes(BYTES_SENT),
        lost: words[RETRANSMITTED].into(),
        received: words[DATA_RECEIVED].into(),
        received_bytes: bytes(BYTES_RECEIVED),
        early: words[OUT_OF_ORDER].into(),
        unread: words[OUT_OF_ORDER],
        bears_loss,
    })
}

/// The kernel has all of the words: asking one for more than it has would be an error of ours.
fn tells_all() -> bool {
    static TELLS_ALL: OnceLock<bool> = OnceLock::new();
    *TELLS_ALL.get_or_init(|| {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= WORDS_SINCE
    })
}
