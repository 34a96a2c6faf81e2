//! How long the commit in progress has taken.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A commit that takes longer than this is stuck.
const STUCK_TIMEOUT: Duration = Duration::from_secs(10);

/// When the commit in progress began.
#[derive(Debug, Default)]
pub(crate) struct CommitTimer(Mutex<Option<Instant>>);

impl CommitTimer {
    pub(crate) fn start(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    pub(crate) fn stop(&self) {
        *self.0.lock() = None;
    }

    /// How long a commit has been stuck, if one is.
    pub(crate) fn stuck_for(&self) -> Option<Duration> {
        let started = *self.0.lock();
        started.map(|started| started.elapsed()).filter(|elapsed| *elapsed >= STUCK_TIMEOUT)
    }
}
