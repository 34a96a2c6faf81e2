//! Everybody whose key is not proved yet, in rooms that are bounded: nobody in there is waited for at a good peer's cost.
//!
//! ```text
//!   accepted ──▶ silent, half a ClientHello, or waiting ──turn──▶ answered, its proof awaited ──▶ a peer
//!                for a turn: `arrivals`                           `answered`
//! ```
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
}

impl Rooms {
    fn new(arrivals: usize, answered: usize) -> Self {
        Self { arrivals: Room::new(arrivals), answered: Room::new(answered) }
    }

    fn room(&mut self, answered: bool) -> &mut Room {
        if answered { &mut self.answered } else { &mut self.arrivals }
    }

    fn taken(&self) -> usize {
        self.arrivals.taken() + self.answered.taken()
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
            strangers: Rooms::new(budget.strangers, budget.answered),
            known: Rooms::new(budget.known, budget.answered),
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
        (Seat { lobby: self.clone(), guest, source, known, answered: false }, told)
    }

    /// The system is out of something that connections take: half of the strangers go.
    pub(crate) fn shed(&self) -> usize {
        let mut state = self.state.lock();
        let mut shed = 0;
        for answered in [false, true] {
            for _ in 0..state.strangers.room(answered).taken().div_ceil(2) {
                let evicted = state.strangers.room(answered).evict();
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
    answered: bool,
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
        let mut state = self.lobby.state.lock();
        if !state.tell.contains_key(&self.guest) {
            // It has to go anyway.
            return;
        }
        let rooms = state.rooms(self.known);
        rooms.arrivals.leave(self.guest, self.source);
        let evicted = rooms.answered.enter(self.guest, self.source);
        state.evict(evicted);
        self.answered = true;
    }

    /// It has proved a key of this peer.
    pub(super) fn on_proof(self, peer: &Name, now: Instant) {
        self.lobby.state.lock().known_sources.note(peer, self.source, now);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.lobby.state.lock();
        state.tell.remove(&self.guest);
        state.rooms(self.known).room(self.answered).leave(self.guest, self.source);
    }
}

#[cfg(test)]
mod tests;
