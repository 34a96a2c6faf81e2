//! Every metric of the tunnel, in one place. `docs/operations.md` lists them; a test scrapes them.

use std::fmt::Write as _;
use std::hash::Hash;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use ferry_log::LostLines;
use ferry_session::{Outcome, RejectCode, Side};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::limits::entries::{Exceeded, Scope};

/// Enums whose values are labels: what they are in metrics stands beside each.
macro_rules! values {
    ($($(#[$about:meta])* $name:ident { $($(#[$of:meta])* $value:ident = $text:literal),+ $(,)? })+) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum $name { $($(#[$of])* $value),+ }

        impl $name {
            const ALL: &[Self] = &[$(Self::$value),+];

            /// What it is in metrics and logs.
            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text),+ }
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
                encoder.write_str(self.as_str())
            }
        }
    )+};
}

values! {
    /// The end that dialled, or the one that was dialled.
    Role {
        /// It dialled.
        Dialler = "dialler",
        /// It was dialled.
        Listener = "listener",
    }
    /// Which end of a session.
    End { Opener = "opener", Acceptor = "acceptor" }
    /// How a session ended.
    Ending {
        Finished = "finished",
        ResetHere = "reset_here",
        ResetByPeer = "reset_by_peer",
        Expired = "expired",
        /// The peer's process is gone.
        PeerGone = "peer_gone",
        Refused = "refused",
        Violated = "violated",
    }
    /// Why a link was not made, or was refused before it carried a session.
    LinkFailure {
        /// No connection.
        Unreachable = "unreachable",
        /// A proxy or an HTTP endpoint on the way refused.
        Carrier = "carrier",
        /// The handshake took too long, or the ClientHello did not come.
        Timeout = "timeout",
        /// The other end closed the connection before the link was made.
        Closed = "closed",
        /// What came is not TLS, or broken.
        Tls = "tls",
        /// TLS, but not of the version, key exchange, kind of key or application protocol that the policy asks for.
        Policy = "policy",
        /// The key that one end proved is not one that the other knows.
        Key = "key",
        /// The other end speaks another version of the protocol.
        Version = "version",
        /// What came after the handshake was not this protocol.
        Protocol = "protocol",
        /// A limit was reached.
        Limit = "limit",
    }
    /// Why an application's connection was not carried.
    Refusal {
        /// No link within the open time-out.
        NoLink = "no_link",
        /// The tunnel's session limit is reached.
        Limit = "limit",
        /// The limit of the peer's entry is reached.
        PeerLimit = "peer_limit",
        /// The limit of the egress or the ingress is reached.
        ServiceLimit = "service_limit",
        /// The tunnel is shutting down.
        Draining = "draining",
        /// The service is not known, or not for this peer.
        Service = "service",
        /// The application could not be connected to.
        Unreachable = "unreachable",
    }
    /// Why a peer's Hello was refused: the codes of a Reject.
    Rejected {
        Version = "version",
        Protocol = "protocol",
        Service = "service",
        Unreachable = "unreachable",
        Limit = "limit",
        Draining = "draining",
        Unknown = "unknown",
        Closed = "closed",
        Stale = "stale",
        NotAttached = "not_attached",
    }
    /// What became of a connection that asked for another replica.
    Splice {
        /// It was led there.
        Done = "done",
        /// No replica says that it is the one.
        Unknown = "unknown",
        /// That replica takes no connection.
        Unreachable = "unreachable",
        /// As many are led elsewhere as may be.
        Limit = "limit",
    }
    /// What was before this process of the tunnel.
    Started {
        /// Nothing that could be adopted.
        New = "new",
        /// A process that crashed.
        Crash = "crash",
        /// A process that was ended so that this one takes over.
        Replaced = "replaced",
    }
    /// How a rotation went.
    Rotated { Done = "done", Failed = "failed" }
    /// The way that application bytes go.
    Direction {
        /// From the application here to the peer.
        Sent = "sent",
        /// From the peer to the application here.
        Received = "received",
    }
}

impl End {
    pub(crate) fn of(side: Side) -> Self {
        match side {
            Side::Opener => Self::Opener,
            Side::Acceptor => Self::Acceptor,
        }
    }
}

impl Ending {
    pub(crate) fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Finished => Self::Finished,
            Outcome::Violated(_) => Self::Violated,
            Outcome::ResetHere { .. } | Outcome::Unattachable(_) => Self::ResetHere,
            Outcome::ResetByPeer { .. } => Self::ResetByPeer,
            Outcome::Expired => Self::Expired,
            Outcome::PeerGone { .. } => Self::PeerGone,
            Outcome::Refused { .. } => Self::Refused,
        }
    }
}

impl Refusal {
    pub(crate) fn of(exceeded: &Exceeded) -> Self {
        if exceeded.scope == Scope::Peer { Self::PeerLimit } else { Self::ServiceLimit }
    }
}

impl From<RejectCode> for Rejected {
    fn from(code: RejectCode) -> Self {
        match code {
            RejectCode::Version => Self::Version,
            RejectCode::Protocol => Self::Protocol,
            RejectCode::Service => Self::Service,
            RejectCode::Unreachable => Self::Unreachable,
            RejectCode::Limit => Self::Limit,
            RejectCode::Draining => Self::Draining,
            RejectCode::Unknown => Self::Unknown,
            RejectCode::Closed => Self::Closed,
            RejectCode::Stale => Self::Stale,
            RejectCode::NotAttached => Self::NotAttached,
        }
    }
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
    ByRejected { reason: Rejected }
    ByRotated { result: Rotated }
    ByStart { start: Started }
    BySplice { result: Splice }
    ByDirection { direction: Direction }
}

/// How long something takes, from a millisecond to the resume window.
#[derive(Clone, Debug)]
pub(crate) struct Seconds<L: Clone + Eq + Hash>(Family<L, Histogram, fn() -> Histogram>);

const SECONDS: [f64; 13] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 600.0];

impl<L: Clone + Eq + Hash> Seconds<L> {
    pub(crate) fn observe(&self, labels: &L, duration: Duration) {
        self.0.get_or_create(labels).observe(duration.as_secs_f64());
    }
}

impl<L: Clone + Eq + Hash> Default for Seconds<L> {
    fn default() -> Self {
        Self(Family::new_with_constructor(|| Histogram::new(SECONDS)))
    }
}

/// What the tunnel counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) links: Family<ByRole, Counter>,
    pub(crate) link_failures: Family<ByLinkFailure, Counter>,
    pub(crate) links_open: Gauge,
    pub(crate) links_warm: Gauge,
    pub(crate) unauthenticated: Gauge,
    pub(crate) sessions: Family<ByEnd, Counter>,
    pub(crate) sessions_open: Family<ByEnd, Gauge>,
    pub(crate) sessions_detached: Gauge,
    pub(crate) listeners_down: Gauge,
    pub(crate) sessions_ended: Family<ByEnding, Counter>,
    pub(crate) refused: Family<ByRefusal, Counter>,
    pub(crate) attaches_refused: Family<ByRejected, Counter>,
    pub(crate) resumes: Counter,
    pub(crate) resume_pause: Seconds<ByEnd>,
    pub(crate) handshake: Seconds<ByRole>,
    pub(crate) replicas: Gauge,
    pub(crate) splices: Family<BySplice, Counter>,
    pub(crate) splices_open: Gauge,
    pub(crate) engine_starts: Family<ByStart, Counter>,
    pub(crate) sessions_adopted: Counter,
    pub(crate) sessions_dropped: Counter,
    pub(crate) tombstones_dropped: Counter,
    pub(crate) rotations: Family<ByRotated, Counter>,
    pub(crate) bytes: Family<ByDirection, Counter>,
    pub(crate) oldest_key: Gauge<f64, AtomicU64>,
    pub(crate) key_bytes: Gauge,
    pub(crate) rotation_delay: Gauge<f64, AtomicU64>,
    pub(crate) memory_lent: Gauge,
}

/// One open link, for as long as it is held.
pub(crate) struct OpenLink(Gauge);

impl OpenLink {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        metrics.links_open.inc();
        Self(metrics.links_open.clone())
    }
}

impl Drop for OpenLink {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// One connection that is led to another replica, for as long as it is held.
pub(crate) struct OpenSplice(Gauge);

impl OpenSplice {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        metrics.spliced(Splice::Done);
        metrics.splices_open.inc();
        Self(metrics.splices_open.clone())
    }
}

impl Drop for OpenSplice {
    fn drop(&mut self) {
        self.0.dec();
    }
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

    /// A link was made, with its Prefaces exchanged.
    pub(crate) fn link_made(&self, role: Role) {
        self.links.get_or_create(&ByRole { role }).inc();
    }

    /// A handshake is done, whose flight of this end took this long to be answered.
    pub(crate) fn handshake_done(&self, role: Role, round_trip: Option<Duration>) {
        if let Some(round_trip) = round_trip {
            self.handshake.observe(&ByRole { role }, round_trip);
        }
    }

    /// A link was not made, or was refused before it carried a session.
    pub(crate) fn link_failed(&self, role: Role, reason: LinkFailure) {
        self.link_failures.get_or_create(&ByLinkFailure { role, reason }).inc();
    }

    /// A connection asked for another replica.
    pub(crate) fn spliced(&self, result: Splice) {
        self.splices.get_or_create(&BySplice { result }).inc();
    }

    /// A Hello of a peer was refused.
    pub(crate) fn attach_refused(&self, code: RejectCode) {
        self.attaches_refused.get_or_create(&ByRejected { reason: code.into() }).inc();
    }

    /// Every combination of labels is there from the start, at 0: so the first of anything is seen as an increase.
    fn fill(&self) {
        for &role in Role::ALL {
            fill(&self.links, [ByRole { role }]);
            drop(self.handshake.0.get_or_create(&ByRole { role }));
            fill(&self.link_failures, LinkFailure::ALL.iter().map(|&reason| ByLinkFailure { role, reason }));
        }
        for &side in End::ALL {
            fill(&self.sessions, [ByEnd { side }]);
            drop(self.resume_pause.0.get_or_create(&ByEnd { side }));
            fill(&self.sessions_open, [ByEnd { side }]);
            fill(&self.sessions_ended, Ending::ALL.iter().map(|&ending| ByEnding { side, ending }));
        }
        fill(&self.refused, Refusal::ALL.iter().map(|&reason| ByRefusal { reason }));
        fill(&self.attaches_refused, Rejected::ALL.iter().map(|&reason| ByRejected { reason }));
        fill(&self.splices, Splice::ALL.iter().map(|&result| BySplice { result }));
        fill(&self.engine_starts, Started::ALL.iter().map(|&start| ByStart { start }));
        fill(&self.rotations, Rotated::ALL.iter().map(|&result| ByRotated { result }));
        fill(&self.bytes, Direction::ALL.iter().map(|&direction| ByDirection { direction }));
    }

    /// Registers every metric with its help text.
    pub(crate) fn register(&self, registry: &mut Registry) {
        self.fill();
        registry.register_collector(Box::new(LostLines));
        let registry = registry.sub_registry_with_prefix("ferry");
        registry.register("links", "Links established, with their Prefaces exchanged", self.links.clone());
        registry.register(
            "link_failures",
            "Links that were not established, or were refused unused",
            self.link_failures.clone(),
        );
        registry.register("links_open", "Links open now", self.links_open.clone());
        registry.register("links_warm", "Links ready for a session of this end", self.links_warm.clone());
        registry.register(
            "links_unauthenticated",
            "Connections at the link port that have not proved a listed key",
            self.unauthenticated.clone(),
        );
        registry.register("sessions", "Sessions begun", self.sessions.clone());
        registry.register("sessions_open", "Sessions alive now", self.sessions_open.clone());
        registry.register("sessions_detached", "Sessions without a link now", self.sessions_detached.clone());
        registry.register(
            "listeners_down",
            "Addresses for applications that cannot be listened on now",
            self.listeners_down.clone(),
        );
        registry.register("sessions_ended", "Sessions ended", self.sessions_ended.clone());
        registry.register("connections_refused", "Application connections not carried", self.refused.clone());
        registry.register("attaches_refused", "Hellos of peers that were refused", self.attaches_refused.clone());
        registry.register("resumes", "Sessions that continued on a new link after a loss", self.resumes.clone());
        let text = "How long sessions were without a link that continued on another";
        registry.register_with_unit("resume_pause", text, Unit::Seconds, self.resume_pause.0.clone());
        let text = "From an end's flight of a handshake to the answer: the round trip and what the peer computes";
        registry.register_with_unit("handshake", text, Unit::Seconds, self.handshake.0.clone());
        registry.register("replicas", "Other replicas of this tunnel that answer", self.replicas.clone());
        let text = "Connections that asked for another replica";
        registry.register("splices", text, self.splices.clone());
        let text = "Connections that are led to another replica now";
        registry.register("splices_open", text, self.splices_open.clone());
        registry.register("engine_starts", "Starts of the tunnel's process", self.engine_starts.clone());
        let text = "Sessions taken over from the process before";
        registry.register("sessions_adopted", text, self.sessions_adopted.clone());
        let text = "Sessions of the process before that could not be taken over";
        registry.register("sessions_dropped", text, self.sessions_dropped.clone());
        registry.register(
            "tombstones_dropped",
            "Ended sessions forgotten before their time, because too many others had ended",
            self.tombstones_dropped.clone(),
        );
        registry.register("rotations", "Moves of a session to fresh keys", self.rotations.clone());
        registry.register_with_unit("application", "Application bytes carried", Unit::Bytes, self.bytes.clone());
        registry.register_with_unit(
            "oldest_key",
            "Age of the oldest key in use",
            Unit::Seconds,
            self.oldest_key.clone(),
        );
        registry.register_with_unit("key", "Most application bytes under one key", Unit::Bytes, self.key_bytes.clone());
        registry.register_with_unit(
            "rotation_delay",
            "How long a rotation that is due waits for its turn",
            Unit::Seconds,
            self.rotation_delay.clone(),
        );
        registry.register_with_unit(
            "memory_lent",
            "Memory reserved for buffers",
            Unit::Bytes,
            self.memory_lent.clone(),
        );
    }
}

fn fill<L: Clone + Eq + Hash, M: Default>(family: &Family<L, M>, labels: impl IntoIterator<Item = L>) {
    labels.into_iter().for_each(|labels| drop(family.get_or_create(&labels)));
}
