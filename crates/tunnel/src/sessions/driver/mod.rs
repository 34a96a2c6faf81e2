//! One task for each session: it moves bytes between the application, the session and its links.

mod alarm;
mod attach;
mod events;
mod measure;
mod rotation;
mod steps;
mod task;
mod weight;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::time::Duration;

use ferry_session::{Epoch, Instance, Outcome, Session, Side, Time};
use tracing::{Span, error_span};

use alarm::Alarm;
use attach::PendingLink;
use measure::{Look, path_of};
use task::Task;
use weight::Weight;

use crate::application::local::Local;
use crate::limits::entries::{Limited, Permits};
use crate::memory::scratch;
use crate::memory::{Bound, Lease};
use crate::net::Stream;
use crate::peer::Peer;
use crate::sessions::{self, Registration};
use crate::shared::Shared;
use crate::supply::pool::Need;
use crate::survival::Kept;
use crate::telemetry::events::spans::mark;
use crate::telemetry::metrics::{ByEnd, ByEnding, Counters, End, Ending};
use crate::transport::link::Link;
use crate::workers::WorkerSlot;

/// A resume that failed is tried again at once, then after this long, then after twice as long each, up to [`MAX_RETRY_DELAY`].
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Longest pause between two tries of a resume.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(1);

/// The first link of a session.
pub(crate) const FIRST: Epoch = Epoch(1);

/// What a session holds from before it begins.
pub(crate) struct Admitted {
    pub(crate) slot: WorkerSlot,
    pub(crate) peer: Arc<Peer>,
    pub(crate) registration: Registration,
    pub(crate) lease: Lease,
    pub(crate) permits: Permits,
}

/// Drives one session to its end.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    slot: WorkerSlot,
    peer: Arc<Peer>,
    registration: Registration,
    lease: Lease,
    limits: Box<Limited>,
    session: Session,
    local: Local,
    /// What of it outlives this process.
    kept: Option<Box<Kept>>,
    links: Vec<(Epoch, Box<Link>)>,
    pending_link: Option<PendingLink>,
    /// Links obtained for a resume since the session was attached last: each further one is waited for longer.
    tries: u32,
    /// When the keys are replaced next; opener only.
    rotate_at: Option<Time>,
    /// The peer's process that the Open went to: the application may have been connected there.
    opened_at: Option<Instance>,
    /// Acceptor: the last Open that was accepted. One before it may still be on its way, over a link that was given up.
    last_open: Epoch,
    /// The session is without a link, and counted so.
    detached: bool,
    counters: Counters,
    /// Most bytes that each buffer may be lent, and most that one key protects.
    most: Bound,
    key_bytes: u64,
    alarm: Alarm,
    weight: Weight,
    /// It was at another worker until now.
    arrives: bool,
    /// What was seen of the link's path, where it is looked at.
    last_look: Option<Box<Look>>,
    /// While all is well there are none, and they take no room.
    reasons: Option<Box<Reasons>>,
    outcome: Option<Box<Outcome>>,
    /// Entered where there is something to tell, and nowhere on the data path.
    span: Span,
}

/// What is to be told later.
#[derive(Default)]
struct Reasons {
    /// Why the peer refused the last attach.
    refusal: Option<String>,
    /// Why the last link was lost.
    loss: Option<String>,
    /// A link over QUIC did not answer, and TCP had its turn first.
    left_quic: bool,
    /// Since when a rotation is under way, where spans are exported.
    rotating_since: Option<Time>,
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        admitted: Admitted,
        session: Session,
        local: Box<dyn Stream>,
        kept: Option<Kept>,
    ) -> Self {
        Self::with_local(shared, admitted, session, Local::new(local), kept)
    }

    /// Of a session that a process before this one had. It goes on as one that has lost its link.
    pub(crate) fn adopted(
        shared: Arc<Shared>,
        admitted: Admitted,
        session: Session,
        local: Local,
        kept: Option<Kept>,
        state: &ferry_arena::State,
    ) -> Self {
        let mut driver = Self::with_local(shared, admitted, session, local, kept);
        (driver.opened_at, driver.last_open) = (state.peer, state.last_open);
        driver.count_detached(true);
        if driver.session.side() == Side::Opener {
            driver.request_link(Need::Resume);
        }
        driver
    }

    fn with_local(shared: Arc<Shared>, admitted: Admitted, session: Session, local: Local, kept: Option<Kept>) -> Self {
        let Admitted { slot, peer, registration, lease, permits } = admitted;
        let counters = shared.metrics.counters();
        let span = error_span!(
            "session",
            session = %session.id(),
            peer = %peer.name,
            side = End::of(session.side()).as_str(),
            service = session.service()
        );
        mark(&span, session.id());
        let config = &shared.config().tunnel.settings;
        let (most, key_bytes) = (Bound::of(config), config.rotation.bytes);
        let (now, (sent, received)) = (shared.now(), registration.bytes());
        Self {
            shared,
            slot,
            peer,
            registration,
            lease,
            limits: Limited::new(permits),
            session,
            local,
            kept: kept.map(Box::new),
            links: Vec::new(),
            pending_link: None,
            tries: 0,
            rotate_at: None,
            opened_at: None,
            last_open: Epoch::NONE,
            detached: false,
            counters,
            most,
            key_bytes,
            alarm: Alarm::default(),
            arrives: false,
            weight: Weight::new(now, sent + received),
            last_look: None,
            reasons: None,
            outcome: None,
            span,
        }
    }

    /// Drives the session to its end, in a task that holds nothing else: what it took to open it does not last as long.
    pub(crate) fn start(self) {
        let (shared, side) = (self.shared.clone(), self.end());
        shared.metrics.sessions.get_or_create(&ByEnd { side }).inc();
        shared.metrics.sessions_open.get_or_create(&ByEnd { side }).inc();
        self.peer.sessions.fetch_add(1, Ordering::Relaxed);
        let worker = self.slot.runtime().clone();
        shared.spawn_session_at(&worker, Task::new(self));
    }

    fn end(&self) -> End {
        End::of(self.session.side())
    }

    /// Goes through everything once. Says whether to do so again before the task sleeps: each step that leaves
    /// something undone either says so, or has what it waits for wake the task.
    fn round(&mut self, now: Time, cx: &mut Context<'_>) -> bool {
        let mut again = false;
        for command in self.registration.mailbox.take(cx) {
            let _entered = self.span.clone().entered();
            self.on_command(command);
            again = true;
        }
        again |= self.poll_pending_link(cx);
        if self.alarm.is_due(now) {
            self.on_due(now);
            again = true;
        }
        again |= self.receive(now, cx);
        // What the application sees has happened to whoever asks this tunnel, too.
        again |= self.on_events();
        again |= self.deliver(now, cx);
        // Those of the peer's acks and of the application's reads are what is written into next.
        self.return_spent();
        again |= self.collect(now, cx);
        again |= self.watch_local(now, cx);
        self.return_spent();
        again |= self.transmit(now, cx);
        again |= self.on_events();
        if self.lease.grow_if_short(now, &mut self.session, self.most, &self.peer.round_trip) {
            self.tell_receive_window();
            again = true;
        }
        self.look_if_due(now);
        self.registration.buffered.store(self.session.replay_buffered(), Ordering::Relaxed);
        again
    }

    /// The session or its rotation may have waited for this moment.
    fn on_due(&mut self, now: Time) {
        self.share_pings();
        let links = &self.links;
        self.session.handle_timeout(now, |epoch| Some(path_of(links, epoch)?.unread));
        if self.rotate_at.is_some_and(|at| at <= now) {
            self.replace_keys();
        }
    }

    /// A quiet end learns by asking that only the other one has lost their link, and only an opener can resume.
    fn share_pings(&mut self) {
        if self.session.side() == Side::Opener {
            self.session.set_idle_ping(self.shared.sessions.idle_ping());
        }
    }

    fn on_events(&mut self) -> bool {
        let mut any = false;
        while let Some(event) = self.session.poll_event() {
            let _entered = self.span.clone().entered();
            self.on_event(event);
            any = true;
        }
        any
    }

    /// What comes over a link may be as much as its session may be sent.
    fn tell_receive_window(&mut self) {
        let window = self.lease.held().receive;
        self.links.iter_mut().for_each(|(_, link)| link.follow_receive_window(window));
    }

    /// Gives blocks back that the session has no use for: at rest it holds none.
    fn return_spent(&mut self) {
        while let Some(block) = self.session.poll_spent() {
            scratch::return_block(block);
        }
    }

    /// Nothing waits for this task alone: neither what happened, nor what a link would take, nor memory for others.
    fn is_at_rest(&mut self) -> bool {
        let now = self.shared.now();
        let mut ready = self.links.iter().filter(|(_, link)| link.has_room()).map(|(epoch, _)| *epoch);
        ready.all(|epoch| self.session.poll_transmit(now, epoch).is_none())
            && self.session.poll_event().is_none()
            && self.session.poll_spent().is_none()
    }

    fn is_over(&self) -> bool {
        self.outcome.is_some() && self.links.is_empty() && self.local.is_over()
    }

    fn bytes_moved(&self) -> u64 {
        let (sent, received) = self.registration.bytes();
        sent + received
    }

    /// Has the task woken when the session or its rotation is due. Says whether that is now.
    fn arm(&mut self, cx: &mut Context<'_>) -> bool {
        let paced = self.limits.pacer.as_ref().and_then(|pacer| pacer.poll_timeout());
        let due = self.session.poll_timeout().into_iter().chain(self.rotate_at).chain(self.local.poll_timeout());
        let due = due.chain(paced).min();
        self.alarm.poll(cx, due, |at| self.shared.instant(at))
    }

    /// Ends the session's record here.
    fn unregister(&mut self) {
        for command in self.registration.mailbox.close() {
            drop(command);
        }
        self.count_detached(false);
        let outcome = self.outcome.take().map_or(Outcome::Expired, |outcome| *outcome);
        // A late Open must not open the session again: one from before the last, or one that an opener without an answer
        // sent behind another link, with its Reset.
        let known = match outcome {
            Outcome::Finished | Outcome::PeerGone { .. } | Outcome::Refused { .. } => true,
            Outcome::ResetByPeer { .. } => self.session.side() == Side::Opener,
            _ => false,
        };
        if !known || self.last_open > FIRST {
            sessions::bury(&self.shared, &self.registration, self.session.received());
        }
        self.peer.sessions.fetch_sub(1, Ordering::Relaxed);
        let (metrics, side) = (&self.shared.metrics, self.end());
        metrics.sessions_open.get_or_create(&ByEnd { side }).dec();
        metrics.sessions_ended.get_or_create(&ByEnding { side, ending: Ending::of(&outcome) }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::handle::SessionHandle;

    /// Most of an idle session's memory is these, at each end. (What is told at its end is some 100 bytes more.)
    #[test]
    fn a_session_at_rest_is_small() {
        let sizes = [size_of::<Task>(), size_of::<Link>(), size_of::<SessionHandle>()];
        assert!(sizes.iter().sum::<usize>() <= 2048, "{sizes:?}");
    }
}
