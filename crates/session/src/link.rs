use crate::liveness::Liveness;
use crate::{Epoch, Instance, Intent, Time};

/// What a session knows of one link that it is attached to, or is attaching to.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) epoch: Epoch,
    /// The process at its other end, once that has said so.
    pub(crate) instance: Option<Instance>,
    /// Offset of what goes next on this link; counts the Finish.
    pub(crate) next: u64,
    /// A Pong told that everything below this offset has arrived, whether or not it was acknowledged.
    arrived: u64,
    /// `next` when the last Ping was sent.
    asked: u64,
    /// The first frame of the session on this link, until it is sent.
    pub(crate) greeting: Option<Greeting>,
    /// This end's Retire.
    pub(crate) retire: Retire,
    /// A rotation away from it was begun: the peer may have followed, even if this end did not.
    pub(crate) leaving: bool,
    /// The peer's Retire has come.
    pub(crate) peer_retired: bool,
    /// The token of a Ping to be answered.
    pub(crate) pong: Option<u64>,
    pub(crate) done_sent: bool,
    pub(crate) reset_sent: bool,
    /// Something has come since the session is over.
    pub(crate) talks_on: bool,
    pub(crate) liveness: Liveness,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Greeting {
    Hello(Intent),
    Accept,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retire {
    No,
    Due,
    Sent,
}

impl Link {
    pub(crate) fn new(now: Time, epoch: Epoch, next: u64, greeting: Greeting) -> Self {
        Self {
            epoch,
            instance: None,
            next,
            arrived: next,
            asked: next,
            greeting: Some(greeting),
            retire: Retire::No,
            leaving: false,
            peer_retired: false,
            pong: None,
            done_sent: false,
            reset_sent: false,
            talks_on: false,
            liveness: Liveness::new(now),
        }
    }

    /// The Ping to send, if one is due.
    pub(crate) fn poll_ping(&mut self, now: Time) -> Option<u64> {
        let token = self.liveness.poll_ping(now)?;
        self.asked = self.next;
        Some(token)
    }

    pub(crate) fn on_pong(&mut self, now: Time, token: u64) {
        if self.liveness.on_pong(now, token) {
            self.arrived = self.arrived.max(self.asked);
        }
    }

    /// Whether something is under way of which the peer has not shown that it is there. What its application does not
    /// take may go unacknowledged for as long as it likes, but a link keeps its order: a Pong speaks for all before the Ping.
    pub(crate) fn is_owed(&self, acked: u64) -> bool {
        self.arrived.max(acked) < self.next
    }

    /// Both directions of this link have ended, and everything on it was read.
    pub(crate) fn is_retired(&self) -> bool {
        self.peer_retired && self.retire == Retire::Sent
    }
}
