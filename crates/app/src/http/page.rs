//! Which part of a list a client asks for.

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use serde::Deserialize;

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
