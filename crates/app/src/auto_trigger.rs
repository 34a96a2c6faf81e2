//! The messages that an initiator sends by itself, to show that the whole path works.

use std::collections::BTreeMap;

use serde_json::json;
use tracing::{info, warn};

use crate::app::App;
use crate::outbox::{MessageHandle, Verdict};
use crate::payload::{Payload, PayloadError};
use crate::trigger::submit;

/// Once the far side is connected, sends `count` messages and logs when all of them are delivered. The wording of these
/// lines is part of the product's contract.
pub(crate) async fn run(app: &App, count: u32) {
    tokio::select! {
        () = send(app, count) => {}
        () = app.phases.closing.cancelled() => {}
    }
}

async fn send(app: &App, count: u32) {
    // Fails only if the watch's sender is gone, which `app` owns.
    let site = app.sites.first();
    let _ = site.far.subscribe().wait_for(Option::is_some).await;
    info!("🔁 Auto-trigger starting — sending {count} messages");
    let mut accepted: Vec<MessageHandle> = Vec::new();
    let mut failures: Vec<String> = Vec::new();
    for n in 1..=count {
        let message = match payload(app, n, count) {
            Ok(payload) => submit(app, &site, payload, &BTreeMap::new()).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match message {
            Ok(message) => accepted.push(message),
            Err(error) => failures.push(format!("message {n}: {error}")),
        }
    }
    let mut delivered = 0;
    for mut message in accepted {
        match message.stored().await {
            Ok(id) => match message.verdict().await {
                Verdict::Delivered(_) => delivered += 1,
                Verdict::Dead(error) => failures.push(format!("{id}: {error}")),
            },
            Err(error) => failures.push(error.to_string()),
        }
    }
    if failures.is_empty() {
        info!("🔁 Auto-trigger complete — {delivered}/{count} messages sent.");
    } else {
        warn!("🔁 Auto-trigger incomplete — {delivered}/{count} messages delivered; {}", failures.join("; "));
    }
}

fn payload(app: &App, n: u32, count: u32) -> Result<Payload, PayloadError> {
    Payload::parse(json!({"message": format!("Hello from {}", app.location.pod), "n": n, "of": count}).to_string())
}
