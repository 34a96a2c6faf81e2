//! A session that outlives its process: what has to be stored while it lives, and how the next process takes it over.
//!
//! Of a process that is killed nothing is left but what it stored, the application's socket, and the kernel's own count
//! of what was read from it and written to it. So the order is what matters: a [`Snapshot`] is stored before anything
//! that it tells of is sent, bytes are stored as they are read, and with [`AckPoint::Delivery`](crate::AckPoint::Delivery)
//! they are acknowledged after they were written.

use std::time::Duration;

use thiserror::Error;

use crate::receive::ReceiveHalf;
use crate::send::SendHalf;
use crate::{Block, Epoch, INITIAL_WINDOW, Instance, MAX_SERVICE, ResetCode, Session, SessionId, Settings, Side, Time};

/// What the next process must know of what this one has told the peer. It is to be stored before
/// [`poll_transmit`](Session::poll_transmit) is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The highest epoch used so far.
    pub epoch: Epoch,
    /// The highest window that the peer may have been told.
    pub granted: u64,
    /// Everything below this offset may have been acknowledged; counts the Finish.
    pub received: u64,
    /// And the Finish is one of it.
    pub received_finish: bool,
    /// The application takes nothing more: what comes is acknowledged and dropped.
    pub discarding: bool,
    /// An attach was accepted at least once.
    pub established: bool,
    /// Opener: the process that accepted the session.
    pub acceptor: Option<Instance>,
    /// How long the session may be without a link; the smaller one of both ends'.
    pub resume_window: Duration,
    /// The peer has everything of this end's, with its Finish.
    pub sent_all: bool,
    /// This end resets the session.
    pub reset: Option<ResetCode>,
    /// The session is over: there is nothing to take over.
    pub ended: bool,
}

/// What is left of a session whose process is gone.
pub struct Survivor {
    /// Which end this is.
    pub side: Side,
    /// Which session this is.
    pub id: SessionId,
    /// What it connects to.
    pub service: Box<str>,
    /// What was stored last.
    pub snapshot: Snapshot,
    /// Offset of the first byte in `kept`; without any, of the byte after the last that was read.
    pub base: u64,
    /// Bytes that were read from the application and may not have been acknowledged: each block's first bytes, as many as
    /// it says, 1 to [`Block::ROOM`].
    pub kept: Vec<(Block, usize)>,
    /// The end of what the application sends was read, or can be read next.
    pub finished: bool,
    /// Offset after the last byte that was written to the application.
    pub delivered: u64,
    /// The application was told the end behind it.
    pub finish_delivered: bool,
}

/// Why a session cannot be taken over.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AdoptError {
    /// There is nothing left to do.
    #[error("the session had ended")]
    Ended,
    /// No session was ever like this.
    #[error("what is left of the session contradicts itself: {0}")]
    Damaged(&'static str),
}

impl Session {
    /// What to store before the next [`poll_transmit`](Self::poll_transmit).
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            epoch: self.epoch,
            granted: self.receive.window(),
            received: self.receive.received(),
            received_finish: self.receive.has_ended(),
            discarding: self.receive.is_discarding(),
            established: self.established,
            acceptor: self.acceptor,
            resume_window: self.resume_window,
            sent_all: self.send.is_complete(),
            reset: self.resetting.as_ref().map(|(code, _)| *code),
            ended: self.is_closed(),
        }
    }

    /// Takes over a session from a process that is gone, and with it all links. From here it goes on as one that has lost
    /// its link.
    ///
    /// # Errors
    /// See [`AdoptError`].
    pub fn adopt(now: Time, settings: Settings, survivor: Survivor) -> Result<Self, AdoptError> {
        let Survivor { side, id, service, snapshot, base, kept, finished, delivered, finish_delivered } = survivor;
        if snapshot.ended {
            return Err(AdoptError::Ended);
        }
        if service.is_empty() || service.len() > MAX_SERVICE {
            return Err(AdoptError::Damaged("the service"));
        }
        let (delivered, finish_delivered) = received(&snapshot, delivered, finish_delivered)?;
        if kept.iter().any(|(_, length)| !(1..=Block::ROOM).contains(length)) {
            return Err(AdoptError::Damaged("a block without bytes, or with too many"));
        }
        let room = kept.iter().map(|(_, length)| *length as u64).sum::<u64>();
        // One offset is the Finish, which has one behind it.
        if base.checked_add(room).is_none_or(|end| end >= u64::MAX - 1) {
            return Err(AdoptError::Damaged("offsets"));
        }
        let window = if side == Side::Opener { INITIAL_WINDOW } else { 0 };
        let send = SendHalf::adopted(settings.replay_capacity, window, base, kept, finished);
        let capacity = settings.receive_capacity.max(INITIAL_WINDOW);
        let receive = ReceiveHalf::adopted(settings.ack_at, capacity, snapshot.granted, delivered, finish_delivered);
        let mut session = Self::with_halves(now, side, id, &service, settings, send, receive);
        // Nothing is left to send: the peer has all of it, or a reset dropped it before the peer had it.
        if snapshot.sent_all && (finished || snapshot.reset.is_some()) {
            session.send.discard();
        }
        if snapshot.discarding {
            session.discard_received();
        }
        session.epoch = snapshot.epoch;
        session.established = snapshot.established;
        session.acceptor = snapshot.acceptor.filter(|_| side == Side::Opener);
        session.resume_window = settings.resume_window.min(snapshot.resume_window);
        if let Some(code) = snapshot.reset {
            session.reset_after_sent(now, code, "the session was being reset when the tunnel was restarted");
        }
        Ok(session)
    }
}

/// How far the other direction has come, counted as before: an end never takes back what it acknowledged.
fn received(snapshot: &Snapshot, delivered: u64, finish_delivered: bool) -> Result<(u64, bool), AdoptError> {
    let Some(told) = snapshot.received.checked_sub(u64::from(snapshot.received_finish)) else {
        return Err(AdoptError::Damaged("what was received"));
    };
    let (delivered, finish_delivered) = if snapshot.discarding {
        (delivered.max(told), finish_delivered || snapshot.received_finish)
    } else if told > delivered || (snapshot.received_finish && !finish_delivered) {
        return Err(AdoptError::Damaged("more was acknowledged than delivered"));
    } else {
        (delivered, finish_delivered)
    };
    if delivered > snapshot.granted {
        return Err(AdoptError::Damaged("more was delivered than the peer could send"));
    }
    Ok((delivered, finish_delivered))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AckPoint;

    fn settings() -> Settings {
        Settings {
            replay_capacity: 1024,
            receive_capacity: 1024,
            liveness: Duration::from_secs(15),
            resume_window: Duration::from_secs(600),
            ack_at: AckPoint::Delivery,
        }
    }

    fn survivor() -> Survivor {
        let (id, now) = (SessionId([1; 16]), Time::ZERO);
        Survivor {
            side: Side::Opener,
            id,
            service: "echo".into(),
            snapshot: Session::opener(now, id, "echo", settings()).snapshot(),
            base: 0,
            kept: Vec::new(),
            finished: false,
            delivered: 0,
            finish_delivered: false,
        }
    }

    fn adopt(change: impl FnOnce(&mut Survivor)) -> Result<Session, AdoptError> {
        let mut survivor = survivor();
        change(&mut survivor);
        Session::adopt(Time::ZERO, settings(), survivor)
    }

    #[test]
    fn what_contradicts_itself_is_not_taken_over() {
        assert!(adopt(|_| {}).is_ok());
        let damaged = |change: &dyn Fn(&mut Survivor)| matches!(adopt(change), Err(AdoptError::Damaged(_)));
        assert!(damaged(&|survivor| survivor.service = "".into()));
        assert!(damaged(&|survivor| survivor.service = "x".repeat(MAX_SERVICE + 1).into()));
        assert!(damaged(&|survivor| survivor.delivered = survivor.snapshot.granted + 1));
        assert!(damaged(&|survivor| survivor.snapshot.received = 1));
        assert!(damaged(&|survivor| survivor.snapshot.received_finish = true));
        assert!(damaged(&|survivor| survivor.kept.push((Block::default(), 0))));
        assert!(damaged(&|survivor| survivor.kept.push((Block::default(), Block::ROOM + 1))));
        assert!(damaged(&|survivor| survivor.base = u64::MAX - 1));
        assert_eq!(adopt(|survivor| survivor.snapshot.ended = true).err(), Some(AdoptError::Ended));
    }

    #[test]
    fn the_shorter_resume_window_counts() {
        let seconds = Duration::from_secs;
        let adopted = adopt(|survivor| survivor.snapshot.resume_window = seconds(5)).unwrap();
        assert_eq!(adopted.resume_window(), seconds(5));
        let adopted = adopt(|survivor| survivor.snapshot.resume_window = seconds(5_000)).unwrap();
        assert_eq!(adopted.resume_window(), seconds(600));
    }
}
