//! Which links to dial now: decided from what is seen, without a clock or a network of its own.

use std::time::Duration;

use ferry_session::LinkKind;
use tokio::time::Instant;

use crate::peer::MAX_DIALS;
use crate::supply::demand::Demand;

/// While a peer does not answer, a fresh dial starts this often.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(1);

/// The first retry comes this soon; each further one waits twice as long, up to [`MAX_RETRY_DELAY`].
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Where keys are younger than this, fewer links are kept ready: those that nobody takes are renewed no more often for
/// it. Otherwise most handshakes would be made for nothing.
const FULL_POOL_KEY_AGE: Duration = Duration::from_secs(5);

/// An offered link that has not been used after this long, while a session of the peer's waits for one, has not reached it.
pub(crate) const OFFER_TRUSTED_AGE: Duration = Duration::from_secs(3);

/// How often ready links are checked when nothing happens.
const POOL_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// What is so with one peer at a moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// This end has an address of it.
    pub(super) has_address: bool,
    /// How long keys last.
    pub(super) every: Duration,
    /// Links to keep ready for sessions of this end, and for those of the peer.
    pub(super) warm: (u32, u32),
    /// Links that new sessions have asked for since the last decision.
    pub(super) asked: usize,
    pub(super) ready: usize,
    /// Sessions that wait and may have the next link.
    pub(super) waiting: usize,
    /// Links can hardly be made; this many are kept for open sessions.
    pub(super) reserved: Option<usize>,
    /// Links here on which the peer may say Hello.
    pub(super) awaiting_hello: usize,
    /// Sessions of the peer without a link.
    pub(super) detached: usize,
    /// Dials under way, those of rotations apart.
    pub(super) dials: usize,
    pub(super) rotations: usize,
    /// Dials that may still bring a link soon, of each kind.
    pub(super) on_time: (usize, usize),
    /// A dial that was started since the peer last answered is late.
    pub(super) unanswered: bool,
}

/// What to do about it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// Links to dial for sessions of this end.
    pub(super) own: usize,
    /// Links to dial for sessions of the peer.
    pub(super) offered: usize,
    /// Links offered long ago are to be replaced.
    pub(super) renew_offers: bool,
    /// When to decide again, if nothing happens.
    pub(super) look_again: Duration,
}

impl Decision {
    /// The kinds to dial, those that sessions here wait for first.
    pub(super) fn kinds(&self) -> impl Iterator<Item = LinkKind> + use<> {
        let own = std::iter::repeat_n(LinkKind::Own, self.own);
        own.chain(std::iter::repeat_n(LinkKind::Offered, self.offered))
    }
}

/// What has been learned of one peer.
pub(super) struct Policy {
    demand: Demand,
    retry: Duration,
    /// While the peer does not answer: when the next probe may start.
    next_probe: Option<Instant>,
    answered: Instant,
    renewed: Instant,
}

impl Policy {
    pub(super) fn new(now: Instant) -> Self {
        Self { demand: Demand::new(now), retry: FIRST_RETRY_DELAY, next_probe: None, answered: now, renewed: now }
    }

    /// When the peer last answered.
    pub(super) fn answered(&self) -> Instant {
        self.answered
    }

    /// A dial brought a link after this long.
    pub(super) fn on_dialled(&mut self, now: Instant, took: Duration) {
        self.demand.on_dialled(took);
        (self.next_probe, self.retry, self.answered) = (None, FIRST_RETRY_DELAY, now);
    }

    /// A dial has failed.
    pub(super) fn on_failed(&mut self, now: Instant) {
        self.next_probe.get_or_insert(now + self.retry);
    }

    /// What to dial now.
    pub(super) fn decide(&mut self, now: Instant, seen: &Seen) -> Decision {
        self.demand.on_taken(now, seen.asked);
        let (own, replace_at) = self.own_links(now, seen);
        let renew_offers = seen.detached > 0 && now.saturating_duration_since(self.renewed) >= OFFER_TRUSTED_AGE;
        if renew_offers {
            self.renewed = now;
        }
        let budget = self.budget(now, seen);
        let own = own.min(budget);
        let offered = offered_links(seen).min(budget - own);
        let look_at = self.next_probe.into_iter().chain(replace_at).min();
        let look_again = look_at.map_or(POOL_CHECK_INTERVAL, |at| at.saturating_duration_since(now));
        Decision { own, offered, renew_offers, look_again: look_again.min(POOL_CHECK_INTERVAL) }
    }

    /// How many dials may start. One that probes a peer that does not answer waits for no other.
    fn budget(&mut self, now: Instant, seen: &Seen) -> usize {
        if self.next_probe.is_none() && seen.unanswered {
            (self.next_probe, self.retry) = (Some(now), MAX_RETRY_DELAY);
        }
        match self.next_probe {
            None => MAX_DIALS.saturating_sub(seen.dials + seen.rotations),
            Some(at) if at > now => 0,
            Some(_) => {
                self.next_probe = Some(now + self.retry);
                self.retry = (self.retry * 2).min(MAX_RETRY_DELAY);
                1
            }
        }
    }

    /// How many links for sessions of this end are wanted, and when more are, if that is not yet.
    fn own_links(&mut self, now: Instant, seen: &Seen) -> (usize, Option<Instant>) {
        if !seen.has_address {
            return (0, None);
        }
        let own = match (seen.reserved, target_links(seen.warm.0, seen.every)) {
            (Some(reserved), _) => reserved,
            (None, 0) => 0,
            (None, own) => own + self.demand.links(now),
        };
        // Nothing waits, and there are links for what comes meanwhile.
        let enough = seen.waiting == 0 && 2 * seen.ready > own;
        if let Some(replace_at) = self.demand.replaced_at(now).filter(|_| enough) {
            return (0, Some(replace_at));
        }
        ((own + seen.waiting).saturating_sub(seen.ready + seen.on_time.0), None)
    }
}

/// How many links for sessions of the peer are wanted. Any link on which it may say Hello serves them.
fn offered_links(seen: &Seen) -> usize {
    if !seen.has_address {
        return 0;
    }
    let wanted = target_links(seen.warm.1, seen.every) + seen.detached.min(MAX_DIALS);
    wanted.saturating_sub(seen.awaiting_hello + seen.on_time.1)
}

/// How many links of one kind are kept ready, of as many as are `configured`, where keys last for `every`.
fn target_links(configured: u32, every: Duration) -> usize {
    let share = every.div_duration_f64(FULL_POOL_KEY_AGE).min(1.0);
    (f64::from(configured) * share).ceil() as usize
}

#[cfg(test)]
mod tests;
