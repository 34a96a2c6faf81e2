use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::Duration;

use crate::ack_timer::AckTimer;
use crate::attachment::Attachment;
use crate::liveness::IDLE_PING_INTERVAL;
use crate::overdue::Overdue;
use crate::receive::ReceiveHalf;
use crate::send::SendHalf;
use crate::time::millis;
use crate::{Epoch, Event, Hello, Instance, Intent, ResetCode, SessionId, Time};

/// Application bytes that may follow the Hello of a new session before its Accept.
pub const INITIAL_WINDOW: u64 = 16 * 1024;

/// Which end of the session this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The end whose application connected: it numbers the epochs and sends the Hello.
    Opener,
    /// The end whose application is connected to.
    Acceptor,
}

/// When received bytes, and the Finish behind them, are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AckPoint {
    /// As soon as they are here: they are lost with this process.
    Arrival,
    /// Once the application's kernel has them, so that they outlive this process. Until then the peer keeps them.
    Delivery,
}

/// What a session is told at its birth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Most bytes kept for replay.
    pub replay_capacity: u64,
    /// Most bytes received and not taken by the application, at least [`INITIAL_WINDOW`].
    pub receive_capacity: u64,
    /// A link is given up after this much silence.
    pub liveness: Duration,
    /// How long the session may be without a link; the smaller one of both ends' counts.
    pub resume_window: Duration,
    /// When what comes is acknowledged.
    pub ack_at: AckPoint,
}

/// One application connection end to end. See the crate's documentation for how to drive it.
#[derive(Debug)]
pub struct Session {
    pub(crate) side: Side,
    pub(crate) id: SessionId,
    pub(crate) service: Box<str>,
    pub(crate) settings: Settings,
    /// The smaller one of both ends'.
    pub(crate) resume_window: Duration,
    /// The highest epoch used so far.
    pub(crate) epoch: Epoch,
    /// Opener: the process that accepted the session, and the only one that can have it.
    pub(crate) acceptor: Option<Instance>,
    /// An attach was accepted at least once: the next one is a resume.
    pub(crate) established: bool,
    /// Since when no established link carries the session.
    pub(crate) detached_since: Option<Time>,
    pub(crate) attachment: Attachment,
    pub(crate) send: SendHalf,
    pub(crate) receive: ReceiveHalf,
    /// What went over the link that was rotated away from last ends here.
    pub(crate) retired: u64,
    pub(crate) ack: AckTimer,
    pub(crate) done_received: bool,
    /// It has ended, and not as finished.
    pub(crate) failed: bool,
    /// This end's reset, until the peer has it.
    pub(crate) resetting: Option<(ResetCode, Box<str>)>,
    /// What the peer has to do next, and since when it has made no progress with it.
    pub(crate) overdue: Overdue,
    /// An idle link is asked after so many milliseconds: a session at rest is small.
    pub(crate) idle_ping_millis: u32,
    pub(crate) events: VecDeque<Event>,
}

impl Session {
    /// The opener's end of a new session to `service` (1 to [`MAX_SERVICE`](crate::MAX_SERVICE) bytes).
    pub fn opener(now: Time, id: SessionId, service: &str, settings: Settings) -> Self {
        Self::new(now, Side::Opener, id, service, settings)
    }

    /// The acceptor's end of the session that `hello` opens; [`accept`](Self::accept) attaches it.
    pub fn acceptor(now: Time, hello: &Hello<'_>, settings: Settings) -> Self {
        Self::new(now, Side::Acceptor, hello.session, &hello.service, settings)
    }

    fn new(now: Time, side: Side, id: SessionId, service: &str, settings: Settings) -> Self {
        let (send_window, granted) = match side {
            Side::Opener => (INITIAL_WINDOW, 0),
            Side::Acceptor => (0, INITIAL_WINDOW),
        };
        let send = SendHalf::new(settings.replay_capacity, send_window);
        let capacity = settings.receive_capacity.max(INITIAL_WINDOW);
        let receive = ReceiveHalf::new(settings.ack_at, capacity, granted);
        Self::with_halves(now, side, id, service, settings, send, receive)
    }

    pub(crate) fn with_halves(
        now: Time,
        side: Side,
        id: SessionId,
        service: &str,
        settings: Settings,
        send: SendHalf,
        receive: ReceiveHalf,
    ) -> Self {
        Self {
            side,
            id,
            service: service.into(),
            settings,
            resume_window: settings.resume_window,
            epoch: Epoch::NONE,
            acceptor: None,
            established: false,
            detached_since: Some(now),
            attachment: Attachment::Detached,
            send,
            receive,
            retired: 0,
            ack: AckTimer::default(),
            done_received: false,
            failed: false,
            resetting: None,
            overdue: Overdue::default(),
            idle_ping_millis: millis(IDLE_PING_INTERVAL),
            events: VecDeque::new(),
        }
    }

    /// The next thing that the driver has to know or do.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
        event
    }

    /// Which session this is.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Which end this is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// What the session connects to.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The highest epoch used so far.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// An attach was accepted at least once.
    pub fn is_established(&self) -> bool {
        self.established
    }

    /// How long the session is kept without a link: the smaller one of both ends' windows, as far as the peer's is known.
    pub fn resume_window(&self) -> Duration {
        self.resume_window
    }

    /// Whether an established link carries the session now.
    pub fn is_attached(&self) -> bool {
        self.attachment.is_attached()
    }

    /// Whether a rotation can begin: the one before is over, also at the other end, as far as this one can know. That has
    /// read everything that went over the old link, and so the Retire right behind it, before a link can be made.
    pub fn may_rotate(&self) -> bool {
        matches!(self.attachment, Attachment::Attached { .. }) && self.send.acked() >= self.retired
    }

    /// The Hello for the link of `epoch`, as it is being sent.
    pub(crate) fn build_hello(&mut self, now: Time, epoch: Epoch, intent: Intent) -> Hello<'_> {
        let (received, window) = if self.is_attached() {
            self.receive.advertise()
        } else {
            self.on_ack_told(now);
            self.receive.advertise_and_record()
        };
        Hello {
            session: self.id,
            epoch,
            intent,
            received,
            window,
            resume_window: self.settings.resume_window,
            service: Cow::Borrowed(&self.service),
        }
    }
}
