//! The page at `/`: one file, which asks `/status` and `/events`.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

pub(super) async fn page() -> Response {
    match ferry_host::page(include_str!("page.html")) {
        Ok(page) => page.into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "no random numbers\n").into_response(),
    }
}

pub(super) async fn protect(mut response: Response) -> Response {
    ferry_host::protect(response.headers_mut());
    response
}
