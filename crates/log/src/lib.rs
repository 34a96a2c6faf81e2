//! Logging that never blocks the caller, even if nothing reads the log: a stuck pipe, a paused terminal.
//!
//! Callers push lines into a bounded [`Queue`]; one thread writes them. If the file stops accepting data, the queue fills
//! up and further lines are dropped, counted, and reported in the log once writing works again. Code that carries traffic
//! never waits for a log.
//!
//! `tracing-appender` bounds its queue by lines rather than bytes and does not report the gap in the log: see
//! `docs/decisions/0045`.

mod limiter;
mod lost;
mod queue;

pub use limiter::LineLimiter;
pub use lost::{LostLines, lost_lines};
pub use queue::{Flush, Queue};
