//! `GET /dead` and `POST /dead/{id}/retry`: messages whose receiving hook kept failing.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;

use super::ApiError;
use super::page::{PageQuery, PageRequest, answer, json};
use super::row::ArrivalRow;
use crate::app::App;
use crate::arrival::{self, RetryError};
use crate::message::DeadMessage;

/// A dead message as `/dead` shows it.
#[derive(Debug, Serialize)]
struct DeadRow<'a> {
    #[serde(flatten)]
    arrival: ArrivalRow<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<&'a str>,
    error: &'a str,
    at: &'a str,
}

impl<'a> DeadRow<'a> {
    fn new(message: &'a DeadMessage, with_site: bool) -> Self {
        let DeadMessage { arrival, raw, error, at } = message;
        Self { arrival: ArrivalRow::new(arrival, with_site), raw: raw.as_deref(), error, at }
    }
}

pub(super) async fn dead(
    State(app): State<Arc<App>>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let PageRequest { after, limit } = PageRequest::parse(query)?;
    let (count, messages) = app.output.dead(after.as_deref(), limit)?;
    let with_site = app.sites.are_several();
    Ok(answer(count, messages, move |message: &DeadMessage| json(&DeadRow::new(message, with_site))))
}

pub(super) async fn retry(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    // A task of its own, so that a client that leaves does not cancel the retry between hook and output.
    let (task_app, task_id) = (app.clone(), id.clone());
    let result = app.tasks.spawn(async move { arrival::retry(&task_app, &task_id).await }).await;
    match result {
        Ok(Ok(())) => Ok(Json(serde_json::json!({"id": id, "delivered": true}))),
        Ok(Err(error)) => Err(error.into()),
        Err(error) => Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

impl From<RetryError> for ApiError {
    fn from(error: RetryError) -> Self {
        let status = match &error {
            RetryError::Unknown(_) => StatusCode::NOT_FOUND,
            RetryError::UnderWay(_) => StatusCode::CONFLICT,
            RetryError::Refused(..) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}
