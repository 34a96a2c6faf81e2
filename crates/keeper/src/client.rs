//! An engine's end of the connection to its keeper. Nothing here but [`Client::connect`] ever waits.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::socket::{self, PARENT};
use crate::wire::{Hello, MAX_MESSAGE, RefusedBy, RejectedBy, Reply, Request, Tag, VERSIONS, Welcome};

/// How many requests wait in this process for the keeper to take them.
const MAX_QUEUED: usize = 1024;

/// How long a keeper that is not there yet is waited for.
const START_TIMEOUT: Duration = Duration::from_secs(5);
const START_INTERVAL: Duration = Duration::from_millis(20);

/// What an engine's predecessor left.
#[derive(Debug)]
pub struct Inherited {
    /// Everything that was stored, in no order.
    pub descriptors: Vec<(Tag, OwnedFd)>,
    /// How many engines crashed within the last 10 s.
    pub crashes: u32,
    /// Those were three or more: what cannot be adopted is to be dropped rather than tried again.
    pub crash_loop: bool,
}

/// What the keeper says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A keeper took this engine after [`Client::reconnect`]: store everything again, then say [`Client::complete`].
    Welcomed,
    /// Whatever was asked up to this number was carried out, unless it was refused.
    Confirmed {
        /// What [`Client::store`] or [`Client::remove`] returned.
        through: u64,
    },
    /// The descriptor with this tag is not kept.
    Refused {
        /// Its tag.
        tag: Tag,
        /// Why.
        by: RefusedBy,
    },
}

/// The connection to a keeper.
///
/// Every call returns at once. When the keeper is slow, requests are queued here up to a bound; past it they fail with
/// [`io::ErrorKind::WouldBlock`], and nothing has happened. When the keeper is lost they fail with
/// [`io::ErrorKind::NotConnected`]: go on without, and [`reconnect`](Self::reconnect) now and then.
///
/// To be woken, watch [`AsFd`] for reading, and for writing while [`wants_write`](Self::wants_write); then take
/// [`poll_event`](Self::poll_event) until it returns None.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    socket: OwnedFd,
    state: State,
    queue: VecDeque<(Vec<u8>, Option<OwnedFd>)>,
    last_seq: u64,
    limits: Welcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    AwaitingWelcome,
    Connected,
    Lost,
}

impl Client {
    /// Connects to the keeper at `path` and takes over everything that it holds. Waits for at most `timeout`: a keeper gives
    /// nothing away before the engine that has it is gone. Waits a little for a keeper that is starting, too.
    ///
    /// The keeper kills an engine that gives no sign of life for [`alive_timeout`](Self::alive_timeout), so call
    /// [`alive`](Self::alive) from here on.
    ///
    /// # Errors
    ///
    /// No keeper is there, it is another user's, it speaks no version that this engine does, another engine has it, or this
    /// process may not have as many descriptors open as it would inherit.
    pub fn connect(path: &Path, timeout: Duration) -> io::Result<(Self, Inherited)> {
        let until = Instant::now() + timeout;
        let socket = connect(path)?;
        let hello = Hello { oldest: VERSIONS.0, newest: VERSIONS.1, continues: false, sends_alive: true };
        socket::send(socket.as_fd(), &Request::Hello(hello).encode(), &[])?;
        let (reply, _) = wait_for_reply(&socket, until)?;
        let Reply::Welcome(limits) = reply else { return Err(unexpected(&reply)) };
        let mut descriptors = Vec::with_capacity(limits.stored as usize);
        while descriptors.len() < limits.stored as usize {
            match wait_for_reply(&socket, until)? {
                (Reply::Inherit(tags), received) => descriptors.extend(tags.into_iter().zip(received)),
                (reply, _) => return Err(unexpected(&reply)),
            }
        }
        let inherited = Inherited { descriptors, crashes: limits.crashes, crash_loop: limits.crash_loop };
        let (queue, path) = (VecDeque::new(), path.to_owned());
        Ok((Self { path, socket, state: State::Connected, queue, last_seq: 0, limits }, inherited))
    }

    /// Connects again after the keeper was lost, to it or to its successor. [`Event::Welcomed`] says when it is done; until
    /// then nothing can be stored. What was queued is dropped, as everything is to be stored again.
    ///
    /// # Errors
    ///
    /// No keeper is there yet, or it is another user's.
    pub fn reconnect(&mut self) -> io::Result<()> {
        self.state = State::Lost;
        self.queue.clear();
        let socket = socket::connect(&self.path)?;
        let hello = Hello { oldest: VERSIONS.0, newest: VERSIONS.1, continues: true, sends_alive: true };
        socket::send(socket.as_fd(), &Request::Hello(hello).encode(), &[])?;
        (self.socket, self.state) = (socket, State::AwaitingWelcome);
        Ok(())
    }

    /// Whether the keeper is this process's parent.
    #[must_use]
    pub fn is_parent(&self) -> bool {
        self.path.as_os_str() == PARENT
    }

    /// Whether the keeper is gone, and requests fail.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.state == State::Lost
    }

    /// How many descriptors the keeper holds at most.
    #[must_use]
    pub fn max_descriptors(&self) -> u32 {
        self.limits.max_descriptors
    }

    /// An engine that gives no sign of life for this long is killed. Call [`alive`](Self::alive) a few times within it.
    #[must_use]
    pub fn alive_timeout(&self) -> Duration {
        Duration::from_millis(self.limits.alive_timeout_millis.into())
    }

    /// Has the keeper hold a duplicate of `descriptor` under `tag`, in place of what it held there before. Returns the number
    /// that [`Event::Confirmed`] will reach. From when this was sent, a death of this process does not undo it.
    ///
    /// # Errors
    ///
    /// See [`Client`].
    pub fn store(&mut self, tag: &Tag, descriptor: BorrowedFd<'_>) -> io::Result<u64> {
        self.numbered(|seq| Request::Store { seq, tag: *tag }, Some(descriptor))
    }

    /// Has the keeper close what it holds under `tag`, if anything.
    ///
    /// # Errors
    ///
    /// See [`Client`].
    pub fn remove(&mut self, tag: &Tag) -> io::Result<u64> {
        self.numbered(|seq| Request::Remove { seq, tag: *tag }, None)
    }

    /// Gives a sign of life.
    ///
    /// # Errors
    ///
    /// See [`Client`]; a sign that finds the queue full is not needed, as what is queued is one too.
    pub fn alive(&mut self) -> io::Result<()> {
        self.request(&Request::Alive, None)
    }

    /// Says that this engine has adopted what it could, and serves. An upgrade that does not get this far is undone.
    ///
    /// # Errors
    ///
    /// See [`Client`].
    pub fn ready(&mut self) -> io::Result<()> {
        self.request(&Request::Ready, None)
    }

    /// Says, after a reconnect, that everything was stored again. What the keeper holds beyond that is dropped.
    ///
    /// # Errors
    ///
    /// See [`Client`].
    pub fn complete(&mut self) -> io::Result<()> {
        self.request(&Request::Complete, None)
    }

    /// Says that this engine ends in good order: the keeper drops everything, and waits for no successor.
    ///
    /// # Errors
    ///
    /// See [`Client`]. A Bye that could not be sent leaves everything in the keeper until its grace is over.
    pub fn finish(mut self) -> io::Result<()> {
        self.request(&Request::Bye, None)?;
        if self.queue.is_empty() { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    /// Whether requests wait for the keeper's socket to have room.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        !self.queue.is_empty()
    }

    /// What the keeper said, None if nothing more has come. Also sends what was queued.
    ///
    /// # Errors
    ///
    /// The keeper is lost ([`io::ErrorKind::NotConnected`]), or does not take this engine.
    pub fn poll_event(&mut self) -> io::Result<Option<Event>> {
        self.flush()?;
        let (reply, _) = match receive(&self.socket) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(self.lose(error)),
        };
        Ok(Some(match reply {
            Reply::Welcome(limits) if self.state == State::AwaitingWelcome => {
                (self.limits, self.state) = (limits, State::Connected);
                Event::Welcomed
            }
            Reply::Confirmed { through } => Event::Confirmed { through },
            Reply::Refused { tag, by, .. } => Event::Refused { tag, by },
            reply => {
                self.state = State::Lost;
                return Err(unexpected(&reply));
            }
        }))
    }

    fn numbered(&mut self, request: impl FnOnce(u64) -> Request, fd: Option<BorrowedFd<'_>>) -> io::Result<u64> {
        let seq = self.last_seq + 1;
        self.request(&request(seq), fd)?;
        self.last_seq = seq;
        Ok(seq)
    }

    fn request(&mut self, request: &Request, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        if self.state == State::AwaitingWelcome {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.flush()?;
        let bytes = request.encode();
        if self.queue.is_empty() {
            match socket::send(self.socket.as_fd(), &bytes, descriptor.as_slice()) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(self.lose(error)),
            }
        }
        if self.queue.len() >= MAX_QUEUED {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let descriptor = descriptor.map(|descriptor| descriptor.try_clone_to_owned()).transpose()?;
        self.queue.push_back((bytes, descriptor));
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.state == State::Lost {
            return Err(lost());
        }
        while let Some((bytes, descriptor)) = self.queue.front() {
            let descriptor = descriptor.as_ref().map(AsFd::as_fd);
            match socket::send(self.socket.as_fd(), bytes, descriptor.as_slice()) {
                Ok(()) => _ = self.queue.pop_front(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(self.lose(error)),
            }
        }
        Ok(())
    }

    fn lose(&mut self, error: io::Error) -> io::Error {
        self.state = State::Lost;
        self.queue.clear();
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => lost(),
            _ => error,
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Both may be starting: containers of one pod, or units after a boot.
fn connect(path: &Path) -> io::Result<OwnedFd> {
    let until = Instant::now() + START_TIMEOUT;
    loop {
        match socket::connect(path) {
            Err(error) if is_starting(&error) && Instant::now() < until => thread::sleep(START_INTERVAL),
            connected => return connected,
        }
    }
}

fn is_starting(error: &io::Error) -> bool {
    [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused].contains(&error.kind())
}

fn lost() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the keeper is gone")
}

fn unexpected(reply: &Reply) -> io::Error {
    match reply {
        Reply::Rejected { by: RejectedBy::Version, oldest, newest } => io::Error::new(
            io::ErrorKind::Unsupported,
            format!("the keeper speaks versions {oldest} to {newest} of its protocol: restart it with this program"),
        ),
        Reply::Rejected { by: RejectedBy::OtherEngine, .. } => {
            io::Error::new(io::ErrorKind::ResourceBusy, "another engine uses this keeper")
        }
        _ => io::Error::new(io::ErrorKind::InvalidData, "the keeper sent an unexpected message"),
    }
}

fn receive(socket: &OwnedFd) -> io::Result<(Reply, Vec<OwnedFd>)> {
    let mut buffer = vec![0; MAX_MESSAGE];
    let packet = socket::receive::<{ socket::BATCH }>(socket.as_fd(), &mut buffer)?;
    let packet = packet.ok_or(io::ErrorKind::UnexpectedEof)?;
    if packet.lost_descriptors {
        return Err(io::Error::other("not all descriptors could be received: raise the limit of open files"));
    }
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "the keeper sent what is not its protocol");
    let reply = Reply::decode(&buffer[..packet.len]).map_err(|_| malformed())?;
    let carried = if let Reply::Inherit(tags) = &reply { tags.len() } else { 0 };
    if packet.is_cut || carried != packet.descriptors.len() {
        return Err(malformed());
    }
    Ok((reply, packet.descriptors))
}

fn wait_for_reply(socket: &OwnedFd, until: Instant) -> io::Result<(Reply, Vec<OwnedFd>)> {
    loop {
        match receive(socket) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(lost()),
            received => return received,
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let text = "the keeper has given nothing in time: does another engine use it?";
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
