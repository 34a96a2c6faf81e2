//! `POST /trigger`: one message in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, HttpBody as _};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use ferry_trace::Kind;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::timeout;

use super::several::answer_several;
use super::{ApiError, Client};
use crate::app::App;
use crate::message::MessageId;
use crate::outbox::{IdempotencyKey, MessageHandle, OutboxError, Verdict};
use crate::payload::{MAX_PAYLOAD_BYTES, Payload, PayloadError};
use crate::sites::{Site, Target};
use crate::spans::Step;
use crate::trigger::{Submitted, TriggerError, submit_once, submit_to_all};

/// How long a client may pause within a body: it may hold a share that others wait for.
const BODY_PAUSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take for a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a body that is too large is read before it is refused. Most clients only look for an answer once they
/// have sent everything, and a connection closed under them loses it.
const MAX_DISCARDED_BODY: usize = 16 * MAX_PAYLOAD_BYTES;
const MAX_KEY_LENGTH: usize = 255;
const MAX_WAIT_TIMEOUT: Duration = Duration::from_secs(5 * 60);

#[derive(Debug, Deserialize)]
pub(super) struct TriggerQuery {
    wait: Option<String>,
    to: Option<String>,
}

pub(super) async fn trigger(
    State(app): State<Arc<App>>,
    query: Result<Query<TriggerQuery>, QueryRejection>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let mut shown = hook_headers(&headers);
    let step = Step::of_request(&shown);
    if let Some(step) = &step {
        shown = step.lead(&shown);
    }
    let answer = respond(app, query, &client, &headers, shown, body).await;
    if let Some(step) = step {
        let status = answer.as_ref().map_or_else(ApiError::status, Response::status);
        step.end(Kind::Server, "POST /trigger", |span| {
            span.set("http.request.method", "POST").set("http.route", "/trigger");
            span.set("http.response.status_code", i64::from(status.as_u16()));
            if status.is_server_error() {
                span.fail(status.to_string());
            }
        });
    }
    answer
}

/// Takes a trigger. `shown` are the headers as its hook sees them.
async fn respond(
    app: Arc<App>,
    query: Result<Query<TriggerQuery>, QueryRejection>,
    client: &Client,
    headers: &HeaderMap,
    shown: BTreeMap<String, String>,
    body: Body,
) -> Result<Response, ApiError> {
    let body = timeout(BODY_TIMEOUT, read_body(body, client)).await.map_err(|_| too_slow(client))??;
    let Query(query) = query.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
    let wait = query.wait.as_deref().map(parse_wait).transpose()?;
    if !is_json(headers) {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "a trigger is JSON; send it with the header content-type: application/json".into(),
        ));
    }
    let key = idempotency_key(headers)?.map(|text| IdempotencyKey { text, digest: digest(&body) });
    let target = Target::parse(query.to.as_deref()).map_err(TriggerError::from)?;
    let payload = parse_payload(body)?;
    let sites = app.sites.resolve(&target).map_err(TriggerError::from)?;
    let submitted = match key {
        None => submit_to_all(&app, sites, payload, &shown).await?,
        Some(key) => submit_detached(&app, sites, payload, shown, key).await?,
    };
    if !target.is_one() {
        return answer_several(&app, client, submitted, wait).await;
    }
    match submitted.into_iter().next() {
        Some((_, message)) => answer_one(&app, client, message?, wait).await,
        None => Err(TriggerError::from(OutboxError::Forgotten).into()),
    }
}

/// The answer to a trigger for one site.
async fn answer_one(
    app: &App,
    client: &Client,
    mut message: MessageHandle,
    wait: Option<Duration>,
) -> Result<Response, ApiError> {
    let id = message.stored().await.map_err(TriggerError::from)?;
    // From here on the outbox bounds it.
    client.meter.finish_message();
    let verdict = async {
        match wait {
            Some(wait) => timeout(wait, message.verdict()).await.ok(),
            None => None,
        }
    };
    let verdict = tokio::select! {
        verdict = verdict => verdict,
        () = app.phases.closing.cancelled() => None,
    };
    Ok(match verdict {
        None => (StatusCode::ACCEPTED, Json(json!({"id": id}))).into_response(),
        Some(verdict) => {
            let status = match &verdict {
                Verdict::Delivered(_) => StatusCode::OK,
                // A client must not retry by itself: the same message would be refused again.
                Verdict::Dead(_) => StatusCode::FAILED_DEPENDENCY,
            };
            (status, Json(Notice::new(&id, &verdict))).into_response()
        }
    })
}

/// Submits a trigger with an idempotency key, in a task of its own so that a client that leaves does not cancel it.
async fn submit_detached(
    app: &Arc<App>,
    sites: Vec<Arc<Site>>,
    payload: Payload,
    headers: BTreeMap<String, String>,
    key: IdempotencyKey,
) -> Result<Submitted, ApiError> {
    let task_app = app.clone();
    let task = app.tasks.spawn(async move { submit_once(&task_app, sites, payload, &headers, key).await });
    match task.await {
        Ok(result) => Ok(result?),
        Err(error) => Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

/// What became of a message, as `?wait=` and `/stream` report it.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Notice<'a> {
    Delivered { id: &'a MessageId, delivered: bool, reply: Option<&'a Payload> },
    Dead { id: &'a MessageId, delivered: bool, error: &'a str },
}

impl<'a> Notice<'a> {
    pub(super) fn new(id: &'a MessageId, verdict: &'a Verdict) -> Self {
        match verdict {
            Verdict::Delivered(reply) => Self::Delivered { id, delivered: true, reply: reply.as_ref() },
            Verdict::Dead(error) => Self::Dead { id, delivered: false, error },
        }
    }
}

/// Reads a payload, and explains what it should have been.
pub(super) fn parse_payload(text: impl Into<Vec<u8>>) -> Result<Payload, ApiError> {
    Payload::parse(text).map_err(|error| match error {
        PayloadError::TooLarge(_) => too_large(),
        found => ApiError::bad_request(format!("a trigger is a JSON object such as {{\"n\": 1}}, but this is {found}")),
    })
}

async fn read_body(body: Body, client: &Client) -> Result<Vec<u8>, ApiError> {
    let announced = body.size_hint().upper().and_then(|length| usize::try_from(length).ok());
    let largest = announced.unwrap_or(MAX_PAYLOAD_BYTES).min(MAX_PAYLOAD_BYTES);
    let mut stream = body.into_data_stream();
    let (mut bytes, mut length) = (Vec::new(), 0);
    loop {
        let chunk = match timeout(BODY_PAUSE_TIMEOUT, stream.next()).await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(_) if client.meter.waits() => continue,
            Err(_) => return Err(too_slow(client)),
        };
        let chunk = chunk.map_err(|error| ApiError::bad_request(format!("the body ended early: {error}")))?;
        length += chunk.len();
        if length > MAX_DISCARDED_BODY {
            break;
        }
        match length {
            0..=MAX_PAYLOAD_BYTES => {
                // A buffer that grows by itself takes up to three times this.
                if bytes.capacity() < length && client.meter.has_share() {
                    bytes.reserve_exact(largest.max(length) - bytes.len());
                }
                bytes.extend_from_slice(&chunk);
            }
            _ => bytes = Vec::new(),
        }
    }
    if length > MAX_PAYLOAD_BYTES { Err(too_large()) } else { Ok(bytes) }
}

fn too_slow(client: &Client) -> ApiError {
    if client.meter.waits() {
        let busy = "too many large triggers are under way; try again";
        return ApiError::new(StatusCode::SERVICE_UNAVAILABLE, busy.into());
    }
    ApiError::new(
        StatusCode::REQUEST_TIMEOUT,
        format!("the body took longer than {BODY_TIMEOUT:?}, or paused for longer than {BODY_PAUSE_TIMEOUT:?}"),
    )
}

fn too_large() -> ApiError {
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("a trigger has at most {MAX_PAYLOAD_BYTES} bytes; send less at a time"),
    )
}

fn parse_wait(text: &str) -> Result<Duration, ApiError> {
    ferry_units::parse_duration(text).filter(|wait| *wait <= MAX_WAIT_TIMEOUT).ok_or_else(|| {
        let most = ferry_units::render_duration(MAX_WAIT_TIMEOUT);
        ApiError::bad_request(format!("wait={text} cannot be used; give a time such as 500ms or 5s, at most {most}"))
    })
}

/// The header that makes a retry harmless; with or without the quotes that its draft standard asks for.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let key = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    match key.len() {
        1..=MAX_KEY_LENGTH => Ok(Some(key.to_owned())),
        _ => Err(ApiError::bad_request(format!(
            "an idempotency-key is 1 to {MAX_KEY_LENGTH} characters of visible ASCII"
        ))),
    }
}

/// Tells one body from another. Not for security: who can send a trigger can choose its key.
pub(super) fn digest(body: &[u8]) -> u64 {
    // FNV-1a: short, and the same in every version.
    body.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let media = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media == "application/json" || (media.starts_with("application/") && media.ends_with("+json"))
}

/// The headers that the hook sees: names in lower case, several of one name joined as RFC 9110 5.3 allows.
fn hook_headers(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut map = BTreeMap::<String, String>::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        map.entry(name.as_str().to_owned())
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(&value);
            })
            .or_insert_with(|| value.to_string());
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_read_with_their_unit_and_bounded() {
        assert_eq!(parse_wait("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(parse_wait("5s").unwrap(), Duration::from_secs(5));
        assert_eq!(parse_wait("5").unwrap(), Duration::from_secs(5));
        assert_eq!(parse_wait("1.5s").unwrap(), Duration::from_millis(1500));
        assert_eq!(parse_wait("5m").unwrap(), MAX_WAIT_TIMEOUT);
        for wrong in ["", "s", "-1s", "6m", "301s", "5h", "1M", "99999999999s"] {
            assert_eq!(parse_wait(wrong).unwrap_err().status(), StatusCode::BAD_REQUEST, "{wrong:?}");
        }
    }

    #[test]
    fn a_hook_sees_lower_case_headers_and_every_value() {
        let mut headers = HeaderMap::new();
        headers.append("X-Tag", "a".parse().unwrap());
        headers.append("x-tag", "b".parse().unwrap());
        assert_eq!(hook_headers(&headers), BTreeMap::from([("x-tag".to_owned(), "a, b".to_owned())]));
    }
}
