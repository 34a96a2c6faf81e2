//! The page at `/`: one file, which asks the other endpoints. It needs no token itself, and knows nothing.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::ApiError;

pub(super) async fn home() -> Result<Response, ApiError> {
    let page = ferry_host::page(include_str!("home.html")).map_err(|error| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("no random numbers for the page: {error}"))
    })?;
    Ok(page.into_response())
}
