//! Taking an arrived message through the receiving hook into the output, or to the dead.

use std::sync::Arc;

use tracing::{info, warn};

use crate::app::App;
use crate::hooks::{HookError, Object};
use crate::message::{Arrival, DeadMessage, Place};
use crate::outbox::Draft;
use crate::output::{Change, Outcome, Source};
use crate::time;
use crate::wire::WireError;

/// Takes a message that has arrived from `from`. When this returns, it has its place, and is stored soon.
pub(crate) async fn take(app: &App, from: &Place, source: Source, arrival: Arrival) -> Result<(), WireError> {
    let object: Object = serde_json::from_str(arrival.payload.get())
        .map_err(|error| WireError::Syntax(format!("the payload of {}: {error}", arrival.id)))?;
    match app.receive(&arrival.id, &object).await {
        Ok(reply) => {
            let id = &arrival.id;
            let log = |left_out| info!(%id, %from, at = %app.place, left_out, "message received");
            app.rations.received.log(log);
            app.metrics.received_messages.inc();
            accept(app, source, arrival, reply).await;
        }
        Err(error) => {
            let id = &arrival.id;
            let log =
                |left_out| warn!(%id, %from, %error, left_out, "message is dead: the receiving hook kept failing");
            app.rations.dead.log(log);
            app.metrics.dead_messages.inc();
            let dead = Arc::new(DeadMessage { arrival, error: error.to_string(), at: time::now() });
            app.output.take(Change { source, outcome: Outcome::Dead(dead.clone()), reply: None });
            answer(app, &dead.arrival);
        }
    }
    Ok(())
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

async fn accept(app: &App, source: Source, arrival: Arrival, reply: Option<Box<serde_json::value::RawValue>>) {
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
    let arrival = message.arrival.clone();
    let refused = |error| NotRaised::Refused(id.to_owned(), error);
    let object: Object =
        serde_json::from_str(arrival.payload.get()).map_err(|error| refused(HookError::Failed(error.to_string())))?;
    let reply = app.receive(&arrival.id, &object).await.map_err(refused)?;
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
