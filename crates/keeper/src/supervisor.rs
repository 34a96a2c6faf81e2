//! A keeper that also starts the engine, and starts it again.
//!
//! ```text
//!          start                    ready, or lives long enough
//! nothing ───────▶ on trial ───────────────────────────────────▶ proven ── SIGUSR2, crash, hang ──▶ nothing
//!    ▲                │
//!    └────────────────┘ ends, or is not ready in time: given up, and the last proven program is started
//! ```
//!
//! Every start takes the program that is on the disk now, unless that one was given up.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR2};

use crate::executable::{Executable, Identity, Invocation, Reach, Spawned};
use crate::keeper::Keeper;
use crate::log::say;
use crate::signals::Signals;

/// These codes say that starting again will not help: it ended well, was called wrongly, or has a bad configuration.
const FINAL_CODES: [i32; 3] = [0, 2, 78];
/// An engine that lived for this long has not crashed because of how it started.
const STABLE_AGE: Duration = Duration::from_secs(10);
const FIRST_DELAY: Duration = Duration::from_millis(100);
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(5);

/// Starts an engine, and starts it again when it crashes or hangs.
#[derive(Debug)]
pub struct Supervisor {
    keeper: Keeper,
    reach: Reach,
    command: Invocation,
    signals: Signals,
    ready_timeout: Duration,
    engine: Option<Engine>,
    has_started: bool,
    /// When to start the next one.
    start_at: Option<Instant>,
    proven: Option<Executable>,
    /// Engines of the proven program say when they are ready.
    proven_tells: bool,
    given_up: Option<Identity>,
    quick_crashes: u32,
    is_stopping: bool,
}

#[derive(Debug)]
struct Engine {
    child: Child,
    started: Instant,
    /// Until it is proven.
    trial: Option<Executable>,
    /// This process kills it.
    ends_for: Option<EndsFor>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EndsFor {
    Upgrade,
    NotReady,
}

impl Supervisor {
    /// A new program is given up when it is not ready within `ready_timeout`.
    #[must_use]
    pub fn new(keeper: Keeper, reach: Reach, command: Invocation, signals: Signals, ready_timeout: Duration) -> Self {
        Self {
            keeper,
            reach,
            command,
            signals,
            ready_timeout,
            engine: None,
            has_started: false,
            start_at: Some(Instant::now()),
            proven: None,
            proven_tells: false,
            given_up: None,
            quick_crashes: 0,
            is_stopping: false,
        }
    }

    /// Whether an engine was ever started.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.has_started
    }

    /// Runs until an engine ends in a way that another start would not change, and returns the code to exit with.
    ///
    /// # Errors
    ///
    /// The engine cannot be started for the first time, or the system cannot wait.
    pub fn run(&mut self) -> io::Result<u8> {
        loop {
            for signal in self.signals.take() {
                if self.on_signal(signal) {
                    return self.cut_off(signal);
                }
            }
            // First, as what an engine said counts though it has ended since.
            self.judge();
            if let Some(code) = self.reap()? {
                return self.settle().map(|()| code);
            }
            if self.is_stopping && self.engine.is_none() {
                return Ok(0);
            }
            if self.start_at.is_some_and(|at| at <= Instant::now()) {
                self.start_or_wait()?;
            }
            self.keeper.turn(Some(self.signals.as_fd()), self.next_deadline())?;
        }
    }

    /// Reads what the last engine sent before it ended: whether that was in good order.
    fn settle(&mut self) -> io::Result<()> {
        let until = Instant::now() + SETTLE_TIMEOUT;
        while self.keeper.engine().is_some() && Instant::now() < until {
            self.keeper.turn(None, Some(until))?;
        }
        Ok(())
    }

    fn next_deadline(&self) -> Option<Instant> {
        let trial = self.engine.as_ref().filter(|engine| engine.trial.is_some() && engine.ends_for.is_none());
        let judged = trial.map(|engine| engine.started + self.ready_timeout);
        // A deadline that has passed without a judgement is not waited for again.
        let judged = judged.filter(|at| *at > Instant::now());
        self.start_at.into_iter().chain(judged).min()
    }

    /// Whether it asks to stop without waiting for what is under way. An engine that ends with its keeper is told once to stop:
    /// what is sent to a whole process group, or to all of a unit, it has received already, and would take for a second time.
    fn on_signal(&mut self, signal: i32) -> bool {
        if [SIGTERM, SIGINT].contains(&signal) {
            let again = std::mem::replace(&mut self.is_stopping, true);
            if again && self.reach == Reach::Parent {
                return true;
            }
        }
        if signal == SIGUSR2 {
            // Whoever asks wants the program on the disk to be tried, again if need be.
            self.given_up = None;
            say!("asked to upgrade: starting {}", self.command.path().display());
            match self.engine {
                Some(_) => self.end(EndsFor::Upgrade),
                None => self.start_at = Some(Instant::now()),
            }
        } else if let Some(signal) = Signal::from_named_raw(signal).filter(|signal| *signal != Signal::CHILD)
            && let Some(engine) = &self.engine
        {
            _ = kill_process(Pid::from_child(&engine.child), signal);
        }
        false
    }

    fn cut_off(&mut self, signal: i32) -> io::Result<u8> {
        let name = if signal == SIGINT { "SIGINT" } else { "SIGTERM" };
        say!("asked to stop a second time, by {name}; what was under way is cut off");
        if let Some(engine) = &mut self.engine {
            engine.child.kill()?;
            engine.child.wait()?;
        }
        Ok(1)
    }

    fn end(&mut self, ends_for: EndsFor) {
        let Some(engine) = &mut self.engine else { return };
        engine.ends_for = Some(ends_for);
        let pid = Pid::from_child(&engine.child);
        self.keeper.plan_end(pid.as_raw_nonzero().get());
        // Not reaped yet, so the pid is still its own.
        _ = kill_process(pid, Signal::KILL);
    }

    /// Where nothing was ever started, another try would not help. Otherwise there may be connections to save.
    fn start_or_wait(&mut self) -> io::Result<()> {
        let Err(error) = self.start() else { return Ok(()) };
        if !self.has_started {
            return Err(error);
        }
        say!("cannot start the engine: {error}; trying again in {} s", MAX_DELAY.as_secs_f32());
        self.start_at = Some(Instant::now() + MAX_DELAY);
        Ok(())
    }

    /// The program on the disk, or the last proven one if that is missing or was given up.
    fn start(&mut self) -> io::Result<()> {
        self.start_at = None;
        let found = Executable::open(self.command.path());
        let found = found.map(|found| Some(found).filter(|found| self.given_up != Some(found.identity())));
        let started = match (found, &self.proven) {
            (Ok(Some(found)), proven) => {
                let is_proven = proven.as_ref().is_some_and(|proven| proven.identity() == found.identity());
                self.command.start_from_disk(&self.reach).map(|spawned| (spawned, (!is_proven).then_some(found)))
            }
            (Ok(None), Some(proven)) => proven.start(&self.command, &self.reach).map(|spawned| (spawned, None)),
            (Err(error), Some(proven)) => {
                say!("cannot open {}: {error}; starting the program before it", self.command.path().display());
                proven.start(&self.command, &self.reach).map(|spawned| (spawned, None))
            }
            (Ok(None), None) => Err(io::Error::other("there is no program left to start")),
            (Err(error), None) => Err(error),
        };
        let (Spawned { child, socket }, trial) = match (started, &self.proven) {
            (Ok(started), _) => started,
            (Err(error), None) => return Err(error),
            (Err(error), Some(proven)) => {
                say!("cannot start {}: {error}; starting the program before it", self.command.path().display());
                (proven.start(&self.command, &self.reach)?, None)
            }
        };
        let is_first = !std::mem::replace(&mut self.has_started, true);
        // The first start of a tunnel that did not ask for a keeper is no news.
        if !is_first || self.reach != Reach::Parent {
            say!("started engine {}", child.id());
        }
        if let Some(socket) = socket {
            self.keeper.admit(socket, &child);
        }
        self.engine = Some(Engine { child, started: Instant::now(), trial, ends_for: None });
        Ok(())
    }

    /// Whether the engine on trial is proven, or given up.
    fn judge(&mut self) {
        let Some(engine) = self.engine.as_mut().filter(|engine| engine.ends_for.is_none()) else { return };
        if engine.trial.is_none() {
            return;
        }
        let pid = Pid::from_child(&engine.child).as_raw_nonzero().get();
        let status = self.keeper.engine().filter(|status| status.pid == Some(pid));
        let is_ready = status.is_some_and(|status| status.is_ready);
        if !is_ready && engine.started.elapsed() < self.ready_timeout {
            return;
        }
        // One that never talks to a keeper counts as ready by staying alive, if its predecessors did not talk either.
        let is_silent = status.is_none() && !self.proven_tells;
        if is_ready || is_silent {
            self.proven_tells = is_ready;
            self.proven = engine.trial.take();
            self.given_up = None;
        } else if self.proven.is_some() {
            say!("the new program is not ready within {} s: giving it up", self.ready_timeout.as_secs_f32());
            self.end(EndsFor::NotReady);
        }
    }

    /// Looks whether the engine has ended. Returns a code if none is to follow.
    fn reap(&mut self) -> io::Result<Option<u8>> {
        let Some(engine) = &mut self.engine else { return Ok(None) };
        let Some(status) = engine.child.try_wait()? else { return Ok(None) };
        let Some(engine) = self.engine.take() else { return Ok(None) };
        if self.is_stopping {
            return Ok(Some(code_of(status)));
        }
        self.start_at = Some(Instant::now());
        if engine.ends_for == Some(EndsFor::Upgrade) {
            return Ok(None);
        }
        match (engine.trial, &self.proven) {
            (Some(trial), Some(_)) => {
                say!("the new program has ended ({status}) before it was ready: going back to the one before");
                self.given_up = Some(trial.identity());
                return Ok(None);
            }
            // It did not get far enough to have anything that another start could save.
            (Some(_), None) if status.code().is_some() => return Ok(Some(code_of(status))),
            _ if status.code().is_some_and(|code| FINAL_CODES.contains(&code)) => return Ok(Some(code_of(status))),
            _ => {}
        }
        let delay = self.delay(engine.started.elapsed());
        say!("the engine has crashed ({status}): starting it again in {} s", delay.as_secs_f32());
        self.start_at = Some(Instant::now() + delay);
        Ok(None)
    }

    /// None after a crash, then more with each that follows soon.
    fn delay(&mut self, age: Duration) -> Duration {
        self.quick_crashes = if age < STABLE_AGE { self.quick_crashes + 1 } else { 0 };
        match self.quick_crashes.checked_sub(2) {
            None => Duration::ZERO,
            Some(more) => FIRST_DELAY.saturating_mul(1 << more.min(10)).min(MAX_DELAY),
        }
    }
}

fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    u8::try_from(code).unwrap_or(1)
}
