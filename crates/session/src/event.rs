use crate::{AttachError, Epoch, Intent, RejectCode, ResetCode, Violation};

/// What the driver has to know or do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The attach on this link is done.
    Attached {
        /// The link.
        epoch: Epoch,
        /// What it was for.
        intent: Intent,
    },
    /// The session has let go of this link: no frame comes from or goes to it any more.
    Released {
        /// The link.
        epoch: Epoch,
        /// What to do with it.
        release: Release,
    },
    /// Something was sent on this link and not answered for too long: the opener dials a second one and resumes there.
    Suspect {
        /// The link.
        epoch: Epoch,
    },
    /// The session has no link any more; the opener resumes.
    Detached,
    /// The session is over. Bytes received before may still be read.
    Closed(Outcome),
}

/// Why a session let go of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    /// Both directions ended with their Retire, or the session is over: flush what was queued, then close.
    Finished,
    /// A link with a higher epoch took over: drop it unread.
    Fenced,
    /// Nothing came over it for the whole liveness time.
    Silent,
    /// The session is over, and the peer did not take its last frame for the whole liveness time, though it kept sending.
    Unheeded,
    /// The peer's Retire did not come in time, whatever else did.
    Overdue,
    /// The peer refused the attach.
    Rejected {
        /// For the machine.
        code: RejectCode,
        /// For people.
        reason: String,
    },
    /// The other link of a rotation was lost, and this one with it.
    Abandoned,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was delivered both ways.
    Finished,
    /// This end's application, or its tunnel, reset it.
    ResetHere {
        /// For the machine.
        code: ResetCode,
        /// For people.
        reason: String,
    },
    /// The other end reset it.
    ResetByPeer {
        /// For the machine.
        code: ResetCode,
        /// For people.
        reason: String,
    },
    /// It was without a link for the whole resume window.
    Expired,
    /// The peer's process is gone, and the session's other end with it.
    PeerGone {
        /// How that is known, for people.
        reason: &'static str,
    },
    /// The peer refused to open it, or no longer has it.
    Refused {
        /// For the machine.
        code: RejectCode,
        /// For people.
        reason: String,
    },
    /// The peer broke the protocol.
    Violated(Violation),
    /// No link can be attached any more.
    Unattachable(AttachError),
}
