//! When a session's keys are replaced: a rotation moves it to another link.

use std::fmt::Display;
use std::time::Duration;

use ferry_session::Time;

use super::Driver;
use crate::supply::pool::Need;
use crate::supply::rotation::jittered;
use crate::telemetry::events;
use crate::telemetry::metrics::{ByRotated, Rotated};
use crate::transport::link::Link;

/// A rotation that failed is tried again this much later, or after a quarter of the interval if that is sooner.
const ROTATION_RETRY_DELAY: Duration = Duration::from_secs(10);

/// A session that has left what is preferred, in doubt, tries it again after this long.
const RETURN_DELAY: Duration = Duration::from_secs(5);

/// A rotation that is due before the last one is over looks again after this long.
const UNFINISHED_ROTATION_DELAY: Duration = Duration::from_millis(50);

impl Driver {
    /// When the keys of a link are to be replaced.
    pub(super) fn keys_due(&self, link: &Link) -> Time {
        let every = self.shared.config().tunnel.settings.rotation.every;
        self.shared.now() + jittered(link.max_age(every)).saturating_sub(link.age())
    }

    /// What carries the session now is perhaps not what is preferred: the next link is dialled by the usual order.
    pub(super) fn rotate_soon(&mut self) {
        let soon = self.shared.now() + jittered(RETURN_DELAY);
        self.rotate_at = self.rotate_at.map(|at| at.min(soon));
    }

    pub(super) fn replace_keys(&mut self) {
        self.rotate_at = None;
        if self.session.may_rotate() {
            if ferry_trace::tracer().is_some() {
                self.reasons.get_or_insert_default().rotating_since = Some(self.shared.now());
            }
            self.request_link(Need::Rotate);
        } else if self.session.is_attached() {
            // A link would be made for nothing; whoever loses this one has fresh keys with the next.
            self.rotate_at = Some(self.shared.now() + UNFINISHED_ROTATION_DELAY);
        }
    }

    /// The current link has carried as many bytes as one key may, in either direction. One that is read to its end still
    /// has been replaced already.
    pub(super) fn key_is_used_up(&self) -> bool {
        self.rotate_at.is_some()
            && self.newest_link().is_some_and(|link| link.is_used_up(self.key_bytes))
            && self.session.may_rotate()
    }

    pub(super) fn count_failed_rotation(&self, reason: &dyn Display) {
        self.shared.metrics.rotations.get_or_create(&ByRotated { result: Rotated::Failed }).inc();
        let session = self.facts();
        self.shared.events.tell(events::Event::RotationFailed { session, reason: reason.to_string() });
    }

    pub(super) fn rotation_failed(&mut self, reason: &dyn Display) {
        self.count_failed_rotation(reason);
        let every = self.shared.config().tunnel.settings.rotation.every;
        self.rotate_at = Some(self.shared.now() + jittered(ROTATION_RETRY_DELAY.min(every / 4)));
    }
}
