//! Which part of a list a client asks for.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream::iter;
use serde::{Deserialize, Serialize};

use super::ApiError;

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

#[derive(Debug, Deserialize)]
pub(super) struct PageQuery {
    after: Option<String>,
    limit: Option<String>,
}

/// The part of a list that a client asks for: after which id, and how many.
#[derive(Debug)]
pub(super) struct PageRequest {
    pub(super) after: Option<String>,
    pub(super) limit: usize,
}

impl PageRequest {
    pub(super) fn parse(query: Result<Query<PageQuery>, QueryRejection>) -> Result<Self, ApiError> {
        let Query(PageQuery { after, limit }) =
            query.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
        let limit = match limit.as_deref() {
            None => DEFAULT_LIMIT,
            Some(text) => match text.parse() {
                Ok(limit @ 1..=MAX_LIMIT) => limit,
                _ => {
                    return Err(ApiError::bad_request(format!(
                        "limit={text} cannot be used; give a number from 1 to {MAX_LIMIT}"
                    )));
                }
            },
        };
        Ok(Self { after, limit })
    }
}

/// Answers with a page, encoding a row at a time as the client reads it: a page is never in memory as text.
pub(super) fn answer<T: Send + Sync + 'static>(
    count: usize,
    rows: Vec<Arc<T>>,
    row: impl Fn(&T) -> String + Send + 'static,
) -> Response {
    let start = format!("{{\"count\":{count},\"results\":[");
    let rows = rows.into_iter().enumerate().map(move |(n, kept)| {
        let text = row(&kept);
        if n == 0 { text } else { format!(",{text}") }
    });
    let parts = std::iter::once(start).chain(rows).chain(std::iter::once("]}".to_owned()));
    let body = Body::from_stream(iter(parts.map(|part| Ok::<_, Infallible>(Bytes::from(part)))));
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

/// The JSON of a row. This cannot fail, because what is kept was JSON when it came.
pub(super) fn json(row: &impl Serialize) -> String {
    serde_json::to_string(row).unwrap_or_else(|_| "null".into())
}
