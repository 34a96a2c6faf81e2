//! `/status`: what is, as JSON. `docs/observability.md` describes the form.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};

use super::Admin;
use crate::application::listeners::Unbound;
use crate::peer::Peer;
use crate::sessions::handle::SessionHandle;
use crate::shared::Shared;
use crate::supply::choice::{Chosen, Kind};
use crate::telemetry::events::FORM_VERSION;
use crate::telemetry::limits::{LimitStatus, limits};
use crate::telemetry::metrics::{ByDirection, ByRotated, Direction, End, Rotated};
use crate::transport::tls::key_exchange;

/// Sessions in one answer.
const MAX_SESSIONS: usize = 1000;

#[derive(Deserialize)]
pub(super) struct Wanted {
    /// At most so many sessions.
    sessions: Option<usize>,
}

#[derive(Serialize)]
pub(super) struct Status {
    version: u32,
    ferry: &'static str,
    name: String,
    instance: String,
    uptime_seconds: f64,
    draining: bool,
    /// Listeners for applications that are not up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unbound: Vec<UnboundStatus>,
    settings: Settings,
    totals: Totals,
    peers: Vec<PeerStatus>,
    /// Of the entries that have any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    limits: Vec<LimitStatus>,
    sessions: Vec<SessionStatus>,
}

#[derive(Serialize)]
struct UnboundStatus {
    listen: SocketAddr,
    peer: String,
    service: String,
    problem: String,
}

impl UnboundStatus {
    fn of(unbound: Unbound) -> Self {
        let Unbound { entry, problem } = unbound;
        Self { listen: entry.listen, peer: entry.peer.to_string(), service: entry.service.to_string(), problem }
    }
}

/// What a reader needs to judge the rest.
#[derive(Serialize)]
struct Settings {
    rotation_every_seconds: f64,
    resume_window_seconds: f64,
    max_sessions_listed: usize,
}

/// Over all sessions, also those that are not listed; `sent` to `rotations_failed` since the start.
#[derive(Serialize)]
struct Totals {
    sessions: usize,
    detached: usize,
    buffered: u64,
    oldest_key_seconds: f64,
    links_open: i64,
    sent: u64,
    received: u64,
    resumes: u64,
    rotations: u64,
    rotations_failed: u64,
}

#[derive(Serialize)]
struct PeerStatus {
    name: String,
    reachable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// This end dials it.
    dialled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    round_trip_seconds: Option<f64>,
    /// What its links are carried by, where that is chosen by what is measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    choice: Option<ChoiceStatus>,
    warm: Warm,
    sessions: usize,
    detached: usize,
}

#[derive(Serialize)]
struct ChoiceStatus {
    carrier: &'static str,
    reason: String,
    /// What would be preferred, and is not let through.
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked: Option<&'static str>,
    /// The last verdict was by these.
    #[serde(skip_serializing_if = "Option::is_none")]
    round_trip_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    loss: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp_limit_bits_per_second: Option<f64>,
    since_seconds: f64,
}

impl ChoiceStatus {
    fn of(chosen: Chosen) -> Self {
        let Chosen { kind, blocked, reason, figures, since } = chosen;
        Self {
            carrier: kind.as_str(),
            reason,
            blocked: blocked.map(Kind::as_str),
            round_trip_seconds: figures.map(|figures| seconds(figures.round_trip)),
            loss: figures.map(|figures| figures.loss),
            tcp_limit_bits_per_second: figures.map(|figures| figures.tcp_limit.round()),
            since_seconds: since.elapsed().as_secs_f64(),
        }
    }
}

/// Links ready for sessions of this end, and for the peer's.
#[derive(Serialize)]
struct Warm {
    own: usize,
    offered: usize,
}

#[derive(Serialize)]
struct SessionStatus {
    id: String,
    peer: String,
    side: &'static str,
    service: String,
    attached: bool,
    epoch: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    carrier: Option<&'static str>,
    key_exchange: &'static str,
    cipher: &'static str,
    peer_key: String,
    key_age_seconds: f64,
    age_seconds: f64,
    sent: u64,
    received: u64,
    /// Bytes sent and not acknowledged.
    buffered: u64,
    load: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detached_seconds: Option<f64>,
    resumes: u32,
    last_pause_seconds: f64,
    longest_pause_seconds: f64,
}

pub(super) async fn status(State(admin): State<Admin>, Query(wanted): Query<Wanted>) -> Json<Status> {
    let shared = &admin.shared;
    let config = shared.config();
    let settings = &config.tunnel.settings;
    let most = wanted.sessions.unwrap_or(MAX_SESSIONS).min(MAX_SESSIONS);
    let mut sessions = shared.sessions.list(usize::MAX);
    // What is wrong comes first, and the order stays the same from one answer to the next.
    sessions.sort_by_cached_key(|session| (session.pauses().since.is_none(), session.opened, session.name.id.0));
    let totals = Totals::of(shared, &sessions);
    let detached = |peer: &Peer| {
        let is_detached = |s: &&Arc<SessionHandle>| s.name.peer == peer.name && s.pauses().since.is_some();
        // They come first.
        sessions.iter().take(totals.detached).filter(is_detached).count()
    };
    Json(Status {
        version: FORM_VERSION,
        ferry: crate::VERSION,
        name: config.tunnel.name.to_string(),
        instance: shared.instance.to_string(),
        uptime_seconds: seconds(shared.now().since_origin()),
        draining: shared.draining.is_cancelled(),
        unbound: shared.app_listeners.unbound().into_iter().map(UnboundStatus::of).collect(),
        settings: Settings {
            rotation_every_seconds: seconds(settings.rotation.every),
            resume_window_seconds: seconds(settings.resume.window),
            max_sessions_listed: MAX_SESSIONS,
        },
        peers: config.peers.values().map(|peer| PeerStatus::of(peer, detached(peer))).collect(),
        limits: limits(shared),
        sessions: sessions.iter().take(most).map(|entry| SessionStatus::of(entry)).collect(),
        totals,
    })
}

impl Totals {
    fn of(shared: &Shared, sessions: &[Arc<SessionHandle>]) -> Self {
        let metrics = &shared.metrics;
        let bytes = |direction| metrics.bytes.get_or_create(&ByDirection { direction }).get();
        let rotations = |result| metrics.rotations.get_or_create(&ByRotated { result }).get();
        let key_ages = sessions.iter().filter_map(|entry| Some(entry.link()?.1.established.elapsed().as_secs_f64()));
        Self {
            sessions: sessions.len(),
            detached: sessions.iter().filter(|entry| entry.pauses().since.is_some()).count(),
            buffered: sessions.iter().map(|entry| entry.buffered.load(Ordering::Relaxed)).sum(),
            oldest_key_seconds: key_ages.fold(0.0, f64::max),
            links_open: metrics.links_open.get(),
            sent: bytes(Direction::Sent),
            received: bytes(Direction::Received),
            resumes: metrics.resumes.get(),
            rotations: rotations(Rotated::Done),
            rotations_failed: rotations(Rotated::Failed),
        }
    }
}

impl PeerStatus {
    fn of(peer: &Peer, detached: usize) -> Self {
        let round_trip = peer.round_trip.least();
        Self {
            name: peer.name.to_string(),
            reachable: peer.is_reachable(),
            problem: peer.problem(),
            dialled: peer.is_dialled(),
            round_trip_seconds: (round_trip != Duration::MAX).then(|| seconds(round_trip)),
            choice: peer.chosen().map(ChoiceStatus::of),
            warm: Warm { own: peer.pool.counts().ready, offered: peer.awaiting_hello.load(Ordering::Relaxed) },
            sessions: peer.sessions.load(Ordering::Relaxed),
            detached,
        }
    }
}

impl SessionStatus {
    fn of(entry: &SessionHandle) -> Self {
        let (link, pauses) = (entry.link(), entry.pauses());
        let (sent, received) = entry.bytes();
        let facts = link.as_ref().map(|(_, facts)| facts);
        Self {
            id: entry.name.id.to_string(),
            peer: entry.name.peer.to_string(),
            side: End::of(entry.name.side).as_str(),
            service: entry.service.to_string(),
            attached: link.is_some(),
            epoch: link.as_ref().map_or(0, |(epoch, _)| epoch.0),
            carrier: facts.map(|facts| facts.carrier.as_str()),
            key_exchange: facts.map_or("", |_| key_exchange()),
            cipher: facts.map_or("", |facts| facts.cipher),
            peer_key: facts.map(|facts| facts.key.to_string()).unwrap_or_default(),
            key_age_seconds: facts.map_or(0.0, |facts| facts.established.elapsed().as_secs_f64()),
            age_seconds: entry.opened.elapsed().as_secs_f64(),
            sent,
            received,
            buffered: entry.buffered.load(Ordering::Relaxed),
            load: if entry.is_heavy.load(Ordering::Relaxed) { "heavy" } else { "light" },
            detached_seconds: pauses.since.map(|since| since.elapsed().as_secs_f64()),
            resumes: pauses.count,
            last_pause_seconds: seconds(pauses.last()),
            longest_pause_seconds: seconds(pauses.longest()),
        }
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e6
}
