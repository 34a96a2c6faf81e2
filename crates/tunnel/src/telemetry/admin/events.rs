//! `/events`: what happened and what happens, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event as Sse, KeepAlive};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt as _};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::Admin;
use super::server::ConnectionEnd;
use crate::shared::Shared;
use crate::telemetry::events::{Batch, Events, FORM_VERSION, Reader};

/// A stream ends in good order this long before its connection does; its reader comes back and misses nothing.
const END_MARGIN: Duration = Duration::from_secs(3);

/// How long a reader waits before it comes back.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// A quiet stream says this often that it is there.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
pub(super) struct Wanted {
    /// As the header `Last-Event-ID`, for clients that cannot set one.
    after: Option<String>,
    /// `0`: only what is new.
    tail: Option<u8>,
}

/// The first event of a stream, which has no id.
#[derive(Serialize)]
struct Hello {
    kind: &'static str,
    version: u32,
    name: String,
    instance: String,
    ferry: &'static str,
}

/// Instead of events that this reader was too slow for.
#[derive(Serialize)]
struct Lost {
    kind: &'static str,
    count: u64,
}

/// One stream of events on its connection.
struct Streaming {
    shared: Arc<Shared>,
    reader: Reader,
    end: Instant,
    _place: OwnedSemaphorePermit,
}

pub(super) async fn events(
    State(admin): State<Admin>,
    Extension(ConnectionEnd(end)): Extension<ConnectionEnd>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Response {
    let Ok(place) = admin.readers.clone().try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many readers of events; try again later\n").into_response();
    };
    let shared = admin.shared;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned).or(wanted.after);
    let reader = match (last.as_deref(), wanted.tail) {
        (None, Some(0)) => shared.events.follow_new(),
        (last, _) => shared.events.follow(last),
    };
    let hello = Hello {
        kind: "hello",
        version: FORM_VERSION,
        name: shared.config().tunnel.name.to_string(),
        instance: shared.instance.to_string(),
        ferry: crate::VERSION,
    };
    let first = json(Sse::default().retry(RETRY_DELAY), &hello);
    let streaming = Streaming { shared, reader, end: end - END_MARGIN, _place: place };
    let batches = stream::unfold(streaming, |mut streaming| async move {
        let batch = streaming.next().await?;
        Some((stream::iter(render(&streaming.shared.events, &batch)), streaming))
    });
    let stream = stream::iter(first).chain(batches.flatten()).map(Ok::<_, Infallible>);
    axum::response::Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE_INTERVAL)).into_response()
}

impl Streaming {
    async fn next(&mut self) -> Option<Batch> {
        tokio::select! {
            biased;
            batch = self.reader.next() => Some(batch),
            // What was told before the stop has been read by now.
            () = self.shared.stopping() => None,
            () = tokio::time::sleep_until(self.end) => None,
        }
    }
}

fn render(events: &Events, batch: &Batch) -> Vec<Sse> {
    let lost = (batch.lost > 0).then(|| json(Sse::default(), &Lost { kind: "lost", count: batch.lost }));
    let told = batch.told.iter().filter_map(|told| json(Sse::default().id(events.id(told)), &**told));
    lost.flatten().into_iter().chain(told).collect()
}

/// Numbers and texts are JSON in any case.
fn json(event: Sse, of: &impl Serialize) -> Option<Sse> {
    event.json_data(of).ok()
}
