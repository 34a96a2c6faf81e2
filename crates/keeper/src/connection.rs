//! One connection of an engine: what it asks, and what it is still to be told.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use crate::process::Process;
use crate::socket;
use crate::store::Store;
use crate::wire::{Hello, MAX_BATCH, MAX_REQUEST, Reply, Request, Tag};

/// An engine that does not read what it was refused for longer than this is not worth listening to.
const MAX_UNREAD_REPLIES: usize = 1024;

/// Why a connection ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The engine closed it, or died.
    ByEngine,
    /// The engine sent what is not of this protocol.
    Malformed(&'static str),
    /// The engine does not read.
    Flooded,
}

#[derive(Debug)]
pub(crate) enum State {
    AwaitingHello {
        until: Instant,
    },
    /// Its Hello was fine; another engine has the store.
    Waiting(Hello),
    Serving,
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: u64,
    pub(crate) process: Process,
    pub(crate) state: State,
    socket: OwnedFd,
    /// What it has not inherited yet.
    inherits: Vec<Tag>,
    replies: VecDeque<Reply>,
    /// Told after all replies.
    confirmed: Option<u64>,
}

/// A request, with the descriptor that came with it.
pub(crate) type Received = (Request, Option<OwnedFd>);

impl Connection {
    pub(crate) fn new(id: u64, socket: OwnedFd, process: Process, hello_until: Instant) -> Self {
        Self {
            id,
            process,
            state: State::AwaitingHello { until: hello_until },
            socket,
            inherits: Vec::new(),
            replies: VecDeque::new(),
            confirmed: None,
        }
    }

    /// Nothing is read from an engine before it has inherited everything.
    pub(crate) fn wants_read(&self) -> bool {
        self.inherits.is_empty()
    }

    pub(crate) fn wants_write(&self) -> bool {
        !self.inherits.is_empty() || !self.replies.is_empty() || self.confirmed.is_some()
    }

    pub(crate) fn reply(&mut self, reply: Reply) {
        self.replies.push_back(reply);
    }

    pub(crate) fn inherit(&mut self, tags: Vec<Tag>) {
        self.inherits = tags;
    }

    pub(crate) fn confirm(&mut self, through: u64) {
        self.confirmed = Some(through);
    }

    /// The engine will not read any more; what it has sent may still be read.
    pub(crate) fn stop_writing(&mut self) {
        self.inherits = Vec::new();
        self.replies.clear();
        self.confirmed = None;
    }

    /// The next request, or None if none has come yet.
    pub(crate) fn receive(&mut self) -> Result<Option<Received>, Ended> {
        if self.replies.len() > MAX_UNREAD_REPLIES {
            return Err(Ended::Flooded);
        }
        let mut buffer = [0; MAX_REQUEST];
        let packet = match socket::receive::<{ socket::ONE }>(self.socket.as_fd(), &mut buffer) {
            Ok(Some(packet)) => packet,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            // It died with replies unread. The kernel says so once, in front of what it had sent.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return self.receive(),
            Ok(None) | Err(_) => return Err(Ended::ByEngine),
        };
        if packet.is_cut {
            return Err(Ended::Malformed("a message that is too long"));
        }
        let request = Request::decode(&buffer[..packet.len]).map_err(|_| Ended::Malformed("not a message"))?;
        let mut descriptors = packet.descriptors;
        let is_store = matches!(request, Request::Store { .. });
        match descriptors.len() {
            0 if !is_store || packet.lost_descriptors => Ok(Some((request, None))),
            1 if is_store && !packet.lost_descriptors => Ok(Some((request, descriptors.pop()))),
            _ => Err(Ended::Malformed("a wrong number of descriptors")),
        }
    }

    /// Sends what fits. An engine that no longer reads may have sent what is still to be read, so that is no end.
    pub(crate) fn flush(&mut self, store: &Store) {
        if self.try_flush(store).is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
            self.stop_writing();
        }
    }

    fn try_flush(&mut self, store: &Store) -> io::Result<()> {
        // The Welcome precedes what is inherited.
        while let Some(reply) = self.replies.front() {
            socket::send(self.socket.as_fd(), &reply.encode(), &[])?;
            self.replies.pop_front();
        }
        while !self.inherits.is_empty() {
            let rest = self.inherits.len().saturating_sub(MAX_BATCH);
            let batch = self.inherits[rest..].iter().filter_map(|tag| Some((*tag, store.descriptor(tag)?)));
            let (tags, descriptors): (Vec<_>, Vec<_>) = batch.unzip();
            socket::send(self.socket.as_fd(), &Reply::Inherit(tags).encode(), &descriptors)?;
            self.inherits.truncate(rest);
        }
        if let Some(through) = self.confirmed {
            socket::send(self.socket.as_fd(), &Reply::Confirmed { through }.encode(), &[])?;
            self.confirmed = None;
        }
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
