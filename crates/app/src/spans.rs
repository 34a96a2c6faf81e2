//! The spans of a message, if this process exports any: its request, its hooks, its way to the far side, its arrival.

use std::collections::BTreeMap;
use std::sync::Arc;

use ferry_trace::{Begun, Kind, Record};

use crate::far_end::FarEnd;
use crate::headers::TraceHeaders;
use crate::message::MessageId;
use crate::peer::SessionId;

/// A span that has begun, with the headers for what it leads to.
#[derive(Debug)]
pub(crate) struct Step {
    begun: Begun,
    pub(crate) headers: TraceHeaders,
}

impl Step {
    /// Begins the next span behind what came with these headers; `None` where no spans are exported.
    pub(crate) fn after(headers: Option<&TraceHeaders>) -> Option<Self> {
        let tracer = ferry_trace::tracer()?;
        let begun = tracer.begin(headers.and_then(TraceHeaders::place));
        let headers = TraceHeaders::at(begun.place(), headers);
        Some(Self { begun, headers })
    }

    /// Begins the span of a request with these headers.
    pub(crate) fn of_request(headers: &BTreeMap<String, String>) -> Option<Self> {
        ferry_trace::tracer()?;
        Self::after(TraceHeaders::of_request(headers).as_ref())
    }

    /// The headers of a request, as they are for what this span leads to.
    pub(crate) fn lead(&self, request: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut request = request.clone();
        request.extend(self.headers.to_map());
        request
    }

    pub(crate) fn end(self, kind: Kind, name: &'static str, tell: impl FnOnce(&mut Record)) {
        self.begun.end(kind, name, tell);
    }
}

/// A message on its way, from the outbox until the far side has acknowledged it.
#[derive(Debug, Clone)]
pub(crate) struct Sending {
    begun: Begun,
    is_reply: bool,
}

impl Sending {
    /// Begins it, where spans are exported. Returns the headers of the message in any case.
    pub(crate) fn begin(headers: Option<&TraceHeaders>, is_reply: bool) -> (Option<Box<Self>>, Option<Arc<str>>) {
        match Step::after(headers) {
            Some(Step { begun, headers }) => (Some(Box::new(Self { begun, is_reply })), Some(headers.to_text())),
            None => (None, headers.map(TraceHeaders::to_text)),
        }
    }

    /// The far side has it, or keeps refusing it.
    pub(crate) fn end(self, id: &MessageId, dead: Option<&str>) {
        let name = if self.is_reply { "send reply" } else { "send message" };
        self.begun.end(Kind::Producer, name, |span| {
            span.set("ferry.message.id", id.to_string());
            if let Some(error) = dead {
                span.fail(error.to_owned());
            }
        });
    }
}

/// A message that has arrived, until it has its place here.
#[derive(Debug)]
pub(crate) struct Receiving {
    step: Step,
    id: MessageId,
    from: String,
    session: Option<SessionId>,
    is_reply: bool,
}

impl Receiving {
    pub(crate) fn new(step: Step, far: &FarEnd, id: &MessageId, is_reply: bool) -> Self {
        Self { step, id: id.clone(), from: far.location.to_string(), session: far.session, is_reply }
    }

    /// It is in the output, or dead.
    pub(crate) fn end(self, dead: Option<&str>) {
        let Self { step, id, from, session, is_reply } = self;
        step.end(Kind::Consumer, if is_reply { "receive reply" } else { "receive message" }, |span| {
            span.set("ferry.message.id", id.to_string()).set("ferry.from", from);
            if let (Some(session), Some(tracer)) = (session, ferry_trace::tracer()) {
                span.set("ferry.session", session.to_string()).link(tracer.first_of(session.0));
            }
            if let Some(error) = dead {
                span.fail(error.to_owned());
            }
        });
    }
}

/// Logs something about a message, in the trace that its headers tell.
pub(crate) fn log_of(headers: Option<&TraceHeaders>, log: impl FnOnce()) {
    match headers.and_then(TraceHeaders::place) {
        Some(place) => place.log(log),
        None => log(),
    }
}

/// How many bytes the headers of a message will take that is triggered with these.
pub(crate) fn bytes_after(headers: Option<&TraceHeaders>) -> usize {
    let text = match ferry_trace::tracer() {
        // Every `traceparent` of this version has the same length.
        Some(tracer) => Some(TraceHeaders::at(tracer.first_of([1; 16]), headers).to_text()),
        None => headers.map(TraceHeaders::to_text),
    };
    text.map_or(0, |text| text.len())
}
