//! Attaching to links and letting go of them: the one path that open, resume and rotate share.

use std::time::Duration;

use crate::attachment::{Attachment, Part};
use crate::link::{Greeting, Link, Retire};
use crate::overdue::Overdue;
use crate::{
    Accept, AttachError, Epoch, Event, Frame, Hello, Instance, Intent, Outcome, Reject, RejectCode, Rejection, Release,
    Session, Side, Time, Violation,
};

impl Session {
    /// Opener: attaches to a link, to open the session or to resume it. A suspect link stays in use meanwhile.
    ///
    /// # Errors
    /// See [`AttachError`]; nothing has changed then, but that a session without a link ends if its epochs are used up.
    pub fn attach(&mut self, now: Time) -> Result<Epoch, AttachError> {
        let intent = if self.established { Intent::Resume } else { Intent::Open };
        self.start_attach(now, intent)
    }

    /// Opener: moves to another link, make before break.
    ///
    /// # Errors
    /// See [`AttachError`]; nothing has changed then.
    pub fn rotate(&mut self, now: Time) -> Result<Epoch, AttachError> {
        self.start_attach(now, Intent::Rotate)
    }

    /// Which process is at the other end of the link of `epoch`. Left unsaid, it counts as the one with the session.
    pub fn meet(&mut self, epoch: Epoch, instance: Instance) {
        if let Some(link) = self.attachment.link_mut(epoch) {
            link.instance = Some(instance);
        }
    }

    pub(crate) fn start_attach(&mut self, now: Time, intent: Intent) -> Result<Epoch, AttachError> {
        if self.side != Side::Opener {
            return Err(AttachError::NotOpener);
        }
        match (&self.attachment, intent) {
            (Attachment::Closing { .. } | Attachment::Closed, _) => return Err(AttachError::Closed),
            (Attachment::Attaching { .. } | Attachment::Draining { .. }, _) => return Err(AttachError::InFlight),
            (Attachment::Detached, Intent::Rotate) => return Err(AttachError::WrongState),
            (Attachment::Detached | Attachment::Attached { .. }, _) => {}
        }
        let Some(epoch) = self.epoch.next() else {
            if !self.is_attached() {
                self.close(Outcome::Unattachable(AttachError::Exhausted));
            }
            return Err(AttachError::Exhausted);
        };
        self.epoch = epoch;
        let next = Link::new(now, epoch, self.send.acked(), Greeting::Hello(intent));
        let current = match self.attachment.take() {
            Attachment::Attached { mut link } => {
                link.leaving |= intent == Intent::Rotate;
                Some(link)
            }
            _ => None,
        };
        self.attachment = Attachment::Attaching { current, next, intent };
        Ok(epoch)
    }

    /// Acceptor: attaches to the link that `hello` came on; its epoch names the link from now on.
    ///
    /// # Errors
    /// The Hello is refused with [`Rejection::to_reject`] on its link. Only a [`Rejection::Violation`] changes the
    /// session: it ends.
    pub fn accept(&mut self, now: Time, hello: &Hello<'_>) -> Result<(), Rejection> {
        if matches!(self.attachment, Attachment::Closing { .. } | Attachment::Closed) {
            return Err(Rejection::Closed { received: self.receive.received() });
        }
        // "The highest established epoch wins."
        if hello.epoch <= self.epoch {
            return Err(Rejection::Stale { offered: hello.epoch, seen: self.epoch });
        }
        match &self.attachment {
            Attachment::Attached { .. } => {}
            // "NotAttached says that the acceptor has lost its link", and here it has two.
            Attachment::Draining { .. } if hello.intent == Intent::Rotate => return Err(Rejection::Rotating),
            _ if hello.intent == Intent::Rotate => return Err(Rejection::NotAttached),
            _ => {}
        }
        if let Err(violation) = self.send.on_ack(hello.received, hello.window) {
            self.violate(violation.clone());
            return Err(violation.into());
        }
        self.epoch = hello.epoch;
        let mut link = Link::new(now, hello.epoch, self.send.acked(), Greeting::Accept);
        self.attachment = match (self.attachment.take(), hello.intent) {
            (Attachment::Attached { link: mut old }, Intent::Rotate) => {
                link.next = old.next;
                old.retire = Retire::Due;
                Attachment::Draining { old, link }
            }
            (before, _) => {
                self.release_all(&before, &Release::Fenced);
                Attachment::Attached { link }
            }
        };
        self.on_attached(now, hello.epoch, hello.intent, hello.resume_window);
        Ok(())
    }

    pub(crate) fn on_attached(&mut self, now: Time, epoch: Epoch, intent: Intent, peer_resume_window: Duration) {
        // A rotation is no progress, but after a time without a link the clock starts anew.
        if intent != Intent::Rotate {
            self.overdue = Overdue::default();
        }
        self.watch_progress(now);
        self.established = true;
        self.detached_since = None;
        self.resume_window = self.settings.resume_window.min(peer_resume_window);
        self.events.push_back(Event::Attached { epoch, intent });
    }

    /// The link of `epoch` is lost, or its dial was given up.
    pub fn detach(&mut self, now: Time, epoch: Epoch) {
        let Some(part) = self.attachment.part(epoch) else { return };
        self.attachment = match (self.attachment.take(), part) {
            // The attach failed; a link that has not begun to retire stays in use.
            (Attachment::Attaching { current: Some(link), .. }, Part::Next) if !link.peer_retired => {
                Attachment::Attached { link }
            }
            // The suspicion was right.
            (Attachment::Attaching { next, intent: Intent::Resume, .. }, Part::Current) => {
                self.detached_since = Some(now);
                self.receive.repeat_grant();
                Attachment::Attaching { current: None, next, intent: Intent::Resume }
            }
            (Attachment::Closing { .. }, _) => Attachment::Closed,
            (mut before, _) => {
                // A rotation that lost one link cannot tell what the other has missed: resume finds out.
                before.links_mut().filter(|link| link.epoch != epoch).for_each(|link| {
                    self.events.push_back(Event::Released { epoch: link.epoch, release: Release::Abandoned });
                });
                self.detached_since.get_or_insert(now);
                self.events.push_back(Event::Detached);
                Attachment::Detached
            }
        };
    }

    pub(crate) fn release_all(&mut self, attachment: &Attachment, release: &Release) {
        for link in attachment.links() {
            self.events.push_back(Event::Released { epoch: link.epoch, release: release.clone() });
        }
    }

    /// Whoever answers a resume no longer reads the suspect link.
    pub(crate) fn fence_suspect(&mut self) {
        if let Attachment::Attaching { current, intent: Intent::Resume, .. } = &mut self.attachment
            && let Some(link) = current.take()
        {
            // What it was told since the Hello goes unread.
            self.receive.repeat_grant();
            self.events.push_back(Event::Released { epoch: link.epoch, release: Release::Fenced });
        }
    }

    /// The answer to a Hello.
    pub(crate) fn on_answer(&mut self, now: Time, epoch: Epoch, frame: &Frame<'_>) -> Result<(), Violation> {
        // "The acceptor is silent until it has the Hello, unless it refuses the link."
        let refusals = [RejectCode::Version, RejectCode::Limit, RejectCode::Draining];
        let refused = matches!(frame, Frame::Reject(reject) if refusals.contains(&reject.code));
        if !refused && self.attachment.link_mut(epoch).is_some_and(|link| link.greeting.is_some()) {
            return Err(Violation::OutOfPlace(frame.name()));
        }
        match frame {
            Frame::Accept(accept) => self.on_accept(now, epoch, accept),
            Frame::Reject(reject) => self.on_reject(now, epoch, reject),
            Frame::Gone { instance } => {
                self.on_gone(*instance);
                Ok(())
            }
            other => Err(Violation::OutOfPlace(other.name())),
        }
    }

    pub(crate) fn on_accept(&mut self, now: Time, epoch: Epoch, accept: &Accept) -> Result<(), Violation> {
        self.send.on_ack(accept.received, accept.window)?;
        self.fence_suspect();
        let Attachment::Attaching { current, mut next, intent } = self.attachment.take() else {
            return Err(Violation::OutOfPlace("Accept"));
        };
        next.liveness.on_heard(now, false);
        self.acceptor = next.instance.or(self.acceptor);
        self.attachment = match (current, intent) {
            (Some(mut old), Intent::Rotate) => {
                next.next = old.next;
                old.retire = Retire::Due;
                Attachment::Draining { old, link: next }
            }
            _ => {
                // What went behind the Hello need not go again.
                next.next = next.next.max(self.send.acked());
                Attachment::Attached { link: next }
            }
        };
        self.on_attached(now, epoch, intent, accept.resume_window);
        Ok(())
    }

    pub(crate) fn on_reject(&mut self, now: Time, epoch: Epoch, reject: &Reject<'_>) -> Result<(), Violation> {
        let Attachment::Attaching { intent, next, .. } = &self.attachment else { return Ok(()) };
        let intent = *intent;
        let [same, other] = [true, false].map(|same| {
            next.instance.zip(self.acceptor).is_some_and(|(answering, acceptor)| (answering == acceptor) == same)
        });
        // What had arrived when the session ended may be all that there was.
        if reject.code == RejectCode::Closed {
            self.send.on_ack(reject.received, 0)?;
        }
        let (code, reason) = (reject.code, reject.reason.clone().into_owned());
        let lost = match code {
            // "That another process does not know a session says nothing about it."
            RejectCode::Unknown => !other,
            code => matches!(code, RejectCode::Closed | RejectCode::Protocol),
        };
        if intent == Intent::Open || (intent == Intent::Resume && lost) {
            self.close(Outcome::Refused { code, reason });
            return Ok(());
        }
        self.events.push_back(Event::Released { epoch, release: Release::Rejected { code, reason } });
        self.detach(now, epoch);
        // "NotAttached says that the acceptor has lost its link": the one in use here carries nothing any more.
        let unused = code == RejectCode::NotAttached || (code == RejectCode::Unknown && same);
        if unused && let Attachment::Attached { link } = &self.attachment {
            let epoch = link.epoch;
            self.events.push_back(Event::Released { epoch, release: Release::Abandoned });
            self.detach(now, epoch);
        }
        Ok(())
    }

    /// The process at the other end of a resume tells which ones came before it.
    fn on_gone(&mut self, instance: Instance) {
        if self.acceptor == Some(instance) {
            self.abandon("the peer's tunnel was restarted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AckPoint, SessionId, Settings};

    fn exhausted() -> Session {
        let settings = Settings {
            replay_capacity: 1024,
            receive_capacity: 1024,
            liveness: Duration::from_secs(15),
            resume_window: Duration::from_secs(600),
            ack_at: AckPoint::Arrival,
        };
        let mut session = Session::opener(Time::ZERO, SessionId([1; 16]), "echo", settings);
        session.epoch = Epoch(u32::MAX - 1);
        let epoch = session.attach(Time::ZERO).unwrap();
        assert_eq!(session.poll_transmit(Time::ZERO, epoch).unwrap().name(), "Hello");
        let accept = Accept { received: 0, window: 1024, resume_window: Duration::from_secs(600) };
        session.handle_frame(Time::ZERO, epoch, Frame::Accept(accept));
        while session.poll_event().is_some() {}
        session
    }

    #[test]
    fn a_session_that_used_up_its_epochs_keeps_its_link_and_ends_with_it() {
        let mut session = exhausted();
        assert_eq!(session.rotate(Time::ZERO), Err(AttachError::Exhausted));
        assert_eq!(session.attach(Time::ZERO), Err(AttachError::Exhausted));
        assert!(session.is_attached());
        session.detach(Time::ZERO, Epoch(u32::MAX));
        assert_eq!(session.attach(Time::ZERO), Err(AttachError::Exhausted));
        assert_eq!(session.poll_event(), Some(Event::Detached));
        assert_eq!(session.poll_event(), Some(Event::Closed(Outcome::Unattachable(AttachError::Exhausted))));
        assert_eq!(session.attach(Time::ZERO), Err(AttachError::Closed));
    }
}
