//! The answer to a trigger for several sites: what became of it at each.

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::trigger::Notice;
use super::{ApiError, Client};
use crate::app::App;
use crate::message::MessageId;
use crate::outbox::{MessageHandle, Verdict};
use crate::peer::PeerName;
use crate::trigger::{Submitted, TriggerError};

/// One of the messages.
#[derive(Debug, Serialize)]
struct Row<'a> {
    to: Option<&'a PeerName>,
    #[serde(flatten)]
    outcome: Outcome<'a>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Outcome<'a> {
    Accepted { id: &'a MessageId },
    Known(Notice<'a>),
    Refused { error: &'a str },
}

/// Answers 200 if all of them are delivered, 202 if all of them are accepted, 424 if some are dead, 207 if some were not
/// accepted; if none was, as for one.
pub(super) async fn answer_several(
    app: &App,
    client: &Client,
    submitted: Submitted,
    wait: Option<Duration>,
) -> Result<Response, ApiError> {
    let mut stored = join_all(submitted.into_iter().map(async |(site, result)| {
        let stored = match result {
            Ok(mut message) => message.stored().await.map(|id| (id, message)).map_err(TriggerError::from),
            Err(error) => Err(error),
        };
        (site, stored)
    }))
    .await;
    client.meter.finish_message();
    if stored.iter().all(|(_, stored)| stored.is_err())
        && let Some((_, Err(error))) = stored.pop()
    {
        return Err(error.into());
    }
    let verdicts = join_all(stored.iter_mut().map(|(_, stored)| verdict(app, stored, wait))).await;
    let refused: Vec<Option<String>> =
        stored.iter().map(|(_, stored)| stored.as_ref().err().map(ToString::to_string)).collect();
    let rows: Vec<_> = stored
        .iter()
        .zip(&verdicts)
        .zip(&refused)
        .map(|(((site, stored), verdict), refused)| {
            let outcome = match (stored, verdict, refused) {
                (Ok((id, _)), Some(verdict), _) => Outcome::Known(Notice::new(id, verdict)),
                (Ok((id, _)), None, _) => Outcome::Accepted { id },
                (Err(_), _, refused) => Outcome::Refused { error: refused.as_deref().unwrap_or_default() },
            };
            Row { to: site.name(), outcome }
        })
        .collect();
    let is_dead = |verdict: &Option<Verdict>| matches!(verdict, Some(Verdict::Dead(_)));
    let status = match () {
        () if refused.iter().any(Option::is_some) => StatusCode::MULTI_STATUS,
        () if verdicts.iter().any(is_dead) => StatusCode::FAILED_DEPENDENCY,
        () if verdicts.iter().all(Option::is_some) => StatusCode::OK,
        () => StatusCode::ACCEPTED,
    };
    Ok((status, Json(json!({"messages": rows}))).into_response())
}

/// Waits for what becomes of a message, if that is asked for.
async fn verdict(
    app: &App,
    stored: &mut Result<(MessageId, MessageHandle), TriggerError>,
    wait: Option<Duration>,
) -> Option<Verdict> {
    let ((_, message), wait) = (stored.as_mut().ok()?, wait?);
    tokio::select! {
        verdict = timeout_at(Instant::now() + wait, message.verdict()) => verdict.ok(),
        () = app.phases.closing.cancelled() => None,
    }
}
