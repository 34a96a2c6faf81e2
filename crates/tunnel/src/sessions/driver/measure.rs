//! Looks at the path of a session's link now and then, where what carries links is chosen by that, and leaves a link that
//! is carried by something else than what is chosen.

use std::time::Duration;

use ferry_session::{Epoch, Time};

use super::Driver;
use crate::net::PathCounts;
use crate::supply::choice::Seen;
use crate::transport::link::Link;

/// A link that carries something is looked at this often. One that rests is not, and wakes nobody for it.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// What was seen last.
pub(super) struct Look {
    epoch: Epoch,
    at: Time,
    counts: PathCounts,
    /// The session was to leave the link. If it could not, the rotation is tried again when that is due.
    is_to_be_left: bool,
}

impl Driver {
    /// The session has another link: it is looked at from now on, if there is something to choose.
    pub(super) fn look_first(&mut self, now: Time, epoch: Epoch) {
        self.last_look = if self.peer.chooses() { self.look(now, epoch).map(Box::new) } else { None };
    }

    /// In each round, so it has to cost nothing where nothing is due.
    pub(super) fn look_if_due(&mut self, now: Time) {
        if self.last_look.as_ref().is_some_and(|last| now >= last.at + LOOK_INTERVAL) {
            self.look_again(now);
        }
    }

    #[cold]
    fn look_again(&mut self, now: Time) {
        let Some(last) = self.last_look.take() else { return };
        let Some(mut look) = self.look(now, last.epoch) else { return };
        if let Some((_, link)) = self.links.iter().find(|(epoch, _)| *epoch == last.epoch) {
            let carrier = link.facts().carrier;
            let seen = Seen { before: last.counts, now: look.counts, within: now.since(last.at) };
            self.peer.on_seen(&self.shared, carrier, &seen);
            look.is_to_be_left = self.peer.prefers_another(carrier);
        }
        if look.is_to_be_left && !last.is_to_be_left {
            self.rotate_at = self.rotate_at.map(|at| at.min(now));
        }
        self.last_look = Some(Box::new(look));
    }

    fn look(&self, now: Time, epoch: Epoch) -> Option<Look> {
        Some(Look { epoch, at: now, counts: path_of(&self.links, epoch)?, is_to_be_left: false })
    }
}

/// What the system has seen of the path of one of `links`, if it tells.
pub(super) fn path_of(links: &[(Epoch, Box<Link>)], epoch: Epoch) -> Option<PathCounts> {
    links.iter().find(|(of, _)| *of == epoch)?.1.path()
}
