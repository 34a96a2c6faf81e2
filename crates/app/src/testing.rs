//! What unit tests of several modules need.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use crate::access::Access;
use crate::app::{App, End, Phases};
use crate::commit_timer::CommitTimer;
use crate::connection_slot::ConnectionSlot;
use crate::hooks::Hooks;
use crate::http::MAX_LARGE_MESSAGES;
use crate::log_limits::LogLimits;
use crate::message::Location;
use crate::metrics::Metrics;
use crate::outbox::{Limits, Outbox};
use crate::output::{Output, StoredOutput};
use crate::store::Store;

/// A web-app without listener and tasks, but with a committer and a store in memory. Must be called within a runtime.
pub(crate) fn bare_app(end: End, hooks: impl Hooks) -> Arc<App> {
    let (store, stored) = Store::in_memory();
    let location = Location { pod: "p".into(), cluster: "c".into() };
    let limits = Limits::for_hop(&location.hop());
    let app = Arc::new(App {
        end,
        location,
        hooks: Arc::new(hooks),
        outbox: Outbox::new(stored.sender, limits, 0, Vec::new(), Vec::new()),
        output: Output::new(10, StoredOutput::default(), &[]),
        metrics: Metrics::new(),
        phases: Phases::new(),
        tasks: TaskTracker::new(),
        far: watch::Sender::new(None),
        far_slot: ConnectionSlot::default(),
        disk_full: AtomicBool::new(false),
        large_messages: Arc::new(Semaphore::new(MAX_LARGE_MESSAGES)),
        access: Access::default(),
        log_limits: LogLimits::default(),
        commit_timer: CommitTimer::default(),
        busy_keys: watch::Sender::default(),
    });
    tokio::spawn(crate::committer::run(app.clone(), store, None));
    app
}
