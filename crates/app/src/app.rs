//! The state that the parts of a running web-app share.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Access;
use crate::commit_timer::CommitTimer;
use crate::hooks::Hooks;
use crate::limits::MAX_LARGE_MESSAGES;
use crate::log_limits::LogLimits;
use crate::message::Location;
use crate::metrics::Metrics;
use crate::output::Output;
use crate::peer::PeerName;
use crate::sites::{Site, Sites};

/// Which end this web-app is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Initiator,
    Terminator,
}

/// The stages of a web-app's shutdown, in order. Each one implies those before it.
#[derive(Debug, Clone)]
pub(crate) struct Phases {
    /// Nothing new is accepted; what is under way continues.
    pub(crate) draining: CancellationToken,
    /// WebSockets are being closed.
    pub(crate) closing: CancellationToken,
    /// Every task ends now.
    pub(crate) ended: CancellationToken,
    /// Nothing else will change: commit what is left and close the store. Not implied by the others.
    pub(crate) committing: CancellationToken,
}

impl Phases {
    fn new() -> Self {
        let ended = CancellationToken::new();
        let closing = ended.child_token();
        Self { draining: closing.child_token(), closing, ended, committing: CancellationToken::new() }
    }
}

/// Shared by every task through an `Arc`.
pub(crate) struct App {
    pub(crate) end: End,
    pub(crate) location: Location,
    pub(crate) hooks: Arc<dyn Hooks>,
    /// The far web-apps, with their outboxes.
    pub(crate) sites: Sites,
    pub(crate) output: Output,
    pub(crate) metrics: Metrics,
    pub(crate) phases: Phases,
    /// Every task that serves a connection; the web-app has ended when it is empty.
    pub(crate) tasks: TaskTracker,
    /// The disk is full.
    pub(crate) disk_full: AtomicBool,
    /// One permit for each large message under way.
    pub(crate) large_messages: Arc<Semaphore>,
    /// Who may use the endpoints.
    pub(crate) access: Access,
    pub(crate) log_limits: LogLimits,
    pub(crate) commit_timer: CommitTimer,
    /// Idempotency keys of triggers under way: a retry waits for the outcome of the first attempt.
    pub(crate) busy_keys: watch::Sender<HashSet<String>>,
}

impl App {
    /// The state of a web-app that is about to start.
    pub(crate) fn new(
        end: End,
        location: Location,
        hooks: Arc<dyn Hooks>,
        access: Access,
        sites: Sites,
        output: Output,
    ) -> Self {
        Self {
            end,
            location,
            hooks,
            sites,
            output,
            metrics: Metrics::new(),
            phases: Phases::new(),
            tasks: TaskTracker::new(),
            disk_full: AtomicBool::new(false),
            large_messages: Arc::new(Semaphore::new(MAX_LARGE_MESSAGES)),
            access,
            log_limits: LogLimits::default(),
            commit_timer: CommitTimer::default(),
            busy_keys: watch::Sender::default(),
        }
    }

    /// The text of `/metrics`, in the format of OpenMetrics.
    pub(crate) fn metrics_text(&self) -> Result<String, fmt::Error> {
        let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        let depth = self.sites.depth();
        for site in self.sites.known() {
            if let Some(name) = site.name() {
                self.metrics.show_site(name, site.is_connected(), site.outbox.depth().messages);
            }
        }
        self.metrics.outbox_messages.set(gauge(depth.messages));
        self.metrics.outbox_bytes.set(gauge(depth.bytes));
        self.metrics.output_messages.set(gauge(self.output.kept()));
        self.metrics.render()
    }

    /// How a log line names this site: not at all where there is no other.
    pub(crate) fn shown<'a>(&self, site: &'a Site) -> Option<&'a str> {
        site.name().filter(|_| self.sites.are_several()).map(PeerName::as_str)
    }
}
