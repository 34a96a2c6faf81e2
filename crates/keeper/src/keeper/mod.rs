//! The keeper: who has the store, and when it is given to the next.
//!
//! ```text
//!            Hello                      no other engine lives
//! connected ───────▶ waiting ───────────────────────────────▶ owner ──── Bye ────▶ (dropped at once)
//!                                                               │
//!                                        connection and process gone
//!                                                               ▼
//!                                                       orphaned ── grace over ──▶ (dropped, connections reset)
//! ```

mod exchange;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Pid;

use crate::connection::{Connection, State};
use crate::log::say;
use crate::process::Process;
use crate::socket::{Listener, Peer};
use crate::store::Store;
use crate::wire::{Hello, Reply, VERSIONS, Welcome};

/// How many engines may be connected, most of them waiting or not yet known; others wait in the kernel.
const MAX_CONNECTIONS: usize = 8;
/// An engine says its Hello within this time.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// A child keeps nobody from connecting while it starts, however long that takes.
const CHILD_HELLO_TIMEOUT: Duration = Duration::from_secs(3600);
/// This many crashes within [`CRASH_LOOP_WINDOW`] are a loop.
const CRASH_LOOP: usize = 3;
const CRASH_LOOP_WINDOW: Duration = Duration::from_secs(10);
/// Descriptors that the keeper needs for itself.
const OWN_DESCRIPTORS: u64 = 64;
/// A keeper that woke this much late was stopped itself: what an engine could not tell it meanwhile says nothing.
const MAX_LATE: Duration = Duration::from_secs(1);

/// What a keeper can be told.
#[derive(Debug, Clone)]
pub struct Options {
    /// For how long what an engine left is kept for the next one.
    pub grace: Duration,
    /// An engine that promised signs of life and gives none for this long is killed.
    pub alive_timeout: Duration,
    /// How many descriptors are kept at most; fewer if this process may not have as many open.
    pub max_descriptors: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { grace: Duration::from_secs(60), alive_timeout: Duration::from_secs(10), max_descriptors: 65_536 }
    }
}

/// The engine that has the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineStatus {
    /// Its process, if that is in this PID namespace.
    pub pid: Option<i32>,
    /// It said that it serves.
    pub is_ready: bool,
}

/// A keeper.
#[derive(Debug)]
pub struct Keeper {
    /// None if no engine but those that this process starts can reach it.
    listener: Option<Listener>,
    options: Options,
    store: Store,
    connections: Vec<Connection>,
    last_id: u64,
    owner: Option<Owner>,
    /// When what the last engine left is dropped.
    orphaned_until: Option<Instant>,
    crashes: VecDeque<Instant>,
}

#[derive(Debug)]
struct Owner {
    process: Process,
    /// None once it is closed: the process may live on, and use its descriptors.
    connection: Option<u64>,
    sends_alive: bool,
    last_sign: Instant,
    is_ready: bool,
    /// Its end is no crash.
    is_planned: bool,
}

impl Keeper {
    /// Opens the socket.
    ///
    /// # Errors
    ///
    /// Another keeper runs there, or the directory is one that others can write to.
    pub fn bind(path: &Path, options: Options) -> io::Result<Self> {
        let listener = Listener::bind(path)?;
        let mut keeper = Self::private(options);
        keeper.listener = Some(listener);
        Ok(keeper)
    }

    /// Without a socket that others could connect to: it is there for the children of this process alone.
    #[must_use]
    pub fn private(options: Options) -> Self {
        let max = options.max_descriptors.min(raise_descriptor_limit());
        Self {
            listener: None,
            options,
            store: Store::new(max),
            connections: Vec::new(),
            last_id: 0,
            owner: None,
            orphaned_until: None,
            crashes: VecDeque::new(),
        }
    }

    /// Takes the connection of an engine that this process has just started.
    pub(crate) fn admit(&mut self, socket: OwnedFd, child: &Child) {
        let peer = Peer { pid: Some(Pid::from_child(child)) };
        self.add(socket, peer, Instant::now() + CHILD_HELLO_TIMEOUT);
    }

    /// The engine that has the store.
    #[must_use]
    pub fn engine(&self) -> Option<EngineStatus> {
        let owner = self.owner.as_ref()?;
        Some(EngineStatus { pid: owner.process.pid(), is_ready: owner.is_ready })
    }

    /// How many descriptors are kept.
    #[must_use]
    pub fn stored(&self) -> usize {
        self.store.len()
    }

    /// Says that this process will be ended on purpose: that is not counted as a crash.
    pub fn plan_end(&mut self, pid: i32) {
        if let Some(owner) = self.owner.as_mut().filter(|owner| owner.process.pid() == Some(pid)) {
            owner.is_planned = true;
        }
    }

    /// Waits until something happens, and handles it. Returns also when `wake` can be read, and at `until`.
    ///
    /// # Errors
    ///
    /// The system cannot wait; nothing that an engine does is an error here.
    pub fn turn(&mut self, wake: Option<BorrowedFd<'_>>, until: Option<Instant>) -> io::Result<()> {
        let until = self.next_deadline().into_iter().chain(until).min();
        let ready = self.wait(wake, until)?;
        let now = Instant::now();
        if let Some(late) = until.and_then(|until| now.checked_duration_since(until)).filter(|late| *late > MAX_LATE) {
            self.forgive(late);
        }
        for id in ready.connections {
            self.serve(id, now);
        }
        if ready.listener {
            self.accept(now);
        }
        self.handle_deadlines(now);
        self.release(now);
        self.take_next(now);
        Ok(())
    }

    fn next_deadline(&self) -> Option<Instant> {
        let hellos = self.connections.iter().filter_map(|connection| match connection.state {
            State::AwaitingHello { until } => Some(until),
            _ => None,
        });
        hellos.chain(self.alive_until()).chain(self.orphaned_until).min()
    }

    fn alive_until(&self) -> Option<Instant> {
        let owner = self.owner.as_ref().filter(|owner| owner.sends_alive && owner.connection.is_some())?;
        Some(owner.last_sign + self.options.alive_timeout)
    }

    fn wait(&self, wake: Option<BorrowedFd<'_>>, until: Option<Instant>) -> io::Result<Ready> {
        let mut fds = Vec::with_capacity(MAX_CONNECTIONS + 3);
        for connection in &self.connections {
            let mut interest = PollFlags::empty();
            interest.set(PollFlags::IN, connection.wants_read());
            interest.set(PollFlags::OUT, connection.wants_write());
            fds.push(PollFd::from_borrowed_fd(connection.as_fd(), interest));
        }
        let is_full = self.connections.len() >= MAX_CONNECTIONS;
        let accepts = if is_full { PollFlags::empty() } else { PollFlags::IN };
        fds.extend(self.listener.as_ref().map(|listener| PollFd::from_borrowed_fd(listener.as_fd(), accepts)));
        // Whether the process of a closed connection has ended; while it is connected, the connection tells.
        let closed = self.owner.as_ref().filter(|owner| owner.connection.is_none());
        fds.extend(wake.map(|wake| PollFd::from_borrowed_fd(wake, PollFlags::IN)));
        fds.extend(
            closed.and_then(|owner| owner.process.handle()).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
        );
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
        match poll(&mut fds, left.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Ready::default()),
            Err(error) => return Err(error.into()),
        }
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let connections = self.connections.iter().zip(&fds).filter(|(_, fd)| is_ready(fd));
        // Those that have hung up are read to their end, whatever they were still to be sent.
        let connections = connections.map(|(connection, fd)| (connection.id, fd.revents().intersects(HUNG_UP)));
        let listener = self.listener.is_some() && is_ready(&fds[self.connections.len()]);
        Ok(Ready { connections: connections.collect(), listener })
    }

    /// This process was stopped for so long: nobody else could have met a deadline.
    fn forgive(&mut self, late: Duration) {
        if let Some(owner) = &mut self.owner {
            owner.last_sign += late;
        }
        for connection in &mut self.connections {
            if let State::AwaitingHello { until } = &mut connection.state {
                *until += late;
            }
        }
    }

    fn accept(&mut self, now: Instant) {
        match self.listener.as_ref().map(Listener::accept) {
            Some(Ok((socket, peer))) => self.add(socket, peer, now + HELLO_TIMEOUT),
            Some(Err(error)) if error.kind() != io::ErrorKind::WouldBlock => say!("refused a connection: {error}"),
            _ => {}
        }
    }

    fn add(&mut self, socket: OwnedFd, peer: Peer, hello_until: Instant) {
        self.last_id += 1;
        self.connections.push(Connection::new(self.last_id, socket, Process::of(peer), hello_until));
    }

    fn handle_deadlines(&mut self, now: Instant) {
        self.connections.retain(|connection| match connection.state {
            State::AwaitingHello { until } => until > now,
            _ => true,
        });
        if self.alive_until().is_some_and(|until| until <= now) {
            self.on_silent(now);
        }
        if self.orphaned_until.is_some_and(|until| until <= now) {
            self.orphaned_until = None;
            say!("no engine came for {} descriptors: dropping them", self.store.len());
            self.store.reset_all();
        }
    }

    /// The engine hangs.
    fn on_silent(&mut self, now: Instant) {
        let Some(owner) = &mut self.owner else { return };
        if owner.process.is_stopped() {
            // Whoever stopped it wants to look at it.
            owner.last_sign = now;
            return;
        }
        let seconds = self.options.alive_timeout.as_secs_f32();
        if owner.process.kill() {
            say!("killed the engine: it gave no sign of life for {seconds} s");
            owner.last_sign = now;
        } else {
            say!(
                "ended the connection of the engine: it gave no sign of life for {seconds} s and cannot be killed from here"
            );
            let id = owner.connection.take();
            self.connections.retain(|connection| Some(connection.id) != id);
        }
    }

    /// Notices that the engine is gone: its connection, and its process, which could use what it has without a connection.
    fn release(&mut self, now: Instant) {
        let is_gone = |owner: &mut Owner| owner.connection.is_none() && owner.process.has_ended();
        if let Some(owner) = self.owner.take_if(is_gone) {
            self.on_gone(owner.is_planned, now);
            self.orphaned_until = (self.store.len() > 0).then_some(now + self.options.grace);
        }
    }

    fn on_gone(&mut self, is_planned: bool, now: Instant) {
        if !is_planned {
            self.crashes.push_back(now);
        }
        while self.crashes.len() > CRASH_LOOP {
            self.crashes.pop_front();
        }
    }

    /// Gives the store to the engine that has waited longest, if no other has it.
    fn take_next(&mut self, now: Instant) {
        let can_have = |connection: &Connection| match &self.owner {
            None => true,
            // It lost its connection and came again.
            Some(owner) => owner.connection.is_none() && owner.process.is(&connection.process),
        };
        let next = self.connections.iter().enumerate().filter_map(|(at, connection)| match connection.state {
            State::Waiting(hello) if can_have(connection) => Some((connection.id, at, hello)),
            _ => None,
        });
        let Some((id, at, hello)) = next.min_by_key(|(id, ..)| *id) else { return };
        if let Some(before) = self.owner.take()
            && !hello.continues
        {
            self.on_gone(before.is_planned, now);
        }
        self.orphaned_until = None;
        let welcome = self.welcome(hello, now);
        let connection = &mut self.connections[at];
        connection.state = State::Serving;
        connection.reply(Reply::Welcome(welcome));
        if hello.continues {
            self.store.mark_stale();
        } else {
            connection.inherit(self.store.tags());
        }
        self.owner = Some(Owner {
            process: connection.process.clone(),
            connection: Some(id),
            sends_alive: hello.sends_alive,
            last_sign: now,
            is_ready: hello.continues,
            is_planned: false,
        });
    }

    fn welcome(&self, hello: Hello, now: Instant) -> Welcome {
        let recent = |crash: &&Instant| now.saturating_duration_since(**crash) <= CRASH_LOOP_WINDOW;
        let crashes = self.crashes.iter().filter(recent).count();
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Welcome {
            version: hello.newest.min(VERSIONS.1),
            crash_loop: crashes >= CRASH_LOOP,
            max_descriptors: self.store.max(),
            stored: if hello.continues { 0 } else { number(self.store.len()) },
            alive_timeout_millis: u32::try_from(self.options.alive_timeout.as_millis()).unwrap_or(u32::MAX),
            crashes: number(crashes),
        }
    }
}

impl Drop for Keeper {
    /// Where an engine lives, it keeps its connections; where none does, nobody could finish them.
    fn drop(&mut self) {
        if self.owner.as_ref().is_none_or(|owner| owner.process.has_ended()) {
            self.store.reset_all();
        }
    }
}

/// What can be moved.
#[derive(Debug, Default)]
struct Ready {
    /// By id, and whether it has hung up.
    connections: Vec<(u64, bool)>,
    listener: bool,
}

const HUNG_UP: PollFlags = PollFlags::HUP.union(PollFlags::ERR);

/// Lets this process open as many files as the system allows, and returns how many of them can be kept.
fn raise_descriptor_limit() -> u32 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
    let current = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    u32::try_from(current.saturating_sub(OWN_DESCRIPTORS)).unwrap_or(u32::MAX)
}
