//! Log lines on their way to a file that may not be read: a pipe whose reader is stuck, a terminal that is paused.
//!
//! Whoever logs puts a line into a bounded [`Queue`] and goes on; one thread writes. While the file takes nothing the
//! queue fills up, and further lines are lost: counted, and reported once the file takes lines again. Nothing that
//! carries traffic ever waits for a log.
//!
//! Why not `tracing-appender`: its queue is bounded in lines, of any length; the gap is not reported in the log itself.
//! `docs/decisions/0045` has the rest.

mod lost;
mod queue;
mod ration;

pub use lost::{LostLines, lost_lines};
pub use queue::{Flush, Queue};
pub use ration::Ration;
