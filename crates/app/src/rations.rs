//! Log lines for each message: clients decide how many there are, so some of them stand for all.

use std::time::Instant;

use ferry_log::Ration;

/// One for each kind of line.
#[derive(Debug, Default)]
pub(crate) struct Rations {
    pub(crate) sent: Line,
    pub(crate) received: Line,
    pub(crate) failed: Line,
    pub(crate) retried: Line,
    pub(crate) dead: Line,
    pub(crate) refused: Line,
}

/// A kind of line.
#[derive(Debug, Default)]
pub(crate) struct Line(Ration);

impl Line {
    /// Has the line logged, with the number of those before it that were not, unless there are too many.
    pub(crate) fn log(&self, log: impl FnOnce(Option<u64>)) {
        if let Some(left_out) = self.0.admit(Instant::now()) {
            log((left_out > 0).then_some(left_out));
        }
    }
}
