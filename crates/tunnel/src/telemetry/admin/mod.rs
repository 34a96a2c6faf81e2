//! The admin endpoint: probes, metrics, status.

mod server;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::application::listeners::Unbound;
use crate::shared::Shared;
use crate::telemetry::metrics::End;

/// How long a worker may take to get to a task. Probes of the bundle wait for 2 s.
const LIVEZ_TIMEOUT: Duration = Duration::from_millis(1500);
/// Sessions in one answer of `/status`.
const MAX_SESSIONS: usize = 1000;

#[derive(Clone)]
struct Admin {
    shared: Arc<Shared>,
    registry: Arc<Registry>,
}

#[derive(Deserialize)]
struct Ready {
    peers: Option<u8>,
}

#[derive(Serialize)]
struct Status {
    name: String,
    instance: String,
    draining: bool,
    /// Listeners for applications that are not up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unbound: Vec<UnboundStatus>,
    peers: Vec<PeerStatus>,
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

#[derive(Serialize)]
struct PeerStatus {
    name: String,
    reachable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    warm: Warm,
    sessions: usize,
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
    key_exchange: &'static str,
    cipher: &'static str,
    peer_key: String,
    key_age_seconds: f64,
    age_seconds: f64,
    sent: u64,
    received: u64,
}

/// Serves until the tunnel stops.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let mut registry = Registry::default();
    shared.metrics.register(&mut registry);
    let app = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .with_state(Admin { shared: shared.clone(), registry: Arc::new(registry) });
    server::serve(&shared, listener, app, shared.admin_places).await;
}

/// Alive is what carries sessions: this answers on another thread than they are on.
async fn livez(State(admin): State<Admin>) -> Response {
    match admin.shared.workers.respond(LIVEZ_TIMEOUT).await {
        Ok(()) => "ok\n".into_response(),
        Err(stuck) => (StatusCode::SERVICE_UNAVAILABLE, format!("{stuck}\n")).into_response(),
    }
}

/// Local: whether the tunnel's own listeners are up. Only `?peers=1` asks about peers.
async fn readyz(State(admin): State<Admin>, Query(query): Query<Ready>) -> Response {
    let refuse = |reason: String| (StatusCode::SERVICE_UNAVAILABLE, reason + "\n").into_response();
    if admin.shared.draining.is_cancelled() {
        return refuse("draining".to_owned());
    }
    if let Some(Unbound { entry, problem }) = admin.shared.app_listeners.unbound().first() {
        return refuse(format!("egress {} is not served: {problem}", entry.listen));
    }
    if query.peers == Some(1) {
        let config = admin.shared.config();
        let unreachable = config
            .tunnel
            .egress
            .iter()
            .filter_map(|egress| config.peers.get(&egress.peer))
            .find(|peer| !peer.is_reachable());
        if let Some(peer) = unreachable {
            let problem = peer.problem().unwrap_or_else(|| "no link of it has come yet".to_owned());
            return refuse(format!("peer {} is not reachable: {problem}", peer.name));
        }
    }
    "ready\n".into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let warm: usize = admin.shared.config().peers.values().map(|peer| peer.pool.counts().ready).sum();
    let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let metrics = &admin.shared.metrics;
    metrics.links_warm.set(gauge(warm as u64));
    metrics.unauthenticated.set(gauge(admin.shared.lobby.taken() as u64));
    metrics.listeners_down.set(gauge(admin.shared.app_listeners.unbound().len() as u64));
    let sessions = admin.shared.sessions.list(usize::MAX);
    let ages = sessions.iter().filter_map(|entry| Some(entry.link()?.1.established.elapsed().as_secs_f64()));
    metrics.oldest_key.set(ages.fold(0.0, f64::max));
    metrics.key_bytes.set(gauge(sessions.iter().map(|entry| entry.key_bytes()).max().unwrap_or(0)));
    metrics.rotation_delay.set(admin.shared.rotations.delay().as_secs_f64());
    metrics.memory_lent.set(gauge(admin.shared.memory.used()));
    let mut text = String::new();
    match encode(&mut text, &admin.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn status(State(admin): State<Admin>) -> Json<Status> {
    let shared = &admin.shared;
    let config = shared.config();
    let peers = config.peers.values().map(|peer| PeerStatus {
        name: peer.name.to_string(),
        reachable: peer.is_reachable(),
        problem: peer.problem(),
        warm: Warm { own: peer.pool.counts().ready, offered: peer.awaiting_hello.load(Ordering::Relaxed) },
        sessions: peer.sessions.load(Ordering::Relaxed),
    });
    let sessions = shared.sessions.list(MAX_SESSIONS);
    let sessions = sessions.iter().map(|entry| {
        let link = entry.link();
        let (sent, received) = entry.bytes();
        let facts = link.as_ref().map(|(_, facts)| facts);
        SessionStatus {
            id: entry.name.id.to_string(),
            peer: entry.name.peer.to_string(),
            side: End::of(entry.name.side).as_str(),
            service: entry.service.to_string(),
            attached: link.is_some(),
            epoch: link.as_ref().map_or(0, |(epoch, _)| epoch.0),
            key_exchange: facts.map_or("", |facts| facts.key_exchange),
            cipher: facts.map_or("", |facts| facts.cipher),
            peer_key: facts.map(|facts| facts.key.to_string()).unwrap_or_default(),
            key_age_seconds: facts.map_or(0.0, |facts| facts.established.elapsed().as_secs_f64()),
            age_seconds: entry.opened.elapsed().as_secs_f64(),
            sent,
            received,
        }
    });
    Json(Status {
        unbound: shared.app_listeners.unbound().into_iter().map(UnboundStatus::of).collect(),
        name: config.tunnel.name.to_string(),
        instance: shared.instance.to_string(),
        draining: shared.draining.is_cancelled(),
        peers: peers.collect(),
        sessions: sessions.collect(),
    })
}
