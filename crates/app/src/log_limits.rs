//! Rate limits for log lines that are written per message.

use ferry_log::LineLimiter;

/// One limit for each kind of line.
#[derive(Debug, Default)]
pub(crate) struct LogLimits {
    pub(crate) sent: LineLimiter,
    pub(crate) received: LineLimiter,
    pub(crate) hook_failed: LineLimiter,
    pub(crate) hook_retried: LineLimiter,
    pub(crate) dead_here: LineLimiter,
    pub(crate) dead_at_far_side: LineLimiter,
    pub(crate) twins: LineLimiter,
    pub(crate) replaced: LineLimiter,
}
