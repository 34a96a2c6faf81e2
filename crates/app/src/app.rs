//! What every part of a running web-app shares.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::access::Access;
use crate::committer::Committing;
use crate::hooks::{HookError, Hooks, guarded};
use crate::log_limits::LogLimits;
use crate::message::{MessageId, Place};
use crate::metrics::{HookName, Metrics, TriggerResult};
use crate::outbox::{Accepted, Draft, Full, GivenKey, Outbox};
use crate::output::Output;
use crate::payload::Payload;
use crate::store::StoreError;
use crate::terminator::Seat;
use crate::wire::MAX_ERROR_CHARS;

/// How long `on_trigger` may take.
const TRIGGER_HOOK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a receiving hook may take with all its attempts, and the pauses between those.
pub(crate) const RECEIVE_HOOK_TIMEOUT: Duration = Duration::from_secs(10);
const RECEIVE_HOOK_PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];

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
    /// Nothing more will change: what waits to be stored is stored, and the store closed. Not implied by the others.
    pub(crate) committing: CancellationToken,
}

impl Phases {
    pub(crate) fn new() -> Self {
        let ended = CancellationToken::new();
        let closing = ended.child_token();
        Self { draining: closing.child_token(), closing, ended, committing: CancellationToken::new() }
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
    /// The disk has no room.
    pub(crate) full: AtomicBool,
    /// Room for large messages under way.
    pub(crate) shares: Arc<Semaphore>,
    /// Who may use the endpoints.
    pub(crate) access: Access,
    pub(crate) log_limits: LogLimits,
    pub(crate) committing: Committing,
    /// Idempotency keys of triggers under way: a retry waits to see what came of the first.
    pub(crate) keys: watch::Sender<HashSet<String>>,
}

/// A payload that the hook has seen, ready for the outbox.
#[derive(Debug)]
pub(crate) struct Prepared(Payload);

impl Prepared {
    pub(crate) fn bytes(&self) -> usize {
        self.0.len()
    }
}

/// Why a trigger was not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TriggerError {
    #[error(transparent)]
    Hook(#[from] HookError),
    #[error(transparent)]
    Full(#[from] Full),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the idempotency key {0:?} has been used for another payload; give each trigger its own")]
    KeyReused(String),
    #[error("the web-app is shutting down; try again")]
    Draining,
}

impl TriggerError {
    fn result(&self) -> TriggerResult {
        match self {
            Self::Hook(HookError::Invalid(_)) => TriggerResult::Invalid,
            Self::Hook(HookError::Denied(_)) => TriggerResult::Denied,
            Self::Hook(HookError::Failed(_)) => TriggerResult::Failed,
            Self::Hook(HookError::TooLarge(_)) => TriggerResult::TooLarge,
            Self::Full(_) => TriggerResult::Full,
            Self::Store(_) => TriggerResult::Unstored,
            Self::KeyReused(_) => TriggerResult::Invalid,
            Self::Draining => TriggerResult::Draining,
        }
    }
}

impl App {
    /// Takes a trigger from hook to outbox. The caller waits for [`Accepted::stored`] before it confirms.
    pub(crate) async fn trigger(
        &self,
        payload: Payload,
        headers: &BTreeMap<String, String>,
    ) -> Result<Accepted, TriggerError> {
        self.trigger_keyed(payload, headers, None).await
    }

    /// The same for a trigger with an idempotency key: what was accepted under that key before, or else this trigger,
    /// already stored. Not to be cancelled, for a retry must find what this has accepted.
    pub(crate) async fn trigger_once(
        &self,
        payload: Payload,
        headers: &BTreeMap<String, String>,
        key: GivenKey,
    ) -> Result<Accepted, TriggerError> {
        let _turn = self.turn(&key.0).await;
        if let Some(accepted) = self.known(&key)? {
            return Ok(accepted);
        }
        let mut accepted = self.trigger_keyed(payload, headers, Some(key)).await?;
        accepted.stored().await?;
        Ok(accepted)
    }

    /// What was accepted under this key before, if it is the same.
    pub(crate) fn known(&self, key: &GivenKey) -> Result<Option<Accepted>, TriggerError> {
        match self.outbox.keyed(&key.0) {
            Some((known, accepted)) if known.digest == key.1 => {
                // The reply may have come before anybody waited here, also before a restart.
                if let Some(id) = accepted.id()
                    && let Some(reply) = self.output.reply_to(id)
                {
                    self.outbox.replied(id, &reply);
                }
                Ok(Some(accepted))
            }
            Some(_) => Err(self.counted(TriggerError::KeyReused(key.0.clone()))),
            None => Ok(None),
        }
    }

    /// Waits until no other trigger with this key is under way.
    pub(crate) async fn turn(&self, key: &str) -> Turn<'_> {
        loop {
            // An error would mean that the watch's sender is gone, which `self` owns.
            let _ = self.keys.subscribe().wait_for(|keys| !keys.contains(key)).await;
            if self.keys.send_if_modified(|keys| keys.insert(key.to_owned())) {
                return Turn { app: self, key: key.to_owned() };
            }
        }
    }

    async fn trigger_keyed(
        &self,
        payload: Payload,
        headers: &BTreeMap<String, String>,
        key: Option<GivenKey>,
    ) -> Result<Accepted, TriggerError> {
        // Asked first, so that a trigger with no chance does not run the hook for nothing.
        if !self.outbox.has_room(0) {
            return Err(self.counted(Full.into()));
        }
        let prepared = self.prepare(payload, headers).await?;
        self.accept(&prepared, key)
    }

    /// Runs the hook on a trigger's payload.
    pub(crate) async fn prepare(
        &self,
        payload: Payload,
        headers: &BTreeMap<String, String>,
    ) -> Result<Prepared, TriggerError> {
        self.hooked(payload, headers).await.map_err(|error| self.counted(error))
    }

    /// Puts a prepared payload into the outbox.
    pub(crate) fn accept(&self, prepared: &Prepared, key: Option<GivenKey>) -> Result<Accepted, TriggerError> {
        if self.full.load(Ordering::Relaxed) {
            return Err(self.counted(StoreError::Full.into()));
        }
        let draft = Draft { payload: prepared.0.clone(), hop: self.place.hop(), in_reply_to: None };
        let accepted = self.outbox.accept(draft, key).map_err(|full| self.counted(full.into()))?;
        self.metrics.trigger(TriggerResult::Accepted);
        Ok(accepted)
    }

    /// Runs the receiving hook until it succeeds, or has failed often enough. Returns the payload of the reply.
    pub(crate) async fn receive(&self, id: &MessageId, payload: &Payload) -> Result<Option<Payload>, HookError> {
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
            let hook = guarded(hook);
            let result = if self.hooks.keeps_time() { Ok(hook.await) } else { timeout_at(give_up, hook).await };
            let error = match result {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(error)) => shortened(error),
                Err(_) => HookError::Failed(format!("the hook took longer than {RECEIVE_HOOK_TIMEOUT:?}")),
            };
            self.metrics.hook_failure(HookName::OnReceive);
            match pauses.next() {
                Some(pause) if Instant::now() + pause < give_up => {
                    let log = |suppressed| warn!(%id, %error, suppressed, "receiving hook failed, trying again");
                    self.log_limits.retried.log(log);
                    sleep(pause).await;
                }
                _ => return Err(error),
            }
        }
    }

    async fn hooked(&self, payload: Payload, headers: &BTreeMap<String, String>) -> Result<Prepared, TriggerError> {
        if self.phases.draining.is_cancelled() {
            return Err(TriggerError::Draining);
        }
        let hook = guarded(async { self.hooks.on_trigger(payload, headers).await });
        let result = if self.hooks.keeps_time() { Ok(hook.await) } else { timeout(TRIGGER_HOOK_TIMEOUT, hook).await };
        let payload = match result {
            Ok(result) => result.map_err(shortened),
            Err(_) => Err(HookError::Failed(format!("the hook took longer than {TRIGGER_HOOK_TIMEOUT:?}"))),
        }
        .inspect_err(|error| {
            self.metrics.hook_failure(HookName::OnTrigger);
            self.log_limits
                .failed
                .log(|suppressed| warn!(%error, suppressed, "on_trigger failed: the trigger was refused"));
        })?;
        Ok(Prepared(payload))
    }

    fn counted(&self, error: TriggerError) -> TriggerError {
        self.metrics.trigger(error.result());
        error
    }
}

/// The only trigger with its key while this lives.
pub(crate) struct Turn<'a> {
    app: &'a App,
    key: String,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.app.keys.send_if_modified(|keys| keys.remove(&self.key));
    }
}

fn shortened(error: HookError) -> HookError {
    let short = |text: String| text.chars().take(MAX_ERROR_CHARS).collect();
    match error {
        HookError::Invalid(text) => HookError::Invalid(short(text)),
        HookError::Denied(text) => HookError::Denied(short(text)),
        HookError::Failed(text) => HookError::Failed(short(text)),
        HookError::TooLarge(text) => HookError::TooLarge(short(text)),
    }
}

#[cfg(test)]
impl App {
    /// A web-app without listener and tasks, but a committer with a store in memory. Must be called within a runtime.
    pub(crate) fn bare(end: End, hooks: impl Hooks) -> Arc<Self> {
        let (store, loaded) = crate::store::Store::in_memory();
        let place = Place { pod: "p".into(), cluster: "c".into() };
        let limits = crate::outbox::Limits::with(&place.hop());
        let app = Arc::new(Self {
            end,
            place,
            hooks: Arc::new(hooks),
            outbox: Outbox::new(loaded.sender, limits, 0, Vec::new(), Vec::new()),
            output: Output::new(10, Default::default(), &[]),
            metrics: Metrics::new(),
            phases: Phases::new(),
            tasks: TaskTracker::new(),
            far: watch::Sender::new(None),
            seat: Seat::default(),
            shares: Arc::new(Semaphore::new(crate::http::MAX_LARGE_MESSAGES)),
            access: Access::default(),
            log_limits: LogLimits::default(),
            committing: Committing::default(),
            full: AtomicBool::new(false),
            keys: watch::Sender::default(),
        });
        tokio::spawn(crate::committer::run(app.clone(), store, None));
        app
    }
}
