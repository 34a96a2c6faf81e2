//! `GET /stream`: a WebSocket for a local client that sends many messages, or wants to see them as they come.
//!
//! In: each text frame is a trigger. Out, all JSON text frames: for each trigger, in order, `{"id"}` once it is stored, or
//! `{"error"}` if it cannot be one; `{"id", "delivered", …}` once the far side has it; every result that arrives, as in
//! `/output`; `{"missed": n}` when the output dropped results before this client read them.
//!
//! With `?key=K` the triggers are a series: the first has the idempotency key `K-N`, with N from `?from=`, or else 1, and each further
//! one the next number. A client that has lost its connection goes on with the number of the first trigger that it
//! knows nothing of; what was stored already is answered by its id, and not stored again.
//!
//! One task does it all and waits for the client's socket before anything else, so a client that does not read is not
//! read from either, and costs no memory but what it has sent.

use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Extension, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use futures_util::{FutureExt, SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::trigger::{Notice, digest, parse_payload};
use super::{ApiError, Client, same_origin};
use crate::app::{App, Prepared, TriggerError, Turn};
use crate::message::MessageId;
use crate::outbox::{Accepted, GivenKey, Verdict};
use crate::output::Batch;
use crate::socket::{self, Incoming, Outgoing, PING_EVERY, Reader, SILENCE_MAX, Socket, SocketError, Writer};

/// Triggers that have not been answered yet.
const MAX_OWED: usize = 1024;
/// The name of a series, in characters.
const MAX_SERIES_NAME: usize = 200;
/// How long a client may take for a large frame, its wait for room included.
const FRAME_TIMEOUT: Duration = Duration::from_secs(60);
/// Results written at a time.
const BATCH: usize = 64;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamQuery {
    key: Option<String>,
    from: Option<u64>,
}

pub(super) async fn stream(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    query: Result<Query<StreamQuery>, QueryRejection>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    same_origin(&headers)?;
    let Query(query) = query.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
    let series = Series::from_query(query)?;
    let upgrade = upgrade.map_err(ApiError::not_a_websocket)?;
    // From here on the client sees everything that arrives, also what comes while the upgrade is still under way.
    let position = app.output.end();
    let token = app.tasks.token();
    Ok(socket::limited(upgrade).on_upgrade(async move |socket| {
        serve(&app, &client, socket.into(), position, series).await;
        drop((token, client));
    }))
}

async fn serve(app: &App, client: &Client, mut socket: Socket, position: u64, series: Option<Series>) {
    app.metrics.stream_websockets.inc();
    let mut desk = Desk { app, client, position, series, owed: VecDeque::new(), pending: VecDeque::new(), held: None };
    let parting = tokio::select! {
        parting = desk.run(&mut socket) => parting,
        () = app.phases.closing.cancelled() => Parting::Draining,
    };
    app.metrics.stream_websockets.dec();
    debug!(%parting, "stream client left");
    let code = match parting {
        Parting::Draining | Parting::Left => 1001,
        Parting::Failed(_) => 1002,
        Parting::Silent | Parting::Slow => 1008,
    };
    let reason = parting.to_string();
    tokio::select! {
        () = socket.close(code, &reason) => {}
        () = app.phases.ended.cancelled() => {}
    }
    desk.leave().await;
}

/// A numbered series of triggers that can continue on another connection.
struct Series {
    key: String,
    /// The number of the next trigger.
    next: u64,
}

impl Series {
    fn from_query(StreamQuery { key, from }: StreamQuery) -> Result<Option<Self>, ApiError> {
        let is_fit = |key: &String| {
            (1..=MAX_SERIES_NAME).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
        };
        match (key, from) {
            (Some(key), from) if is_fit(&key) => Ok(Some(Self { key, next: from.unwrap_or(1) })),
            (None, None) => Ok(None),
            _ => Err(ApiError::bad_request(format!(
                "?key= is the name of a series of triggers, 1 to {MAX_SERIES_NAME} characters of visible ASCII, and ?from= the \
                 number in it of the first one"
            ))),
        }
    }

    /// The idempotency key of the next trigger.
    fn next_key(&mut self) -> String {
        let key = format!("{}-{}", self.key, self.next);
        self.next += 1;
        key
    }
}

/// The answer owed for a trigger.
struct Owed<'a> {
    answer: Answer,
    /// Keeps other triggers with this key waiting until this one is stored.
    _turn: Option<Turn<'a>>,
}

enum Answer {
    Accepted(Accepted),
    /// The frame with the reason.
    Refused(String),
}

/// A trigger that has passed its hook and is not in the outbox yet.
struct Waiting<'a> {
    prepared: Prepared,
    key: Option<(GivenKey, Turn<'a>)>,
}

/// Why a stream client is no longer served.
#[derive(Debug, thiserror::Error)]
enum Parting {
    #[error("the web-app is shutting down")]
    Draining,
    #[error("the client left")]
    Left,
    #[error("a frame took longer than {FRAME_TIMEOUT:?}")]
    Slow,
    #[error("{0}")]
    Failed(#[from] SocketError),
    #[error("nothing read or written for {SILENCE_MAX:?}")]
    Silent,
}

/// One client's state.
struct Desk<'a> {
    app: &'a App,
    client: &'a Client,
    /// How far into the output the client has seen.
    position: u64,
    /// If the client asked for one.
    series: Option<Series>,
    /// Answers to triggers, in their order.
    owed: VecDeque<Owed<'a>>,
    /// Triggers whose notice is owed. No longer than the outbox, because none is added while one cannot be written.
    pending: VecDeque<(MessageId, Accepted)>,
    /// A trigger that waits for room in the outbox; no other is read meanwhile.
    held: Option<Waiting<'a>>,
}

enum Event {
    Frame(Option<Result<Incoming, SocketError>>),
    Answered(Result<MessageId, String>),
    Settled(Verdict),
    Arrived(Batch),
    Room,
    Idle,
    Silent,
    Slow,
}

impl<'a> Desk<'a> {
    async fn run(&mut self, socket: &mut Socket) -> Parting {
        let mut heard = Instant::now();
        loop {
            match self.step(socket, &mut heard).await {
                Ok(()) => {}
                Err(parting) => return parting,
            }
        }
    }

    async fn step(&mut self, socket: &mut Socket, heard: &mut Instant) -> Result<(), Parting> {
        let Socket { reader, writer } = socket;
        let idle = Instant::now() + PING_EVERY;
        let event = match self.next_event(reader, idle, *heard + SILENCE_MAX).now_or_never() {
            Some(event) => event,
            None => {
                timeout(self.patience(), writer.flush()).await.map_err(|_| Parting::Silent)??;
                self.next_event(reader, idle, *heard + SILENCE_MAX).await
            }
        };
        match event {
            Event::Frame(frame) => {
                *heard = Instant::now();
                self.take(frame.ok_or(Parting::Left)??).await
            }
            Event::Answered(result) => {
                let owed = self.owed.pop_front();
                let answer = match result {
                    Ok(id) => {
                        let answer = json!({"id": id}).to_string();
                        if let Some(Owed { answer: Answer::Accepted(accepted), .. }) = owed {
                            self.pending.push_back((id, accepted));
                        }
                        answer
                    }
                    Err(error) => error,
                };
                feed(writer, self.patience(), Outgoing::Text(answer)).await
            }
            Event::Settled(verdict) => match self.pending.pop_front() {
                Some((id, _)) => feed(writer, self.patience(), text(&Notice::new(&id, &verdict))).await,
                None => Ok(()),
            },
            Event::Arrived(batch) => self.show(batch, writer).await,
            Event::Room => match self.held.take() {
                Some(waiting) => {
                    self.accept(waiting);
                    Ok(())
                }
                None => Ok(()),
            },
            Event::Idle => feed(writer, self.patience(), Outgoing::Ping).await,
            Event::Silent => Err(Parting::Silent),
            Event::Slow => Err(Parting::Slow),
        }
    }

    /// Every branch is cancel-safe: an event that is not returned is not lost.
    async fn next_event(&mut self, reader: &mut Reader, idle: Instant, silent: Instant) -> Event {
        let Self { app, client, position, owed, pending: settling, held, series: _ } = self;
        let reading = held.is_none() && owed.len() < MAX_OWED;
        let slow = client.meter.large_since().map(|since| since + FRAME_TIMEOUT);
        let answered = async {
            match owed.front_mut().map(|owed| &mut owed.answer) {
                Some(Answer::Accepted(accepted)) => {
                    accepted.stored().await.map_err(|error| ApiError::from(TriggerError::from(error)).frame())
                }
                Some(Answer::Refused(error)) => Err(error.clone()),
                None => pending().await,
            }
        };
        let settled = async {
            match settling.front_mut() {
                Some((_, accepted)) => accepted.verdict().await,
                None => pending().await,
            }
        };
        let room = async {
            match held {
                Some(waiting) => app.outbox.room(waiting.prepared.bytes()).await,
                None => pending().await,
            }
        };
        tokio::select! {
            frame = reader.next(), if reading => Event::Frame(frame),
            result = answered => Event::Answered(result),
            verdict = settled => Event::Settled(verdict),
            batch = app.output.since(*position, BATCH) => Event::Arrived(batch),
            () = room => Event::Room,
            () = sleep_until(idle) => Event::Idle,
            () = sleep_until(silent), if reading => Event::Silent,
            () = sleep_until(slow.unwrap_or(silent)), if reading && slow.is_some() => Event::Slow,
        }
    }

    /// How long the client may take to read: less while a large frame of its own is under way.
    fn patience(&self) -> Duration {
        if self.client.meter.large_since().is_some() { FRAME_TIMEOUT } else { SILENCE_MAX }
    }

    /// Takes what the client sent.
    async fn take(&mut self, incoming: Incoming) -> Result<(), Parting> {
        let text = match incoming {
            Incoming::Alive => return Ok(()),
            Incoming::Closed { .. } => return Err(Parting::Left),
            Incoming::Binary => Err(ApiError::bad_request("a trigger is a text frame, not a binary one".into())),
            Incoming::Text(text) => Ok(text),
        };
        let key = self.series.as_mut().map(Series::next_key);
        let answer = match text {
            Ok(text) => self.trigger(text, key).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(Some(waiting)) => self.accept(waiting),
            Ok(None) => self.client.meter.settle(),
            Err(error) => self.refuse(&error),
        }
        Ok(())
    }

    /// Prepares a trigger, unless it is known by its key: then its answer is owed already.
    async fn trigger(&mut self, text: String, key: Option<String>) -> Result<Option<Waiting<'a>>, ApiError> {
        let app = self.app;
        let digest = digest(text.as_bytes());
        let payload = parse_payload(text)?;
        let key = match key {
            Some(key) => {
                let turn = app.turn(&key).await;
                let key = (key, digest);
                if let Some(accepted) = app.known(&key)? {
                    self.owed.push_back(Owed { answer: Answer::Accepted(accepted), _turn: None });
                    return Ok(None);
                }
                Some((key, turn))
            }
            None => None,
        };
        let prepared = app.prepare(payload, &BTreeMap::new()).await?;
        Ok(Some(Waiting { prepared, key }))
    }

    /// Puts a trigger into the outbox, or holds it until there is room: the client is slowed, and nothing is refused.
    fn accept(&mut self, waiting: Waiting<'a>) {
        if !self.app.outbox.has_room(waiting.prepared.bytes()) {
            self.held = Some(waiting);
            return;
        }
        let key = waiting.key.as_ref().map(|(key, _)| key.clone());
        match self.app.accept(&waiting.prepared, key) {
            Ok(accepted) => {
                self.client.meter.settle();
                let turn = waiting.key.map(|(_, turn)| turn);
                self.owed.push_back(Owed { answer: Answer::Accepted(accepted), _turn: turn });
            }
            // Another client was faster.
            Err(TriggerError::Full(_)) => self.held = Some(waiting),
            Err(error) => self.refuse(&error.into()),
        }
    }

    fn refuse(&mut self, error: &ApiError) {
        self.client.meter.settle();
        self.owed.push_back(Owed { answer: Answer::Refused(error.frame()), _turn: None });
    }

    /// Waits until all triggers are stored, so that a retry on another connection finds them by their keys.
    async fn leave(self) {
        for mut owed in self.owed {
            if let Answer::Accepted(accepted) = &mut owed.answer {
                // If storing failed, a retry starts over.
                let _ = accepted.stored().await;
            }
        }
    }

    async fn show(&mut self, batch: Batch, writer: &mut Writer) -> Result<(), Parting> {
        self.position = batch.end;
        if batch.missed > 0 {
            feed(writer, self.patience(), Outgoing::Text(json!({"missed": batch.missed}).to_string())).await?;
        }
        for arrival in batch.results {
            feed(writer, self.patience(), text(&*arrival)).await?;
        }
        Ok(())
    }
}

/// What is written here was JSON when it came, so this cannot fail; if it did, the client would be told.
fn text(frame: &impl serde::Serialize) -> Outgoing {
    let text = serde_json::to_string(frame).unwrap_or_else(|error| json!({"error": error.to_string()}).to_string());
    Outgoing::Text(text)
}

async fn feed(writer: &mut Writer, patience: Duration, item: Outgoing) -> Result<(), Parting> {
    Ok(timeout(patience, writer.feed(item)).await.map_err(|_| Parting::Silent)??)
}
