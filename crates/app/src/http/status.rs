//! `GET /status` and `DELETE /sites/{name}`: the sites that this web-app knows.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use tracing::info;

use super::ApiError;
use crate::app::App;
use crate::message::Location;
use crate::peer::PeerName;
use crate::sites::ForgetError;

#[derive(Debug, Serialize)]
pub(super) struct Status {
    sites: Vec<SiteStatus>,
}

#[derive(Debug, Serialize)]
struct SiteStatus {
    /// `None` where the tunnel names no peer.
    site: Option<PeerName>,
    connected: bool,
    /// Where its web-app runs, while it is connected.
    #[serde(flatten)]
    far: Option<Location>,
    outbox: Outbox,
    /// Dead messages of it that are kept.
    dead: usize,
}

#[derive(Debug, Serialize)]
struct Outbox {
    messages: usize,
    bytes: usize,
}

pub(super) async fn status(State(app): State<Arc<App>>) -> Json<Status> {
    let mut dead = app.output.dead_by_site();
    let sites = app.sites.known().into_iter().map(|site| {
        let (far, depth) = (site.far.borrow().clone(), site.outbox.depth());
        SiteStatus {
            site: site.name().cloned(),
            connected: far.is_some(),
            far,
            outbox: Outbox { messages: depth.messages, bytes: depth.bytes },
            dead: dead.remove(&site.name().cloned()).unwrap_or_default(),
        }
    });
    Json(Status { sites: sites.collect() })
}

pub(super) async fn forget(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    let dropped = app.sites.forget(&name).await.map_err(|error| {
        let status = match error {
            ForgetError::Unknown(_) => StatusCode::NOT_FOUND,
            ForgetError::Connected(_) => StatusCode::CONFLICT,
        };
        ApiError::new(status, error.to_string())
    })?;
    app.metrics.forget_site(&name);
    info!(site = name, dropped, "site forgotten");
    Ok(Json(json!({"site": name, "dropped": dropped})))
}
