//! The user's own code: what runs on a trigger and on a received message.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use crate::limits::MAX_ERROR_CHARS;
use crate::payload::{Payload, PayloadError};

/// How long a receiving hook may take, with all its attempts and the delays between them.
pub(crate) const RECEIVE_HOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// The functions a web-app calls on its messages. Each has a default that lets everything through unchanged.
///
/// Hooks run on the web-app's own runtime, so a hook that blocks belongs in `tokio::task::spawn_blocking`. A hook that
/// panics counts as [`HookError::Failed`].
pub trait Hooks: Send + Sync + 'static {
    /// Runs on each trigger before it is accepted, and returns the payload to send. `headers` are those of the
    /// request, names in lower case; empty for the auto-trigger and for `/stream`. May take at most 30 s.
    fn on_trigger<'a>(
        &'a self,
        payload: Payload,
        headers: &'a BTreeMap<String, String>,
    ) -> BoxFuture<'a, Result<Payload, HookError>> {
        let _ = headers;
        ready(Ok(payload)).boxed()
    }

    /// Runs at the terminator on each message before it enters the output. What it returns goes back as the reply. It is
    /// tried 3 times within 10 s and runs *at least* once per message: a WebSocket that is lost meanwhile, or a process that
    /// is killed, makes it run again.
    fn on_receive_terminator(&self, payload: Payload) -> BoxFuture<'_, Result<Option<Payload>, HookError>> {
        let _ = payload;
        ready(Ok(None)).boxed()
    }

    /// Runs it for a site, where there are several: one whose calls take long must hold up no other. What runs each call on its
    /// own, as the web-app's runtime does, has nothing to do for that.
    fn on_receive_from<'a>(
        &'a self,
        site: Option<&'a str>,
        payload: Payload,
    ) -> BoxFuture<'a, Result<Option<Payload>, HookError>> {
        let _ = site;
        self.on_receive_terminator(payload)
    }

    /// The same at the initiator, for what the terminator sends. What it returns for a reply goes nowhere: replies cause
    /// no replies.
    fn on_receive_initiator(&self, payload: Payload) -> BoxFuture<'_, Result<Option<Payload>, HookError>> {
        let _ = payload;
        ready(Ok(None)).boxed()
    }

    /// Runs one of the receiving hooks on a message with all that came with it, by default one of those above.
    fn on_receive<'a>(&'a self, received: Received<'a>) -> BoxFuture<'a, Result<Option<Payload>, HookError>> {
        let Received { is_initiator, site, payload, .. } = received;
        if is_initiator { self.on_receive_initiator(payload) } else { self.on_receive_from(site, payload) }
    }

    /// Whether these hooks enforce the time limits themselves, so that the web-app need not.
    fn keeps_time(&self) -> bool {
        false
    }
}

/// A message for a receiving hook.
#[derive(Debug)]
#[non_exhaustive]
pub struct Received<'a> {
    /// Whether it is the initiator's hook that is to run.
    pub is_initiator: bool,
    /// The site that it came from, at a terminator that has several.
    pub site: Option<&'a str>,
    /// What was sent.
    pub payload: Payload,
    /// `traceparent`, `tracestate` and `baggage`, as far as they were given with the trigger.
    pub headers: &'a BTreeMap<String, String>,
}

/// The hooks of a web-app without user code: every payload passes through.
#[derive(Debug, Clone, Copy, Default)]
pub struct PassThrough;

impl Hooks for PassThrough {}

/// Why a hook refused a message. The text is sent back to the sender of the trigger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// The payload is wrong; HTTP 400.
    #[error("{0}")]
    Invalid(String),
    /// The sender may not do this; HTTP 403.
    #[error("{0}")]
    Denied(String),
    /// The hook itself failed; HTTP 500.
    #[error("{0}")]
    Failed(String),
    /// What the hook returned is more than a message holds; HTTP 413.
    #[error("{0}")]
    TooLarge(String),
}

impl HookError {
    /// The same error with its text cut to [`MAX_ERROR_CHARS`].
    pub(crate) fn truncate(self) -> Self {
        let cut = |text: String| text.chars().take(MAX_ERROR_CHARS).collect();
        match self {
            Self::Invalid(text) => Self::Invalid(cut(text)),
            Self::Denied(text) => Self::Denied(cut(text)),
            Self::Failed(text) => Self::Failed(cut(text)),
            Self::TooLarge(text) => Self::TooLarge(cut(text)),
        }
    }
}

/// From a hook that cannot read a payload as a tree, or that returned something that is not a payload.
impl From<PayloadError> for HookError {
    fn from(error: PayloadError) -> Self {
        let text = format!("the payload is {error}");
        match error {
            PayloadError::TooLarge(_) => Self::TooLarge(text),
            _ => Self::Failed(text),
        }
    }
}

/// Runs one hook and turns a panic into an error of this message.
pub(crate) async fn catch_panics<T>(hook: impl Future<Output = Result<T, HookError>>) -> Result<T, HookError> {
    AssertUnwindSafe(hook)
        .catch_unwind()
        .await
        .unwrap_or_else(|_| Err(HookError::Failed("the hook panicked: see the web-app's log".into())))
}
