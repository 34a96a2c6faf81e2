//! The way to a collector: OTLP as HTTP with protobuf, over `http://` and `https://`, as the standard environment variables
//! say, and only where they name an endpoint. Metrics and log lines go it from here; spans are `ferry-trace`'s.
//!
//! Nothing waits for a collector. What it does not take is lost, which is counted and told in one warning.

mod collector;
mod environment;
mod error;
mod families;
mod health;
mod layer;
mod lines;
mod metrics;
mod resource;
mod tls;

pub use collector::Collector;
pub use environment::{Signal, variable};
pub use error::EnvironmentError;
pub use health::Health;
pub use layer::{LinesLayer, TraceIds, lines_layer};
pub use lines::LinesExport;
pub use metrics::MetricsExport;
pub use resource::resource;

use std::time::Duration;

/// How long the end of the process waits for what is last.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
