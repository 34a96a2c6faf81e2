//! The kinds of events. `docs/observability.md` lists them; a test compares.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ferry_session::SessionId;
use serde::Serialize;

use super::Class;
use crate::sessions::handle::{SessionHandle, SessionName};
use crate::telemetry::metrics::{End, Ending, LinkFailure, Role};

/// Which session an event is about.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SessionFacts {
    #[serde(skip)]
    pub(super) id: SessionId,
    pub(super) session: String,
    pub(super) peer: String,
    pub(super) side: &'static str,
    pub(super) service: String,
}

impl SessionFacts {
    pub(crate) fn new(name: &SessionName, service: &str) -> Self {
        let side = End::of(name.side).as_str();
        Self {
            id: name.id,
            session: name.id.to_string(),
            peer: name.peer.to_string(),
            side,
            service: service.to_owned(),
        }
    }
}

macro_rules! events {
    ($($class:ident { $($(#[$about:meta])* $kind:ident { $($(#[$how:meta])* $field:ident: $of:ty),* $(,)? })+ })+) => {
        /// Something that happened.
        #[derive(Clone, Debug, Serialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        pub(crate) enum Event {
            $($($(#[$about])* $kind { $($(#[$how])* $field: $of),* },)+)+
        }

        impl Event {
            pub(super) fn class(&self) -> Class {
                match self {
                    $($(Self::$kind { .. } => Class::$class,)+)+
                }
            }

            #[cfg(test)]
            pub(super) const KINDS: &[&str] = &[$($(stringify!($kind),)+)+];
        }
    };
}

events! {
    Notable {
        /// The tunnel is up.
        Started { name: String, instance: String, ferry: &'static str }
        /// A peer answers that did not before.
        PeerReachable { peer: String }
        /// A peer does not answer any more, or for another reason than before.
        PeerUnreachable { peer: String, problem: String }
        /// The first link of a peer that dials this end.
        PeerConnected { peer: String }
        /// The last link of a peer that dials this end is gone.
        PeerLost { peer: String }
        /// Other addresses of a peer are dialled first than before.
        CarrierChosen { peer: String, carrier: &'static str, reason: String }
        /// A link ended under its session.
        LinkLost { #[serde(flatten)] session: SessionFacts, epoch: u32, reason: String }
        /// A session has no link.
        SessionDetached {
            #[serde(flatten)] session: SessionFacts,
            reason: String,
            #[serde(serialize_with = "seconds", rename = "kept_for_seconds")] kept_for: Duration,
        }
        /// A session of the process before is this one's now, without a link yet.
        SessionAdopted { #[serde(flatten)] session: SessionFacts }
        /// A session continues after a loss, this long without a link.
        SessionResumed {
            #[serde(flatten)] session: SessionFacts,
            epoch: u32,
            #[serde(serialize_with = "seconds", rename = "after_seconds")] after: Duration,
        }
        /// A session keeps its link and its keys; another rotation is tried soon.
        RotationFailed { #[serde(flatten)] session: SessionFacts, reason: String }
        /// The peer did not take a session's new link.
        AttachRejected { #[serde(flatten)] session: SessionFacts, epoch: u32, reason: String }
        /// A session ended in another way than by its applications.
        SessionLost { #[serde(flatten)] session: SessionFacts, #[serde(flatten)] end: EndFacts }
        /// An application's connection was not carried.
        ConnectionRefused {
            peer: String,
            service: String,
            #[serde(skip_serializing_if = "Option::is_none")] source: Option<SocketAddr>,
            reason: &'static str,
            text: String,
        }
        /// An address for applications cannot be listened on.
        ListenerDown { listen: String, problem: String }
        /// An address for applications is listened on again.
        ListenerUp { listen: String }
        /// Another configuration is in force.
        ConfigReloaded { changes: Vec<String> }
        /// The configuration has changed, and cannot be used.
        ConfigRefused { problem: String }
        /// The tunnel takes no more sessions, and ends.
        Draining {
            sessions: usize,
            #[serde(serialize_with = "seconds", rename = "within_seconds")] within: Duration,
        }
    }
    Routine {
        /// A link's Prefaces are exchanged.
        LinkMade { peer: String, role: &'static str }
        /// A session's first link is there.
        SessionOpened { #[serde(flatten)] session: SessionFacts, #[serde(skip)] took: Duration }
        /// A session has fresh keys.
        SessionRotated { #[serde(flatten)] session: SessionFacts, epoch: u32, #[serde(skip)] took: Duration }
        /// A session ended by its applications.
        SessionEnded { #[serde(flatten)] session: SessionFacts, #[serde(flatten)] end: EndFacts }
    }
    Foreign {
        /// A link was not made, or was refused before it carried a session.
        LinkRefused { peer: Option<String>, from: Option<String>, role: &'static str, reason: &'static str, text: String }
        /// A peer asked for a session that it does not get.
        SessionRefused { peer: String, service: String, reason: &'static str, text: String }
    }
}

/// How a session ended.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct EndFacts {
    pub(super) ending: &'static str,
    pub(super) reason: String,
    pub(super) sent: u64,
    pub(super) received: u64,
    #[serde(serialize_with = "seconds", rename = "age_seconds")]
    pub(super) age: Duration,
    /// Where the application connected from, as far as it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<SocketAddr>,
    /// Where the peer's last link came from, if the peer dialled it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) link_from: Option<IpAddr>,
    /// Those that the peer proved on the links of the session.
    pub(super) peer_keys: Vec<String>,
    pub(super) rotations: u32,
    pub(super) resumes: u32,
    #[serde(serialize_with = "seconds", rename = "paused_seconds")]
    pub(super) paused: Duration,
    #[serde(serialize_with = "seconds", rename = "longest_pause_seconds")]
    pub(super) longest_pause: Duration,
    /// It was another process's before: what is counted here begins with this one.
    pub(super) adopted: bool,
}

impl EndFacts {
    pub(crate) fn new(handle: &SessionHandle, ending: Ending, reason: String) -> Self {
        let ((sent, received), pauses, past) = (handle.bytes(), handle.pauses(), handle.past());
        Self {
            ending: ending.as_str(),
            reason,
            sent,
            received,
            age: handle.opened.elapsed(),
            source: past.origin.map(|origin| origin.source),
            link_from: past.link_from,
            peer_keys: past.keys.iter().map(ToString::to_string).collect(),
            rotations: past.rotations,
            resumes: pauses.count,
            paused: pauses.total(),
            longest_pause: pauses.longest(),
            adopted: past.adopted,
        }
    }
}

impl Event {
    pub(crate) fn link_made(peer: &impl ToString, role: Role) -> Self {
        Self::LinkMade { peer: peer.to_string(), role: role.as_str() }
    }

    /// A link of a peer's was not made, or refused unused.
    pub(crate) fn link_refused(peer: &impl ToString, role: Role, failure: LinkFailure, text: String) -> Self {
        let peer = Some(peer.to_string());
        Self::LinkRefused { peer, from: None, role: role.as_str(), reason: failure.as_str(), text }
    }

    /// A connection did not become a link.
    pub(crate) fn stranger_refused(from: &impl ToString, failure: LinkFailure, text: String) -> Self {
        let from = Some(from.to_string());
        Self::LinkRefused { peer: None, from, role: Role::Listener.as_str(), reason: failure.as_str(), text }
    }

    /// A session ended, by its applications or against them.
    pub(crate) fn session_ended(session: SessionFacts, end: EndFacts, by_applications: bool) -> Self {
        if by_applications { Self::SessionEnded { session, end } } else { Self::SessionLost { session, end } }
    }
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_millis() as f64 / 1000.0)
}
