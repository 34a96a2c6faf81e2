//! A link's bytes through WebSockets: what is written in any pieces arrives in any pieces, and is the same; what a middlebox
//! changes is an error or other bytes, never a panic.
#![no_main]

use arbitrary::Arbitrary;
use ferry_tunnel::fuzzing;
use libfuzzer_sys::fuzz_target;

const REQUEST: &str = "GET /ferry HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

#[derive(Arbitrary, Debug)]
struct Life<'a> {
    step: u16,
    /// How long each message is, and its bytes' first.
    messages: Vec<(u16, u8)>,
    /// Where bytes are changed, and how.
    damage: Vec<(u16, u8)>,
    /// Frames of somebody else's, between the messages.
    between: Option<(u16, &'a [u8])>,
}

fuzz_target!(|life: Life<'_>| {
    let messages = life.messages.iter().take(8).map(|(length, first)| {
        // Above the longest message that this end sends, now and then.
        let length = usize::from(*length) * 2;
        (0..length).map(|at| first.wrapping_add((at % 251) as u8)).collect::<Vec<u8>>()
    });
    let messages: Vec<_> = messages.collect();
    let mut wire = fuzzing::websocket(&messages.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let mut is_whole = true;
    for (at, change) in life.damage.iter().take(8).filter(|(_, change)| *change != 0) {
        let length = wire.len();
        if length > 0 {
            wire[usize::from(*at) % length] ^= change;
            is_whole = false;
        }
    }
    if let Some((at, bytes)) = life.between {
        let at = usize::from(at) % (wire.len() + 1);
        wire.splice(at..at, bytes.iter().copied());
        is_whole &= bytes.is_empty();
    }
    let all = [REQUEST.as_bytes(), &wire].concat();
    // Byte by byte where that is not too many steps.
    let step = if life.step == 0 { 0 } else { usize::from(life.step).max(all.len() / 2000) };
    let outcome = fuzzing::upgrade_answer(&all, step, "/ferry");
    assert_eq!(outcome.refused, None);
    if is_whole {
        assert_eq!(outcome.carried, messages.concat());
    }
});
