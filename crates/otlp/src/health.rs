//! How exporting goes: one warning when it fails, one line when it works again, and what was lost in between.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tracing::{info, warn};

use crate::environment::Signal;

/// How exporting goes.
#[derive(Debug)]
pub struct Health {
    signal: Signal,
    is_failing: AtomicBool,
    lost: AtomicU64,
    /// What the last request that failed says.
    problem: Mutex<Option<String>>,
}

impl Health {
    pub(crate) fn new(signal: Signal) -> Self {
        Self { signal, is_failing: AtomicBool::new(false), lost: AtomicU64::new(0), problem: Mutex::new(None) }
    }

    /// So many did not reach the collector.
    pub fn lose(&self, count: usize, reason: impl FnOnce() -> String) {
        self.lost.fetch_add(count as u64, Ordering::Relaxed);
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            let (what, reason) = (self.signal.as_str(), reason());
            warn!(reason, "{what} do not reach the collector; nothing else is lost, and nothing waits for it");
        }
    }

    /// The collector has taken some.
    pub fn recover(&self) {
        if self.is_failing.swap(false, Ordering::Relaxed) {
            let (what, lost) = (self.signal.as_str(), self.lost.swap(0, Ordering::Relaxed));
            info!(lost, "the collector takes {what} again");
        }
    }

    /// How many were lost since the collector last took some.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(crate) fn note(&self, problem: Option<String>) {
        *self.problem.lock() = problem;
    }

    /// What the last request that failed says.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().take()
    }
}
