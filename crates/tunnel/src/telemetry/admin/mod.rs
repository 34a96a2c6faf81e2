//! The admin endpoint: probes, metrics, status, events.

mod events;
mod page;
mod server;
mod status;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::application::listeners::Unbound;
use crate::shared::Shared;
use crate::telemetry::scrape::Scrape;

/// How long a worker may take to get to a task. Probes of the bundle wait for 2 s.
const LIVEZ_TIMEOUT: Duration = Duration::from_millis(1500);

/// Readers of `/events`; half of the connections are for others in any case.
const MAX_READERS: usize = 16;

#[derive(Clone)]
struct Admin {
    shared: Arc<Shared>,
    scrape: Arc<Scrape>,
    /// Of `/events`.
    readers: Arc<Semaphore>,
}

#[derive(Deserialize)]
struct Ready {
    peers: Option<u8>,
}

/// Serves until the tunnel stops.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let scrape = Arc::new(Scrape::new(shared.clone()));
    let readers = Arc::new(Semaphore::new((shared.admin_places / 2).min(MAX_READERS)));
    let app = Router::new()
        .route("/", get(page::page))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status::status))
        .route("/events", get(events::events))
        .layer(axum::middleware::map_response(page::protect))
        .with_state(Admin { shared: shared.clone(), scrape, readers });
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
    if admin.shared.draining.is_cancelled() || admin.shared.leaving.is_cancelled() {
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
            let problem = peer.problem().unwrap_or_else(|| "it has not connected yet".to_owned());
            return refuse(format!("peer {} is not reachable: {problem}", peer.name));
        }
    }
    "ready\n".into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match admin.scrape.text() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
