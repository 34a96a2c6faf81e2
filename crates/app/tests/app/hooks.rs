//! Hooks that fail, wait and remember.

use std::sync::atomic::{AtomicUsize, Ordering};

use ferry_app::{BoxFuture, HookError, Hooks, Payload};
use tokio::sync::Semaphore;

use crate::pair::Headers;

/// `on_trigger` does what the payload's `do` says.
pub(crate) struct Obedient;

impl Hooks for Obedient {
    fn on_trigger<'a>(&'a self, payload: Payload, headers: &'a Headers) -> BoxFuture<'a, Result<Payload, HookError>> {
        Box::pin(async move {
            let mut payload = payload.to_object()?;
            match payload.get("do").and_then(|value| value.as_str()) {
                Some("invalid") => Err(HookError::Invalid("no such sensor".into())),
                Some("deny") => Err(HookError::Denied("not yours".into())),
                Some("fail") => Err(HookError::Failed("the sensor is on fire".into())),
                Some("panic") => panic!("on purpose"),
                Some("grow") => {
                    payload.insert("much".into(), "x".repeat(1 << 20).into());
                    Ok(Payload::try_from(&payload)?)
                }
                _ => {
                    payload.insert("tag".into(), headers.get("x-tag").cloned().into());
                    payload.insert("headers".into(), headers.len().into());
                    Ok(Payload::try_from(&payload)?)
                }
            }
        })
    }
}

/// The receiving hook fails, or panics, on the message with this `n`, and counts its runs on it.
#[derive(Default)]
pub(crate) struct Picky {
    pub(crate) dislikes: u64,
    pub(crate) panics: bool,
    pub(crate) runs: AtomicUsize,
}

impl Hooks for Picky {
    fn on_receive_terminator(&self, payload: Payload) -> BoxFuture<'_, Result<Option<Payload>, HookError>> {
        Box::pin(async move {
            if payload.to_object()?["n"] != self.dislikes {
                return Ok(None);
            }
            self.runs.fetch_add(1, Ordering::SeqCst);
            assert!(!self.panics, "on purpose");
            Err(HookError::Failed("I do not like it".into()))
        })
    }
}

/// The receiving hook waits at the message with this `n` for a permit.
pub(crate) struct Gate {
    pub(crate) at: u64,
    pub(crate) reached: Semaphore,
    pub(crate) open: Semaphore,
}

impl Gate {
    pub(crate) fn at(n: u64) -> Self {
        Self { at: n, reached: Semaphore::new(0), open: Semaphore::new(0) }
    }
}

impl Hooks for Gate {
    fn on_receive_terminator(&self, payload: Payload) -> BoxFuture<'_, Result<Option<Payload>, HookError>> {
        Box::pin(async move {
            if payload.to_object()?["n"] == self.at {
                self.reached.add_permits(1);
                let _permit = self.open.acquire().await;
            }
            Ok(None)
        })
    }
}
