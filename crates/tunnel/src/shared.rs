//! What the parts of one running tunnel share.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use ferry_session::{AckPoint, Instance, Settings, Time};
use parking_lot::RwLock;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::application::listeners::AppListeners;
use crate::config::ConfigSnapshot;
use crate::instance::InstanceFile;
use crate::limits::files::Budget;
use crate::limits::idle::IdleLinks;
use crate::memory::{Lease, Memory};
use crate::net::{Listener, Network};
use crate::sessions::Sessions;
use crate::supply::rotation;
use crate::survival::{self, Survival};
use crate::telemetry::events::Events;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::repeats::Repeats;
use crate::transport::accept::Lobby;
use crate::transport::lookup::Lookups;
use crate::transport::quic::Quic;
use crate::transport::replicas::Replicas;
use crate::workers::Workers;

/// One running tunnel.
pub(crate) struct Shared {
    pub(crate) network: Arc<dyn Network>,
    pub(crate) quic: Arc<Quic>,
    /// What lets sessions outlive this process, if there is a keeper.
    pub(crate) survival: Option<Arc<Survival>>,
    pub(crate) workers: Workers,
    pub(crate) instance: Instance,
    /// What this tunnel was before, if it knows.
    pub(crate) instance_file: InstanceFile,
    /// What the sessions' clock counts from.
    origin: Instant,
    config: RwLock<Arc<ConfigSnapshot>>,
    config_changed: Notify,
    /// The configuration's files are looked at now.
    pub(crate) read_again: Notify,
    /// Invitations are redeemed one after another.
    pub(crate) joining: Mutex<()>,
    pub(crate) sessions: Arc<Sessions>,
    /// Whose key is not proved yet.
    pub(crate) lobby: Arc<Lobby>,
    pub(crate) replicas: Replicas,
    pub(crate) idle_links: Arc<IdleLinks>,
    /// Connections that the admin endpoint may have.
    pub(crate) admin_places: usize,
    pub(crate) repeats: Arc<Repeats>,
    /// Links that are being closed with a Reject.
    pub(crate) rejected_links: Arc<Semaphore>,
    pub(crate) metrics: Metrics,
    pub(crate) events: Arc<Events>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) app_listeners: AppListeners,
    /// Of applications that are connected to.
    pub(crate) forwards: Lookups,
    pub(crate) rotations: rotation::Budget,
    /// No new sessions: this end is going.
    pub(crate) draining: CancellationToken,
    /// This process is going, and the one after it continues what is open.
    pub(crate) leaving: CancellationToken,
    /// Nothing goes on.
    pub(crate) stop: CancellationToken,
    /// Sessions, and links that are being closed: what a drain waits for.
    sessions_tasks: TaskTracker,
    /// Everything else: ended by `stop`.
    pub(crate) tasks: TaskTracker,
}

impl Shared {
    pub(crate) fn new(
        (network, quic): (Arc<dyn Network>, Arc<Quic>),
        survival: Option<Arc<Survival>>,
        workers: Workers,
        instance_file: InstanceFile,
        config: ConfigSnapshot,
        budget: Budget,
    ) -> Self {
        let peers = config.tunnel.peers.len();
        let memory = Memory::new(config.tunnel.settings.limits.memory, peers);
        let turns = std::thread::available_parallelism().map_or(1, usize::from);
        let rotations = rotation::Budget::new(config.tunnel.settings.rotation.max_per_second);
        let events = Arc::new(Events::new(instance_file.instance));
        Self {
            network,
            quic,
            survival,
            workers,
            instance: instance_file.instance,
            instance_file,
            origin: Instant::now(),
            config: RwLock::new(Arc::new(config)),
            config_changed: Notify::new(),
            read_again: Notify::new(),
            joining: Mutex::new(()),
            sessions: Sessions::new(budget.sessions, peers),
            lobby: Lobby::new(&budget, turns),
            replicas: Replicas::new(budget.splices),
            idle_links: IdleLinks::new(budget.links, peers),
            admin_places: budget.admin,
            repeats: Arc::default(),
            rejected_links: Arc::new(Semaphore::new(MAX_REJECTED)),
            metrics: Metrics::default(),
            events,
            memory,
            app_listeners: AppListeners::default(),
            forwards: Lookups::default(),
            rotations,
            draining: CancellationToken::new(),
            leaving: CancellationToken::new(),
            stop: CancellationToken::new(),
            sessions_tasks: TaskTracker::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// The configuration in force.
    pub(crate) fn config(&self) -> Arc<ConfigSnapshot> {
        self.config.read().clone()
    }

    /// Puts another configuration in force.
    pub(crate) fn set_config(&self, config: ConfigSnapshot) {
        let peers = config.tunnel.peers.len();
        self.memory.share_among(peers);
        self.sessions.share_among(peers);
        self.idle_links.share_among(peers);
        self.lobby.forget_all_but(|peer| config.peers.contains_key(peer));
        *self.config.write() = Arc::new(config);
        self.config_changed.notify_waiters();
    }

    /// Waits for a configuration in force of which this holds.
    pub(crate) async fn config_where(&self, holds: impl Fn(&ConfigSnapshot) -> bool) {
        loop {
            // Before the look, so that no change between the two is missed.
            let mut changed = std::pin::pin!(self.config_changed.notified());
            changed.as_mut().enable();
            if holds(&self.config()) {
                return;
            }
            changed.await;
        }
    }

    /// A listener for applications or peers.
    pub(crate) async fn bind(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        survival::bind(self.survival.as_deref(), &*self.network, address).await
    }

    /// The present moment on the sessions' clock.
    pub(crate) fn now(&self) -> Time {
        Time::from_origin(self.origin.elapsed())
    }

    /// A moment of the sessions' clock on the runtime's.
    pub(crate) fn instant(&self, time: Time) -> Instant {
        self.origin + time.since_origin()
    }

    /// Resolves when everything has to end.
    pub(crate) async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Runs something that belongs to a session: a drain waits for it, and the tunnel's end ends it.
    pub(crate) fn spawn_session(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        self.sessions_tasks.spawn(ended_by(self.stop.clone(), Box::pin(task)));
    }

    /// As [`spawn_session`](Self::spawn_session), at a worker.
    pub(crate) fn spawn_session_at(self: &Arc<Self>, worker: &Handle, task: impl Future<Output = ()> + Send + 'static) {
        self.sessions_tasks.spawn_on(ended_by(self.stop.clone(), Box::pin(task)), worker);
    }

    /// What a session is told at its birth.
    pub(crate) fn settings(&self, lease: &Lease) -> Settings {
        let config = self.config();
        Settings {
            replay_capacity: lease.held().replay,
            receive_capacity: lease.held().receive,
            liveness: config.tunnel.settings.liveness,
            resume_window: config.tunnel.settings.resume.window,
            ack_at: if self.survival.is_some() { AckPoint::Delivery } else { AckPoint::Arrival },
        }
    }

    /// No session is left, nor a link that is being closed.
    pub(crate) async fn sessions_ended(&self) {
        self.sessions_tasks.close();
        self.sessions_tasks.wait().await;
    }
}

/// Links that may be on their way out with a Reject at once: each may take a few seconds, and a peer makes them as
/// fast as it likes.
const MAX_REJECTED: usize = 256;

/// Runs `task` until `stop`. It is on the heap because an async function holds what it waits for twice.
async fn ended_by(stop: CancellationToken, task: Pin<Box<impl Future<Output = ()> + Send>>) {
    stop.run_until_cancelled(task).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_of_a_session_holds_it_once() {
        let session = [0u8; 4096];
        let task = ended_by(
            CancellationToken::new(),
            Box::pin(async move {
                std::hint::black_box(session);
            }),
        );
        assert!(size_of_val(&task) <= 256, "{} bytes around it", size_of_val(&task));
    }
}
