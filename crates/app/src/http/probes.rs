//! `/livez`, `/readyz`, `/metrics`, `/openapi.json`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use super::ApiError;
use crate::app::App;
use crate::store::StoreError;
use crate::trigger::TriggerError;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The API as a file for tools. Needs no token: there is no secret in it.
pub(super) async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], include_str!("openapi.json"))
}

/// The runtime responds. A stuck store is a matter of readiness: a restart would not help its disk.
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// Whether this web-app accepts triggers, never whether the far side is connected: while it is away, the outbox keeps what
/// is accepted.
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Result<&'static str, ApiError> {
    if app.phases.draining.is_cancelled() {
        return Err(TriggerError::Draining.into());
    }
    if app.disk_full.load(Ordering::Relaxed) {
        return Err(TriggerError::Store(StoreError::Full).into());
    }
    if let Some(stuck) = app.commit_timer.stuck_for() {
        let what = format!("the store has not answered for {} s: the disk under --data is stuck", stuck.as_secs());
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, what));
    }
    Ok("ok\n")
}

pub(super) async fn metrics(State(app): State<Arc<App>>) -> Result<impl IntoResponse, ApiError> {
    let text =
        app.metrics_text().map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(([(CONTENT_TYPE, OPENMETRICS)], text))
}
