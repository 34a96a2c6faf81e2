//! Keeps a peer's pool of links filled.

pub(crate) mod choice;
pub(crate) mod demand;
pub(crate) mod dials;
pub(crate) mod doubt;
mod policy;
pub(crate) mod pool;
pub(crate) mod rotation;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ferry_session::{Instance, LinkKind, Side};
use tokio::time::Instant;

use crate::peer::{MAX_DIALS, Peer};
use crate::sessions::intake;
use crate::shared::Shared;
use crate::supply::dials::{Dialled, Dials, Goal};
use crate::supply::policy::{Decision, Policy, Seen};

pub(crate) use policy::OFFER_TRUSTED_AGE;

/// Keeps a peer's links warm, while it has an address, until the tunnel stops.
pub(crate) async fn keep_warm(shared: Arc<Shared>, peer: Arc<Peer>) {
    let mut supply = Supply { shared, peer, dials: Dials::default(), policy: Policy::new(Instant::now()) };
    loop {
        let pause = supply.start_dials();
        tokio::select! {
            () = supply.shared.stopping() => break,
            () = supply.peer.withdrawn.cancelled() => break,
            () = supply.peer.pool.changed() => {}
            () = tokio::time::sleep(pause) => {}
            (goal, took, dialled) = supply.dials.next() => supply.on_dialled(goal, took, dialled),
        }
    }
    supply.dials.shutdown().await;
}

struct Supply {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    dials: Dials,
    policy: Policy,
}

impl Supply {
    /// Starts what is wanted and may be started now. Says when to look again if nothing happens.
    fn start_dials(&mut self) -> Duration {
        let every = self.shared.config().tunnel.settings.rotation.every;
        let next_too_old = self.peer.pool.prune(every);
        self.dials.take_unanswered().into_iter().for_each(|size| self.peer.on_unanswered(size));
        let decision = self.policy.decide(Instant::now(), &self.see(every));
        if decision.renew_offers {
            self.peer.renew_offers();
        }
        let mut wanted = Wanted::of(&self.shared, &self.peer, &self.dials, &decision);
        for kind in decision.kinds() {
            if self.dials.len() >= MAX_DIALS {
                self.dials.give_up_oldest();
            }
            let (shared, peer, goal) = (self.shared.clone(), self.peer.clone(), wanted.next(kind));
            self.dials.start(goal, |progress| async move { peer.dial(&shared, goal, &progress).await });
        }
        let next_late = self.dials.next_late().map(|at| at.saturating_duration_since(Instant::now()));
        next_too_old.into_iter().chain(next_late).fold(decision.look_again, Duration::min)
    }

    fn see(&self, every: Duration) -> Seen {
        let (peer, dials) = (&self.peer, &self.dials);
        let warm = &self.shared.config().tunnel.settings.warm_links;
        let has_address = peer.is_dialled();
        if has_address {
            peer.pool.set_pressed(peer.is_pressed(dials.len()));
        }
        let counts = peer.pool.counts();
        Seen {
            has_address,
            every,
            warm: (warm.own, warm.offered),
            asked: peer.pool.take_asked(),
            ready: counts.ready,
            waiting: counts.waiting,
            reserved: counts.pressed.then_some(counts.reserved),
            awaiting_hello: peer.awaiting_hello.load(Ordering::Relaxed),
            detached: peer.detached_sessions(),
            dials: dials.len(),
            rotations: peer.rotations(),
            on_time: (dials.on_time(LinkKind::Own), dials.on_time(LinkKind::Offered)),
            unanswered: dials.unanswered_since(self.policy.answered()),
        }
    }

    fn on_dialled(&mut self, goal: Goal, took: Duration, dialled: Dialled) {
        match dialled {
            Ok(link) => {
                self.peer.on_dialled(&self.shared);
                self.policy.on_dialled(Instant::now(), took);
                self.dials.give_up_late_connects();
                match (goal.kind, link) {
                    (_, None) => {}
                    // Surplus links are dropped.
                    (LinkKind::Own, Some(link)) => drop(self.peer.pool.give(link, goal.wanted)),
                    (LinkKind::Offered, Some(link)) => intake::await_hello(&self.shared, &self.peer, link),
                }
            }
            Err(error) => {
                self.peer.on_dial_failed(&self.shared, &error);
                self.policy.on_failed(Instant::now());
            }
        }
    }
}

/// Which of the peer's processes the next dials are to reach, if it is more than one.
struct Wanted {
    /// By sessions of this end that wait.
    own: std::vec::IntoIter<Instance>,
    /// By the peer's sessions here, which need links that are offered to their processes.
    offered: Vec<Instance>,
    next: usize,
}

impl Wanted {
    fn of(shared: &Shared, peer: &Peer, dials: &Dials, decision: &Decision) -> Self {
        let own = peer.pool.wanted(decision.own, dials.wanted(LinkKind::Own));
        let offered = if decision.offered == 0 { Vec::new() } else { openers(shared, peer) };
        let next = peer.count_offers(decision.offered);
        Self { own: own.into_iter(), offered, next }
    }

    fn next(&mut self, kind: LinkKind) -> Goal {
        let wanted = match kind {
            LinkKind::Own => self.own.next(),
            LinkKind::Offered => {
                self.next += 1;
                self.offered.get((self.next - 1) % self.offered.len().max(1)).copied()
            }
        };
        Goal { kind, wanted }
    }
}

/// The processes of the peer that have opened sessions here: those alone whose sessions have no link, if there are any.
fn openers(shared: &Shared, peer: &Peer) -> Vec<Instance> {
    let sessions = shared.sessions.list(usize::MAX).into_iter();
    let opened: Vec<_> = sessions.filter(|it| it.name.peer == peer.name && it.name.side == Side::Acceptor).collect();
    let detached: BTreeSet<_> =
        opened.iter().filter(|it| it.link().is_none()).filter_map(|it| it.peer_instance().map(|it| it.0)).collect();
    let all = || opened.iter().filter_map(|it| it.peer_instance().map(|it| it.0)).collect();
    let wanted: BTreeSet<_> = if detached.is_empty() { all() } else { detached };
    wanted.into_iter().map(Instance).collect()
}
