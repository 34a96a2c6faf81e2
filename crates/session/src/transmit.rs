use std::borrow::Cow;

use crate::attachment::{Attachment, Part};
use crate::link::{Greeting, Retire};
use crate::session::INITIAL_WINDOW;
use crate::{Accept, Epoch, Frame, Reset, Session, Time};

/// What goes next on a link; made into a frame once nothing has to change any more.
enum Next {
    Pong(u64),
    Ping(u64),
    Reset,
    Ack,
    Data { offset: u64, length: usize },
    Finish { offset: u64 },
    Done,
}

impl Session {
    /// The next frame to send on the link of `epoch`. Ask whenever the link can take one, so that control frames go
    /// ahead of all data that is not yet on its way.
    pub fn poll_transmit(&mut self, now: Time, epoch: Epoch) -> Option<Frame<'_>> {
        let part = self.attachment.part(epoch)?;
        if let Some(greeting) = self.attachment.link_mut(epoch)?.greeting.take() {
            return Some(self.greet(now, epoch, greeting));
        }
        if let Attachment::Closing { .. } = self.attachment {
            return self.say_farewell();
        }
        match (part, &self.attachment) {
            (Part::Old, _) => self.poll_retire(now, epoch),
            // "Only a Hello that leaves no other link in use may be followed before its answer."
            (Part::Next, Attachment::Attaching { current: Some(_), .. }) => None,
            (Part::Next | Part::Current | Part::Fresh, _) => self.poll_traffic(now, epoch),
        }
    }

    fn greet(&mut self, now: Time, epoch: Epoch, greeting: Greeting) -> Frame<'_> {
        match greeting {
            Greeting::Hello(intent) => {
                if let Some(link) = self.attachment.link_mut(epoch) {
                    link.liveness.on_asked(now);
                }
                Frame::Hello(self.build_hello(now, epoch, intent))
            }
            // Nothing has to answer it: the opener may have nothing to say.
            Greeting::Accept => {
                self.on_ack_told(now);
                let (received, window) = self.receive.advertise_and_record();
                Frame::Accept(Accept { received, window, resume_window: self.settings.resume_window })
            }
        }
    }

    pub(crate) fn on_ack_told(&mut self, now: Time) {
        let more = self.receive.is_behind() && !self.is_closed();
        self.ack.on_told(now, more);
    }

    fn poll_retire(&mut self, now: Time, epoch: Epoch) -> Option<Frame<'_>> {
        let link = self.attachment.link_mut(epoch).filter(|link| link.retire == Retire::Due)?;
        link.retire = Retire::Sent;
        let end = link.next;
        self.retired = end;
        self.finish_draining(now);
        Some(Frame::Retire { end })
    }

    fn poll_traffic(&mut self, now: Time, epoch: Epoch) -> Option<Frame<'_>> {
        let next = self.next_traffic(now, epoch)?;
        Some(match next {
            Next::Pong(token) => Frame::Pong { token },
            Next::Ping(token) => Frame::Ping { token },
            Next::Reset => {
                let (code, reason) = self.resetting.as_ref()?;
                Frame::Reset(Reset { code: *code, reason: Cow::Borrowed(reason) })
            }
            Next::Ack => {
                self.on_ack_told(now);
                let (received, window) = self.receive.advertise_and_record();
                Frame::Ack { received, window }
            }
            Next::Data { offset, length } => Frame::Data { offset, payload: self.send.payload(offset, length) },
            Next::Finish { offset } => Frame::Finish { offset },
            Next::Done => {
                self.close_if_done();
                Frame::Done
            }
        })
    }

    /// Control first, then data. Marks what it returns as sent.
    fn next_traffic(&mut self, now: Time, epoch: Epoch) -> Option<Next> {
        let complete = self.is_complete() && self.resetting.is_none();
        // Behind a Hello: the peer may have the bytes already, or refuse them.
        let early = matches!(self.attachment, Attachment::Attaching { current: None, .. });
        let link = self.attachment.link_mut(epoch)?;
        if let Some(token) = link.pong.take() {
            return Some(Next::Pong(token));
        }
        if let Some(token) = link.poll_ping(now) {
            return Some(Next::Ping(token));
        }
        // After a resume the peer may turn out to hold more than its Hello or Accept said.
        link.next = link.next.max(self.send.acked());
        let offset = link.next;
        // "A Reset comes after everything that its sender still has."
        if self.resetting.is_some() && offset >= self.send.end() && !link.reset_sent {
            link.reset_sent = true;
            link.liveness.on_asked(now);
            self.watch_progress(now);
            return Some(Next::Reset);
        }
        let room = if early { (self.send.acked() + INITIAL_WINDOW).saturating_sub(offset) } else { u64::MAX };
        let length = self.send.sendable(offset).min(usize::try_from(room).unwrap_or(usize::MAX));
        let finish = self.send.finish_is_next(offset);
        let due = self.ack.is_due();
        // Piggyback the ack on anything that is sent.
        let leaving = length > 0 || finish || complete;
        let owed = self.receive.owed_ack();
        if self.receive.ack_is_urgent(owed) || (owed > 0 && (due || leaving)) {
            return Some(Next::Ack);
        }
        if length > 0 || finish {
            link.next += if length > 0 { length as u64 } else { 1 };
            self.send.on_sent(link.next);
            link.liveness.on_asked(now);
            link.liveness.on_traffic();
            return Some(if length > 0 { Next::Data { offset, length } } else { Next::Finish { offset } });
        }
        if complete && !std::mem::replace(&mut link.done_sent, true) {
            self.watch_progress(now);
            return Some(Next::Done);
        }
        None
    }
}
