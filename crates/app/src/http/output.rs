//! `GET /output`: what has arrived.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Serialize;

use super::ApiError;
use super::page::{PageQuery, Wanted};
use crate::app::App;
use crate::message::Arrival;

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
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<OutputPage>, ApiError> {
    let Wanted { after, limit } = Wanted::parse(query)?;
    let page = app.output.page(after.as_deref(), limit)?;
    Ok(Json(OutputPage { count: page.count, results: page.results.into_iter().map(ArrivalRef).collect() }))
}
