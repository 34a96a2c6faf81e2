//! Taking an arrived message through the receiving hook into the output, or to the dead.

use std::sync::Arc;

use tracing::{info, warn};

use crate::app::App;
use crate::hooks::HookError;
use crate::message::{Arrival, DeadMessage, Hop, MAX_HOPS, Place};
use crate::outbox::Draft;
use crate::output::{Change, Outcome, Source};
use crate::payload::{Payload, PayloadError};
use crate::wire::{MessageFrame, WireError};

/// Takes a message that has arrived from `from`. When this returns, it has its place, and is stored soon. One that cannot be
/// taken is dead at once: its sender would send it again for ever, and nothing behind it would arrive.
pub(crate) async fn take(app: &App, from: &Place, source: Source, message: MessageFrame) -> Result<(), WireError> {
    let MessageFrame { id, payload: raw, trail, in_reply_to, .. } = message;
    let mut reasons = Vec::new();
    let (payload, raw) = match Payload::parse(raw.get()) {
        Ok(payload) => (payload, None),
        // Beyond no bound, and sent by no version.
        Err(error @ PayloadError::NotAnObject(_)) => {
            return Err(WireError::Syntax(format!("the payload of {id} is {error}")));
        }
        Err(error) => {
            reasons.push(format!("its payload is {error}"));
            (Payload::none(), Some(raw.get().to_owned()))
        }
    };
    let trail = read_trail(trail.get()).unwrap_or_else(|error| {
        reasons.push(format!("its trail {error}"));
        Vec::new()
    });
    let arrival = Arrival { id, payload, trail: with_hop(trail, app.place.hop()), in_reply_to };
    if !reasons.is_empty() {
        bury(app, from, source, DeadMessage::new(arrival, raw, reasons.join("; ")));
        return Ok(());
    }
    match app.receive(&arrival.id, &arrival.payload).await {
        Ok(reply) => {
            let id = &arrival.id;
            let log = |suppressed| info!(%id, %from, at = %app.place, suppressed, "message received");
            app.log_limits.received.log(log);
            app.metrics.received_messages.inc();
            accept(app, source, arrival, reply).await;
        }
        Err(error) => bury(app, from, source, DeadMessage::new(arrival, None, error.to_string())),
    }
    Ok(())
}

fn bury(app: &App, from: &Place, source: Source, dead: DeadMessage) {
    let (id, error) = (&dead.arrival.id, &dead.error);
    app.log_limits.dead.log(|suppressed| warn!(%id, %from, error, suppressed, "message is dead"));
    app.metrics.dead_messages.inc();
    let dead = Arc::new(dead);
    app.output.take(Change { source, outcome: Outcome::Dead(dead.clone()), reply: None });
    if dead.raw.is_none() {
        answer(app, &dead.arrival);
    }
}

pub(crate) fn read_trail(text: &str) -> Result<Vec<Hop>, String> {
    let trail: Vec<Hop> = serde_json::from_str(text).map_err(|error| format!("cannot be read: {error}"))?;
    if trail.len() > MAX_HOPS {
        return Err(format!("has {} hops, where {MAX_HOPS} is the most", trail.len()));
    }
    trail.iter().try_for_each(Hop::check)?;
    Ok(trail)
}

/// The trail with one more hop. A full one gives up its second: where a message comes from matters more.
fn with_hop(mut trail: Vec<Hop>, hop: Hop) -> Vec<Hop> {
    if trail.len() >= MAX_HOPS {
        trail.remove(1);
    }
    trail.push(hop);
    trail
}

/// Why a dead message stays dead.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRaised {
    #[error("there is no dead message {0}; GET /dead lists them")]
    Unknown(String),
    #[error("message {0} is being retried already; try again")]
    UnderWay(String),
    #[error("message {0} stays dead: {1}")]
    Refused(String, HookError),
}

async fn accept(app: &App, source: Source, arrival: Arrival, reply: Option<Payload>) {
    // Replies cause no replies.
    let reply = reply.filter(|_| arrival.in_reply_to.is_none());
    if reply.is_some() {
        app.outbox.reply_room().await;
    }
    let reply = reply.map(|payload| Draft { payload, hop: app.place.hop(), in_reply_to: Some(arrival.id.clone()) });
    let arrival = Arc::new(arrival);
    app.output.take(Change { source, outcome: Outcome::Result(arrival.clone()), reply });
    answer(app, &arrival);
}

/// If the message is a reply, whoever waits for it gets it now: what becomes of it here changes nothing about it. The output
/// has it by then, so that whoever comes later finds it there.
fn answer(app: &App, arrival: &Arrival) {
    if let Some(to) = &arrival.in_reply_to {
        app.outbox.replied(to, &arrival.payload);
    }
}

/// Tries a dead message again, and returns once it is in the output.
pub(crate) async fn raise(app: &App, id: &str) -> Result<(), NotRaised> {
    use crate::output::{Grave, NoGrave};
    let Grave { number, message } = app.output.open_grave(id).map_err(|why| match why {
        NoGrave::Unknown => NotRaised::Unknown(id.to_owned()),
        NoGrave::Open => NotRaised::UnderWay(id.to_owned()),
    })?;
    let _closed = Closed { app, number };
    let refused = |error| NotRaised::Refused(id.to_owned(), error);
    // What was no payload, or was taken by an earlier version, is judged anew.
    let text = message.raw.as_deref().unwrap_or(message.arrival.payload.as_str());
    let payload = Payload::parse(text).map_err(|error| refused(error.into()))?;
    let arrival = Arrival { payload, ..message.arrival.clone() };
    let reply = app.receive(&arrival.id, &arrival.payload).await.map_err(refused)?;
    info!(%id, at = %app.place, "message raised from the dead");
    accept(app, Source::Grave(number), arrival, reply).await;
    app.output.raised(number).await;
    Ok(())
}

/// Closes a grave however its opening ends, unless it is empty by then.
struct Closed<'a> {
    app: &'a App,
    number: u64,
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.app.output.close_grave(self.number);
    }
}
