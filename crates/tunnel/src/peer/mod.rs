//! One peer: its pool of links, and dialling it.

pub(crate) mod arrivals;
mod choosing;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ferry_config::{Identity, Name, PublicKey};
use ferry_session::{Instance, LinkKind};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error_span, info, warn};

use crate::memory::path::RoundTrip;
use crate::peer::arrivals::Arrivals;
use crate::peer::choosing::Choosing;
use crate::shared::Shared;
use crate::supply::OFFER_TRUSTED_AGE;
use crate::supply::choice::Kind;
use crate::supply::dials::{Dialled, Goal};
use crate::supply::pool::{Need, Pool, Want};
use crate::telemetry::events::{Dial, Event};
use crate::telemetry::metrics::Role;
use crate::telemetry::presence::Presence;
use crate::transport;
use crate::transport::dial::DialError;
use crate::transport::dialler::{Aim, Destination, Dialler, Progress};
use crate::transport::hint::Hint;
use crate::transport::link::Link;
use crate::transport::quic::Quic;
use crate::transport::segments::Size;
use crate::transport::tls::{Established, TlsError};

/// Dials of one peer that are under way at once: many sessions that lost their links do not storm it.
pub(crate) const MAX_DIALS: usize = 64;

/// Most of them for rotations: however many of those there are, links for resumes are dialled beside them.
const MAX_ROTATIONS: usize = MAX_DIALS / 2;

/// An offered link is replaced after this long, or with the keys if that is sooner: the path may have lost it, and the
/// end that would notice is not the one that can dial.
const MAX_OFFER_AGE: Duration = Duration::from_secs(30);

/// One peer of this tunnel.
pub(crate) struct Peer {
    pub(crate) name: Name,
    config: RwLock<Arc<PeerConfig>>,
    pub(crate) pool: Pool,
    pub(crate) round_trip: RoundTrip,
    /// The peer was withdrawn from the configuration.
    pub(crate) withdrawn: CancellationToken,
    rotations: Semaphore,
    dialler: Dialler,
    choosing: Choosing,
    /// Which of the sessions that it opens are next.
    pub(crate) arrivals: Arrivals,
    /// The last dial worked, or a link of it is here.
    reachable: AtomicBool,
    /// Links that wait here for the peer's Hello, whichever end dialled them: each serves a session of the peer's.
    pub(crate) awaiting_hello: AtomicUsize,
    pub(crate) sessions: AtomicUsize,
    /// Links that were offered to it.
    offers: AtomicUsize,
    pub(crate) presence: Arc<Presence>,
    /// Sessions that the peer opened and that are without a link: it may be this end that has to dial.
    detached_sessions: AtomicUsize,
    /// Offered links that were not used yet are not to be relied on.
    renewal: Notify,
    problem: Mutex<Option<String>>,
}

/// What the configuration says of a peer now.
struct PeerConfig {
    entry: ferry_config::Peer,
    destination: Destination,
}

impl PeerConfig {
    fn new(identity: &Identity, entry: ferry_config::Peer) -> Result<Self, TlsError> {
        let destination = Destination::new(identity, &entry)?;
        Ok(Self { entry, destination })
    }
}

impl Peer {
    pub(crate) fn new(identity: &Identity, entry: ferry_config::Peer, quic: &Arc<Quic>) -> Result<Self, TlsError> {
        Ok(Self {
            name: entry.name.clone(),
            choosing: Choosing::new(entry.route.prefer),
            config: RwLock::new(Arc::new(PeerConfig::new(identity, entry)?)),
            withdrawn: CancellationToken::new(),
            pool: Pool::default(),
            round_trip: RoundTrip::default(),
            rotations: Semaphore::new(MAX_ROTATIONS),
            dialler: Dialler::new(quic.clone()),
            arrivals: Arrivals::default(),
            reachable: AtomicBool::new(false),
            awaiting_hello: AtomicUsize::new(0),
            sessions: AtomicUsize::new(0),
            offers: AtomicUsize::new(0),
            presence: Arc::default(),
            detached_sessions: AtomicUsize::new(0),
            renewal: Notify::new(),
            problem: Mutex::new(None),
        })
    }

    fn config(&self) -> Arc<PeerConfig> {
        self.config.read().clone()
    }

    /// The configuration was read again. Links whose key is accepted no longer are dropped.
    pub(crate) fn update(&self, identity: &Identity, entry: ferry_config::Peer) -> Result<(), TlsError> {
        let config = PeerConfig::new(identity, entry)?;
        self.choosing.set(config.entry.route.prefer);
        self.pool.retain(|link| config.entry.keys.contains(&link.facts().key));
        *self.config.write() = Arc::new(config);
        self.pool.wake();
        Ok(())
    }

    /// The key is one of this peer's now.
    pub(crate) fn accepts(&self, key: &PublicKey) -> bool {
        !self.withdrawn.is_cancelled() && self.config().entry.keys.contains(key)
    }

    /// This end has its address.
    pub(crate) fn is_dialled(&self) -> bool {
        !self.config().entry.addresses.is_empty()
    }

    /// It can be reached now, as far as is known.
    pub(crate) fn is_reachable(&self) -> bool {
        self.reachable.load(Ordering::Relaxed) || self.pool.counts().ready > 0
    }

    /// Why it could not be reached at the last try, or why new sessions get no link.
    pub(crate) fn problem(&self) -> Option<String> {
        let pressed = self.pool.is_pressed().then(|| self.dialler.pressure());
        let last = self.problem.lock().clone();
        last.or(pressed)
    }

    /// The path has failed a session: what was made over it before is not to be relied on.
    pub(crate) fn distrust(&self) {
        self.pool.distrust();
        self.renewal.notify_waiters();
    }

    /// A session that the peer opened has lost its link, or has one again.
    pub(crate) fn count_detached(&self, detached: bool) {
        if detached {
            self.detached_sessions.fetch_add(1, Ordering::Relaxed);
        } else {
            self.detached_sessions.fetch_sub(1, Ordering::Relaxed);
        }
        self.pool.wake();
    }

    /// Sessions that the peer opened and that are without a link.
    pub(crate) fn detached_sessions(&self) -> usize {
        self.detached_sessions.load(Ordering::Relaxed)
    }

    /// So many links more are offered. Says how many were before.
    pub(crate) fn count_offers(&self, more: usize) -> usize {
        self.offers.fetch_add(more, Ordering::Relaxed)
    }

    /// Links that were offered some time ago are replaced.
    pub(crate) fn renew_offers(&self) {
        self.renewal.notify_waiters();
    }

    /// Resolves when a link that this end offered, and that nobody has used, is to be replaced.
    pub(crate) async fn offer_is_over(&self, established: Instant, max_age: Duration) {
        let renewed = async {
            loop {
                self.renewal.notified().await;
                if established.elapsed() >= OFFER_TRUSTED_AGE {
                    return;
                }
            }
        };
        tokio::select! {
            () = tokio::time::sleep_until(established + max_age.min(MAX_OFFER_AGE)) => {}
            () = renewed => {}
        }
    }

    /// A link with fresh keys to the peer's process `of` a session: dialled now, or the newest that it has offered.
    pub(crate) async fn fresh_link(&self, shared: &Arc<Shared>, of: Option<Instance>) -> Result<Link, DialError> {
        if !self.is_dialled() {
            let want = Want { need: Need::Rotate, early: false, of, or_another: false };
            return Ok(self.pool.take(want).await);
        }
        let _permit = self.rotations.acquire().await;
        let establish = async |established| {
            let mut link = transport::establish(shared, established, Some(LinkKind::Own)).await?;
            link.hold_port(self.dialler.hold_port());
            Ok(link)
        };
        let config = self.config();
        let first = self.choosing.first(&config.destination);
        self.attempt(shared, &config, first, of, &Progress::default(), establish).await
    }

    /// Dials for rotations that are under way.
    pub(crate) fn rotations(&self) -> usize {
        MAX_ROTATIONS - self.rotations.available_permits()
    }

    /// Local ports, or files, have run out for links to this peer, or are about to, with so many `dials` under way. What
    /// is left is for the sessions that are open.
    pub(crate) fn is_pressed(&self, dials: usize) -> bool {
        let addresses = self.config().entry.addresses.len();
        self.dialler.is_pressed(addresses, dials + self.rotations())
    }

    /// Dials for the pool.
    pub(crate) async fn dial(&self, shared: &Arc<Shared>, goal: Goal, progress: &Progress) -> Dialled {
        let Goal { kind, wanted } = goal;
        let establish = async |established| {
            let early = if kind == LinkKind::Own { self.pool.claim_early(wanted) } else { None };
            let Some(session) = early else {
                let mut link = transport::establish(shared, established, Some(kind)).await?;
                link.hold_port(self.dialler.hold_port());
                return Ok(Some(link));
            };
            progress.claimed.store(true, Ordering::Relaxed);
            let (mut link, told) = transport::establish_early(shared, established)?;
            link.hold_port(self.dialler.hold_port());
            // If it waits no more, the link is dropped and nothing told.
            let _ = session.send(link);
            told.await.map_err(|_| DialError::GivenUp)??;
            Ok(None)
        };
        let config = self.config();
        let first = self.choosing.first_for_pool(&config.destination, kind);
        self.attempt(shared, &config, first, wanted, progress, establish).await
    }

    /// Dials once, to the process that is wanted if the peer has several; addresses of the kind `first` before others.
    async fn attempt<T>(
        &self,
        shared: &Arc<Shared>,
        config: &PeerConfig,
        first: Option<Kind>,
        wanted: Option<Instance>,
        progress: &Progress,
        establish: impl AsyncFnOnce(Established) -> Result<T, DialError>,
    ) -> Result<T, DialError> {
        let establish = async |established: Established| {
            first.into_iter().for_each(|first| self.on_raced(shared, first, established.stream.carrier()));
            self.round_trip.note(established.round_trip);
            shared.metrics.handshake_done(Role::Dialler, established.round_trip);
            establish(established).await
        };
        let traced = Dial::begin();
        let span = error_span!("dial", peer = %self.name);
        let aim = Aim { preferred: first.map(Kind::carrier), wanted: wanted.map(Hint::of) };
        let dial = self.dialler.dial(&shared.network, &config.destination, aim, progress, establish);
        let dialled = dial.instrument(span).await;
        if dialled.as_ref().err().is_some_and(DialError::is_silence) {
            progress.take_unanswered().into_iter().for_each(|size| self.on_unanswered(size));
        }
        traced.end(&self.name, dialled.as_ref().err().map(ToString::to_string));
        match &dialled {
            Ok(_) => {
                shared.metrics.link_made(Role::Dialler);
                shared.events.tell(Event::link_made(&self.name, Role::Dialler));
            }
            Err(error) => {
                let failure = error.failure();
                shared.metrics.link_failed(Role::Dialler, failure);
                shared.events.tell(Event::link_refused(&self.name, Role::Dialler, failure, error.to_string()));
            }
        }
        dialled
    }

    /// A dial has connected, and its first long packet gets no answer.
    pub(crate) fn on_unanswered(&self, size: Size) {
        if let Some(limit) = self.dialler.on_unanswered(size) {
            warn!(
                peer = %self.name,
                "connections are made, but the first large packet gets no answer; is there a smaller MTU on the path, and no \
                 ICMP that tells? Next with segments of {limit} bytes at most"
            );
        }
    }

    pub(crate) fn on_dialled(&self, shared: &Shared) {
        *self.problem.lock() = None;
        if !self.reachable.swap(true, Ordering::Relaxed) {
            info!(peer = %self.name, "peer reachable");
            shared.events.tell(Event::PeerReachable { peer: self.name.to_string() });
        }
    }

    pub(crate) fn on_dial_failed(&self, shared: &Shared, error: &DialError) {
        let mut text = error.to_string();
        if error.is_silence() && self.dialler.is_path_suspect() {
            text += "; the first large packet got no answer: a smaller MTU on the path without ICMP?";
        }
        let before = self.problem.lock().replace(text.clone());
        // One line for each new problem, not for each try.
        if self.reachable.swap(false, Ordering::Relaxed) || before.as_deref() != Some(&text) {
            warn!(peer = %self.name, "peer unreachable, retrying: {text}");
            shared.events.tell(Event::PeerUnreachable { peer: self.name.to_string(), problem: text });
        }
    }
}
