//! What an engine says over its connection, and what becomes of it.

use std::os::fd::OwnedFd;
use std::time::Instant;

use super::Keeper;
use crate::connection::{Connection, Ended, State};
use crate::log::say;
use crate::wire::{Hello, RefusedBy, RejectedBy, Reply, Request, VERSIONS};

/// After this many requests of one engine, the others and the signals have their turn.
const MAX_REQUESTS_A_TURN: usize = 256;

impl Keeper {
    /// Moves what can be moved on one connection.
    pub(super) fn serve(&mut self, (id, has_hung_up): (u64, bool), now: Instant) {
        let Some(at) = self.connections.iter().position(|connection| connection.id == id) else { return };
        let mut connection = self.connections.swap_remove(at);
        match self.exchange(&mut connection, has_hung_up, now) {
            Ok(()) => self.connections.push(connection),
            Err(ended) => self.on_ended(&connection, &ended, now),
        }
    }

    fn exchange(&mut self, connection: &mut Connection, has_hung_up: bool, now: Instant) -> Result<(), Ended> {
        if has_hung_up {
            connection.stop_writing();
        }
        connection.flush(&self.store);
        for _ in 0..MAX_REQUESTS_A_TURN {
            if !connection.wants_read() {
                break;
            }
            let Some((request, descriptor)) = connection.receive()? else { break };
            match (&connection.state, request) {
                (State::AwaitingHello { .. }, Request::Hello(hello)) => self.on_hello(connection, hello)?,
                (State::Serving, Request::Hello(_)) => return Err(Ended::Malformed("a second Hello")),
                (State::Serving, Request::Bye) => {
                    self.store.clear();
                    self.owner = None;
                    return Err(Ended::ByEngine);
                }
                (State::Serving, request) => self.on_request(connection, request, descriptor, now),
                _ => return Err(Ended::Malformed("a request out of turn")),
            }
        }
        connection.flush(&self.store);
        Ok(())
    }

    fn on_hello(&self, connection: &mut Connection, hello: Hello) -> Result<(), Ended> {
        let (oldest, newest) = VERSIONS;
        let other = self.owner.as_ref().is_some_and(|owner| !owner.process.is(&connection.process));
        let by = if hello.newest < oldest || hello.oldest > newest {
            RejectedBy::Version
        } else if hello.continues && other {
            // Neither could take over what the other has: both are alive.
            RejectedBy::OtherEngine
        } else {
            connection.state = State::Waiting(hello);
            return Ok(());
        };
        connection.reply(Reply::Rejected { by, oldest, newest });
        connection.flush(&self.store);
        Err(Ended::Malformed(match by {
            RejectedBy::Version => "a version that this keeper does not speak",
            RejectedBy::OtherEngine => "a second engine that is not new",
        }))
    }

    fn on_request(&mut self, connection: &mut Connection, request: Request, descriptor: Option<OwnedFd>, now: Instant) {
        if let Some(owner) = &mut self.owner {
            owner.last_sign = now;
            owner.is_ready |= request == Request::Ready;
        }
        match request {
            Request::Store { seq, tag } => {
                let stored = match descriptor {
                    Some(descriptor) => self.store.insert(tag, descriptor),
                    None => Err(RefusedBy::NoDescriptors),
                };
                if let Err(by) = stored {
                    connection.reply(Reply::Refused { seq, tag, by });
                }
                connection.confirm(seq);
            }
            Request::Remove { seq, tag } => {
                self.store.remove(&tag);
                connection.confirm(seq);
            }
            Request::Complete => self.store.drop_stale(),
            Request::Alive | Request::Ready | Request::Hello(_) | Request::Bye => {}
        }
    }

    fn on_ended(&mut self, connection: &Connection, ended: &Ended, now: Instant) {
        match ended {
            Ended::ByEngine => {}
            Ended::Malformed(what) => say!("ended the connection of an engine that sent {what}"),
            Ended::Flooded => say!("ended the connection of an engine that does not read"),
        }
        if let Some(owner) = self.owner.as_mut().filter(|owner| owner.connection == Some(connection.id)) {
            owner.connection = None;
            owner.last_sign = now;
        }
    }
}
