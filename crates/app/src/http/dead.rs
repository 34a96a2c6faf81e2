//! `GET /dead` and `POST /dead/{id}/retry`: messages whose receiving hook kept failing.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::ApiError;
use super::page::{PageQuery, Wanted};
use crate::app::App;
use crate::arrival::{NotRaised, raise};

pub(super) async fn dead(
    State(app): State<Arc<App>>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Wanted { after, limit } = Wanted::parse(query)?;
    let (count, messages) = app.output.dead(after.as_deref(), limit)?;
    let results: Vec<_> = messages
        .iter()
        .map(|message| {
            let mut result = json!(message.arrival);
            result["error"] = json!(message.error);
            result["at"] = json!(message.at);
            result
        })
        .collect();
    Ok(Json(json!({"count": count, "results": results})))
}

pub(super) async fn retry(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    // Not ended by a client that leaves: between hook and output there is no good place to stop.
    let (retrying, raised) = (app.clone(), id.clone());
    let result = app.tasks.spawn(async move { raise(&retrying, &raised).await }).await;
    match result {
        Ok(Ok(())) => Ok(Json(json!({"id": id, "delivered": true}))),
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
