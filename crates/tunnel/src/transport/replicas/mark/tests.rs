//! A mark is taken from a replica alone, for the connection that it was made for alone.

use futures_util::FutureExt as _;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

use super::*;

const SOURCE: &str = "192.0.2.7:4711";
const HELLO: &[u8] = b"\x16\x03\x01 a ClientHello";

fn keys() -> [MarkKey; 2] {
    [(); 2].map(|()| MarkKey::of(&Identity::generate().unwrap()))
}

fn key_of_a_golden_identity() -> MarkKey {
    // Thirty-two times seven as a seed: in a test alone.
    let der = [&[48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32][..], &[7; 32]].concat();
    let secret = Key::new(HMAC_SHA256, &der);
    MarkKey(Key::new(HMAC_SHA256, hmac::sign(&secret, KEY_LABEL).as_ref()))
}

async fn stream_of(bytes: &[u8]) -> DuplexStream {
    let (mut near, far) = duplex(4096);
    near.write_all(bytes).await.unwrap();
    far
}

/// What is made of a connection that begins so, and what comes behind the mark.
async fn read(bytes: &[u8]) -> (Result<Option<Mark>, TlsError>, Vec<u8>) {
    let mut received = Vec::new();
    let read = Mark::read(&mut stream_of(bytes).await, &mut received).await;
    (read, received)
}

async fn mark_of(bytes: &[u8]) -> Mark {
    read(bytes).await.0.unwrap().expect("a mark")
}

#[tokio::test]
async fn a_mark_tells_where_the_dialler_is_and_is_for_its_client_hello() {
    let [key, _] = keys();
    for (source, destination, told) in [
        (SOURCE, Some("198.51.100.1:18000"), SOURCE),
        ("[2001:db8::1]:1", Some("[2001:db8::2]:2"), "[2001:db8::1]:1"),
        // Of a socket for both families, and of one that has no address.
        ("[::ffff:192.0.2.7]:4711", Some("[::ffff:198.51.100.1]:2"), SOURCE),
        ("[2001:db8::1]:1", Some("198.51.100.1:2"), "[2001:db8::1]:1"),
        (SOURCE, None, SOURCE),
    ] {
        let destination = destination.map(|address| address.parse().unwrap());
        let header = key.splice((source.parse().unwrap(), destination), HELLO).unwrap();
        let (mark, rest) = read(&[&header, HELLO].concat()).await;
        let mark = mark.unwrap().expect("a mark");
        assert_eq!((mark.purpose, mark.source), (Purpose::Splice, Some(told.parse().unwrap())));
        assert_eq!(rest, HELLO);
        assert!(key.accepts(&mark, HELLO));
    }
}

#[tokio::test]
async fn a_mark_of_somebody_else_or_for_something_else_is_refused() {
    let [key, other] = keys();
    let header = key.splice((SOURCE.parse().unwrap(), None), HELLO).unwrap();
    let mark = mark_of(&header).await;
    assert!(key.accepts(&mark, HELLO));
    assert!(!other.accepts(&mark, HELLO), "another identity");
    assert!(!key.accepts(&mark, b"\x16\x03\x01 another"), "another ClientHello");
    assert!(!key.accepts(&mark, &[]), "none");
    // Each byte of it counts.
    for at in 12..header.len() {
        let mut forged = header.clone();
        forged[at] ^= 1;
        let forged = Mark::read(&mut stream_of(&forged).await, &mut Vec::new()).now_or_never();
        if let Some(Ok(Some(mark))) = forged {
            assert!(!key.accepts(&mark, HELLO), "byte {at}");
        }
    }
}

#[tokio::test]
async fn what_is_no_mark_is_left_alone_or_refused_at_once() {
    let (none, rest) = read(HELLO).await;
    assert!(none.unwrap().is_none() && rest == HELLO);
    let [key, _] = keys();
    let mut long = key.ask().unwrap().0;
    // It claims to be longer than any is: nobody waits for the rest.
    long[14..16].copy_from_slice(&[0xff; 2]);
    let two_tlvs = |mut header: Vec<u8>| {
        header[15] += 3;
        header.extend_from_slice(&[4, 0, 0]);
        header
    };
    for bytes in [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\0\x01\0\x02"[..],
        &long,
        &two_tlvs(key.ask().unwrap().0),
    ] {
        let refused = Mark::read(&mut stream_of(bytes).await, &mut Vec::new()).now_or_never();
        assert!(matches!(refused, Some(Err(TlsError::Record(_)))), "{bytes:?}: {refused:?}");
    }
}

#[tokio::test]
async fn an_answer_is_taken_for_the_question_that_it_answers() {
    let [key, other] = keys();
    let hints = [1, 2, 3].map(|hint| Hint([hint; Hint::LENGTH]));
    let (ask, nonce) = key.ask().unwrap();
    let mark = mark_of(&ask).await;
    assert!(mark.purpose == Purpose::Ask && key.accepts(&mark, &[]));
    let answer = key.answer(&mark, hints.into_iter());
    assert_eq!(key.receive_answer(&mut stream_of(&answer).await, &nonce).await.unwrap(), hints);
    // To an earlier question, of another identity, and of something else.
    let (_, another) = key.ask().unwrap();
    assert!(key.receive_answer(&mut stream_of(&answer).await, &another).await.is_err());
    let forged = other.answer(&mark, hints.into_iter());
    assert!(key.receive_answer(&mut stream_of(&forged).await, &nonce).await.is_err());
    for bytes in [&b"\0"[..], b"\xff", b"HTTP/1.1 400 Bad Request\r\n"] {
        assert!(key.receive_answer(&mut stream_of(bytes).await, &nonce).await.is_err());
    }
    // As many as are remembered, and no more.
    let many = key.answer(&mark, std::iter::repeat_n(hints[0], 40));
    assert_eq!(key.receive_answer(&mut stream_of(&many).await, &nonce).await.unwrap().len(), MAX_HINTS);
}

/// Frozen: replicas of two versions are next to each other while they are replaced one after another.
#[test]
fn marks_are_written_as_ever() {
    let key = key_of_a_golden_identity();
    let addresses = addresses(SOURCE.parse().unwrap(), Some("198.51.100.1:18000".parse().unwrap()));
    let header = key.header(Purpose::Splice, Some(addresses), [9; NONCE], HELLO);
    assert_eq!(
        ferry_golden::hex(&header),
        "0d0a0d0a000d0a515549540a21110040c0000207c633640112674650e3003101\
         09090909090909090909090909090909969e885fde1e27f9e83132d7c6b8a8d1ef4c43be499cc33f7120e051b32b18eb"
    );
}
