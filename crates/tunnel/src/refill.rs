//! Keeps a peer's pool filled: which links are dialled, and when.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ferry_session::LinkKind;
use tokio::time::Instant;

use crate::demand::Demand;
use crate::dials::{Dialled, Dials};
use crate::peer::{DIALS, OFFER, Peer};
use crate::shared::Shared;

/// While a peer does not answer, a fresh connect starts this often.
const PROBE: Duration = Duration::from_secs(1);

/// The first retry comes this soon; each further one waits twice as long, up to [`PROBE`].
const FIRST_RETRY: Duration = Duration::from_millis(50);

/// Where keys are to be younger than this, fewer links are kept ready: those that nobody takes are renewed no more often
/// for it. Else most handshakes would be made for nobody.
const RENEWED_AFTER: Duration = Duration::from_secs(5);

/// How often ready links are looked after when nothing happens.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// Keeps a peer's links warm, while it has an address, until the tunnel stops.
pub(crate) async fn keep_warm(shared: Arc<Shared>, peer: Arc<Peer>) {
    let mut refill = Refill::new(shared, peer);
    loop {
        let pause = refill.start_dials();
        tokio::select! {
            () = refill.shared.stopping() => break,
            () = refill.peer.withdrawn.cancelled() => break,
            () = refill.peer.pool.changed() => {}
            () = tokio::time::sleep(pause) => {}
            (kind, took, dialled) = refill.dials.next() => refill.on_dialled(kind, took, dialled),
        }
    }
    refill.dials.shutdown().await;
}

struct Refill {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    dials: Dials,
    demand: Demand,
    retry: Duration,
    /// While the peer does not answer: when the next probe may start.
    next_probe: Option<Instant>,
    answered: Instant,
    renewed: Instant,
}

impl Refill {
    fn new(shared: Arc<Shared>, peer: Arc<Peer>) -> Self {
        let now = Instant::now();
        Self {
            shared,
            peer,
            dials: Dials::default(),
            demand: Demand::new(now),
            retry: FIRST_RETRY,
            next_probe: None,
            answered: now,
            renewed: now,
        }
    }

    /// Starts what is wanted and may be started now. Says when to look again if nothing happens.
    fn start_dials(&mut self) -> Duration {
        let every = self.shared.plan().config.settings.rotation.every;
        let pruned_next = self.peer.pool.prune(every).unwrap_or(LOOK_AFTER);
        self.demand.on_taken(Instant::now(), self.peer.pool.take_asked());
        let (own, later) = self.own_links(every);
        let wanted = [own, self.offered_links(every)];
        self.dials.take_unanswered().into_iter().for_each(|size| self.peer.on_unanswered(size));
        if self.next_probe.is_none() && self.dials.unanswered_since(self.answered) {
            (self.next_probe, self.retry) = (Some(Instant::now()), PROBE);
        }
        let probes = self.next_probe.is_some_and(|at| at <= Instant::now());
        let budget = match self.next_probe {
            None => DIALS.saturating_sub(self.dials.len() + self.peer.rotations()),
            Some(_) => usize::from(probes),
        };
        if probes {
            self.next_probe = Some(Instant::now() + self.retry);
            self.retry = (self.retry * 2).min(PROBE);
        }
        for kind in plan_dials(wanted, budget) {
            if self.dials.len() >= DIALS {
                self.dials.give_up_oldest();
            }
            let (shared, peer) = (self.shared.clone(), self.peer.clone());
            self.dials.start(kind, |progress| async move { peer.dial(&shared, kind, &progress).await });
        }
        let look_again = self.next_probe.into_iter().chain(self.dials.next_late()).chain(later).min();
        let pause = look_again.map_or(LOOK_AFTER, |at| at.saturating_duration_since(Instant::now()).min(LOOK_AFTER));
        pause.min(pruned_next)
    }

    /// How many links for sessions of this end are to be dialled, and when to look again if that is not yet.
    fn own_links(&mut self, every: Duration) -> (usize, Option<Instant>) {
        if !self.peer.is_dialled() {
            return (0, None);
        }
        let pool = &self.peer.pool;
        pool.set_pressed(self.peer.is_pressed(self.dials.len()));
        let counts = pool.counts();
        let own = match kept(self.shared.plan().config.settings.warm_links.own, every) {
            _ if counts.pressed => counts.reserved,
            0 => 0,
            own => own + self.demand.links(Instant::now()),
        };
        // Nobody waits, and there are links for those that come meanwhile.
        let later = self.demand.replaced_at(Instant::now()).filter(|_| counts.waiting == 0 && 2 * counts.ready > own);
        let own = if later.is_some() { 0 } else { own };
        let there = counts.ready + self.dials.hopeful(LinkKind::Own);
        ((own + counts.waiting).saturating_sub(there), later)
    }

    /// How many links for sessions of the peer are to be dialled.
    fn offered_links(&mut self, every: Duration) -> usize {
        let orphans = self.peer.orphans().min(DIALS);
        if orphans > 0 && self.renewed.elapsed() >= OFFER {
            self.renewed = Instant::now();
            self.peer.renew_offers();
        }
        if !self.peer.is_dialled() {
            return 0;
        }
        let there = self.peer.offered.load(Ordering::Relaxed) + self.dials.hopeful(LinkKind::Offered);
        (kept(self.shared.plan().config.settings.warm_links.offered, every) + orphans).saturating_sub(there)
    }

    fn on_dialled(&mut self, kind: LinkKind, took: Duration, dialled: Dialled) {
        match dialled {
            Ok(link) => {
                self.peer.on_dialled();
                self.demand.on_dialled(took);
                (self.next_probe, self.retry, self.answered) = (None, FIRST_RETRY, Instant::now());
                self.dials.give_up_late_connects();
                match (kind, link) {
                    (_, None) => {}
                    // One that is too many was not asked for by anybody.
                    (LinkKind::Own, Some(link)) => drop(self.peer.pool.give(link)),
                    (LinkKind::Offered, Some(link)) => self.shared.await_hello(&self.peer, link),
                }
            }
            Err(error) => {
                self.peer.on_dial_failed(&error);
                self.next_probe.get_or_insert(Instant::now() + self.retry);
            }
        }
    }
}

/// How many links of one kind are kept ready, of as many as are `configured`, where keys last for `every`.
fn kept(configured: u32, every: Duration) -> usize {
    let share = every.div_duration_f64(RENEWED_AFTER).min(1.0);
    (f64::from(configured) * share).ceil() as usize
}

/// Which links to dial within the budget: those that sessions wait for first.
fn plan_dials(wanted: [usize; 2], budget: usize) -> impl Iterator<Item = LinkKind> {
    let own = std::iter::repeat_n(LinkKind::Own, wanted[0]);
    own.chain(std::iter::repeat_n(LinkKind::Offered, wanted[1])).take(budget)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_links_are_kept_ready_for_keys_that_hardly_last() {
        let kept_for = |seconds| [0, 2, 4, 256].map(|configured| kept(configured, Duration::from_secs(seconds)));
        assert_eq!(kept_for(30), [0, 2, 4, 256]);
        assert_eq!(kept_for(5), [0, 2, 4, 256]);
        assert_eq!(kept_for(2), [0, 1, 2, 103]);
        assert_eq!(kept_for(1), [0, 1, 1, 52]);
    }
}
