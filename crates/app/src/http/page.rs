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

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1000;

#[derive(Debug, Deserialize)]
pub(super) struct PageQuery {
    after: Option<String>,
    limit: Option<String>,
}

/// The id after which the page begins, and the most that it holds.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) after: Option<String>,
    pub(super) limit: usize,
}

impl Wanted {
    pub(super) fn parse(query: Result<Query<PageQuery>, QueryRejection>) -> Result<Self, ApiError> {
        let Query(PageQuery { after, limit }) =
            query.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
        let limit = match limit.as_deref() {
            None => LIMIT_DEFAULT,
            Some(text) => match text.parse() {
                Ok(limit @ 1..=LIMIT_MAX) => limit,
                _ => {
                    return Err(ApiError::bad_request(format!(
                        "limit={text} cannot be used; give a number from 1 to {LIMIT_MAX}"
                    )));
                }
            },
        };
        Ok(Self { after, limit })
    }
}

/// Answers with a page, a row at a time as the client takes it: a page is never in memory as text.
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

/// The JSON of a row. What is kept was JSON when it came, so this cannot fail.
pub(super) fn json(row: &impl Serialize) -> String {
    serde_json::to_string(row).unwrap_or_else(|_| "null".into())
}
