//! Rate limits for log lines that are written per message.

use std::time::Instant;

use ferry_log::LineLimiter;

/// One limit for each kind of line.
#[derive(Debug, Default)]
pub(crate) struct LogLimits {
    pub(crate) sent: LineLimit,
    pub(crate) received: LineLimit,
    pub(crate) failed: LineLimit,
    pub(crate) retried: LineLimit,
    pub(crate) dead: LineLimit,
    pub(crate) refused: LineLimit,
}

/// The limit of one kind of line.
#[derive(Debug, Default)]
pub(crate) struct LineLimit(LineLimiter);

impl LineLimit {
    /// Calls `log` with the number of lines suppressed since the last one, unless the limit is reached.
    pub(crate) fn log(&self, log: impl FnOnce(Option<u64>)) {
        if let Some(suppressed) = self.0.admit(Instant::now()) {
            log((suppressed > 0).then_some(suppressed));
        }
    }
}
