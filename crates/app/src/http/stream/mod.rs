//! `GET /stream`: a WebSocket for a local client that sends many messages, or wants to see them as they come.
//!
//! In: each text frame is a trigger. Out, all JSON text frames: for each trigger, in order, `{"id"}` once it is stored, or
//! `{"error"}` if it cannot be one; `{"id", "delivered", …}` once the far side has it; every result that arrives, as in
//! `/output`; `{"missed": n}` when the output dropped results before this client read them.
//!
//! With `?to=NAME` the triggers are for that site.
//!
//! With `?key=K` the triggers are a series: the first has the idempotency key `K-N`, with N from `?from=`, or else
//! 1, and each further one the next number. A client that has lost its connection continues with the number of the first
//! trigger that it has no answer for; what was stored already is answered by its id, and not stored again.
//!
//! A single task does all of it and waits for the client's socket before anything else, so a client that does not read
//! is not read from either, and takes no memory but for what it has sent.

mod series;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Extension, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use futures_util::{FutureExt, SinkExt, StreamExt};
use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use self::series::{Series, StreamQuery};
use super::row::ArrivalRow;
use super::trigger::{Notice, digest, parse_payload};
use super::{ApiError, Client, same_origin};
use crate::app::App;
use crate::message::MessageId;
use crate::outbox::{IdempotencyKey, MessageHandle, OutboxError, Verdict};
use crate::output::Batch;
use crate::sites::{Site, Target};
use crate::socket::{self, Incoming, Outgoing, PING_INTERVAL, Reader, SILENCE_TIMEOUT, Socket, SocketError, Writer};
use crate::trigger::{KeyGuard, PreparedTrigger, TriggerError, enqueue, find_accepted, lock_key, prepare};

/// Triggers that have not been answered yet.
const MAX_UNANSWERED: usize = 1024;
/// How long a client may take for a large frame, its wait for a share included.
const FRAME_TIMEOUT: Duration = Duration::from_secs(60);
/// Results written at a time.
const MAX_BATCH: usize = 64;

pub(super) async fn stream(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    query: Result<Query<StreamQuery>, QueryRejection>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    same_origin(&headers)?;
    let Query(query) = query.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
    let target = Target::parse(query.to.as_deref()).map_err(TriggerError::from)?;
    if !target.is_one() {
        return Err(ApiError::bad_request(
            "a stream is for one site: ?to= takes one name, and POST /trigger several".into(),
        ));
    }
    let series = Series::from_query(query)?;
    let upgrade = upgrade.map_err(ApiError::not_a_websocket)?;
    // From here on the client sees everything that arrives, also what comes while the upgrade is still under way.
    let position = app.output.end();
    let token = app.tasks.token();
    Ok(socket::limited(upgrade).on_upgrade(async move |socket| {
        serve(&app, &client, socket.into(), position, (series, target)).await;
        drop((token, client));
    }))
}

async fn serve(
    app: &App,
    client: &Client,
    mut socket: Socket,
    position: u64,
    (series, target): (Option<Series>, Target),
) {
    app.metrics.stream_websockets.inc();
    let mut stream = StreamClient::new(app, client, position, series, target);
    let disconnect = tokio::select! {
        disconnect = stream.run(&mut socket) => disconnect,
        () = app.phases.closing.cancelled() => Disconnect::Draining,
    };
    app.metrics.stream_websockets.dec();
    debug!(reason = %disconnect, "stream client left");
    let code = match disconnect {
        Disconnect::Draining | Disconnect::Left => 1001,
        Disconnect::Failed(_) => 1002,
        Disconnect::Silent | Disconnect::Slow => 1008,
    };
    let reason = disconnect.to_string();
    tokio::select! {
        () = socket.close(code, &reason) => {}
        () = app.phases.ended.cancelled() => {}
    }
    stream.wait_until_stored().await;
}

/// The answer that a trigger has yet to get.
struct OwedAnswer<'a> {
    answer: Answer,
    /// Keeps other triggers with this key waiting until this one is stored.
    _guard: Option<KeyGuard<'a>>,
}

enum Answer {
    Accepted(MessageHandle),
    /// The frame with the reason.
    Refused(String),
}

/// A trigger that has passed its hook and is not in the outbox yet.
struct StreamTrigger<'a> {
    site: Arc<Site>,
    prepared: PreparedTrigger,
    key: Option<(IdempotencyKey, KeyGuard<'a>)>,
}

/// Why a client is no longer served.
#[derive(Debug, thiserror::Error)]
enum Disconnect {
    #[error("the web-app is shutting down")]
    Draining,
    #[error("the client left")]
    Left,
    #[error("a frame took longer than {FRAME_TIMEOUT:?}")]
    Slow,
    #[error("{0}")]
    Failed(#[from] SocketError),
    #[error("nothing read or written for {SILENCE_TIMEOUT:?}")]
    Silent,
}

/// One client.
struct StreamClient<'a> {
    app: &'a App,
    client: &'a Client,
    /// How far into the output the client has seen.
    position: u64,
    /// If the client asked for one.
    series: Option<Series>,
    /// Which site its triggers are for.
    target: Target,
    /// Answers to triggers, in their order.
    answers: VecDeque<OwedAnswer<'a>>,
    /// Triggers whose verdict is yet to come. No longer than the outbox, because none is added while one cannot be written.
    pending: VecDeque<(MessageId, MessageHandle)>,
    /// A trigger that waits for room in the outbox; no other is read meanwhile.
    blocked: Option<StreamTrigger<'a>>,
}

enum Event {
    Frame(Option<Result<Incoming, SocketError>>),
    Answered(Result<MessageId, String>),
    Verdict(Verdict),
    Arrived(Batch),
    Room,
    Idle,
    Silent,
    Slow,
}

impl<'a> StreamClient<'a> {
    fn new(app: &'a App, client: &'a Client, position: u64, series: Option<Series>, target: Target) -> Self {
        Self {
            app,
            client,
            position,
            series,
            target,
            answers: VecDeque::new(),
            pending: VecDeque::new(),
            blocked: None,
        }
    }

    async fn run(&mut self, socket: &mut Socket) -> Disconnect {
        let mut heard = Instant::now();
        loop {
            match self.step(socket, &mut heard).await {
                Ok(()) => {}
                Err(disconnect) => return disconnect,
            }
        }
    }

    async fn step(&mut self, socket: &mut Socket, heard: &mut Instant) -> Result<(), Disconnect> {
        let Socket { reader, writer, .. } = socket;
        let idle = Instant::now() + PING_INTERVAL;
        let event = match self.next_event(reader, idle, *heard + SILENCE_TIMEOUT).now_or_never() {
            Some(event) => event,
            None => {
                timeout(self.patience(), writer.flush()).await.map_err(|_| Disconnect::Silent)??;
                self.next_event(reader, idle, *heard + SILENCE_TIMEOUT).await
            }
        };
        match event {
            Event::Frame(frame) => {
                *heard = Instant::now();
                self.on_frame(frame.ok_or(Disconnect::Left)??).await
            }
            Event::Answered(result) => {
                let answered = self.answers.pop_front();
                let answer = match result {
                    Ok(id) => {
                        let answer = json!({"id": id}).to_string();
                        if let Some(OwedAnswer { answer: Answer::Accepted(message), .. }) = answered {
                            self.pending.push_back((id, message));
                        }
                        answer
                    }
                    Err(error) => error,
                };
                feed(writer, self.patience(), Outgoing::Text(answer)).await
            }
            Event::Verdict(verdict) => match self.pending.pop_front() {
                Some((id, _)) => feed(writer, self.patience(), encode(&Notice::new(&id, &verdict))).await,
                None => Ok(()),
            },
            Event::Arrived(batch) => self.write_results(batch, writer).await,
            Event::Room => match self.blocked.take() {
                Some(trigger) => {
                    self.enqueue_or_block(trigger);
                    Ok(())
                }
                None => Ok(()),
            },
            Event::Idle => feed(writer, self.patience(), Outgoing::Ping).await,
            Event::Silent => Err(Disconnect::Silent),
            Event::Slow => Err(Disconnect::Slow),
        }
    }

    /// Every branch is cancel-safe: an event that is not returned is not lost.
    async fn next_event(&mut self, reader: &mut Reader, idle: Instant, silent: Instant) -> Event {
        let Self { app, client, position, answers, pending, blocked, series: _, target: _ } = self;
        let reading = blocked.is_none() && answers.len() < MAX_UNANSWERED;
        let slow = client.meter.large_since().map(|since| since + FRAME_TIMEOUT);
        let answered = async {
            match answers.front_mut().map(|owed| &mut owed.answer) {
                Some(Answer::Accepted(message)) => {
                    message.stored().await.map_err(|error| ApiError::from(TriggerError::from(error)).frame())
                }
                Some(Answer::Refused(error)) => Err(error.clone()),
                None => std::future::pending().await,
            }
        };
        let verdict = async {
            match pending.front_mut() {
                Some((_, message)) => message.verdict().await,
                None => std::future::pending().await,
            }
        };
        let room = async {
            match blocked {
                Some(trigger) => trigger.site.outbox.room(trigger.prepared.bytes()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            frame = reader.next(), if reading => Event::Frame(frame),
            result = answered => Event::Answered(result),
            verdict = verdict => Event::Verdict(verdict),
            batch = app.output.since(*position, MAX_BATCH) => Event::Arrived(batch),
            () = room => Event::Room,
            () = sleep_until(idle) => Event::Idle,
            () = sleep_until(silent), if reading => Event::Silent,
            () = sleep_until(slow.unwrap_or(silent)), if reading && slow.is_some() => Event::Slow,
        }
    }

    /// How long the client may take to read: less while a large frame of its own is under way.
    fn patience(&self) -> Duration {
        if self.client.meter.large_since().is_some() { FRAME_TIMEOUT } else { SILENCE_TIMEOUT }
    }

    async fn on_frame(&mut self, incoming: Incoming) -> Result<(), Disconnect> {
        let text = match incoming {
            Incoming::Alive => return Ok(()),
            Incoming::Closed { .. } => return Err(Disconnect::Left),
            Incoming::Binary => Err(ApiError::bad_request("a trigger is a text frame, not a binary one".into())),
            Incoming::Text(text) => Ok(text),
        };
        let key = self.series.as_mut().map(Series::next_key);
        let answer = match text {
            Ok(text) => self.trigger(text, key).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(Some(trigger)) => self.enqueue_or_block(trigger),
            Ok(None) => self.client.meter.finish_message(),
            Err(error) => self.answer_error(&error),
        }
        Ok(())
    }

    /// Prepares a trigger, unless it was accepted before under its key: then only its answer is owed.
    async fn trigger(&mut self, text: String, key: Option<String>) -> Result<Option<StreamTrigger<'a>>, ApiError> {
        let app = self.app;
        let digest = digest(text.as_bytes());
        let payload = parse_payload(text)?;
        let sites = app.sites.resolve(&self.target).map_err(TriggerError::from)?;
        let site = sites.into_iter().next().ok_or(TriggerError::from(OutboxError::Forgotten))?;
        let key = match key {
            Some(key) => {
                let guard = lock_key(app, &key).await;
                let key = IdempotencyKey { text: key, digest };
                if let Some(message) = find_accepted(app, &site, &key)? {
                    self.answers.push_back(OwedAnswer { answer: Answer::Accepted(message), _guard: None });
                    return Ok(None);
                }
                Some((key, guard))
            }
            None => None,
        };
        let prepared = prepare(app, payload, &BTreeMap::new()).await?;
        Ok(Some(StreamTrigger { site, prepared, key }))
    }

    /// Puts a trigger into the outbox, or blocks the client until there is room: it is slowed down rather than refused.
    fn enqueue_or_block(&mut self, trigger: StreamTrigger<'a>) {
        let outbox = &trigger.site.outbox;
        if !outbox.is_closed() && !outbox.has_room(trigger.prepared.bytes()) {
            self.blocked = Some(trigger);
            return;
        }
        let key = trigger.key.as_ref().map(|(key, _)| key.clone());
        match enqueue(self.app, &trigger.site, &trigger.prepared, key) {
            Ok(message) => {
                self.client.meter.finish_message();
                let guard = trigger.key.map(|(_, guard)| guard);
                self.answers.push_back(OwedAnswer { answer: Answer::Accepted(message), _guard: guard });
            }
            // Another client was faster.
            Err(TriggerError::Outbox(OutboxError::Full)) => self.blocked = Some(trigger),
            Err(error) => self.answer_error(&error.into()),
        }
    }

    fn answer_error(&mut self, error: &ApiError) {
        self.client.meter.finish_message();
        self.answers.push_back(OwedAnswer { answer: Answer::Refused(error.frame()), _guard: None });
    }

    /// Waits until all triggers are stored, so that a retry on another connection finds them by their keys.
    async fn wait_until_stored(self) {
        for mut owed in self.answers {
            if let Answer::Accepted(message) = &mut owed.answer {
                // If storing fails, the client's retry is a new trigger.
                let _ = message.stored().await;
            }
        }
    }

    async fn write_results(&mut self, batch: Batch, writer: &mut Writer) -> Result<(), Disconnect> {
        self.position = batch.end;
        if batch.missed > 0 {
            feed(writer, self.patience(), Outgoing::Text(json!({"missed": batch.missed}).to_string())).await?;
        }
        let with_site = self.app.sites.are_several();
        for arrival in batch.results {
            feed(writer, self.patience(), encode(&ArrivalRow::new(&arrival, with_site))).await?;
        }
        Ok(())
    }
}

/// What is written here was JSON when it came, so this cannot fail; if it did, the client would get the error.
fn encode(frame: &impl serde::Serialize) -> Outgoing {
    let text = serde_json::to_string(frame).unwrap_or_else(|error| json!({"error": error.to_string()}).to_string());
    Outgoing::Text(text)
}

async fn feed(writer: &mut Writer, patience: Duration, item: Outgoing) -> Result<(), Disconnect> {
    Ok(timeout(patience, writer.feed(item)).await.map_err(|_| Disconnect::Silent)??)
}
