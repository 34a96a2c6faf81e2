//! The audit trail: events that say who used what, as lines of the log with a target of their own.
//!
//! `docs/audit.md` lists the lines and their fields; a test compares.

use std::fmt::Display;

use ferry_log::LineLimiter;
use tracing::{Level, enabled, info};

use super::{EndFacts, Event, SessionFacts};

/// What the lines are filtered by.
const TARGET: &str = "audit";

/// Writes the audit trail, if the log is set to have one.
#[derive(Debug, Default)]
pub(super) struct Audit {
    /// Strangers decide how many of theirs there are.
    strangers: LineLimiter,
}

/// One line. It names its session itself, whatever span it is told in.
macro_rules! line {
    ($kind:literal, $($field:tt)+) => { info!(target: TARGET, parent: None, kind = $kind, $($field)+) };
}

impl Audit {
    pub(super) fn record(&self, event: &Event) {
        if !enabled!(target: TARGET, Level::INFO) {
            return;
        }
        match event {
            Event::SessionEnded { session, end } | Event::SessionLost { session, end } => session_end(session, end),
            Event::SessionRefused { peer, service, reason, text } => {
                line!("session_refused", peer, service, reason, text, "session refused");
            }
            Event::ConnectionRefused { peer, service, source, reason, text } => {
                let source = source.map(tracing::field::display);
                line!("connection_refused", peer, service, source, reason, text, "connection refused");
            }
            Event::LinkRefused { peer: Some(peer), role, reason, text, .. } => {
                line!("link_refused", peer, role, reason, text, "link refused");
            }
            Event::LinkRefused { peer: None, from, role, reason, text } => self.strangers.log(|suppressed| {
                line!("link_refused", from, role, reason, text, suppressed, "link refused");
            }),
            Event::Started { name, instance, ferry } => line!("started", name, instance, ferry, "tunnel started"),
            Event::ConfigReloaded { changes } => {
                line!("config_reloaded", changes = spaced(changes), "configuration changed");
            }
            Event::ConfigRefused { problem } => line!("config_refused", problem, "configuration refused"),
            Event::Draining { sessions, .. } => line!("draining", sessions, "tunnel draining"),
            _ => {}
        }
    }
}

fn session_end(session: &SessionFacts, end: &EndFacts) {
    let SessionFacts { id, peer, side, service, .. } = session;
    line!(
        "session_ended",
        session = id.to_hex(),
        peer,
        side,
        service,
        source = end.source.map(tracing::field::display),
        link_from = end.link_from.map(tracing::field::display),
        peer_keys = spaced(&end.peer_keys),
        ending = end.ending,
        reason = end.reason,
        age_seconds = end.age.as_secs_f64(),
        sent = end.sent,
        received = end.received,
        rotations = end.rotations,
        resumes = end.resumes,
        paused_seconds = end.paused.as_secs_f64(),
        longest_pause_seconds = end.longest_pause.as_secs_f64(),
        adopted = end.adopted,
        "session ended"
    );
}

fn spaced(texts: &[impl Display]) -> String {
    texts.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
