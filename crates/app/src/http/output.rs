//! `GET /output`: what has arrived.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};

use super::ApiError;
use crate::app::App;
use crate::message::Arrival;

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1000;

#[derive(Debug, Deserialize)]
pub(super) struct OutputQuery {
    after: Option<String>,
    limit: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct OutputPage {
    count: usize,
    results: Vec<ArrivalRef>,
}

/// An arrival that the output still holds.
#[derive(Debug)]
struct ArrivalRef(Arc<Arrival>);

impl Serialize for ArrivalRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

pub(super) async fn output(
    State(app): State<Arc<App>>,
    query: Result<Query<OutputQuery>, QueryRejection>,
) -> Result<Json<OutputPage>, ApiError> {
    let Query(query) = query.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
    let limit = match query.limit.as_deref() {
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
    let page = app.output.page(query.after.as_deref(), limit)?;
    Ok(Json(OutputPage { count: page.count, results: page.results.into_iter().map(ArrivalRef).collect() }))
}
