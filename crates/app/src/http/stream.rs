//! `GET /stream`: a WebSocket for a local client that sends many messages, or wants to see them as they come.
//!
//! In: each text frame is a trigger. Out, all JSON text frames: `{"id"}` for each trigger once it is stored, in order;
//! `{"id", "delivered", …}` once the far side has it; every result that arrives, as in `/output`; `{"error"}` for a
//! frame that cannot be a trigger; `{"missed": n}` when the output dropped results before this client read them.
//!
//! One task does it all and waits for the client's socket before anything else, so a client that does not read is not
//! read from either, and costs no memory but what it has sent.

use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::Response;
use futures_util::{FutureExt, SinkExt, StreamExt};
use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::trigger::{notice, parse_payload};
use super::{ApiError, Client, same_origin};
use crate::app::{App, Prepared, TriggerError};
use crate::message::MessageId;
use crate::outbox::{Accepted, Verdict};
use crate::output::Batch;
use crate::socket::{self, Incoming, Outgoing, PING_EVERY, Reader, SILENCE_MAX, Socket, SocketError, Writer};
use crate::store::StoreError;

/// Triggers taken and not yet stored.
const UNSTORED_MAX: usize = 1024;
/// Results written at a time.
const BATCH: usize = 64;

pub(super) async fn stream(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    same_origin(&headers)?;
    let upgrade = upgrade.map_err(ApiError::not_a_websocket)?;
    // From here on the client sees everything that arrives, also what comes while the upgrade is still under way.
    let position = app.output.end();
    let token = app.tasks.token();
    Ok(socket::limited(upgrade).on_upgrade(async move |socket| {
        serve(&app, socket.into(), position).await;
        drop((token, client));
    }))
}

async fn serve(app: &App, mut socket: Socket, position: u64) {
    app.metrics.stream_websockets.inc();
    let mut desk = Desk { app, position, unstored: VecDeque::new(), pending: VecDeque::new(), held: None };
    let parting = tokio::select! {
        parting = desk.run(&mut socket) => parting,
        () = app.phases.closing.cancelled() => Parting::Draining,
    };
    drop(desk);
    app.metrics.stream_websockets.dec();
    debug!(%parting, "stream client left");
    let code = match parting {
        Parting::Draining | Parting::Left => 1001,
        Parting::Failed(_) => 1002,
        Parting::Silent => 1008,
    };
    let reason = parting.to_string();
    tokio::select! {
        () = socket.close(code, &reason) => {}
        () = app.phases.ended.cancelled() => {}
    }
}

/// Why a stream client is no longer served.
#[derive(Debug, thiserror::Error)]
enum Parting {
    #[error("the web-app is shutting down")]
    Draining,
    #[error("the client left")]
    Left,
    #[error("{0}")]
    Failed(#[from] SocketError),
    #[error("nothing read or written for {SILENCE_MAX:?}")]
    Silent,
}

/// One client's state.
struct Desk<'a> {
    app: &'a App,
    /// How far into the output the client has seen.
    position: u64,
    /// Triggers whose id is owed.
    unstored: VecDeque<Accepted>,
    /// Triggers whose notice is owed. No longer than the outbox, because none is added while one cannot be written.
    pending: VecDeque<(MessageId, Accepted)>,
    /// A trigger that waits for room in the outbox; no other is read meanwhile.
    held: Option<Prepared>,
}

enum Event {
    Frame(Option<Result<Incoming, SocketError>>),
    Stored(Result<MessageId, StoreError>),
    Settled(Verdict),
    Arrived(Batch),
    Room,
    Idle,
    Silent,
}

impl Desk<'_> {
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
                timeout(SILENCE_MAX, writer.flush()).await.map_err(|_| Parting::Silent)??;
                self.next_event(reader, idle, *heard + SILENCE_MAX).await
            }
        };
        match event {
            Event::Frame(frame) => {
                *heard = Instant::now();
                self.take(frame.ok_or(Parting::Left)??, writer).await
            }
            Event::Stored(result) => {
                let accepted = self.unstored.pop_front();
                let answer = match result {
                    Ok(id) => {
                        let answer = json!({"id": id}).to_string();
                        self.pending.extend(accepted.map(|accepted| (id, accepted)));
                        answer
                    }
                    Err(error) => ApiError::from(TriggerError::from(error)).frame(),
                };
                feed(writer, Outgoing::Text(answer)).await
            }
            Event::Settled(verdict) => match self.pending.pop_front() {
                Some((id, _)) => feed(writer, Outgoing::Text(notice(&id, &verdict).to_string())).await,
                None => Ok(()),
            },
            Event::Arrived(batch) => self.show(batch, writer).await,
            Event::Room => match self.held.take() {
                Some(prepared) => self.accept(prepared, writer).await,
                None => Ok(()),
            },
            Event::Idle => feed(writer, Outgoing::Ping).await,
            Event::Silent => Err(Parting::Silent),
        }
    }

    /// Every branch is cancel-safe: an event that is not returned is not lost.
    async fn next_event(&mut self, reader: &mut Reader, idle: Instant, silent: Instant) -> Event {
        let Self { app, position, unstored, pending: settling, held } = self;
        let reading = held.is_none() && unstored.len() < UNSTORED_MAX;
        let stored = async {
            match unstored.front_mut() {
                Some(accepted) => accepted.stored().await,
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
                Some(prepared) => app.outbox.room(prepared.bytes()).await,
                None => pending().await,
            }
        };
        tokio::select! {
            frame = reader.next(), if reading => Event::Frame(frame),
            result = stored => Event::Stored(result),
            verdict = settled => Event::Settled(verdict),
            batch = app.output.since(*position, BATCH) => Event::Arrived(batch),
            () = room => Event::Room,
            () = sleep_until(idle) => Event::Idle,
            () = sleep_until(silent), if reading => Event::Silent,
        }
    }

    /// Takes what the client sent.
    async fn take(&mut self, incoming: Incoming, writer: &mut Writer) -> Result<(), Parting> {
        let payload = match incoming {
            Incoming::Alive => return Ok(()),
            Incoming::Closed { .. } => return Err(Parting::Left),
            Incoming::Binary => Err(ApiError::bad_request("a trigger is a text frame, not a binary one".into())),
            Incoming::Text(text) => parse_payload(text.as_bytes()),
        };
        let prepared = match payload {
            Ok(payload) => self.app.prepare(payload, &BTreeMap::new()).await.map_err(ApiError::from),
            Err(error) => Err(error),
        };
        match prepared {
            Ok(prepared) => self.accept(prepared, writer).await,
            Err(error) => feed(writer, Outgoing::Text(error.frame())).await,
        }
    }

    /// Puts a trigger into the outbox, or holds it until there is room: the client is slowed, and nothing is refused.
    async fn accept(&mut self, prepared: Prepared, writer: &mut Writer) -> Result<(), Parting> {
        if !self.app.outbox.has_room(prepared.bytes()) {
            self.held = Some(prepared);
            return Ok(());
        }
        match self.app.accept(&prepared, None) {
            Ok(accepted) => self.unstored.push_back(accepted),
            // Another client was faster.
            Err(TriggerError::Full(_)) => self.held = Some(prepared),
            Err(error) => feed(writer, Outgoing::Text(ApiError::from(error).frame())).await?,
        }
        Ok(())
    }

    async fn show(&mut self, batch: Batch, writer: &mut Writer) -> Result<(), Parting> {
        self.position = batch.end;
        if batch.missed > 0 {
            feed(writer, Outgoing::Text(json!({"missed": batch.missed}).to_string())).await?;
        }
        for arrival in batch.results {
            // An arrival was JSON when it came, so this cannot fail; if it did, the client would be told.
            let text = serde_json::to_string(&*arrival)
                .unwrap_or_else(|error| json!({"error": error.to_string()}).to_string());
            feed(writer, Outgoing::Text(text)).await?;
        }
        Ok(())
    }
}

async fn feed(writer: &mut Writer, item: Outgoing) -> Result<(), Parting> {
    Ok(timeout(SILENCE_MAX, writer.feed(item)).await.map_err(|_| Parting::Silent)??)
}
