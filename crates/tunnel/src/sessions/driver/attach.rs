//! How a session gets its links: an opener attaches to one, an acceptor answers a Hello on one.

use std::task::{Context, Poll};

use ferry_session::{Frame, Hello, Intent};
use tracing::{debug, info};

use super::Driver;
use crate::net::BoxFuture;
use crate::supply::pool::Need;
use crate::transport;
use crate::transport::dial::DialError;
use crate::transport::link::Link;

/// A link that is being waited for.
pub(super) struct PendingLink {
    pub(super) need: Need,
    pub(super) link: BoxFuture<'static, Result<Link, DialError>>,
}

impl Driver {
    /// Opener: attaches to a link, for whatever the session needs one.
    pub(crate) fn attach(&mut self, mut link: Link, need: Need) {
        let rotate = need == Need::Rotate;
        let now = self.shared.now();
        let instance = link.facts().instance;
        // "Once application bytes may have left, an Open is never sent to another instance."
        let moved = self.opened_at.is_some_and(|before| before != instance);
        if !self.session.is_established() && moved && self.session.replay_buffered() > 0 {
            // A Reset would go to somebody who does not know the session.
            self.session.abandon("the peer's tunnel was restarted while the session was opening");
            return;
        }
        self.opened_at.get_or_insert(instance);
        if !rotate && self.session.is_attached() {
            self.give_up_attach();
        }
        let attached = if rotate { self.session.rotate(now) } else { self.session.attach(now) };
        match attached {
            Ok(epoch) => {
                if !link.awaits_preface() {
                    self.session.meet(epoch, instance);
                }
                link.on_taken();
                self.tell_origin(&mut link);
                self.links.push((epoch, Box::new(link.register_here())));
            }
            Err(error) => {
                debug!("link not used: {error}");
                // The session is on its way to another link already.
                if rotate {
                    self.rotation_failed(&error);
                }
            }
        }
    }

    /// Before a Hello that may open the session: where its application connected from.
    fn tell_origin(&self, link: &mut Link) {
        if self.session.is_established() || !link.tells_origin() {
            return;
        }
        if let Some(origin) = self.registration.origin()
            && let Err(error) = link.push(&Frame::Origin(origin))
        {
            // The Hello fails as well, and with it the link.
            debug!("the origin is not told: {error}");
        }
    }

    /// A link is suspect. What waits for it, or for an answer over the same path, gives way to a resume.
    fn give_up_attach(&mut self) {
        if self.links.len() < 2 {
            return;
        }
        if let Some(newest) = self.links.iter().map(|(epoch, _)| *epoch).max() {
            self.drop_link(newest, &"it did not answer, as the link before it");
        }
        while let Some(event) = self.session.poll_event() {
            self.on_event(event);
        }
        // The link that it would be for is here.
        self.pending_link = None;
    }

    /// Acceptor: answers a Hello on its link.
    pub(crate) fn accept(&mut self, hello: &Hello<'_>, mut link: Box<Link>) {
        match self.session.accept(self.shared.now(), hello) {
            Ok(()) => {
                if hello.intent == Intent::Open {
                    self.last_open = hello.epoch;
                }
                link.on_taken();
                self.links.push((hello.epoch, Box::new(link.register_here())));
            }
            Err(rejection) => {
                debug!(epoch = %hello.epoch, "attach rejected: {rejection}");
                let reject = rejection.to_reject();
                self.shared.metrics.attach_refused(reject.code);
                transport::reject(&self.shared, *link, reject);
            }
        }
    }

    pub(super) fn newest_link(&self) -> Option<&Link> {
        self.links.iter().max_by_key(|(epoch, _)| *epoch).map(|(_, link)| &**link)
    }

    pub(super) fn poll_pending_link(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(pending_link) = self.pending_link.as_mut() else { return false };
        let Poll::Ready(obtained) = pending_link.link.as_mut().poll(cx) else { return false };
        let need = pending_link.need;
        self.pending_link = None;
        let _entered = self.span.clone().entered();
        match obtained {
            Ok(link) => self.attach(link, need),
            Err(error) => {
                info!("rotation postponed: {error}");
                self.rotation_failed(&error);
            }
        }
        true
    }
}
