//! An arrived message's way through the receiving hook into the output, or to the dead messages.

use std::sync::Arc;
use std::time::Duration;

use ferry_trace::Kind;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use crate::app::{App, End};
use crate::far_end::FarEnd;
use crate::headers::TraceHeaders;
use crate::hooks::{HookError, RECEIVE_HOOK_TIMEOUT, Received, catch_panics};
use crate::message::{Arrival, DeadMessage, Hop, Location, MAX_HOPS};
use crate::metrics::HookName;
use crate::outbox::NewMessage;
use crate::output::{BeginRetryError, Change, Outcome, Source};
use crate::payload::{Payload, PayloadError};
use crate::peer::PeerName;
use crate::sites::Site;
use crate::spans::{self, Receiving, Sending, Step};
use crate::wire::{MessageFrame, WireError};

const RECEIVE_HOOK_RETRY_DELAYS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];

/// Processes a message that has arrived. When this returns, the message has its position in the order, and is
/// stored soon. One that cannot be processed is dead at once: its sender would send it again for ever, and nothing behind
/// it would arrive.
pub(crate) async fn process(
    app: &App,
    site: &Arc<Site>,
    far: &FarEnd,
    source: Source,
    message: MessageFrame,
) -> Result<(), WireError> {
    let MessageFrame { id, payload: raw, trail, in_reply_to, headers, .. } = message;
    let mut reasons = Vec::new();
    let (payload, raw) = match Payload::parse(raw.get()) {
        Ok(payload) => (payload, None),
        // Not a matter of bounds, which may differ: no version sends this.
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
    let trail = with_hop(trail, app.location.hop());
    let came_with = headers.and_then(|headers| TraceHeaders::parse(headers.get()));
    let step = Step::after(came_with.as_ref());
    let headers = step.as_ref().map(|step| step.headers.clone()).or(came_with).map(Box::new);
    let receiving = step.map(|step| Receiving::new(step, far, &id, in_reply_to.is_some()));
    let from = &far.location;
    let arrival = Arrival { id, payload, trail, in_reply_to, site: site.name().cloned(), headers };
    if !reasons.is_empty() {
        let error = reasons.join("; ");
        receiving.into_iter().for_each(|receiving| receiving.end(Some(&error)));
        add_dead(app, site, from, source, DeadMessage::new(arrival, raw, error));
        return Ok(());
    }
    match run_receive_hook(app, site.name(), &arrival).await {
        Ok(reply) => {
            let id = &arrival.id;
            let name = app.shown(site);
            let log = |suppressed| {
                spans::log_of(arrival.headers.as_deref(), || {
                    info!(%id, %from, site = name, at = %app.location, suppressed, "message received");
                });
            };
            app.log_limits.received.log(log);
            app.metrics.received(site.name());
            add_result(app, Some(site), source, arrival, reply).await;
            receiving.into_iter().for_each(|receiving| receiving.end(None));
        }
        Err(error) => {
            let error = error.to_string();
            receiving.into_iter().for_each(|receiving| receiving.end(Some(&error)));
            add_dead(app, site, from, source, DeadMessage::new(arrival, None, error));
        }
    }
    Ok(())
}

/// Runs the receiving hook until it succeeds or its attempts are used up. Returns the payload of the reply.
async fn run_receive_hook(app: &App, site: Option<&PeerName>, arrival: &Arrival) -> Result<Option<Payload>, HookError> {
    let Arrival { id, payload, headers, .. } = arrival;
    // Where there is no other, nobody needs to be kept from being held up.
    let site = site.filter(|_| app.sites.are_several()).map(PeerName::as_str);
    let deadline = Instant::now() + RECEIVE_HOOK_TIMEOUT;
    let mut delays = RECEIVE_HOOK_RETRY_DELAYS.into_iter();
    loop {
        let is_initiator = app.end == End::Initiator;
        let step = Step::after(headers.as_deref());
        let led = step.as_ref().map(|step| &step.headers).or(headers.as_deref());
        let map = led.map(TraceHeaders::to_map).unwrap_or_default();
        let received = Received { is_initiator, site, payload: payload.clone(), headers: &map };
        let hook = catch_panics(async { app.hooks.on_receive(received).await });
        let result = if app.hooks.keeps_time() { Ok(hook.await) } else { timeout_at(deadline, hook).await };
        let result = match result {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(error.truncate()),
            Err(_) => Err(HookError::Failed(format!("the hook took longer than {RECEIVE_HOOK_TIMEOUT:?}"))),
        };
        if let Some(step) = step {
            step.end(
                Kind::Internal,
                if is_initiator { "on_receive_initiator" } else { "on_receive_terminator" },
                |span| {
                    if let Err(error) = &result {
                        span.fail(error.to_string());
                    }
                },
            );
        }
        let error = match result {
            Ok(reply) => return Ok(reply),
            Err(error) => error,
        };
        app.metrics.hook_failure(HookName::OnReceive);
        match delays.next() {
            Some(delay) if Instant::now() + delay < deadline => {
                let log = |suppressed| {
                    spans::log_of(
                        headers.as_deref(),
                        || warn!(%id, %error, suppressed, "receiving hook failed, retrying"),
                    );
                };
                app.log_limits.hook_retried.log(log);
                sleep(delay).await;
            }
            _ => return Err(error),
        }
    }
}

/// Adds a result with its reply, which goes to the site that the message came from.
async fn add_result(app: &App, site: Option<&Arc<Site>>, source: Source, arrival: Arrival, reply: Option<Payload>) {
    // Replies cause no replies.
    let reply = reply.filter(|_| arrival.in_reply_to.is_none());
    let reply = match (reply, site) {
        (Some(payload), Some(site)) => {
            site.outbox.reply_room().await;
            let (in_reply_to, hop) = (Some(arrival.id.clone()), app.location.hop());
            let (span, headers) = Sending::begin(arrival.headers.as_deref(), true);
            let reply = NewMessage { payload, hop, in_reply_to, headers, span };
            Some((site.clone(), reply))
        }
        (Some(_), None) => {
            warn!(id = %arrival.id, "a reply is dropped: the site that it is for has been forgotten");
            None
        }
        (None, _) => None,
    };
    let arrival = Arc::new(arrival);
    app.output.add(Change { source, outcome: Outcome::Result(arrival.clone()), reply });
    resolve_reply(site, &arrival);
}

fn add_dead(app: &App, site: &Arc<Site>, from: &Location, source: Source, dead: DeadMessage) {
    let (id, error, name) = (&dead.arrival.id, &dead.error, app.shown(site));
    app.log_limits.dead_here.log(|suppressed| {
        let log = || warn!(%id, %from, site = name, error, suppressed, "message is dead");
        spans::log_of(dead.arrival.headers.as_deref(), log);
    });
    app.metrics.dead(site.name());
    let dead = Arc::new(dead);
    app.output.add(Change { source, outcome: Outcome::Dead(dead.clone()), reply: None });
    if dead.raw.is_none() {
        resolve_reply(Some(site), &dead.arrival);
    }
}

/// If the message is a reply, gives it to the request that waits for it, whatever the hook here made of it. The output
/// has the reply by then, so a request that comes later finds it there. Only the site that was asked can answer.
fn resolve_reply(site: Option<&Arc<Site>>, arrival: &Arrival) {
    if let (Some(site), Some(to)) = (site, &arrival.in_reply_to) {
        site.outbox.resolve_reply(to, &arrival.payload);
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
pub(crate) enum RetryError {
    #[error("there is no dead message {0}; GET /dead lists them")]
    Unknown(String),
    #[error("message {0} is being retried already; try again")]
    UnderWay(String),
    #[error("message {0} stays dead: {1}")]
    Refused(String, HookError),
}

/// Runs the hook on a dead message again. Returns once the message is in the output.
pub(crate) async fn retry(app: &App, id: &str) -> Result<(), RetryError> {
    let letter = app.output.begin_retry(id).map_err(|error| match error {
        BeginRetryError::Unknown => RetryError::Unknown(id.to_owned()),
        BeginRetryError::UnderWay => RetryError::UnderWay(id.to_owned()),
    })?;
    let (number, message) = (letter.number, letter.message);
    let _lock = RetryLock { app, number };
    let refused = |error| RetryError::Refused(id.to_owned(), error);
    // What was not a payload when it came, or was taken by an earlier version, may be one by today's bounds.
    let text = message.raw.as_deref().unwrap_or(message.arrival.payload.as_str());
    let payload = Payload::parse(text).map_err(|error| refused(error.into()))?;
    let mut arrival = Arrival { payload, ..message.arrival.clone() };
    let step = Step::after(arrival.headers.as_deref());
    if let Some(step) = &step {
        arrival.headers = Some(Box::new(step.headers.clone()));
    }
    let peer = arrival.site.clone().or_else(|| app.output.peer_of_message(&arrival.id));
    let reply = run_receive_hook(app, peer.as_ref(), &arrival).await;
    if let Some(step) = step {
        step.end(Kind::Internal, "retry message", |span| {
            span.set("ferry.message.id", id.to_owned());
            if let Err(error) = &reply {
                span.fail(error.to_string());
            }
        });
    }
    let reply = reply.map_err(refused)?;
    info!(%id, at = %app.location, "dead message delivered on retry");
    let site = app.sites.of(peer.as_ref());
    add_result(app, site.as_ref(), Source::DeadLetter(number), arrival, reply).await;
    app.output.dead_removed(number).await;
    Ok(())
}

/// Ends a retry on every exit path. Without effect once the dead message has been removed.
struct RetryLock<'a> {
    app: &'a App,
    number: u64,
}

impl Drop for RetryLock<'_> {
    fn drop(&mut self) {
        self.app.output.end_retry(self.number);
    }
}
