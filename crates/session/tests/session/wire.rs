//! The wire is frozen: one snapshot a frame, round trips, and bounds that are judged before anything is kept.

use std::borrow::Cow;
use std::time::Duration;

use ferry_session::{
    Accept, DecodeError, Epoch, Frame, HEADER, Hello, Instance, Intent, LinkKind, MAX_FRAME, MAX_PAYLOAD, Origin,
    Preface, Reject, RejectCode, Reset, ResetCode, SessionId, VERSION, decode,
};
use proptest::prelude::*;

fn encoded(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let payload = frame.encode(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[track_caller]
fn frozen(frame: &Frame<'_>, snapshot: &str) {
    let bytes = encoded(frame);
    assert_eq!(hex(&bytes), snapshot.replace(' ', ""), "{}", frame.name());
    assert_eq!(decode(&bytes), Ok(Some((frame.clone(), bytes.len()))), "{}", frame.name());
}

#[test]
fn every_frame_has_its_bytes() {
    let instance = Instance([0xab; 16]);
    frozen(
        &Frame::Preface(Preface { version: VERSION, instance, kind: LinkKind::Offered }),
        "01 0013 0001 abababababababababababababababab 01",
    );
    frozen(
        &Frame::Hello(Hello {
            session: SessionId([0xcd; 16]),
            epoch: Epoch(7),
            intent: Intent::Rotate,
            received: 0x0102,
            window: 0x0304,
            resume_window: Duration::from_secs(600),
            service: Cow::Borrowed("echo"),
        }),
        "02 002d cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd 00000007 02 0000000000000102 0000000000000304 000927c0 6563686f",
    );
    frozen(
        &Frame::Accept(Accept { received: 1, window: 2, resume_window: Duration::from_millis(3) }),
        "03 0014 0000000000000001 0000000000000002 00000003",
    );
    frozen(
        &Frame::Reject(Reject { code: RejectCode::Closed, received: 5, reason: Cow::Borrowed("gone") }),
        "04 000d 08 0000000000000005 676f6e65",
    );
    frozen(&Frame::Data { offset: 9, payload: b"hi".into() }, "10 000a 0000000000000009 6869");
    frozen(&Frame::Ack { received: 1, window: 2 }, "11 0010 0000000000000001 0000000000000002");
    frozen(&Frame::Finish { offset: 3 }, "12 0008 0000000000000003");
    frozen(&Frame::Retire { end: 4 }, "13 0008 0000000000000004");
    frozen(&Frame::Done, "14 0000");
    frozen(&Frame::Reset(Reset { code: ResetCode::Application, reason: Cow::Borrowed("") }), "15 0001 01");
    frozen(&Frame::Ping { token: 5 }, "20 0008 0000000000000005");
    frozen(&Frame::Pong { token: 6 }, "21 0008 0000000000000006");
    frozen(&Frame::Gone { instance }, "22 0010 abababababababababababababababab");
    let [source, destination] = ["192.0.2.1:256", "10.0.0.1:80"].map(|address| address.parse().unwrap());
    frozen(&Frame::Origin(Origin { source, destination }), "23 000d 04 c0000201 0100 0a000001 0050");
    let [source, destination] = ["[2001:db8::1]:256", "[::1]:80"].map(|address| address.parse().unwrap());
    frozen(
        &Frame::Origin(Origin { source, destination }),
        "23 0025 06 20010db8000000000000000000000001 0100 00000000000000000000000000000001 0050",
    );
}

#[test]
fn every_code_has_its_number() {
    let rejects = [
        RejectCode::Version,
        RejectCode::Protocol,
        RejectCode::Service,
        RejectCode::Unreachable,
        RejectCode::Limit,
        RejectCode::Draining,
        RejectCode::Unknown,
        RejectCode::Closed,
        RejectCode::Stale,
        RejectCode::NotAttached,
    ];
    for (number, code) in (1u8..).zip(rejects) {
        let bytes = encoded(&Frame::Reject(Reject { code, received: 0, reason: Cow::Borrowed("") }));
        assert_eq!(bytes[HEADER], number, "{code:?}");
        assert!(matches!(decode(&bytes), Ok(Some((Frame::Reject(reject), _))) if reject.code == code));
    }
    let resets = [
        ResetCode::Application,
        ResetCode::Draining,
        ResetCode::Withdrawn,
        ResetCode::Protocol,
        ResetCode::Unreachable,
    ];
    for (number, code) in (1u8..).zip(resets) {
        let bytes = encoded(&Frame::Reset(Reset { code, reason: Cow::Borrowed("") }));
        assert_eq!(bytes[HEADER], number, "{code:?}");
        assert!(matches!(decode(&bytes), Ok(Some((Frame::Reset(reset), _))) if reset.code == code));
    }
}

#[test]
fn a_full_data_frame_fills_a_tls_record() {
    let bytes = encoded(&Frame::Data { offset: 0, payload: (&[0; MAX_PAYLOAD]).into() });
    assert_eq!(bytes.len(), MAX_FRAME);
    assert_eq!(MAX_FRAME, 16 * 1024);
}

#[test]
fn a_preface_of_another_version_is_named_as_such_whatever_its_length_and_kind() {
    for body in
        [&[0, 7][..], &[0, 7, 9], &[0, 7, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9], &[[0, 7]; 50].concat()]
    {
        let bytes = [&[1, 0, body.len() as u8], body].concat();
        assert_eq!(decode(&bytes), Err(DecodeError::Version(7)));
    }
    let length = DecodeError::Length { name: "Preface", length: 3, min: 19, max: 19 };
    assert_eq!(decode(&[1, 0, 3, 0, VERSION as u8, 9]), Err(length));
}

/// Fuzzing has found the first of these refused for its length, and with more behind it for its version.
#[test]
fn a_preface_is_not_judged_before_its_version_is_there() {
    for bytes in [&[1, 0x60, 1][..], &[1, 0, 2], &[1, 0x60, 1, 0]] {
        assert_eq!(decode(bytes), Ok(None), "{bytes:02x?}");
    }
    assert_eq!(decode(&[1, 0, 1]), Err(DecodeError::Length { name: "Preface", length: 1, min: 19, max: 19 }));
}

#[test]
fn a_frame_longer_than_allowed_is_refused_by_its_header() {
    let too_long = u16::try_from(MAX_FRAME - HEADER + 1).unwrap().to_be_bytes();
    for header in [[0x10, too_long[0], too_long[1]], [0x02, 0xff, 0xff], [0x14, 0, 1], [0x11, 0, 15], [0x10, 0, 8]] {
        assert!(matches!(decode(&header), Err(DecodeError::Length { .. })), "{header:02x?}");
    }
}

#[test]
fn an_unknown_frame_is_refused_by_its_first_byte() {
    assert_eq!(decode(&[0x7f]), Err(DecodeError::UnknownType(0x7f)));
    assert_eq!(decode(b"GET / HTTP/1.1"), Err(DecodeError::UnknownType(b'G')));
}

#[test]
fn impossible_fields_are_refused() {
    let mut hello = encoded(&Frame::Hello(Hello {
        session: SessionId([0; 16]),
        epoch: Epoch(1),
        intent: Intent::Open,
        received: 0,
        window: 0,
        resume_window: Duration::ZERO,
        service: Cow::Borrowed("s"),
    }));
    hello[HEADER + 16 + 3] = 0;
    assert_eq!(decode(&hello), Err(DecodeError::Field { name: "Hello", field: "epoch" }));
    hello[HEADER + 16 + 3] = 1;
    *hello.last_mut().unwrap() = 0xff;
    assert_eq!(decode(&hello), Err(DecodeError::Field { name: "Hello", field: "service" }));
    for origin in [[4; 37].to_vec(), [6; 13].to_vec(), [5; 13].to_vec(), [4; 20].to_vec()] {
        let bytes = [&[0x23, 0, origin.len() as u8], &origin[..]].concat();
        assert!(matches!(decode(&bytes), Err(DecodeError::Field { name: "Origin", .. })), "{origin:02x?}");
    }
    assert_eq!(decode(&[0x15, 0, 1, 0]), Err(DecodeError::Field { name: "Reset", field: "code" }));
}

#[test]
fn a_long_reason_is_cut_at_a_character() {
    let bytes =
        encoded(&Frame::Reset(Reset { code: ResetCode::Application, reason: Cow::Owned("ä".repeat(150) + "x") }));
    let Ok(Some((Frame::Reset(reset), _))) = decode(&bytes) else { panic!("a Reset") };
    assert_eq!(reset.reason, "ä".repeat(100));
}

proptest! {
    #[test]
    fn data_survives_the_wire(offset: u64, payload in proptest::collection::vec(any::<u8>(), 1..MAX_PAYLOAD)) {
        let frame = Frame::Data { offset, payload: payload[..].into() };
        let bytes = encoded(&frame);
        prop_assert_eq!(decode(&bytes), Ok(Some((frame, bytes.len()))));
    }

    #[test]
    fn arbitrary_bytes_decode_to_a_frame_an_error_or_a_wait(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(Some((frame, length))) = decode(&bytes) {
            prop_assert_eq!(encoded(&frame), bytes[..length].to_vec());
        }
    }

    #[test]
    fn a_beginning_of_a_frame_waits_for_the_rest(token: u64, cut in 0usize..11) {
        let bytes = encoded(&Frame::Ping { token });
        prop_assert_eq!(decode(&bytes[..cut]), Ok(None));
    }
}
