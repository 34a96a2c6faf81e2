//! Entry points of the fuzz targets into private code.

use crate::arrival::read_trail;
use crate::headers::TraceHeaders;
use crate::payload::Payload;
use crate::wire::Frame;

/// Decodes a frame as it comes from the far side, and checks its message. What decodes must encode, and decode again.
pub fn frame(text: &str) {
    let Ok(frame) = Frame::decode(text) else { return };
    if let Frame::Message(message) = &frame {
        let _ = (Payload::parse(message.payload.get()), read_trail(message.trail.get()));
        let _ = message.headers.as_ref().map(|headers| TraceHeaders::parse(headers.get()));
    }
    let again = frame.encode().map(|text| Frame::decode(&text).map(|frame| frame.name()));
    assert!(matches!(again, Ok(Ok(name)) if name == frame.name()), "{again:?}");
}
