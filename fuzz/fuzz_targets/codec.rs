//! Arbitrary bytes: decoding never panics, and what decodes encodes to the same bytes again.
#![no_main]

use ferry_session::{HEADER, MAX_FRAME, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(Some((frame, length))) = decode(rest) {
        assert!((HEADER..=MAX_FRAME).contains(&length));
        let mut encoded = Vec::new();
        let payload = frame.encode(&mut encoded);
        encoded.extend_from_slice(payload);
        assert_eq!(encoded, rest[..length], "{}", frame.name());
        // No beginning of a frame is a frame, or wrong.
        assert_eq!(decode(&rest[..length - 1]), Ok(None));
        rest = &rest[length..];
    }
    // What is refused stays refused, whatever follows.
    if let Err(error) = decode(rest) {
        let longer = [rest, &[0; 8]].concat();
        assert_eq!(decode(&longer), Err(error));
    }
});
