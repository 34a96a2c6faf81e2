//! Spans for OpenTelemetry, exported over OTLP as the standard environment variables say, and only where they name an endpoint.
//!
//! A span is begun with its place in a trace, which travels on at once, and recorded when it ends: what is under way holds a
//! few bytes and no library's object. Where there is no endpoint, [`tracer`] is `None` and nothing is done.

mod environment;
mod exporting;
mod place;
mod queue;
mod sampling;
mod span;

use std::sync::OnceLock;

pub use exporting::{Exporting, start};
pub use ferry_otlp::resource;
pub use place::Place;
pub use span::{Begun, Kind, Record, Tracer};

/// The tracer of this process, as its log is one for all of it.
static TRACER: OnceLock<Tracer> = OnceLock::new();

/// What makes spans, if they are exported.
pub fn tracer() -> Option<&'static Tracer> {
    TRACER.get()
}
