//! A trigger's way from its hook into the outbox.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ferry_trace::Kind;
use tokio::time::timeout;
use tracing::warn;

use crate::app::App;
use crate::headers::TraceHeaders;
use crate::hooks::{HookError, catch_panics};
use crate::metrics::{HookName, TriggerResult};
use crate::outbox::{IdempotencyKey, MessageHandle, NewMessage, OutboxError};
use crate::payload::Payload;
use crate::sites::{Site, TargetError};
use crate::spans::{self, Sending, Step};
use crate::store::StoreError;

/// How long `on_trigger` may take.
const TRIGGER_HOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// A payload that the hook has returned, ready for the outbox.
#[derive(Debug)]
pub(crate) struct PreparedTrigger {
    payload: Payload,
    /// Those that the headers of its message follow, and how long these are.
    headers: Option<TraceHeaders>,
    headers_bytes: usize,
}

impl PreparedTrigger {
    pub(crate) fn bytes(&self) -> usize {
        self.payload.len() + self.headers_bytes
    }
}

/// Why a trigger was not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TriggerError {
    #[error(transparent)]
    Hook(#[from] HookError),
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    #[error(transparent)]
    Target(#[from] TargetError),
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
            Self::Outbox(OutboxError::Full) => TriggerResult::Full,
            Self::Outbox(OutboxError::Forgotten) | Self::Target(_) => TriggerResult::Invalid,
            Self::Store(_) => TriggerResult::Unstored,
            Self::KeyReused(_) => TriggerResult::Invalid,
            Self::Draining => TriggerResult::Draining,
        }
    }
}

/// Takes a trigger from its hook to the outbox of a site. The caller confirms it only after [`MessageHandle::stored`].
pub(crate) async fn submit(
    app: &App,
    site: &Site,
    payload: Payload,
    headers: &BTreeMap<String, String>,
) -> Result<MessageHandle, TriggerError> {
    check_room(app, [site])?;
    let prepared = prepare(app, payload, headers).await?;
    enqueue(app, site, &prepared, None)
}

/// What became of a trigger at each of the sites that it is for.
pub(crate) type Submitted = Vec<(Arc<Site>, Result<MessageHandle, TriggerError>)>;

/// Like [`submit`], for several sites; the hook runs once. The sites are independent: what one cannot take, another can.
pub(crate) async fn submit_to_all(
    app: &App,
    sites: Vec<Arc<Site>>,
    payload: Payload,
    headers: &BTreeMap<String, String>,
) -> Result<Submitted, TriggerError> {
    check_room(app, sites.iter().map(|site| &**site))?;
    let prepared = prepare(app, payload, headers).await?;
    let submit = |site: Arc<Site>| {
        let result = enqueue(app, &site, &prepared, None);
        (site, result)
    };
    Ok(sites.into_iter().map(submit).collect())
}

/// Like [`submit_to_all`], at most once per idempotency key and site. Returns the messages accepted under this key before, and
/// where there was none this trigger, already stored. Must not be cancelled, because a retry has to find what this has accepted.
pub(crate) async fn submit_once(
    app: &App,
    sites: Vec<Arc<Site>>,
    payload: Payload,
    headers: &BTreeMap<String, String>,
    key: IdempotencyKey,
) -> Result<Submitted, TriggerError> {
    let _guard = lock_key(app, &key.text).await;
    let mut all = Vec::new();
    for site in sites {
        let accepted = find_accepted(app, &site, &key)?;
        all.push((site, accepted));
    }
    let new = all.iter().filter(|(_, accepted)| accepted.is_none());
    let prepared = match new.clone().next() {
        None => None,
        Some(_) => {
            check_room(app, new.map(|(site, _)| &**site))?;
            Some(prepare(app, payload, headers).await?)
        }
    };
    let mut submitted = Vec::new();
    for (site, accepted) in all {
        let result = match (accepted, &prepared) {
            (Some(message), _) => Ok(message),
            (None, Some(prepared)) => enqueue(app, &site, prepared, Some(key.clone())),
            // There is one whenever it is needed.
            (None, None) => Err(OutboxError::Full.into()),
        };
        submitted.push((site, result));
    }
    for (_, result) in &mut submitted {
        if let Ok(message) = result
            && let Err(error) = message.stored().await
        {
            *result = Err(error.into());
        }
    }
    Ok(submitted)
}

/// Checked first, so that the hook does not run for a trigger that has no chance.
fn check_room<'a>(app: &App, sites: impl IntoIterator<Item = &'a Site>) -> Result<(), TriggerError> {
    if sites.into_iter().any(|site| site.outbox.has_room(0)) {
        return Ok(());
    }
    Err(count_error(app, OutboxError::Full.into()))
}

/// The message that was accepted for this site under this key before, if it is the same.
pub(crate) fn find_accepted(
    app: &App,
    site: &Site,
    key: &IdempotencyKey,
) -> Result<Option<MessageHandle>, TriggerError> {
    match site.outbox.find_key(&key.text) {
        Some((record, message)) if record.digest == key.digest => {
            // The reply may have arrived before anything waited for it, or before a restart.
            if let Some(id) = message.id()
                && let Some(reply) = app.output.reply_to(id, site.name())
            {
                site.outbox.resolve_reply(id, &reply);
            }
            Ok(Some(message))
        }
        Some(_) => Err(count_error(app, TriggerError::KeyReused(key.text.clone()))),
        None => Ok(None),
    }
}

/// Waits until no other trigger with this key is under way.
pub(crate) async fn lock_key<'a>(app: &'a App, key: &str) -> KeyGuard<'a> {
    loop {
        // Fails only if the watch's sender is gone, which `app` owns.
        let _ = app.busy_keys.subscribe().wait_for(|keys| !keys.contains(key)).await;
        if app.busy_keys.send_if_modified(|keys| keys.insert(key.to_owned())) {
            return KeyGuard { app, key: key.to_owned() };
        }
    }
}

/// Runs the hook on a trigger's payload.
pub(crate) async fn prepare(
    app: &App,
    payload: Payload,
    headers: &BTreeMap<String, String>,
) -> Result<PreparedTrigger, TriggerError> {
    run_trigger_hook(app, payload, headers).await.map_err(|error| count_error(app, error))
}

/// Puts a prepared payload into the outbox of a site.
pub(crate) fn enqueue(
    app: &App,
    site: &Site,
    prepared: &PreparedTrigger,
    key: Option<IdempotencyKey>,
) -> Result<MessageHandle, TriggerError> {
    if app.disk_full.load(Ordering::Relaxed) {
        return Err(count_error(app, StoreError::Full.into()));
    }
    let (span, headers) = Sending::begin(prepared.headers.as_ref(), false);
    let (payload, hop) = (prepared.payload.clone(), app.location.hop());
    let message = NewMessage { payload, hop, in_reply_to: None, headers, span };
    let handle = site.outbox.enqueue(message, key).map_err(|error| count_error(app, error.into()))?;
    app.metrics.trigger(TriggerResult::Accepted);
    Ok(handle)
}

async fn run_trigger_hook(
    app: &App,
    payload: Payload,
    headers: &BTreeMap<String, String>,
) -> Result<PreparedTrigger, TriggerError> {
    if app.phases.draining.is_cancelled() {
        return Err(TriggerError::Draining);
    }
    let mut travelling = TraceHeaders::of_request(headers);
    let step = Step::after(travelling.as_ref());
    let led = step.as_ref().map(|step| step.lead(headers));
    let headers = led.as_ref().unwrap_or(headers);
    let hook = catch_panics(async { app.hooks.on_trigger(payload, headers).await });
    let result = if app.hooks.keeps_time() { Ok(hook.await) } else { timeout(TRIGGER_HOOK_TIMEOUT, hook).await };
    let result = match result {
        Ok(result) => result.map_err(HookError::truncate),
        Err(_) => Err(HookError::Failed(format!("the hook took longer than {TRIGGER_HOOK_TIMEOUT:?}"))),
    };
    if let Some(step) = step {
        // Without a request, as on `/stream`, a trace begins here.
        travelling.get_or_insert_with(|| step.headers.clone());
        step.end(Kind::Internal, "on_trigger", |span| {
            if let Err(error) = &result {
                span.fail(error.to_string());
            }
        });
    }
    let payload = result.inspect_err(|error| {
        app.metrics.hook_failure(HookName::OnTrigger);
        app.log_limits
            .hook_failed
            .log(|suppressed| warn!(%error, suppressed, "on_trigger failed: the trigger was refused"));
    })?;
    let headers_bytes = spans::bytes_after(travelling.as_ref());
    Ok(PreparedTrigger { payload, headers: travelling, headers_bytes })
}

fn count_error(app: &App, error: TriggerError) -> TriggerError {
    app.metrics.trigger(error.result());
    error
}

/// While this lives, no other trigger with its key is under way.
pub(crate) struct KeyGuard<'a> {
    app: &'a App,
    key: String,
}

impl Drop for KeyGuard<'_> {
    fn drop(&mut self) {
        self.app.busy_keys.send_if_modified(|keys| keys.remove(&self.key));
    }
}
