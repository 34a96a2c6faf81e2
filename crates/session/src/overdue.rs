//! What the peer owes: a deadline for each, whatever else comes over the link.

use crate::attachment::Attachment;
use crate::{Event, Outcome, Release, Session, Time};

/// What only the peer can bring to an end, each with a number that grows while it makes progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// Its Retire on a rotation's old link, behind what is still on its way there.
    Retire { received: u64 },
    /// That it takes what goes before this end's Reset or Done, and answers that.
    End { acked: u64 },
}

/// Since when the peer has made no progress with what it has to do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Overdue {
    retire: Option<(Awaited, Time)>,
    end: Option<(Awaited, Time)>,
}

/// Starts the clock anew if there has been progress.
fn watch(before: Option<(Awaited, Time)>, awaited: Option<Awaited>, now: Time) -> Option<(Awaited, Time)> {
    let awaited = awaited?;
    before.filter(|(before, _)| *before == awaited).or(Some((awaited, now)))
}

impl Session {
    pub(crate) fn awaits_peer(&self) -> bool {
        self.overdue.retire.is_some() || self.overdue.end.is_some()
    }

    pub(crate) fn watch_progress(&mut self, now: Time) {
        let link = self.attachment.write_link();
        let retire = match &self.attachment {
            Attachment::Draining { old, .. } if !old.peer_retired => {
                Some(Awaited::Retire { received: self.receive.arrived() })
            }
            _ => None,
        };
        let ends = link.is_some_and(|link| self.resetting.is_some() || link.done_sent);
        let end = ends.then(|| Awaited::End { acked: self.send.acked() });
        self.overdue.retire = watch(self.overdue.retire, retire, now);
        self.overdue.end = watch(self.overdue.end, end, now);
    }

    /// When the peer's answer is overdue. "A peer that owes an answer has twice the liveness time for it, from its last
    /// progress on." So a link that has fallen silent is found first, and the answer asked for on the next one.
    pub(crate) fn overdue_at(&self) -> Option<Time> {
        let Overdue { retire, end } = self.overdue;
        retire.into_iter().chain(end).map(|(_, since)| since + 2 * self.settings.liveness).min()
    }

    pub(crate) fn check_overdue(&mut self, now: Time) {
        self.watch_progress(now);
        let limit = 2 * self.settings.liveness;
        let is_over = |awaited: Option<(Awaited, Time)>| awaited.is_some_and(|(_, since)| now >= since + limit);
        if is_over(self.overdue.retire)
            && let Attachment::Draining { old, .. } = &self.attachment
        {
            let epoch = old.epoch;
            self.events.push_back(Event::Released { epoch, release: Release::Overdue });
            self.detach(now, epoch);
        }
        if is_over(self.overdue.end) {
            if self.send.acked() < self.send.end() {
                // Its application takes nothing: it learns of the reset without the rest.
                self.send.discard();
            } else {
                self.close(Outcome::Finished);
            }
        }
        self.watch_progress(now);
    }
}
