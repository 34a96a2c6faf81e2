//! One peer: its pool of links and, if it is dialled, the task that keeps the pool filled.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use ferry_config::{Identity, Name, PublicKey};
use ferry_session::LinkKind;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::demand::Demand;
use crate::dial::{self, DialError};
use crate::dials::{Dialled, Dials, Progress};
use crate::link::Link;
use crate::metrics::Role;
use crate::path::RoundTrip;
use crate::pool::Pool;
use crate::presence::Presence;
use crate::shared::Shared;
use crate::tls::{Dialler, Established, TlsError};

/// Dials of one peer that are under way at once: many sessions that lost their links do not storm it.
const DIALS: usize = 64;

/// While a peer does not answer, a fresh connect starts this often.
const PROBE: Duration = Duration::from_secs(1);

/// The first retry comes this soon; each further one waits twice as long, up to [`PROBE`].
const FIRST_RETRY: Duration = Duration::from_millis(50);

/// A link that was offered for longer than this, while a session of the peer's waits for one, has not reached it.
const OFFER: Duration = Duration::from_secs(3);

/// An offered link is replaced after this long, or with the keys if that is sooner: the path may have lost it, and the
/// end that would notice is not the one that can dial.
const OFFER_AGE: Duration = Duration::from_secs(30);

/// Where keys are to be younger than this, fewer links are kept ready: those that nobody takes are renewed no more often
/// for it. Else most handshakes would be made for nobody.
const RENEWED_AFTER: Duration = Duration::from_secs(5);

/// How often ready links are looked after when nothing happens.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// One peer of this tunnel.
pub(crate) struct Peer {
    pub(crate) name: Name,
    terms: RwLock<Arc<Terms>>,
    pub(crate) pool: Pool,
    pub(crate) round_trip: RoundTrip,
    /// The peer was withdrawn from the configuration.
    pub(crate) withdrawn: CancellationToken,
    dials: Semaphore,
    /// The last dial worked, or a link of it is here.
    reachable: AtomicBool,
    /// Links that wait for the peer's Hello, by who offered them.
    pub(crate) offered: AtomicUsize,
    pub(crate) sessions: AtomicUsize,
    pub(crate) presence: Arc<Presence>,
    /// Sessions that the peer opened and that are without a link: it may be this end that has to dial.
    orphans: AtomicUsize,
    /// Offered links that were not used yet are not to be relied on.
    renewal: Notify,
    problem: Mutex<Option<String>>,
}

/// What the configuration says of a peer now.
struct Terms {
    config: ferry_config::Peer,
    dialler: Dialler,
}

impl Terms {
    fn new(identity: &Identity, config: ferry_config::Peer) -> Result<Self, TlsError> {
        let dialler = Dialler::new(identity, config.keys.iter().copied().collect::<Vec<_>>())?;
        Ok(Self { config, dialler })
    }
}

impl Peer {
    pub(crate) fn new(identity: &Identity, config: ferry_config::Peer) -> Result<Self, TlsError> {
        Ok(Self {
            name: config.name.clone(),
            terms: RwLock::new(Arc::new(Terms::new(identity, config)?)),
            withdrawn: CancellationToken::new(),
            pool: Pool::default(),
            round_trip: RoundTrip::default(),
            dials: Semaphore::new(DIALS),
            reachable: AtomicBool::new(false),
            offered: AtomicUsize::new(0),
            sessions: AtomicUsize::new(0),
            presence: Arc::default(),
            orphans: AtomicUsize::new(0),
            renewal: Notify::new(),
            problem: Mutex::new(None),
        })
    }

    fn terms(&self) -> Arc<Terms> {
        self.terms.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The configuration was read again. Links whose key is accepted no longer are dropped.
    pub(crate) fn update(&self, identity: &Identity, config: ferry_config::Peer) -> Result<(), TlsError> {
        let terms = Terms::new(identity, config)?;
        self.pool.retain(|link| terms.config.keys.contains(&link.facts().key));
        *self.terms.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(terms);
        self.pool.wake();
        Ok(())
    }

    /// The key is one of this peer's now.
    pub(crate) fn accepts(&self, key: &PublicKey) -> bool {
        !self.withdrawn.is_cancelled() && self.terms().config.keys.contains(key)
    }

    /// This end has its address.
    pub(crate) fn is_dialled(&self) -> bool {
        !self.terms().config.addresses.is_empty()
    }

    /// It can be reached now, as far as is known.
    pub(crate) fn is_reachable(&self) -> bool {
        self.reachable.load(Ordering::Relaxed) || self.pool.counts().0 > 0
    }

    /// Why it could not be reached at the last try.
    pub(crate) fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The path has failed a session: what was made over it before is not to be relied on.
    pub(crate) fn distrust(&self) {
        self.pool.distrust();
        self.renewal.notify_waiters();
    }

    /// A session that the peer opened has lost its link, or has one again.
    pub(crate) fn count_orphan(&self, orphan: bool) {
        if orphan {
            self.orphans.fetch_add(1, Ordering::Relaxed);
        } else {
            self.orphans.fetch_sub(1, Ordering::Relaxed);
        }
        self.pool.wake();
    }

    /// Resolves when a link that this end offered, and that nobody has used, is to be replaced.
    pub(crate) async fn offer_is_over(&self, established: Instant, rotation: Duration) {
        let renewed = async {
            loop {
                self.renewal.notified().await;
                if established.elapsed() >= OFFER {
                    return;
                }
            }
        };
        tokio::select! {
            () = tokio::time::sleep_until(established + rotation.min(OFFER_AGE)) => {}
            () = renewed => {}
        }
    }

    /// A link with fresh keys: dialled now, or the newest that the peer has offered.
    pub(crate) async fn fresh_link(&self, shared: &Arc<Shared>) -> Result<Link, DialError> {
        if !self.is_dialled() {
            return Ok(self.pool.take(false).await);
        }
        let _permit = self.dials.acquire().await;
        let establish = async |established| Ok(shared.establish(established, Some(LinkKind::Own)).await?);
        self.attempt(shared, &Progress::default(), establish).await
    }

    /// Dials for the pool, within the budget.
    async fn dial(&self, shared: &Arc<Shared>, kind: LinkKind, progress: &Progress) -> Dialled {
        let _permit = self.dials.acquire().await;
        self.dial_now(shared, kind, progress).await
    }

    /// Dials for the pool.
    async fn dial_now(&self, shared: &Arc<Shared>, kind: LinkKind, progress: &Progress) -> Dialled {
        let establish = async |established| {
            let early = if kind == LinkKind::Own { self.pool.claim_early() } else { None };
            let Some(session) = early else {
                return Ok(Some(shared.establish(established, Some(kind)).await?));
            };
            progress.taken.store(true, Ordering::Relaxed);
            let (link, told) = shared.establish_early(established)?;
            // If it waits no more, the link is dropped and nothing told.
            let _ = session.send(link);
            told.await.map_err(|_| DialError::GivenUp)??;
            Ok(None)
        };
        self.attempt(shared, progress, establish).await
    }

    /// Dials once.
    async fn attempt<T>(
        &self,
        shared: &Shared,
        progress: &Progress,
        establish: impl AsyncFnOnce(Established) -> Result<T, DialError>,
    ) -> Result<T, DialError> {
        let terms = self.terms();
        let dialled = async {
            let stream = dial::connect(&shared.network, &terms.config.addresses).await?;
            progress.connected.store(true, Ordering::Relaxed);
            let handshake = async {
                let established = terms.dialler.handshake(stream).await?;
                self.round_trip.note(established.round_trip);
                establish(established).await
            };
            timeout(dial::HANDSHAKE, handshake).await.unwrap_or(Err(DialError::HandshakeTimedOut))
        };
        let dialled = dialled.await;
        match &dialled {
            Ok(_) => shared.metrics.link_made(Role::Dialler),
            Err(error) => shared.metrics.link_failed(Role::Dialler, error.failure()),
        }
        dialled
    }

    fn on_dialled(&self) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if !self.reachable.swap(true, Ordering::Relaxed) {
            tracing::info!(peer = %self.name, "peer reachable");
        }
    }

    fn on_dial_failed(&self, error: &DialError) {
        let text = error.to_string();
        let before = self.problem.lock().unwrap_or_else(PoisonError::into_inner).replace(text.clone());
        // One line for each new problem, not for each try.
        if self.reachable.swap(false, Ordering::Relaxed) || before.as_deref() != Some(&text) {
            tracing::warn!(peer = %self.name, "peer not reachable, trying on: {text}");
        }
    }
}

/// Keeps a peer's links warm, while it has an address, until the tunnel stops.
pub(crate) async fn keep_warm(shared: Arc<Shared>, peer: Arc<Peer>) {
    let mut dials = Dials::default();
    let mut demand = Demand::new(Instant::now());
    let mut retry = FIRST_RETRY;
    // While the peer does not answer: when the next probe may start.
    let mut next_probe: Option<Instant> = None;
    let (mut answered, mut renewed) = (Instant::now(), Instant::now());
    loop {
        let config = shared.plan().config.clone();
        let every = config.rotation.every;
        let pruned_next = peer.pool.prune(every).unwrap_or(LOOK_AFTER);
        let (ready, waiting) = peer.pool.counts();
        demand.on_taken(Instant::now(), peer.pool.take_asked());
        let own = match kept(config.warm_links.own, every) {
            0 => 0,
            own => own + demand.links(Instant::now()),
        };
        let orphans = peer.orphans.load(Ordering::Relaxed).min(DIALS);
        if orphans > 0 && renewed.elapsed() >= OFFER {
            renewed = Instant::now();
            peer.renewal.notify_waiters();
        }
        let offered = peer.offered.load(Ordering::Relaxed);
        let dialled = usize::from(peer.is_dialled());
        // Nobody waits, and there are links for those that come meanwhile.
        let later = demand.replaced_at(Instant::now()).filter(|_| waiting == 0 && 2 * ready > own);
        let own = if later.is_some() { 0 } else { own };
        let wanted = [
            (own + waiting).saturating_sub(ready + dials.hopeful(LinkKind::Own)) * dialled,
            (kept(config.warm_links.offered, every) + orphans)
                .saturating_sub(offered + dials.hopeful(LinkKind::Offered))
                * dialled,
        ];
        if next_probe.is_none() && dials.unanswered_since(answered) {
            (next_probe, retry) = (Some(Instant::now()), PROBE);
        }
        let probes = next_probe.is_some_and(|at| at <= Instant::now());
        let budget = match next_probe {
            None => DIALS.saturating_sub(dials.len()),
            Some(_) => usize::from(probes),
        };
        if probes {
            next_probe = Some(Instant::now() + retry);
            retry = (retry * 2).min(PROBE);
        }
        for kind in plan_dials(wanted, budget) {
            if dials.len() >= DIALS {
                dials.give_up_oldest();
            }
            let (shared, peer) = (shared.clone(), peer.clone());
            dials.start(kind, |progress| async move {
                // A probe does not wait for those that wait.
                match probes {
                    true => peer.dial_now(&shared, kind, &progress).await,
                    false => peer.dial(&shared, kind, &progress).await,
                }
            });
        }
        let look_again = next_probe.into_iter().chain(dials.next_late()).chain(later).min();
        let pause = look_again.map_or(LOOK_AFTER, |at| at.saturating_duration_since(Instant::now()).min(LOOK_AFTER));
        let pause = pause.min(pruned_next);
        tokio::select! {
            () = shared.stopping() => break,
            () = peer.withdrawn.cancelled() => break,
            () = peer.pool.changed() => {}
            () = tokio::time::sleep(pause) => {}
            (kind, took, dialled) = dials.next() => {
                match dialled {
                    Ok(link) => {
                        peer.on_dialled();
                        demand.on_dialled(took);
                        (next_probe, retry, answered) = (None, FIRST_RETRY, Instant::now());
                        dials.give_up_late_connects();
                        match (kind, link) {
                            (_, None) => {}
                            // One that is too many was not asked for by anybody.
                            (LinkKind::Own, Some(link)) => drop(peer.pool.give(link)),
                            (LinkKind::Offered, Some(link)) => shared.await_hello(&peer, link),
                        }
                    }
                    Err(error) => {
                        peer.on_dial_failed(&error);
                        next_probe.get_or_insert(Instant::now() + retry);
                    }
                }
            }
        }
    }
    dials.shutdown().await;
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
