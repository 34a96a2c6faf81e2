//! Arbitrary text as a payload: judged without a panic, and what is taken is JSON that is taken again, unchanged.
#![no_main]

use ferry_app::{MAX_PAYLOAD_BYTES, Payload};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(payload) = Payload::parse(bytes) else { return };
    let text = payload.as_str();
    assert!(text.len() <= bytes.len().min(MAX_PAYLOAD_BYTES));
    assert!(!text.contains(['\n', '\r']), "it fits a line");
    assert_eq!(Payload::parse(text), Ok(payload.clone()));
    // Another parser's opinion, of the shape only.
    serde_json::from_str::<serde::de::IgnoredAny>(text).expect("JSON");
    let object = payload.to_object().expect("a tree");
    let again = Payload::try_from(&object).and_then(|payload| payload.to_object());
    // A tree may take more bytes as text, and then it is no payload.
    assert!(again.is_err() || again == Ok(object));
});
