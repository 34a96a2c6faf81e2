//! Everybody whose key is not proved yet, in rooms that are bounded: nobody in there is waited for at a good peer's cost.
//!
//! ```text
//!   accepted ──▶ silent, half a ClientHello, or waiting ──turn──▶ answered, its proof awaited ──▶ a peer
//!                for a turn: `arrivals`                           `answered`
//! ```
//!
//! A connection that is spliced to another replica goes from `arrivals` to a room of its own, until it has settled.
//!
//! Each room is there twice: for the sources that a peer has proved a key from lately, and for all others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ferry_config::Name;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use super::known::Known;
use super::room::{Guest, Room};
use super::source::Source;
use crate::limits::files::Budget;

/// Who may be let in, and how many at once.
pub(crate) struct Lobby {
    state: Mutex<State>,
    strangers: Arc<Semaphore>,
    known: Arc<Semaphore>,
}

struct State {
    known_sources: Known,
    strangers: Rooms,
    known: Rooms,
    next: Guest,
    /// How those who are here are told to go.
    tell: HashMap<Guest, oneshot::Sender<()>>,
}

/// The rooms of one kind of source.
struct Rooms {
    arrivals: Room,
    answered: Room,
    spliced: Room,
}

/// In which of the rooms a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Arrivals,
    Answered,
    Spliced,
}

impl Place {
    const ALL: [Self; 3] = [Self::Arrivals, Self::Answered, Self::Spliced];
}

impl Rooms {
    fn new(arrivals: usize, answered: usize, spliced: usize) -> Self {
        Self { arrivals: Room::new(arrivals), answered: Room::new(answered), spliced: Room::new(spliced) }
    }

    fn room(&mut self, place: Place) -> &mut Room {
        match place {
            Place::Arrivals => &mut self.arrivals,
            Place::Answered => &mut self.answered,
            Place::Spliced => &mut self.spliced,
        }
    }

    fn taken(&self) -> usize {
        self.arrivals.taken() + self.answered.taken() + self.spliced.taken()
    }
}

impl State {
    fn rooms(&mut self, known: bool) -> &mut Rooms {
        if known { &mut self.known } else { &mut self.strangers }
    }

    fn evict(&mut self, guest: Option<Guest>) {
        if let Some(tell) = guest.and_then(|guest| self.tell.remove(&guest)) {
            // It may be let in in this moment: then there is nobody to tell.
            let _ = tell.send(());
        }
    }
}

impl Lobby {
    /// `turns`: how many may be computed for at once; strangers get half of them.
    pub(crate) fn new(budget: &Budget, turns: usize) -> Arc<Self> {
        let state = State {
            known_sources: Known::default(),
            strangers: Rooms::new(budget.strangers, budget.answered, budget.strangers.min(budget.splices)),
            known: Rooms::new(budget.known, budget.answered, budget.splices),
            next: 0,
            tell: HashMap::new(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            strangers: Arc::new(Semaphore::new((turns / 2).max(1))),
            known: Arc::new(Semaphore::new(turns.max(1))),
        })
    }

    /// A connection was accepted. The receiver resolves when it has to make way.
    pub(super) fn enter(self: &Arc<Self>, from: IpAddr, now: Instant) -> (Seat, oneshot::Receiver<()>) {
        let source = Source::of(from);
        let mut state = self.state.lock();
        let known = state.known_sources.contains(source, now);
        let guest = state.next;
        state.next += 1;
        let evicted = state.rooms(known).arrivals.enter(guest, source);
        state.evict(evicted);
        let (tell, told) = oneshot::channel();
        state.tell.insert(guest, tell);
        drop(state);
        (Seat { lobby: self.clone(), guest, source, known, place: Place::Arrivals }, told)
    }

    /// The system is out of something that connections take: half of the strangers go.
    pub(crate) fn shed(&self) -> usize {
        let mut state = self.state.lock();
        let mut shed = 0;
        for place in Place::ALL {
            for _ in 0..state.strangers.room(place).taken().div_ceil(2) {
                let evicted = state.strangers.room(place).evict();
                shed += usize::from(evicted.is_some());
                state.evict(evicted);
            }
        }
        shed
    }

    /// The peers that are listed now.
    pub(crate) fn forget_all_but(&self, listed: impl Fn(&Name) -> bool) {
        self.state.lock().known_sources.retain(listed);
    }

    /// Connections whose key is not proved.
    pub(crate) fn taken(&self) -> usize {
        let state = self.state.lock();
        state.strangers.taken() + state.known.taken()
    }
}

/// The place of one connection whose key is not proved; free when dropped.
pub(super) struct Seat {
    lobby: Arc<Lobby>,
    guest: Guest,
    source: Source,
    known: bool,
    place: Place,
}

impl Seat {
    /// There are so many that nobody is waited for longer than has to be.
    pub(super) fn is_crowded(&self) -> bool {
        self.lobby.state.lock().rooms(self.known).arrivals.is_crowded()
    }

    /// Whose messages are computed for, one after another: strangers take no turn of a known source.
    pub(super) fn turns(&self) -> Arc<Semaphore> {
        if self.known { self.lobby.known.clone() } else { self.lobby.strangers.clone() }
    }

    /// Its turn has come: it moves on to those whose proof is awaited.
    pub(super) fn on_answer(&mut self) {
        self.move_to(Place::Answered);
    }

    /// It goes on to another replica, which asks for its proof.
    pub(super) fn on_spliced(&mut self) {
        self.move_to(Place::Spliced);
    }

    fn move_to(&mut self, place: Place) {
        let mut state = self.lobby.state.lock();
        if !state.tell.contains_key(&self.guest) {
            // It has to go anyway.
            return;
        }
        let rooms = state.rooms(self.known);
        rooms.room(self.place).leave(self.guest, self.source);
        let evicted = rooms.room(place).enter(self.guest, self.source);
        state.evict(evicted);
        self.place = place;
    }

    /// It has proved a key of this peer, or of this tunnel: then it is another replica.
    pub(super) fn on_proof(self, peer: &Name, now: Instant) {
        self.lobby.state.lock().known_sources.note(peer, self.source, now);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.lobby.state.lock();
        state.tell.remove(&self.guest);
        state.rooms(self.known).room(self.place).leave(self.guest, self.source);
    }
}

#[cfg(test)]
mod tests;
