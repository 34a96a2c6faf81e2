//! The web-app's endpoints: HTTP, the `/stream` WebSocket of local clients, and `/ws` of the far initiator.

mod accept;
mod access;
mod dead;
mod error;
mod home;
mod meter;
mod output;
mod page;
mod probes;
mod row;
mod several;
mod status;
mod stream;
mod trigger;
mod ws;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post};

use accept::Client;
pub(crate) use accept::serve_connections;
use error::ApiError;

use crate::app::{App, End};

fn router(app: Arc<App>) -> Router {
    let mut router = Router::new()
        .route("/trigger", post(trigger::trigger))
        .route("/output", get(output::output))
        .route("/stream", get(stream::stream))
        .route("/dead", get(dead::dead))
        .route("/dead/{id}/retry", post(dead::retry))
        .route("/status", get(status::status))
        .route("/sites/{*name}", delete(status::forget))
        .route_layer(from_fn_with_state(app.clone(), access::require_token))
        .route("/", get(home::home))
        .route("/openapi.json", get(probes::openapi))
        .route("/livez", get(probes::livez))
        .route("/readyz", get(probes::readyz))
        .route("/metrics", get(probes::metrics));
    if app.end == End::Terminator {
        router = router.route("/ws", get(ws::ws));
    }
    let require_host = from_fn_with_state(app.clone(), access::require_host);
    router.method_not_allowed_fallback(wrong_method).fallback(not_found).layer(require_host).with_state(app)
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let right = match uri.path() {
        path if path.starts_with("/sites/") => "DELETE",
        path if path == "/trigger" || path.ends_with("/retry") => "POST",
        _ => "GET",
    };
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} takes {right}, not {method}", uri.path()))
}

async fn not_found(uri: Uri) -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        format!(
            "there is no {}; try / in a browser, /trigger, /output, /stream, /dead, /status, /openapi.json, /livez, /readyz or /metrics",
            uri.path()
        ),
    )
}

/// Refuses a WebSocket that a web page of another origin opens, even where there is a token: a browser may have stored it.
fn same_origin(headers: &HeaderMap) -> Result<(), ApiError> {
    ferry_host::same_origin(headers).map_err(|error| ApiError::new(StatusCode::FORBIDDEN, error.to_string()))
}
