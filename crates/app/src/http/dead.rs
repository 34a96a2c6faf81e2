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
use super::page::{PageQuery, Wanted, answer, json};
use crate::app::App;
use crate::arrival::{NotRaised, raise};
use crate::message::{Arrival, DeadMessage};

/// A dead message as `/dead` shows it.
#[derive(Debug, Serialize)]
struct DeadRow<'a> {
    #[serde(flatten)]
    arrival: &'a Arrival,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<&'a str>,
    error: &'a str,
    at: &'a str,
}

impl<'a> From<&'a DeadMessage> for DeadRow<'a> {
    fn from(message: &'a DeadMessage) -> Self {
        let DeadMessage { arrival, raw, error, at } = message;
        Self { arrival, raw: raw.as_deref(), error, at }
    }
}

pub(super) async fn dead(
    State(app): State<Arc<App>>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Wanted { after, limit } = Wanted::parse(query)?;
    let (count, messages) = app.output.dead(after.as_deref(), limit)?;
    Ok(answer(count, messages, |message: &DeadMessage| json(&DeadRow::from(message))))
}

pub(super) async fn retry(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    // Not ended by a client that leaves: between hook and output there is no good place to stop.
    let (retrying, raised) = (app.clone(), id.clone());
    let result = app.tasks.spawn(async move { raise(&retrying, &raised).await }).await;
    match result {
        Ok(Ok(())) => Ok(Json(serde_json::json!({"id": id, "delivered": true}))),
        Ok(Err(why)) => Err(why.into()),
        Err(error) => Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

impl From<NotRaised> for ApiError {
    fn from(why: NotRaised) -> Self {
        let status = match &why {
            NotRaised::Unknown(_) => StatusCode::NOT_FOUND,
            NotRaised::UnderWay(_) => StatusCode::CONFLICT,
            NotRaised::Refused(..) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, why.to_string())
    }
}
