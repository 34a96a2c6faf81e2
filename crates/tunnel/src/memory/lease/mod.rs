//! What one session holds of the memory for buffers.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use ferry_config::{Name, Settings};
use ferry_session::{Session, Time};

use super::{Capacities, FLOOR, Memory, START};
use crate::memory::path::{RoundTrip, max_useful_buffer};
use crate::memory::trip::{Delivered, Short, Trip};

/// Up to here a buffer that nobody has set a size for grows by the path's round trip alone.
const UNMEASURED: u64 = 16 << 20;

/// No more than this part of all memory is for one buffer.
const LARGEST_PART: u64 = 4;

/// What the configuration says of how far a session's buffers may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound(Option<NonZeroU64>);

/// How far a session's buffers may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// By the path's round trip alone.
    unmeasured: u64,
    /// By what was delivered over it.
    measured: u64,
}

impl Bound {
    pub(crate) fn of(settings: &Settings) -> Self {
        Self(settings.resume.buffer.and_then(NonZeroU64::new))
    }

    fn within(self, memory: &Memory) -> Bounds {
        match self.0.map(NonZeroU64::get) {
            Some(most) => Bounds { unmeasured: most, measured: most },
            None => Bounds { unmeasured: UNMEASURED.min(memory.limit), measured: memory.limit / LARGEST_PART },
        }
    }
}

impl Bounds {
    fn follow_the_path(self) -> bool {
        self.measured > self.unmeasured
    }
}

/// What one session holds; given back when dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    memory: Arc<Memory>,
    peer: Name,
    held: Capacities,
    /// The round trip that is being looked at, once a buffer has reached its unmeasured bound.
    trip: Option<Box<Trip>>,
}

/// What a session that has reached its bound shows of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown {
    short: Short,
    delivered: Delivered,
    /// What its buffers cannot be smaller than.
    occupied: Capacities,
}

impl Lease {
    pub(super) fn new(memory: Arc<Memory>, peer: Name, held: Capacities) -> Self {
        Self { memory, peer, held, trip: None }
    }

    pub(crate) fn held(&self) -> Capacities {
        self.held
    }

    pub(super) fn grow_to(&mut self, wanted: Capacities) -> bool {
        let more = wanted.total().saturating_sub(self.held.total());
        let grown = more > 0 && self.memory.add(&self.peer, more);
        if grown {
            self.held = wanted;
        }
        grown
    }

    /// Gives a session that its buffers hold up twice the room, if it can be lent: up to `most` for each, and to what is
    /// of use on the `path`. Says whether there is more room now.
    pub(crate) fn grow_if_short(&mut self, now: Time, session: &mut Session, most: Bound, path: &RoundTrip) -> bool {
        let most = most.within(&self.memory);
        let mut wanted = self.held;
        let twice = |held: u64, least: u64| {
            held.max((held * 2).min(max_useful_buffer(path.least())).min(most.unmeasured.max(least)))
        };
        let short = Short { replay: session.is_replay_limited(), receive: session.take_window_limited() };
        if short.replay {
            wanted.replay = twice(wanted.replay, FLOOR.replay);
        }
        if short.receive {
            wanted.receive = twice(wanted.receive, FLOOR.receive);
        }
        let mut changed = wanted != self.held && self.grow_to(wanted);
        if self.is_to_be_measured(short, most) {
            let delivered = Delivered { sent: session.acked(), received: session.received() };
            let occupied = Capacities { replay: session.replay_buffered(), receive: session.receive_promised() };
            changed |= self.follow(now, &Shown { short, delivered, occupied }, most, path);
        }
        if changed {
            let told = self.told(most);
            session.set_capacities(told.replay, told.receive);
        }
        changed
    }

    /// One of its buffers is at its unmeasured bound and too small, or is beyond it.
    fn is_to_be_measured(&self, short: Short, most: Bounds) -> bool {
        let Capacities { replay, receive } = self.held;
        let at_bound = short.replay && replay >= most.unmeasured || short.receive && receive >= most.unmeasured;
        self.trip.is_some() || replay.max(receive) > most.unmeasured || at_bound && most.follow_the_path()
    }

    /// Once a round trip, has what is beyond the unmeasured bound follow what the path delivers, and give way where memory
    /// is scarce. Says whether the session is to be told of it.
    #[cold]
    fn follow(&mut self, now: Time, shown: &Shown, most: Bounds, path: &RoundTrip) -> bool {
        let trip = self.trip.get_or_insert_with(|| Box::new(Trip::begin(now, path.least(), shown.delivered)));
        trip.note(shown.short);
        if !trip.is_over(now) {
            return false;
        }
        let round_trip = path.least();
        let (uses, was_short) = (trip.uses(now, round_trip, shown.delivered), trip.was_short());
        let gave_back = trip.gives_back;
        let gives_back = gave_back || self.memory.is_scarce();
        **trip = Trip::begin(now, round_trip, shown.delivered);
        trip.gives_back = gives_back;
        if gives_back {
            return self.give_back(shown.occupied, most) || !gave_back;
        }
        if !was_short && self.held.replay.max(self.held.receive) <= most.unmeasured {
            self.trip = None;
            return false;
        }
        if round_trip == Duration::MAX {
            return false;
        }
        let useful = max_useful_buffer(round_trip).min(most.measured);
        let grown = |held: u64, uses: u64| held.max((held * 2).min(uses).min(useful));
        let wanted = Capacities {
            replay: grown(self.held.replay, uses.replay),
            receive: grown(self.held.receive, uses.receive),
        };
        let more = wanted.total() - self.held.total();
        let grown = more > 0 && self.memory.add_from_spare(&self.peer, more);
        if grown {
            self.held = wanted;
        }
        grown
    }

    /// Gives back what is beyond the unmeasured bound and is not `occupied`, and says whether that is anything. What the
    /// peer was told it may send stays promised until it has sent so much.
    fn give_back(&mut self, occupied: Capacities, most: Bounds) -> bool {
        let left = |held: u64, occupied: u64| held.min(occupied.max(most.unmeasured));
        let left = Capacities {
            replay: left(self.held.replay, occupied.replay),
            receive: left(self.held.receive, occupied.receive),
        };
        self.memory.remove(&self.peer, self.held.total() - left.total());
        let before = std::mem::replace(&mut self.held, left);
        if left.replay.max(left.receive) <= most.unmeasured {
            self.trip = None;
        }
        left != before
    }

    /// What the session is to keep to.
    fn told(&self, most: Bounds) -> Capacities {
        let Capacities { replay, receive } = self.held;
        match self.trip.as_ref().is_some_and(|trip| trip.gives_back) {
            true => Capacities { replay: replay.min(most.unmeasured), receive: receive.min(most.unmeasured) },
            false => self.held,
        }
    }

    /// The session has another link.
    pub(crate) fn measure_anew(&mut self) {
        self.trip.iter_mut().for_each(|trip| trip.forget());
    }

    /// Gives back what a session at rest has no use for. The window that the peer was told stays promised.
    pub(crate) fn shrink_idle(&mut self, session: &mut Session) {
        if session.replay_buffered() == 0 && self.held.replay > START.replay {
            self.memory.remove(&self.peer, self.held.replay - START.replay);
            self.held.replay = START.replay;
            session.set_capacities(self.held.replay, self.held.receive);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.memory.remove(&self.peer, self.held.total());
    }
}

#[cfg(test)]
mod tests;
