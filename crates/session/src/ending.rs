//! How a session ends.

use std::borrow::Cow;

use crate::ack_timer::AckTimer;
use crate::attachment::{Attachment, Farewell};
use crate::frame::bounded;
use crate::link::Retire;
use crate::overdue::Overdue;
use crate::{Event, Frame, Outcome, Release, Reset, ResetCode, Session, Violation};

impl Session {
    /// Both directions have ended, and everything that was sent is acknowledged, also by this end.
    pub(crate) fn is_complete(&self) -> bool {
        self.send.is_complete() && self.receive.is_complete()
    }

    /// The session is over; only [`readable`](Self::readable) bytes may be left.
    pub fn is_closed(&self) -> bool {
        matches!(self.attachment, Attachment::Closed | Attachment::Closing { .. })
    }

    pub(crate) fn on_reset(&mut self, reset: &Reset<'_>) {
        let outcome = Outcome::ResetByPeer { code: reset.code, reason: reset.reason.clone().into_owned() };
        self.close_with(Some(Farewell::Done), outcome);
    }

    pub(crate) fn violate(&mut self, violation: Violation) {
        self.resetting = None;
        let farewell = Some(Farewell::Reset(bounded(&violation.to_string()).into()));
        self.close_with(farewell, Outcome::Violated(violation));
    }

    pub(crate) fn close_if_done(&mut self) {
        let link = self.attachment.links().last();
        let both = self.done_received && link.is_some_and(|link| link.done_sent);
        if both || (self.done_received && self.resetting.is_some()) {
            self.close(Outcome::Finished);
        }
    }

    /// The peer's process is known to be gone, and the session's other end with it.
    pub fn abandon(&mut self, reason: &'static str) {
        self.close(Outcome::PeerGone { reason });
    }

    pub(crate) fn close(&mut self, outcome: Outcome) {
        self.close_with(None, outcome);
    }

    /// Ends the session. What this end asked for, or has seen done, outranks how it came about.
    pub(crate) fn close_with(&mut self, farewell: Option<Farewell>, outcome: Outcome) {
        if self.is_closed() {
            return;
        }
        let outcome = match (outcome, self.resetting.take()) {
            (violated @ Outcome::Violated(_), _) => violated,
            (_, Some((code, reason))) => Outcome::ResetHere { code, reason: reason.into() },
            (_, None) if self.is_complete() => Outcome::Finished,
            (outcome, None) => outcome,
        };
        self.failed = outcome != Outcome::Finished;
        self.detached_since = None;
        self.overdue = Overdue::default();
        self.ack = AckTimer::default();
        self.send.discard();
        self.attachment = match (self.attachment.take(), farewell) {
            (Attachment::Attaching { current: Some(link), next, .. }, Some(farewell)) => {
                self.events.push_back(Event::Released { epoch: next.epoch, release: Release::Abandoned });
                Attachment::Closing { link, farewell }
            }
            // A peer that has not seen the Hello needs no farewell.
            (Attachment::Attaching { next: link, .. }, Some(farewell)) if link.greeting.is_none() => {
                Attachment::Closing { link, farewell }
            }
            (Attachment::Attached { link }, Some(farewell)) => Attachment::Closing { link, farewell },
            // The peer reads the new link only once it has this end's Retire.
            (Attachment::Draining { old, link }, Some(farewell)) => {
                let (link, other) = if old.retire == Retire::Due { (old, link) } else { (link, old) };
                self.events.push_back(Event::Released { epoch: other.epoch, release: Release::Abandoned });
                Attachment::Closing { link, farewell }
            }
            (before, _) => {
                self.release_all(&before, &Release::Finished);
                Attachment::Closed
            }
        };
        self.events.push_back(Event::Closed(outcome));
    }

    /// The last frame, with which the session lets go of its link.
    pub(crate) fn say_farewell(&mut self) -> Option<Frame<'static>> {
        let (link, farewell) = match self.attachment.take() {
            Attachment::Closing { link, farewell } => (link, farewell),
            other => {
                self.attachment = other;
                return None;
            }
        };
        self.attachment = Attachment::Closed;
        self.events.push_back(Event::Released { epoch: link.epoch, release: Release::Finished });
        Some(match farewell {
            Farewell::Done => Frame::Done,
            Farewell::Reset(reason) => {
                Frame::Reset(Reset { code: ResetCode::Protocol, reason: Cow::Owned(reason.into()) })
            }
        })
    }
}
