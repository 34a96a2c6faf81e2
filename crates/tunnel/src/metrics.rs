//! Every metric of the tunnel, in one place. `docs/operations.md` lists them; a test scrapes them.

use ferry_session::Outcome;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// The end that dialled, or the one that was dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Role {
    /// It dialled.
    Dialler,
    /// It was dialled.
    Acceptor,
}

/// Which end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum End {
    Opener,
    Acceptor,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Ending {
    Finished,
    ResetHere,
    ResetByPeer,
    Expired,
    Refused,
    Violated,
}

impl Ending {
    pub(crate) fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Finished => Self::Finished,
            Outcome::ResetHere { .. } | Outcome::Unattachable(_) => Self::ResetHere,
            Outcome::ResetByPeer { .. } => Self::ResetByPeer,
            Outcome::Expired => Self::Expired,
            Outcome::Refused { .. } => Self::Refused,
            Outcome::Violated(_) => Self::Violated,
        }
    }
}

/// Why a link was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum LinkFailure {
    /// No connection.
    Unreachable,
    /// The handshake took too long, or the ClientHello did not come.
    Timeout,
    /// The TLS policy or the key was refused.
    Tls,
    /// What came after the handshake was not this protocol.
    Protocol,
    /// A limit was reached: the socket was closed unheard.
    Limit,
}

/// Why an application's connection was not carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Refusal {
    /// No link within the open time-out.
    NoLink,
    /// The session limit is reached.
    Limit,
    /// The tunnel is shutting down.
    Draining,
    /// The service is not known, or not for this peer.
    Service,
    /// The application could not be connected to.
    Unreachable,
}

/// How a rotation went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Rotated {
    Done,
    Failed,
}

/// The way that application bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Direction {
    /// From the application here to the peer.
    Sent,
    /// From the peer to the application here.
    Received,
}

macro_rules! labels {
    ($($name:ident { $($field:ident: $kind:ty),+ })+) => {$(
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(crate) struct $name { $(pub(crate) $field: $kind),+ }
    )+};
}

labels! {
    ByRole { role: Role }
    ByEnd { side: End }
    ByEnding { side: End, ending: Ending }
    ByLinkFailure { role: Role, reason: LinkFailure }
    ByRefusal { reason: Refusal }
    ByRotated { result: Rotated }
    ByDirection { direction: Direction }
}

/// What the tunnel counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) links: Family<ByRole, Counter>,
    pub(crate) link_failures: Family<ByLinkFailure, Counter>,
    pub(crate) links_open: Gauge,
    pub(crate) links_warm: Gauge,
    pub(crate) sessions: Family<ByEnd, Counter>,
    pub(crate) sessions_open: Family<ByEnd, Gauge>,
    pub(crate) sessions_detached: Gauge,
    pub(crate) sessions_ended: Family<ByEnding, Counter>,
    pub(crate) refused: Family<ByRefusal, Counter>,
    pub(crate) resumes: Counter,
    pub(crate) rotations: Family<ByRotated, Counter>,
    pub(crate) bytes: Family<ByDirection, Counter>,
}

/// The counters of the data path, looked up once for each session.
pub(crate) struct Counters {
    pub(crate) sent: Counter,
    pub(crate) received: Counter,
}

impl Metrics {
    pub(crate) fn counters(&self) -> Counters {
        let of = |direction| self.bytes.get_or_create_owned(&ByDirection { direction });
        Counters { sent: of(Direction::Sent), received: of(Direction::Received) }
    }

    /// Registers every metric with its help text.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("ferry");
        registry.register("links", "Links established, with their Prefaces exchanged", self.links.clone());
        registry.register("link_failures", "Links that were not established", self.link_failures.clone());
        registry.register("links_open", "Links open now", self.links_open.clone());
        registry.register("links_warm", "Links ready for a session of this end", self.links_warm.clone());
        registry.register("sessions", "Sessions begun", self.sessions.clone());
        registry.register("sessions_open", "Sessions alive now", self.sessions_open.clone());
        registry.register("sessions_detached", "Sessions without a link now", self.sessions_detached.clone());
        registry.register("sessions_ended", "Sessions ended", self.sessions_ended.clone());
        registry.register("connections_refused", "Application connections not carried", self.refused.clone());
        registry.register("resumes", "Sessions that went on over a new link after a loss", self.resumes.clone());
        registry.register("rotations", "Moves of a session to fresh keys", self.rotations.clone());
        registry.register_with_unit("application", "Application bytes carried", Unit::Bytes, self.bytes.clone());
    }
}
