use super::*;

/// One frame of each kind, as `ferry.app.v1` has it for ever.
const FROZEN: [&str; 4] = [
    r#"{"hello":{"sender":"0123456789abcdef01234567","pod":"initiator-0","cluster":"cluster-a","acked":7}}"#,
    r#"{"message":{"seq":8,"id":"0123456789abcdef01234567-8","payload":{"n": 1.50},"trail":[{"pod":"initiator-0","cluster":"cluster-a","at":"2025-06-01T12:00:00.000Z"}]}}"#,
    r#"{"ack":{"seq":8}}"#,
    r#"{"ack":{"seq":9,"dead":[{"seq":9,"id":"0123456789abcdef01234567-9","error":"no"}]}}"#,
];

#[test]
fn frames_are_written_as_they_have_always_been_and_read_back() {
    for text in FROZEN {
        let frame = Frame::decode(text).unwrap();
        assert_eq!(frame.encode().unwrap(), text);
    }
    let names: Vec<_> = FROZEN.iter().map(|text| Frame::decode(text).unwrap().name()).collect();
    assert_eq!(names, ["hello", "message", "ack", "ack"]);
}

#[test]
fn what_is_not_a_frame_is_refused_with_the_reason() {
    let long = "x".repeat(254);
    for (text, says) in [
        ("", "EOF"),
        ("{}", "expected"),
        (r#"{"ack":{"seq":1},"hello":{}}"#, "expected"),
        (r#"{"ack":{"seq":-1}}"#, "integer"),
        (r#"{"ack":{"seq":18446744073709551616}}"#, "expected u64"),
        (r#"{"ack":{"seq":1,"more":2}}"#, "unknown field `more`"),
        (r#"{"reply":{}}"#, "unknown variant `reply`"),
        (&FROZEN[0].replace("initiator-0", ""), "pod is empty"),
        (&FROZEN[0].replace("cluster-a", &long), "longer than 253 bytes"),
        (&FROZEN[1].replace("4567-8", "4567/8"), "not an id"),
        (&FROZEN[0].replace("0123456789abcdef01234567", ""), "not an id"),
    ] {
        match Frame::decode(text) {
            Err(WireError::Syntax(reason)) => assert!(reason.contains(says), "{text}: {reason:?}, not {says:?}"),
            other => panic!("{text}: {other:?}"),
        }
    }
}
