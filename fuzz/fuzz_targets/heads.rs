//! What strangers and middleboxes send before a link begins: an Upgrade request, an endpoint's and a proxy's answer, the first
//! records, and the frames of a WebSocket. Nothing panics, and in whatever pieces it arrives, the outcome is the same.
#![no_main]

use arbitrary::Arbitrary;
use ferry_tunnel::fuzzing::{self, ANSWER, Outcome};
use libfuzzer_sys::fuzz_target;

const PATH: &str = "/ferry";

const REQUEST: &str = "GET /ferry HTTP/1.1\r\nHost: peer\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

#[derive(Arbitrary, Debug)]
struct Connection<'a> {
    step: u8,
    first: First,
    bytes: &'a [u8],
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum First {
    Request,
    /// A right one, then frames.
    Upgraded,
    Answer,
    /// A right one, then frames.
    Answered,
    Connect,
    Hello,
}

const SURPLUS: &str = "sent bytes behind its answer that belong to nothing: is it an HTTP proxy?";

fn of(first: First, bytes: &[u8], step: usize) -> Outcome {
    match first {
        First::Request => fuzzing::upgrade_answer(bytes, step, PATH),
        First::Upgraded => fuzzing::upgrade_answer(&[REQUEST.as_bytes(), bytes].concat(), step, PATH),
        First::Answer => fuzzing::upgrade_request(bytes, step),
        First::Answered => fuzzing::upgrade_request(&[ANSWER.as_bytes(), bytes].concat(), step),
        First::Connect => fuzzing::connect(bytes, step),
        First::Hello => fuzzing::client_hello(bytes, step),
    }
}

/// A stranger gets one whole answer, and it says what became of the connection.
fn check_answer(outcome: &Outcome) {
    let mut fields = [httparse::EMPTY_HEADER; 8];
    let mut answer = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(length)) = answer.parse(&outcome.written) else {
        // What is no HTTP is not answered.
        assert!(outcome.written.is_empty() && outcome.refused.is_some());
        return;
    };
    let code = answer.code.expect("a code");
    assert_eq!(code == 101, outcome.refused.is_none());
    // Behind a 101 are frames: pongs, and the echo of a close.
    assert!(code == 101 || length == outcome.written.len());
    assert!(code == 101 || outcome.refused.as_ref().is_some_and(|text| text.ends_with(&code.to_string())));
}

fuzz_target!(|connection: Connection<'_>| {
    let Connection { step, first, bytes } = connection;
    let mut whole = of(first, bytes, 0);
    let mut pieces = of(first, bytes, usize::from(step).max(1));
    if matches!(first, First::Request | First::Upgraded) {
        check_answer(&whole);
    }
    for outcome in [&whole, &pieces] {
        assert_ne!(outcome.refused.as_deref(), Some("it waits"), "for what never comes");
        assert!(outcome.carried.len() <= bytes.len());
    }
    if matches!(first, First::Connect) {
        // Whether more is there already when the answer is read depends on how it arrives.
        for outcome in [&mut whole, &mut pieces] {
            outcome.refused.take_if(|text| text == SURPLUS);
            outcome.carried.clear();
        }
    }
    if matches!(first, First::Request | First::Upgraded) {
        // Of Pings that arrive together only the last one is answered (RFC 6455, 5.5.3).
        for outcome in [&mut whole, &mut pieces] {
            let answer = outcome.written.windows(4).position(|end| end == b"\r\n\r\n");
            outcome.written.truncate(answer.map_or(0, |at| at + 4));
        }
    }
    if matches!(first, First::Answer | First::Answered) {
        // Behind the request are frames, each under a mask of its own.
        for outcome in [&mut whole, &mut pieces] {
            outcome.written.clear();
        }
    }
    if matches!(first, First::Hello) && whole.refused.is_some() && pieces.refused.is_some() {
        // Of several reasons the one that is seen first counts, and whether an alert tells it.
        return;
    }
    assert_eq!(whole, pieces);
});
