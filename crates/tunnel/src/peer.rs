//! One peer: its pool of links, and dialling it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use ferry_config::{Identity, Name, PublicKey};
use ferry_session::LinkKind;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::dial::{self, DialError};
use crate::dials::{Dialled, Progress};
use crate::link::Link;
use crate::lookup::Lookups;
use crate::metrics::Role;
use crate::order::Arrivals;
use crate::path::RoundTrip;
use crate::pool::{Need, Pool};
use crate::ports::Ports;
use crate::presence::Presence;
use crate::segments::{Segments, Size};
use crate::shared::Shared;
use crate::tls::{Dialler, Established, TlsError};

/// Dials of one peer that are under way at once: many sessions that lost their links do not storm it.
pub(crate) const DIALS: usize = 64;

/// Most of them for rotations: however many of those there are, links for resumes are dialled beside them.
const MAX_ROTATIONS: usize = DIALS / 2;

/// A link that was offered for longer than this, while a session of the peer's waits for one, has not reached it.
pub(crate) const OFFER: Duration = Duration::from_secs(3);

/// An offered link is replaced after this long, or with the keys if that is sooner: the path may have lost it, and the
/// end that would notice is not the one that can dial.
const OFFER_AGE: Duration = Duration::from_secs(30);

/// One peer of this tunnel.
pub(crate) struct Peer {
    pub(crate) name: Name,
    terms: RwLock<Arc<Terms>>,
    pub(crate) pool: Pool,
    pub(crate) round_trip: RoundTrip,
    /// The peer was withdrawn from the configuration.
    pub(crate) withdrawn: CancellationToken,
    rotations: Semaphore,
    ports: Ports,
    lookups: Lookups,
    segments: Segments,
    /// Which of the sessions that it opens are next.
    pub(crate) arrivals: Arrivals,
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
            rotations: Semaphore::new(MAX_ROTATIONS),
            ports: Ports::default(),
            lookups: Lookups::default(),
            segments: Segments::default(),
            arrivals: Arrivals::default(),
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
        self.reachable.load(Ordering::Relaxed) || self.pool.counts().ready > 0
    }

    /// Why it could not be reached at the last try, or why new sessions get no link.
    pub(crate) fn problem(&self) -> Option<String> {
        let pressed = self.pool.is_pressed().then(|| self.ports.problem());
        let last = self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone();
        last.or(pressed)
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

    /// Sessions that the peer opened and that are without a link.
    pub(crate) fn orphans(&self) -> usize {
        self.orphans.load(Ordering::Relaxed)
    }

    /// Links that were offered some time ago are replaced.
    pub(crate) fn renew_offers(&self) {
        self.renewal.notify_waiters();
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
            return Ok(self.pool.take(Need::Rotate, false).await);
        }
        let _permit = self.rotations.acquire().await;
        let establish = async |established| {
            let mut link = shared.establish(established, Some(LinkKind::Own)).await?;
            link.hold_port(self.ports.hold());
            Ok(link)
        };
        self.attempt(shared, &Progress::default(), establish).await
    }

    /// Dials for rotations that are under way.
    pub(crate) fn rotations(&self) -> usize {
        MAX_ROTATIONS - self.rotations.available_permits()
    }

    /// Local ports, or files, have run out for links to this peer, or are about to, with so many `dials` under way. What
    /// is left is for the sessions that are open.
    pub(crate) fn is_pressed(&self, dials: usize) -> bool {
        let capacity = self.terms().config.addresses.len();
        self.ports.is_pressed(capacity, dials + self.rotations())
    }

    /// Dials for the pool.
    pub(crate) async fn dial(&self, shared: &Arc<Shared>, kind: LinkKind, progress: &Progress) -> Dialled {
        let establish = async |established| {
            let early = if kind == LinkKind::Own { self.pool.claim_early() } else { None };
            let Some(session) = early else {
                let mut link = shared.establish(established, Some(kind)).await?;
                link.hold_port(self.ports.hold());
                return Ok(Some(link));
            };
            progress.taken.store(true, Ordering::Relaxed);
            let (mut link, told) = shared.establish_early(established)?;
            link.hold_port(self.ports.hold());
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
        let size = self.segments.size(Instant::now());
        let dialled = async {
            let (network, addresses) = (&shared.network, &terms.config.addresses);
            let stream = dial::connect(network, &self.lookups, addresses, size.largest()).await?;
            progress.on_connected(size);
            let handshake = async {
                let established = terms.dialler.handshake(stream).await?;
                progress.on_answered();
                self.segments.on_answered(size);
                self.round_trip.note(established.round_trip);
                establish(established).await
            };
            timeout(dial::HANDSHAKE, handshake).await.unwrap_or(Err(DialError::HandshakeTimedOut))
        };
        let dialled = dialled.await;
        if dialled.as_ref().err().is_some_and(DialError::is_silence) {
            progress.take_unanswered().into_iter().for_each(|size| self.on_unanswered(size));
        }
        self.ports.note(dialled.as_ref().err().is_some_and(DialError::is_exhaustion));
        match &dialled {
            Ok(_) => shared.metrics.link_made(Role::Dialler),
            Err(error) => shared.metrics.link_failed(Role::Dialler, error.failure()),
        }
        dialled
    }

    /// A dial has connected, and its first long packet gets no answer.
    pub(crate) fn on_unanswered(&self, size: Size) {
        if let Some(limit) = self.segments.on_unanswered(size, Instant::now()) {
            tracing::warn!(
                peer = %self.name,
                "connections are made, but the first large packet gets no answer; is there a smaller MTU on the path, and no \
                 ICMP that tells? Next with segments of {limit} bytes at most"
            );
        }
    }

    pub(crate) fn on_dialled(&self) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if !self.reachable.swap(true, Ordering::Relaxed) {
            tracing::info!(peer = %self.name, "peer reachable");
        }
    }

    pub(crate) fn on_dial_failed(&self, error: &DialError) {
        let mut text = error.to_string();
        if error.is_silence() && self.segments.is_suspect() {
            text += "; the first large packet got no answer: a smaller MTU on the path without ICMP?";
        }
        let before = self.problem.lock().unwrap_or_else(PoisonError::into_inner).replace(text.clone());
        // One line for each new problem, not for each try.
        if self.reachable.swap(false, Ordering::Relaxed) || before.as_deref() != Some(&text) {
            tracing::warn!(peer = %self.name, "peer not reachable, trying on: {text}");
        }
    }
}
