//! What the parts of one running tunnel share.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ferry_session::{AckPoint, Frame, Instance, LinkKind, Reject, Settings, Time};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accept::Lobby;
use crate::egresses::Egresses;
use crate::files::Budget;
use crate::idle::IdleLinks;
use crate::link::{Link, LinkError, Told};
use crate::lookup::Lookups;
use crate::memoir::Memoir;
use crate::memory::{Lease, Memory};
use crate::metrics::Metrics;
use crate::net::Network;
use crate::plan::Plan;
use crate::repeats::Repeats;
use crate::rotation;
use crate::sessions::Sessions;
use crate::tls::Established;
use crate::workers::Workers;

/// One running tunnel.
pub(crate) struct Shared {
    pub(crate) network: Arc<dyn Network>,
    pub(crate) workers: Workers,
    pub(crate) instance: Instance,
    /// What this tunnel was before, if it knows.
    pub(crate) memoir: Memoir,
    /// What the sessions' clock counts from.
    origin: Instant,
    plan: RwLock<Arc<Plan>>,
    pub(crate) sessions: Sessions,
    /// Whose key is not proved yet.
    pub(crate) lobby: Arc<Lobby>,
    pub(crate) idle_links: Arc<IdleLinks>,
    /// Connections that the admin endpoint may have.
    pub(crate) admin_places: usize,
    pub(crate) repeats: Arc<Repeats>,
    /// Links that are being closed with a Reject.
    rejected: Arc<Semaphore>,
    pub(crate) metrics: Metrics,
    pub(crate) memory: Arc<Memory>,
    pub(crate) egresses: Egresses,
    /// Of applications that are connected to.
    pub(crate) forwards: Lookups,
    pub(crate) rotations: rotation::Budget,
    /// No new sessions: this end is going.
    pub(crate) draining: CancellationToken,
    /// Nothing goes on.
    pub(crate) stop: CancellationToken,
    /// Sessions, and links that are being closed: what a drain waits for.
    sessions_tasks: TaskTracker,
    /// Everything else: ended by `stop`.
    pub(crate) tasks: TaskTracker,
}

impl Shared {
    pub(crate) fn new(network: Arc<dyn Network>, workers: Workers, memoir: Memoir, plan: Plan, budget: Budget) -> Self {
        let peers = plan.config.peers.len();
        let memory = Memory::new(plan.config.settings.limits.memory, peers);
        let turns = std::thread::available_parallelism().map_or(1, usize::from);
        let rotations = rotation::Budget::new(plan.config.settings.rotation.max_per_second);
        Self {
            network,
            workers,
            instance: memoir.instance,
            memoir,
            origin: Instant::now(),
            plan: RwLock::new(Arc::new(plan)),
            sessions: Sessions::new(budget.sessions, peers),
            lobby: Lobby::new(&budget, turns),
            idle_links: IdleLinks::new(budget.links, peers),
            admin_places: budget.admin,
            repeats: Arc::default(),
            rejected: Arc::new(Semaphore::new(MAX_REJECTED)),
            metrics: Metrics::default(),
            memory,
            egresses: Egresses::default(),
            forwards: Lookups::default(),
            rotations,
            draining: CancellationToken::new(),
            stop: CancellationToken::new(),
            sessions_tasks: TaskTracker::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// The configuration in force.
    pub(crate) fn plan(&self) -> Arc<Plan> {
        self.plan.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another configuration in force.
    pub(crate) fn set_plan(&self, plan: Plan) {
        let peers = plan.config.peers.len();
        self.memory.share_among(peers);
        self.sessions.share_among(peers);
        self.idle_links.share_among(peers);
        self.lobby.forget_all_but(|peer| plan.peers.contains_key(peer));
        *self.plan.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(plan);
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
        let plan = self.plan();
        Settings {
            replay_capacity: lease.held().replay,
            receive_capacity: lease.held().receive,
            liveness: plan.config.settings.liveness,
            resume_window: plan.config.settings.resume.window,
            ack_at: AckPoint::Arrival,
        }
    }

    /// No session is left, nor a link that is being closed.
    pub(crate) async fn sessions_ended(&self) {
        self.sessions_tasks.close();
        self.sessions_tasks.wait().await;
    }

    /// Makes a link of a connection whose handshake is done. A peer that cannot be spoken to is told why.
    pub(crate) async fn establish(
        self: &Arc<Self>,
        established: Established,
        dialled: Option<LinkKind>,
    ) -> Result<Link, LinkError> {
        let mut link = Link::new(established, self.instance, dialled);
        match link.exchange_prefaces(self.instance, dialled).await {
            Ok(()) => {
                link.count(&self.metrics);
                // The end that sends the Hello tells: the other one listens.
                let speaker = if dialled.is_some() { LinkKind::Own } else { LinkKind::Offered };
                if link.facts().kind == speaker {
                    for gone in self.memoir.gone() {
                        link.send(&gone).await?;
                    }
                }
                Ok(link)
            }
            Err(error) => {
                if let Some(reject) = error.to_reject() {
                    self.reject_link(link, reject);
                }
                Err(error)
            }
        }
    }

    /// Makes a link for a session that speaks before the peer's Preface is here.
    pub(crate) fn establish_early(&self, established: Established) -> Result<(Link, Told), LinkError> {
        let mut link = Link::new(established, self.instance, Some(LinkKind::Own));
        let told = link.push_preface(self.instance)?;
        for gone in self.memoir.gone() {
            link.push(&gone)?;
        }
        link.count(&self.metrics);
        Ok((link, told))
    }

    /// Closes a link with a Reject. Where many are being closed already the peer only sees that it ends.
    pub(crate) fn reject_link(self: &Arc<Self>, mut link: Link, reject: Reject<'_>) {
        let Ok(closing) = self.rejected.clone().try_acquire_owned() else { return };
        if link.push(&Frame::Reject(reject)).is_ok() {
            self.spawn_session(async move {
                link.close(CLOSE).await;
                drop(closing);
            });
        }
    }

    /// Closes a link in good order, in the background.
    pub(crate) fn close_link(self: &Arc<Self>, link: Link) {
        self.spawn_session(link.close(CLOSE));
    }
}

/// Links that may be on their way out with a Reject at once: each may take as long as [`CLOSE`], and a peer makes them as
/// fast as it likes.
const MAX_REJECTED: usize = 256;

/// How long a link that is closed in good order may take for it.
const CLOSE: Duration = Duration::from_secs(5);

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
