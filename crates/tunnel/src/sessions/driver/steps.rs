//! The steps of a round that move bytes. Each says whether it has left something that can be done at once.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use ferry_session::{Epoch, ResetCode, Time};
use tracing::debug;

use super::Driver;
use crate::application::local::LAST_BYTES_TIMEOUT;
use crate::survival::Step;
use crate::transport::link::LinkError;

impl Driver {
    /// Frames from the links into the session.
    pub(super) fn receive(&mut self, now: Time, cx: &mut Context<'_>) -> bool {
        let mut lost: Option<(Epoch, LinkError)> = None;
        // What comes over one link decides whether another is read.
        let (several, mut again) = (self.links.len() > 1, false);
        for (epoch, link) in &mut self.links {
            let (epoch, session) = (*epoch, &mut self.session);
            while session.may_read(epoch) {
                let expected = link.awaits_preface();
                let polled = link.poll_frames(cx, &mut |frame| {
                    session.handle_frame(now, epoch, frame);
                    if session.may_read(epoch) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                });
                if expected && !link.awaits_preface() {
                    session.meet(epoch, link.facts().instance);
                }
                match polled {
                    Poll::Pending => break,
                    Poll::Ready(Ok(_)) => session.handle_bytes(now, epoch),
                    Poll::Ready(Err(error)) => {
                        lost = Some((epoch, error));
                        break;
                    }
                }
                again |= several || !link.is_emptied();
                if !link.is_emptied() {
                    break;
                }
            }
        }
        if let Some((epoch, error)) = lost {
            self.span.in_scope(|| debug!(%epoch, "link lost: {error}"));
            match error.violation() {
                Some(violation) if !self.session.is_closed() => self.session.handle_violation(epoch, violation),
                _ => self.drop_link(epoch, &error),
            }
            again = true;
        }
        again
    }

    /// Frames from the session to the links.
    pub(super) fn transmit(&mut self, now: Time, cx: &mut Context<'_>) -> bool {
        self.store();
        let mut lost: Option<(Epoch, LinkError)> = None;
        let (several, mut again) = (self.links.len() > 1, false);
        for (epoch, link) in &mut self.links {
            let epoch = *epoch;
            let filled = loop {
                if !link.has_room() {
                    break Ok(true);
                }
                let Some(frame) = self.session.poll_transmit(now, epoch) else { break Ok(false) };
                again |= several;
                if let Err(error) = link.push(&frame) {
                    break Err(error);
                }
            };
            let flushed = filled.and_then(|full| match link.poll_flush(cx) {
                Poll::Ready(flushed) => flushed.map(|()| full),
                Poll::Pending => Ok(false),
            });
            match flushed {
                Ok(left) => again |= left,
                Err(error) => lost = Some((epoch, error)),
            }
        }
        Step::Told.pass();
        if self.session.is_closed() {
            // What ended it was told just now: who comes next has nothing to adopt.
            self.store();
        }
        if let Some((epoch, error)) = lost {
            self.span.in_scope(|| debug!(%epoch, "link lost: {error}"));
            self.drop_link(epoch, &error);
            again = true;
        }
        if self.key_is_used_up() {
            self.replace_keys();
            again = true;
        }
        again
    }

    /// What this end is about to tell outlives this process.
    fn store(&mut self) {
        if let Some(kept) = &mut self.kept {
            let peer = self.registration.peer_instance().or(self.opened_at);
            kept.store(&self.session, peer, self.last_open);
        }
    }

    /// Bytes from the application into the session.
    pub(super) fn collect(&mut self, now: Time, cx: &mut Context<'_>) -> bool {
        loop {
            let (pacer, local, session) = (&mut self.limits.pacer, &mut self.local, &self.session);
            let allowed = pacer.as_mut().map_or(Some(usize::MAX), |pacer| {
                let wants = local.wants_to_read(cx, session);
                pacer.sent.ask(now, wants)
            });
            let Some(most) = allowed else { return false };
            match self.local.poll_collect(cx, &mut self.session, self.kept.as_deref(), most) {
                Poll::Pending => return false,
                Poll::Ready(Ok(count)) => {
                    if let Some(kept) = &mut self.kept {
                        kept.on_read(count);
                    }
                    self.registration.sent.fetch_add(count as u64, Ordering::Relaxed);
                    self.counters.sent.inc_by(count as u64);
                    if let Some(pacer) = &mut self.limits.pacer {
                        pacer.sent.take(now, count);
                    }
                }
                Poll::Ready(Err(error)) => return self.on_local_lost(now, &error),
            }
            if !self.local.is_emptied() {
                return true;
            }
        }
    }

    /// The application's connection may have failed without anybody reading it.
    pub(super) fn watch_local(&mut self, now: Time, cx: &mut Context<'_>) -> bool {
        match self.local.poll_failure(cx, now, &mut self.session, LAST_BYTES_TIMEOUT) {
            Poll::Pending => false,
            Poll::Ready(error) => self.on_local_lost(now, &error),
        }
    }

    /// Bytes from the session to the application.
    pub(super) fn deliver(&mut self, now: Time, cx: &mut Context<'_>) -> bool {
        // That the end may have been passed on is stored before it is.
        if self.session.is_drained() && self.kept.as_mut().is_some_and(|kept| kept.on_shutting_down()) {
            self.store();
        }
        let allowed = self.limits.pacer.as_mut().map_or(Some(usize::MAX), |pacer| {
            let wants = self.local.wants_to_write(&self.session);
            pacer.received.ask(now, wants)
        });
        let delivered = allowed.map_or(Poll::Pending, |most| self.local.poll_deliver(cx, &mut self.session, most));
        let again = match delivered {
            Poll::Pending => false,
            Poll::Ready(Ok(count)) => {
                if let Some(kept) = &mut self.kept {
                    kept.on_written(count);
                }
                self.registration.received.fetch_add(count as u64, Ordering::Relaxed);
                self.counters.received.inc_by(count as u64);
                if let Some(pacer) = &mut self.limits.pacer {
                    pacer.received.take(now, count);
                }
                self.session.receive_buffered() > 0 || self.session.is_drained()
            }
            Poll::Ready(Err(error)) => self.on_local_lost(now, &error),
        };
        self.local.poll_reset(now, self.session.receive_buffered()) || again
    }

    /// The application's connection was reset, or failed. What it sent before is in the session.
    fn on_local_lost(&mut self, now: Time, error: &std::io::Error) -> bool {
        let reason = format!("the application's connection failed: {error}");
        self.session.reset_after_sent(now, ResetCode::Application, &reason);
        self.local.reset();
        true
    }
}
