//! What every part of a running web-app shares.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::hooks::{HookError, Hooks, Object, guarded};
use crate::message::{MessageId, Place};
use crate::metrics::{HookName, Metrics, TriggerResult};
use crate::outbox::{Accepted, Full, Outbox};
use crate::output::Output;
use crate::terminator::Seat;
use crate::wire::PAYLOAD_MAX;

/// How long `on_trigger` may take.
const TRIGGER_HOOK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a receiving hook may take with all its attempts, and the pauses between those.
const RECEIVE_HOOK_TIMEOUT: Duration = Duration::from_secs(10);
const RECEIVE_HOOK_PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];
/// How much of a hook's error is kept and sent, in characters.
const ERROR_MAX: usize = 1000;

/// Which end this web-app is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Initiator,
    Terminator,
}

/// The ends of a web-app's life, in this order. Each one implies those before it.
#[derive(Debug, Clone)]
pub(crate) struct Phases {
    /// Nothing new is accepted; what is under way goes on.
    pub(crate) draining: CancellationToken,
    /// WebSockets say goodbye.
    pub(crate) closing: CancellationToken,
    /// Every task ends now.
    pub(crate) ended: CancellationToken,
}

impl Phases {
    pub(crate) fn new() -> Self {
        let ended = CancellationToken::new();
        let closing = ended.child_token();
        Self { draining: closing.child_token(), closing, ended }
    }
}

/// The shared state. Every task holds it by an `Arc`.
pub(crate) struct App {
    pub(crate) end: End,
    pub(crate) place: Place,
    pub(crate) hooks: Arc<dyn Hooks>,
    pub(crate) outbox: Outbox,
    pub(crate) output: Output,
    pub(crate) metrics: Metrics,
    pub(crate) phases: Phases,
    /// Everything spawned per connection; the web-app has ended when it is empty.
    pub(crate) tasks: TaskTracker,
    /// The far web-app, while it is connected.
    pub(crate) far: watch::Sender<Option<Place>>,
    /// Whose turn it is to be the one WebSocket that the terminator serves.
    pub(crate) seat: Seat,
}

/// A payload that the hook has seen, ready for the outbox.
#[derive(Debug)]
pub(crate) struct Prepared(Box<RawValue>);

impl Prepared {
    pub(crate) fn bytes(&self) -> usize {
        self.0.get().len()
    }
}

/// Why a trigger was not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TriggerError {
    #[error(transparent)]
    Hook(#[from] HookError),
    #[error("the payload takes {0} bytes as JSON, but {PAYLOAD_MAX} is the most; send less at a time")]
    TooLarge(usize),
    #[error(transparent)]
    Full(#[from] Full),
    #[error("the web-app is shutting down; try again")]
    Draining,
}

impl TriggerError {
    fn result(&self) -> TriggerResult {
        match self {
            Self::Hook(HookError::Invalid(_)) => TriggerResult::Invalid,
            Self::Hook(HookError::Denied(_)) => TriggerResult::Denied,
            Self::Hook(HookError::Failed(_)) => TriggerResult::Failed,
            Self::TooLarge(_) => TriggerResult::TooLarge,
            Self::Full(_) => TriggerResult::Full,
            Self::Draining => TriggerResult::Draining,
        }
    }
}

impl App {
    /// Takes a trigger from hook to outbox. The caller waits for [`Accepted::stored`] before it confirms.
    pub(crate) async fn trigger(
        &self,
        payload: Object,
        headers: &BTreeMap<String, String>,
    ) -> Result<Accepted, TriggerError> {
        // Asked first, so that a trigger with no chance does not run the hook for nothing.
        if !self.outbox.has_room(0) {
            return Err(self.counted(Full.into()));
        }
        let prepared = self.prepare(payload, headers).await?;
        self.accept(&prepared)
    }

    /// Runs the hook on a trigger's payload.
    pub(crate) async fn prepare(
        &self,
        payload: Object,
        headers: &BTreeMap<String, String>,
    ) -> Result<Prepared, TriggerError> {
        self.hooked(payload, headers).await.map_err(|error| self.counted(error))
    }

    /// Puts a prepared payload into the outbox.
    pub(crate) fn accept(&self, prepared: &Prepared) -> Result<Accepted, TriggerError> {
        let accepted =
            self.outbox.accept(prepared.0.clone(), self.place.hop()).map_err(|full| self.counted(full.into()))?;
        self.metrics.trigger(TriggerResult::Accepted);
        Ok(accepted)
    }

    /// Runs the receiving hook until it succeeds, or has failed often enough.
    pub(crate) async fn receive(&self, id: &MessageId, payload: &Object) -> Result<(), HookError> {
        let give_up = Instant::now() + RECEIVE_HOOK_TIMEOUT;
        let mut pauses = RECEIVE_HOOK_PAUSES.into_iter();
        loop {
            let payload = payload.clone();
            let hook = async {
                match self.end {
                    End::Initiator => self.hooks.on_receive_initiator(payload).await,
                    End::Terminator => self.hooks.on_receive_terminator(payload).await,
                }
            };
            let error = match timeout_at(give_up, guarded(hook)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => shortened(error),
                Err(_) => HookError::Failed(format!("the hook took longer than {RECEIVE_HOOK_TIMEOUT:?}")),
            };
            self.metrics.hook_failure(HookName::OnReceive);
            match pauses.next() {
                Some(pause) if Instant::now() + pause < give_up => {
                    warn!(%id, %error, "receiving hook failed, trying again");
                    sleep(pause).await;
                }
                _ => return Err(error),
            }
        }
    }

    async fn hooked(&self, payload: Object, headers: &BTreeMap<String, String>) -> Result<Prepared, TriggerError> {
        if self.phases.draining.is_cancelled() {
            return Err(TriggerError::Draining);
        }
        let hook = guarded(async { self.hooks.on_trigger(payload, headers).await });
        let payload = match timeout(TRIGGER_HOOK_TIMEOUT, hook).await {
            Ok(result) => result.map_err(shortened),
            Err(_) => Err(HookError::Failed(format!("the hook took longer than {TRIGGER_HOOK_TIMEOUT:?}"))),
        }
        .inspect_err(|_| self.metrics.hook_failure(HookName::OnTrigger))?;
        let raw = to_raw_value(&payload).map_err(|error| HookError::Failed(error.to_string()))?;
        match raw.get().len() {
            bytes if bytes > PAYLOAD_MAX => Err(TriggerError::TooLarge(bytes)),
            _ => Ok(Prepared(raw)),
        }
    }

    fn counted(&self, error: TriggerError) -> TriggerError {
        self.metrics.trigger(error.result());
        error
    }
}

fn shortened(error: HookError) -> HookError {
    let short = |text: String| text.chars().take(ERROR_MAX).collect();
    match error {
        HookError::Invalid(text) => HookError::Invalid(short(text)),
        HookError::Denied(text) => HookError::Denied(short(text)),
        HookError::Failed(text) => HookError::Failed(short(text)),
    }
}

#[cfg(test)]
impl App {
    /// A web-app without listener and tasks.
    pub(crate) fn bare(end: End, hooks: impl Hooks) -> Arc<Self> {
        let sender = crate::message::SenderId::random().expect("random bytes");
        Arc::new(Self {
            end,
            place: Place { pod: "p".into(), cluster: "c".into() },
            hooks: Arc::new(hooks),
            outbox: Outbox::new(sender, crate::outbox::Limits::default()),
            output: Output::new(10),
            metrics: Metrics::new(),
            phases: Phases::new(),
            tasks: TaskTracker::new(),
            far: watch::Sender::new(None),
            seat: Seat::default(),
        })
    }
}
