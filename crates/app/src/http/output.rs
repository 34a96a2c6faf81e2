//! `GET /output`: what has arrived.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;

use super::ApiError;
use super::page::{PageQuery, PageRequest, answer, json};
use super::row::ArrivalRow;
use crate::app::App;
use crate::message::Arrival;

pub(super) async fn output(
    State(app): State<Arc<App>>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let PageRequest { after, limit } = PageRequest::parse(query)?;
    let page = app.output.page(after.as_deref(), limit)?;
    let with_site = app.sites.are_several();
    Ok(answer(page.count, page.results, move |arrival: &Arrival| json(&ArrivalRow::new(arrival, with_site))))
}
