//! The web-app as its local clients see it: HTTP and the `/stream` WebSocket.

mod accept;
mod dead;
mod error;
mod output;
mod page;
mod probes;
mod stream;
mod trigger;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};

pub(crate) use accept::{Client, accept};
pub(crate) use error::ApiError;

use crate::app::{App, End};
use crate::terminator;

fn router(app: Arc<App>) -> Router {
    let mut router = Router::new()
        .route("/trigger", post(trigger::trigger))
        .route("/output", get(output::output))
        .route("/stream", get(stream::stream))
        .route("/dead", get(dead::dead))
        .route("/dead/{id}/retry", post(dead::retry))
        .route_layer(from_fn_with_state(app.clone(), authorize))
        .route("/livez", get(probes::livez))
        .route("/readyz", get(probes::readyz))
        .route("/metrics", get(probes::metrics));
    if app.end == End::Terminator {
        router = router.route("/ws", get(terminator::ws));
    }
    router.method_not_allowed_fallback(wrong_method).fallback(not_found).with_state(app)
}

/// Lets in who presents the token, where one is asked for. Probes, metrics and `/ws` have no use for it.
async fn authorize(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, ApiError> {
    let presented = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
    match &app.token {
        Some(token) if !token.is_presented(presented) => Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "the token is missing or wrong; send it as `Authorization: Bearer TOKEN`".into(),
        )),
        _ => Ok(next.run(request).await),
    }
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let right = if uri.path() == "/trigger" || uri.path().ends_with("/retry") { "POST" } else { "GET" };
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} takes {right}, not {method}", uri.path()))
}

async fn not_found(uri: Uri) -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        format!("there is no {}; try /trigger, /output, /stream, /dead, /livez, /readyz or /metrics", uri.path()),
    )
}

/// Refuses a WebSocket that a foreign web page opens in a browser on this machine: browsers let pages connect anywhere,
/// and say where the page is from.
pub(crate) fn same_origin(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let page = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    if page.is_some() && page == host {
        return Ok(());
    }
    Err(ApiError::new(StatusCode::FORBIDDEN, "a web page from another origin may not connect here".into()))
}
