//! Where in a trace something is.

use ferry_otlp::TraceIds;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// A span of a trace, by its ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub(crate) trace: TraceId,
    pub(crate) span: SpanId,
    /// Whether the spans of this trace are exported.
    pub(crate) is_sampled: bool,
}

impl Place {
    /// Reads a `traceparent` that is as Trace Context 3.2 has it.
    pub fn parse(traceparent: &str) -> Option<Self> {
        let mut parts = traceparent.split('-').skip(1);
        let trace = TraceId::from_hex(parts.next()?).ok().filter(|id| *id != TraceId::INVALID)?;
        let span = SpanId::from_hex(parts.next()?).ok().filter(|id| *id != SpanId::INVALID)?;
        let flags = u8::from_str_radix(parts.next()?, 16).ok()?;
        Some(Self { trace, span, is_sampled: flags & 1 == 1 })
    }

    /// The first span of what has these 128 bits for an id, at whichever end it is asked for: both ends know the trace of a
    /// session by the id of the session.
    pub fn first_of(id: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = id;
        let span = SpanId::from_bytes([a, b, c, d, e, f, g, h]);
        Self { trace: TraceId::from_bytes(id), span, is_sampled: false }
    }

    /// As a `traceparent`.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.is_sampled))
    }

    /// The lines of the log that `log` writes belong there, if they are exported.
    pub fn log<T>(&self, log: impl FnOnce() -> T) -> T {
        self.ids().log_within(log)
    }

    /// The lines that are logged within a span of the log belong there, if they are exported.
    pub fn mark(&self, span: &tracing::Span) {
        self.ids().mark(span);
    }

    fn ids(&self) -> TraceIds {
        TraceIds { trace: self.trace.to_bytes(), span: self.span.to_bytes(), is_sampled: self.is_sampled }
    }

    pub(crate) fn context(&self) -> SpanContext {
        let flags = TraceFlags::default().with_sampled(self.is_sampled);
        SpanContext::new(self.trace, self.span, flags, false, TraceState::NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_written_as_it_was_read() {
        for text in [
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
        ] {
            assert_eq!(Place::parse(text).unwrap().traceparent(), text);
        }
        let later = Place::parse("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03-more").unwrap();
        assert_eq!(later.traceparent(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        for wrong in ["", "00-x-y-z", "00-00000000000000000000000000000000-b7ad6b7169203331-01"] {
            assert_eq!(Place::parse(wrong), None, "{wrong}");
        }
    }
}
