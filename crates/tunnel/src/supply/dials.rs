//! The dials of one peer that are under way, and which of them are still to be hoped for.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ferry_session::{Instance, LinkKind};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::Instant;

use crate::transport::dial::DialError;
use crate::transport::dialler::Progress;
use crate::transport::link::Link;
use crate::transport::segments::Size;

/// A connect that is not answered by then waits for the kernel, which tries again ever less often.
const CONNECT_LATE_DELAY: Duration = Duration::from_secs(1);

/// A handshake that is not done by then has perhaps lost its path.
const HANDSHAKE_LATE_DELAY: Duration = Duration::from_secs(3);

/// What a dial brings; no link if a session has claimed it already.
pub(crate) type Dialled = Result<Option<Link>, DialError>;

/// What a dial is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    pub(crate) kind: LinkKind,
    /// The peer's process that is wanted, where a session needs that one.
    pub(crate) wanted: Option<Instance>,
}

#[derive(Default)]
pub(crate) struct Dials {
    tasks: JoinSet<(Goal, Dialled)>,
    under_way: HashMap<Id, Dial>,
}

struct Dial {
    goal: Goal,
    started: Instant,
    progress: Arc<Progress>,
    task: AbortHandle,
}

impl Dial {
    fn is_connected(&self) -> bool {
        self.progress.is_connected()
    }

    fn late_at(&self) -> Instant {
        self.started + if self.is_connected() { HANDSHAKE_LATE_DELAY } else { CONNECT_LATE_DELAY }
    }

    fn is_late(&self) -> bool {
        self.late_at() <= Instant::now()
    }
}

impl Dials {
    /// Starts one; it says how far it is.
    pub(crate) fn start<F>(&mut self, goal: Goal, dial: impl FnOnce(Arc<Progress>) -> F)
    where
        F: Future<Output = Dialled> + Send + 'static,
    {
        let progress = Arc::new(Progress::default());
        let dialled = dial(progress.clone());
        let task = self.tasks.spawn(async move { (goal, dialled.await) });
        self.under_way.insert(task.id(), Dial { goal, started: Instant::now(), progress, task });
    }

    pub(crate) fn len(&self) -> usize {
        self.under_way.len()
    }

    /// Those that may bring a link soon.
    pub(crate) fn on_time(&self, kind: LinkKind) -> usize {
        let on_time =
            |dial: &&Dial| dial.goal.kind == kind && !dial.is_late() && !dial.progress.claimed.load(Ordering::Relaxed);
        self.under_way.values().filter(on_time).count()
    }

    /// The processes that those are for which may bring a link soon, where they are for one.
    pub(crate) fn wanted(&self, kind: LinkKind) -> impl Iterator<Item = Instance> {
        let on_time = self.under_way.values().filter(move |dial| dial.goal.kind == kind && !dial.is_late());
        let unclaimed = on_time.filter(|dial| !dial.progress.claimed.load(Ordering::Relaxed));
        unclaimed.filter_map(|dial| dial.goal.wanted)
    }

    /// One that was started after `since` is late: the peer does not answer now.
    pub(crate) fn unanswered_since(&self, since: Instant) -> bool {
        self.under_way.values().any(|dial| dial.started > since && dial.is_late())
    }

    /// Those that are connected, and late.
    pub(crate) fn take_unanswered(&self) -> Vec<Size> {
        let late = self.under_way.values().filter(|dial| dial.is_late());
        late.filter_map(|dial| dial.progress.take_unanswered()).collect()
    }

    /// When the next one will be late.
    pub(crate) fn next_late(&self) -> Option<Instant> {
        self.under_way.values().filter(|dial| !dial.is_late()).map(Dial::late_at).min()
    }

    /// The peer answers: those that wait for the kernel to try again are not worth waiting for.
    pub(crate) fn give_up_late_connects(&mut self) {
        self.under_way.retain(|_, dial| {
            let late = dial.is_late() && !dial.is_connected();
            if late {
                dial.task.abort();
            }
            !late
        });
    }

    /// Makes room for a fresh one.
    pub(crate) fn give_up_oldest(&mut self) {
        if let Some((&id, dial)) = self.under_way.iter().min_by_key(|(_, dial)| dial.started) {
            dial.task.abort();
            self.under_way.remove(&id);
        }
    }

    /// What the next one to end has brought, and how long it took; waits as long as there is none.
    pub(crate) async fn next(&mut self) -> (Goal, Duration, Dialled) {
        loop {
            match self.tasks.join_next_with_id().await {
                Some(Ok((id, (goal, dialled)))) => {
                    let took = self.under_way.remove(&id).map(|dial| dial.started.elapsed()).unwrap_or_default();
                    return (goal, took, dialled);
                }
                // Given up.
                Some(Err(error)) => drop(self.under_way.remove(&error.id())),
                None => std::future::pending().await,
            }
        }
    }

    /// What was dialled is gone when this returns, not some time later.
    pub(crate) async fn shutdown(mut self) {
        self.tasks.shutdown().await;
    }
}
