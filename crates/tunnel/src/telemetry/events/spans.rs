//! Spans of dials and sessions, if this process exports any.
//!
//! A tunnel carries bytes and sees no messages, so these are in traces of their own: that of a session has the id of the
//! session, at both ends, and begins with the span of its opening. Each is short and recorded when it is over, as a session
//! may last for weeks.

use std::time::{Duration, SystemTime};

use ferry_config::Name;
use ferry_session::{SessionId, Side};
use ferry_trace::{Begun, Kind, Place, Record, Tracer};

use super::{EndFacts, Event, SessionFacts};
use crate::telemetry::metrics::End;

/// A dial that has begun.
#[derive(Debug)]
pub(crate) struct Dial(Option<Begun>);

impl Dial {
    pub(crate) fn begin() -> Self {
        Self(ferry_trace::tracer().map(|tracer| tracer.begin(None)))
    }

    pub(crate) fn end(self, peer: &Name, problem: Option<String>) {
        let Some(begun) = self.0 else { return };
        begun.end(Kind::Client, "dial", |span| {
            span.set("ferry.peer", peer.to_string());
            if let Some(problem) = problem {
                span.fail(problem);
            }
        });
    }
}

/// What is logged within this span of the log belongs to the trace of a session.
pub(crate) fn mark(span: &tracing::Span, id: SessionId) {
    let place = ferry_trace::tracer().map_or_else(|| Place::first_of(id.0), |tracer| tracer.first_of(id.0));
    place.mark(span);
}

/// Records the spans of what has happened to a session.
pub(super) fn record(event: &Event) {
    let Some(tracer) = ferry_trace::tracer() else { return };
    match event {
        Event::SessionOpened { session, took } => opened(tracer, session, *took),
        Event::SessionResumed { session, epoch, after } => {
            step(tracer, session, "resume session", *after, |span| _ = span.set("ferry.epoch", i64::from(*epoch)));
        }
        Event::SessionRotated { session, epoch, took } => {
            step(tracer, session, "rotate session", *took, |span| _ = span.set("ferry.epoch", i64::from(*epoch)));
        }
        Event::RotationFailed { session, reason } => {
            step(tracer, session, "rotate session", Duration::ZERO, |span| _ = span.fail(reason.clone()));
        }
        Event::SessionEnded { session, end } => {
            step(tracer, session, "end session", Duration::ZERO, |span| told(span, end));
        }
        Event::SessionLost { session, end } => step(tracer, session, "end session", Duration::ZERO, |span| {
            told(span, end);
            span.fail(end.reason.clone());
        }),
        _ => {}
    }
}

/// The first span of a session's trace is its opener's.
fn opened(tracer: &Tracer, session: &SessionFacts, took: Duration) {
    if session.side == End::of(Side::Opener).as_str() {
        let begun = tracer.begin_first(session.id.0).since(before(took));
        begun.end(Kind::Client, "open session", |span| of_session(span, session));
    } else {
        let begun = tracer.begin(Some(tracer.first_of(session.id.0))).since(before(took));
        begun.end(Kind::Server, "accept session", |span| of_session(span, session));
    }
}

fn step(tracer: &Tracer, session: &SessionFacts, name: &'static str, took: Duration, tell: impl FnOnce(&mut Record)) {
    let begun = tracer.begin(Some(tracer.first_of(session.id.0))).since(before(took));
    begun.end(Kind::Internal, name, |span| {
        of_session(span, session);
        tell(span);
    });
}

fn of_session(span: &mut Record, session: &SessionFacts) {
    let SessionFacts { id, peer, side, service, .. } = session;
    span.set("ferry.session", id.to_hex()).set("ferry.peer", peer.clone());
    span.set("ferry.service", service.clone()).set("ferry.side", *side);
}

fn told(span: &mut Record, end: &EndFacts) {
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    span.set("ferry.ending", end.ending).set("ferry.age_seconds", end.age.as_secs_f64());
    span.set("ferry.sent", bytes(end.sent)).set("ferry.received", bytes(end.received));
    span.set("ferry.rotations", i64::from(end.rotations)).set("ferry.resumes", i64::from(end.resumes));
}

fn before(took: Duration) -> SystemTime {
    SystemTime::now().checked_sub(took).unwrap_or(SystemTime::UNIX_EPOCH)
}
