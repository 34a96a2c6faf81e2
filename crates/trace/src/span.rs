//! Spans: begun with a place in a trace, recorded when they end.

use std::borrow::Cow;
use std::time::SystemTime;

use opentelemetry::trace::{Link, SpanId, SpanKind, Status};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SpanData, SpanEvents, SpanLinks};

use crate::place::Place;
use crate::queue::Queue;
use crate::sampling::Sampling;

/// What part a span has, as OpenTelemetry calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Work within one process.
    Internal,
    /// A request that came.
    Server,
    /// A request that went.
    Client,
    /// A message that went.
    Producer,
    /// A message that came.
    Consumer,
}

/// Makes spans.
#[derive(Debug)]
pub struct Tracer {
    pub(crate) sampling: Sampling,
    pub(crate) ids: RandomIdGenerator,
    pub(crate) scope: InstrumentationScope,
    pub(crate) queue: Queue,
}

impl Tracer {
    /// Begins a span, now; without a parent it is the first of a trace.
    pub fn begin(&self, parent: Option<Place>) -> Begun {
        let trace = parent.map_or_else(|| self.ids.new_trace_id(), |parent| parent.trace);
        let place = Place { trace, span: self.ids.new_span_id(), is_sampled: false };
        self.begin_at(place, parent)
    }

    /// Begins the span that others know by an id (see [`Place::first_of`]).
    pub fn begin_first(&self, id: [u8; 16]) -> Begun {
        self.begin_at(Place::first_of(id), None)
    }

    /// The same span as the parent of another one, at either end.
    pub fn first_of(&self, id: [u8; 16]) -> Place {
        let place = Place::first_of(id);
        Place { is_sampled: self.sampling.samples(place, None), ..place }
    }

    fn begin_at(&self, place: Place, parent: Option<Place>) -> Begun {
        let is_sampled = self.sampling.samples(place, parent);
        Begun {
            place: Place { is_sampled, ..place },
            parent: parent.map(|parent| parent.span),
            start: SystemTime::now(),
        }
    }
}

/// A span that has begun. It is exported once it is recorded; dropping it leaves it out.
#[derive(Debug, Clone)]
pub struct Begun {
    place: Place,
    parent: Option<SpanId>,
    start: SystemTime,
}

impl Begun {
    /// Where it is, for what it leads to.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The same span, begun before.
    pub fn since(self, start: SystemTime) -> Self {
        Self { start, ..self }
    }

    /// Ends it now. `tell` is asked for more only if the span is exported.
    pub fn end(self, kind: Kind, name: &'static str, tell: impl FnOnce(&mut Record)) {
        let Some(tracer) = crate::tracer().filter(|_| self.place.is_sampled) else { return };
        let data = SpanData {
            span_context: self.place.context(),
            parent_span_id: self.parent.unwrap_or(SpanId::INVALID),
            parent_span_is_remote: matches!(kind, Kind::Server | Kind::Consumer),
            span_kind: match kind {
                Kind::Internal => SpanKind::Internal,
                Kind::Server => SpanKind::Server,
                Kind::Client => SpanKind::Client,
                Kind::Producer => SpanKind::Producer,
                Kind::Consumer => SpanKind::Consumer,
            },
            name: Cow::Borrowed(name),
            start_time: self.start,
            end_time: SystemTime::now().max(self.start),
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: tracer.scope.clone(),
        };
        let mut record = Record(data);
        tell(&mut record);
        tracer.queue.push(record.0);
    }
}

/// What is told of a span.
#[derive(Debug)]
pub struct Record(SpanData);

impl Record {
    /// An attribute.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) -> &mut Self {
        self.0.attributes.push(KeyValue::new(name, value));
        self
    }

    /// It ended in an error.
    pub fn fail(&mut self, reason: impl Into<Cow<'static, str>>) -> &mut Self {
        self.0.status = Status::error(reason);
        self
    }

    /// It has to do with a span of another trace.
    pub fn link(&mut self, place: Place) -> &mut Self {
        self.0.links.links.push(Link::with_context(place.context()));
        self
    }
}
