//! What the peer owes: a deadline for each, whatever else comes over the link.

use crate::attachment::Attachment;
use crate::{Event, Outcome, Release, Session, Time};

/// What only the peer can bring to an end, with a number that changes while it makes progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// Its Retire on a rotation's old link, behind what is still on its way there.
    Retire { received: u64 },
    /// That it takes what goes before this end's Reset.
    Room { acked: u64 },
    /// Its answer to this end's Reset, which may be behind bytes that are still on their way.
    ResetAnswer { acked: u64 },
    /// Its Done, after this end's.
    Done,
}

impl Session {
    fn awaited(&self) -> Option<Awaited> {
        let link = self.attachment.write_link()?;
        match &self.attachment {
            Attachment::Draining { old, .. } if !old.peer_retired => {
                Some(Awaited::Retire { received: self.receive.received() })
            }
            _ if self.resetting.is_some() && link.reset_sent => Some(Awaited::ResetAnswer { acked: self.send.acked() }),
            _ if self.resetting.is_some() => Some(Awaited::Room { acked: self.send.acked() }),
            _ if link.done_sent => Some(Awaited::Done),
            _ => None,
        }
    }

    /// Starts the clock anew if there has been progress.
    pub(crate) fn watch_progress(&mut self, now: Time) {
        self.awaited = match (self.awaited(), self.awaited) {
            (Some(awaited), Some((before, since))) if awaited == before => Some((awaited, since)),
            (awaited, _) => awaited.map(|awaited| (awaited, now)),
        };
    }

    /// When the peer's answer is overdue. "A peer that owes an answer has twice the liveness time for it, from its last
    /// progress on." So a link that has fallen silent is found first, and the answer asked for on the next one.
    pub(crate) fn overdue_at(&self) -> Option<Time> {
        self.awaited.map(|(_, since)| since + 2 * self.settings.liveness)
    }

    pub(crate) fn check_overdue(&mut self, now: Time) {
        self.watch_progress(now);
        let Some((awaited, _)) = self.awaited.filter(|_| self.overdue_at().is_some_and(|at| now >= at)) else { return };
        match awaited {
            Awaited::Retire { .. } => {
                if let Attachment::Draining { old, .. } = &self.attachment {
                    let epoch = old.epoch;
                    self.events.push_back(Event::Released { epoch, release: Release::Overdue });
                    self.detach(now, epoch);
                }
            }
            // Its application takes nothing: it learns of the reset without the rest.
            Awaited::Room { .. } => self.send.discard(),
            Awaited::ResetAnswer { .. } | Awaited::Done => self.close(Outcome::Finished),
        }
        self.watch_progress(now);
    }
}
