//! What comes in: frames of the peer, and the passing of time.

use std::time::Duration;

use crate::attachment::{Attachment, Part};
use crate::liveness::{Patience, Verdict};
use crate::{Epoch, Event, Frame, Outcome, Release, Session, Time, Violation};

impl Session {
    /// Whether frames of this link may be handed over now. While a rotation drains the old link, the new one waits.
    pub fn may_read(&self, epoch: Epoch) -> bool {
        self.attachment.is_read(epoch)
    }

    /// A frame that came over the link of `epoch`. Those of a link that the session has let go of are ignored, and so
    /// is everything once the session is over.
    pub fn handle_frame(&mut self, now: Time, epoch: Epoch, frame: Frame<'_>) {
        let Some(part) = self.attachment.part(epoch).filter(|_| !self.is_closed()) else { return };
        let handled = match part {
            Part::Next => self.on_answer(now, epoch, &frame),
            Part::Current | Part::Old | Part::Fresh => self.on_frame(now, epoch, part, frame),
        };
        if let Err(violation) = handled {
            self.on_violation(part, violation);
            return;
        }
        self.handle_bytes(now, epoch);
        if self.awaits_peer() {
            self.watch_progress(now);
        }
        self.close_if_done();
    }

    /// What came over the link of `epoch` breaks the protocol before it is a frame to be handed over. Nothing more can be
    /// read there, and a new link would carry the same, so the session ends.
    pub fn handle_violation(&mut self, epoch: Epoch, violation: Violation) {
        if let Some(part) = self.attachment.part(epoch) {
            self.on_violation(part, violation);
        }
    }

    fn on_violation(&mut self, part: Part, violation: Violation) {
        if part == Part::Next {
            self.fence_suspect();
        }
        self.violate(violation);
    }

    /// Bytes came over the link of `epoch`, if only a part of a frame: it is alive.
    pub fn handle_bytes(&mut self, now: Time, epoch: Epoch) {
        let (is_closed, acked) = (self.is_closed(), self.send.acked());
        if let Some(link) = self.attachment.link_mut(epoch) {
            // A peer that keeps talking, but takes no farewell, is given up as a silent one is.
            if is_closed {
                link.talks_on = true;
                return;
            }
            let owed = link.is_owed(acked);
            link.liveness.on_heard(now, owed);
        }
    }

    pub(crate) fn on_frame(&mut self, now: Time, epoch: Epoch, part: Part, frame: Frame<'_>) -> Result<(), Violation> {
        let Some(link) = self.attachment.link_mut(epoch) else { return Ok(()) };
        let may_retire = part == Part::Old || link.leaving;
        // "Retire is the last frame of its direction."
        if link.peer_retired {
            return Err(Violation::OutOfPlace(frame.name()));
        }
        match frame {
            Frame::Ping { token } => link.pong = Some(token),
            Frame::Pong { token } => link.on_pong(now, token),
            Frame::Reset(reset) => self.on_reset(&reset),
            // "An end that is resetting the session takes any Done."
            Frame::Done if self.resetting.is_some() => self.done_received = true,
            Frame::Data { offset, payload } => {
                link.liveness.on_traffic();
                if self.receive.on_data(offset, payload)? {
                    self.ack.start(now);
                }
            }
            Frame::Ack { received, window } => self.send.on_ack(received, window)?,
            Frame::Finish { offset } => {
                if self.receive.on_finish(offset)? {
                    self.ack.start(now);
                }
            }
            // "Done comes after everything was sent and received."
            Frame::Done if self.is_complete() => self.done_received = true,
            Frame::Retire { end } if may_retire => self.on_retire(now, epoch, end)?,
            other => return Err(Violation::OutOfPlace(other.name())),
        }
        Ok(())
    }

    pub(crate) fn on_retire(&mut self, now: Time, epoch: Epoch, end: u64) -> Result<(), Violation> {
        // "Nothing is missing when the old link ends." More may be here already, from before a resume.
        let received = self.receive.arrived();
        if end > received {
            return Err(Violation::Gap { offset: end, received });
        }
        if let Some(link) = self.attachment.link_mut(epoch) {
            link.peer_retired = true;
        }
        if matches!(self.attachment, Attachment::Attached { .. }) {
            // The peer went on to a link that this end has lost.
            self.events.push_back(Event::Released { epoch, release: Release::Abandoned });
            self.detach(now, epoch);
        }
        self.finish_draining(now);
        Ok(())
    }

    /// Lets go of a rotation's old link once both directions have ended.
    pub(crate) fn finish_draining(&mut self, now: Time) {
        self.attachment = match self.attachment.take() {
            Attachment::Draining { old, mut link } if old.is_retired() => {
                self.events.push_back(Event::Released { epoch: old.epoch, release: Release::Finished });
                let owed = link.is_owed(self.send.acked());
                link.liveness.on_heard(now, owed);
                Attachment::Attached { link }
            }
            other => other,
        };
        self.watch_progress(now);
    }

    fn patience(&self) -> Patience {
        Patience { liveness: self.settings.liveness, idle_ping: Duration::from_millis(self.idle_ping_millis.into()) }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next, if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Time> {
        let links = self.attachment.read_links().map(|link| link.liveness.poll_timeout(self.patience()));
        let expiry = self.detached_since.map(|since| since + self.resume_window);
        links.chain(expiry).chain(self.overdue_at()).chain(self.ack.poll_timeout()).min()
    }

    /// Time has passed. `packets`: how many have come over the link of an epoch, modulo 2³², if that is known, whether what
    /// was in them can be read yet or not. A link on which they still come is not suspect.
    pub fn handle_timeout(&mut self, now: Time, packets: impl Fn(Epoch) -> Option<u32>) {
        self.ack.on_timeout(now);
        let read: [Option<Epoch>; 2] = {
            let mut epochs = self.attachment.read_links().map(|link| link.epoch);
            [epochs.next(), epochs.next()]
        };
        let patience = self.patience();
        for epoch in read.into_iter().flatten() {
            let Some(link) = self.attachment.link_mut(epoch) else { continue };
            match link.liveness.on_timeout(now, patience, || packets(epoch)) {
                Verdict::Fine => {}
                Verdict::Suspect => self.events.push_back(Event::Suspect { epoch }),
                Verdict::Silent => {
                    let release = if link.talks_on { Release::Unheeded } else { Release::Silent };
                    self.events.push_back(Event::Released { epoch, release });
                    self.detach(now, epoch);
                }
            }
        }
        self.check_overdue(now);
        // Last, so that a link that was just given up counts if there is no time to resume at all.
        if self.detached_since.is_some_and(|since| now >= since + self.resume_window) {
            self.close(Outcome::Expired);
        }
    }
}
