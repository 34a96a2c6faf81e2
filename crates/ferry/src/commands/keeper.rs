//! `ferry keeper`: holds what must outlive a tunnel's engine, and starts the engine again.
//!
//! It runs without a runtime and without logging: a process that is to outlive others has little in it.

use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;
use std::{env, io};

use anyhow::Context as _;

use crate::exit::{BadConfiguration, Usage};
use crate::process;
use ferry_keeper::{Invocation, KEEPER_VARIABLE, Keeper, Options, PARENT, Reach, Signals, Supervisor, end_with_parent};

const EXAMPLES: &str = "\
Examples:
  ferry keeper --socket /run/ferry/keeper.sock
  ferry keeper --socket /run/ferry/keeper.sock -- ferry tunnel --config tunnel.yaml
  kill -USR2 PID                           start the program that is on the disk now; go back if it does not get ready

The first only keeps; the tunnel is started by somebody else, with FERRY_KEEPER=/run/ferry/keeper.sock. The second also
starts the tunnel, and starts it again when it crashes or hangs. Its messages go to standard error.";

/// Keep a tunnel's connections while the tunnel is killed, crashes or is upgraded.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The Unix socket that the tunnel finds this keeper at, in a directory that is this user's alone.
    #[arg(long, value_name = "PATH", env = "FERRY_KEEPER")]
    socket: PathBuf,
    /// How long to keep what a tunnel left, until another comes for it.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = super::duration)]
    grace: Duration,
    /// Kill a tunnel that gives no sign of life for this long.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = super::duration)]
    alive_timeout: Duration,
    /// Give an upgrade up that is not ready after this long.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = super::duration)]
    ready_timeout: Duration,
    /// How many descriptors to hold at most; fewer if the limit of open files is lower.
    #[arg(long, value_name = "N", default_value_t = 65_536)]
    max_descriptors: u32,
    /// The tunnel to start.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// The default of `--ready-timeout`.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// What the process that keeps is started with: as its first argument, in front of its [`Settings`].
const PROCESS: &str = "keeper-process";

/// Checks the command line, and becomes the process that keeps.
///
/// To parse a command line takes more memory than the keeper ever will, and an allocator gives none back. So it starts itself
/// again, in the same process, with what it found.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let program = env::current_exe().context("cannot find this program")?;
    Err(become_keeper(&program, &Settings::from(args))).context("cannot start this program again")
}

/// Returns only if that is not possible.
fn become_keeper(program: &Path, settings: &Settings) -> io::Error {
    // Kept by what is started. With huge pages the allocator's first few KiB would take 4 MiB.
    process::refuse_huge_pages();
    let name = env::args_os().next().unwrap_or_else(|| "ferry".into());
    Command::new(program).arg0(name).arg(PROCESS).args(settings.to_words()).exec()
}

/// How long a tunnel that did not ask for a keeper may be silent: one that hangs is found, and one on a machine that is short of
/// everything is left alone.
const DEFAULT_ALIVE_TIMEOUT: Duration = Duration::from_secs(30);

/// A tunnel that has no keeper yet gets one: this process, which then starts the tunnel as its child. Whatever stands against
/// that, the tunnel runs without one. Returns why.
pub(crate) fn keep_tunnel(config: &Path) -> Option<String> {
    match env::var_os(KEEPER_VARIABLE) {
        Some(by) if by == PARENT => {
            if !end_with_parent() {
                std::process::exit(1);
            }
            return None;
        }
        Some(by) if !by.is_empty() => return None,
        _ => {}
    }
    // What is wrong with it the tunnel says.
    let tunnel = ferry_config::load(config).ok()?.tunnel;
    if tunnel.keeper.is_some() {
        return None;
    }
    if let Err(reason) = ferry_tunnel::can_outlive_a_process(&tunnel) {
        return Some(reason);
    }
    drop(tunnel);
    let invocation = match Invocation::of_this_process() {
        Ok(invocation) => invocation,
        Err(error) => return Some(format!("this program cannot be started again: {error}")),
    };
    let defaults = Options::default();
    let settings = Settings {
        socket: None,
        options: Options { alive_timeout: DEFAULT_ALIVE_TIMEOUT, ..defaults },
        ready_timeout: READY_TIMEOUT,
        command: invocation.words(),
    };
    Some(format!("no keeper can be started: {}", become_keeper(invocation.path(), &settings)))
}

/// Keeps, if this process was started for that.
pub(crate) fn run_process() -> Option<anyhow::Result<ExitCode>> {
    let mut words = env::args_os().skip(1);
    (words.next()? == PROCESS).then(|| {
        let settings = Settings::of_words(words);
        settings.ok_or_else(|| Usage(format!("`{PROCESS}` is for `ferry keeper` to use")).into()).and_then(keep)
    })
}

/// The command line without what it takes to parse one.
struct Settings {
    /// None for a keeper that its child alone can reach.
    socket: Option<PathBuf>,
    options: Options,
    ready_timeout: Duration,
    command: Vec<OsString>,
}

impl From<Args> for Settings {
    fn from(args: Args) -> Self {
        let Args { socket, grace, alive_timeout, ready_timeout, max_descriptors, command } = args;
        let socket = Some(socket);
        Self { socket, options: Options { grace, alive_timeout, max_descriptors }, ready_timeout, command }
    }
}

impl Settings {
    fn to_words(&self) -> Vec<OsString> {
        let millis = |time: Duration| time.as_millis().to_string().into();
        let Options { grace, alive_timeout, max_descriptors } = self.options;
        let numbers =
            [millis(grace), millis(alive_timeout), millis(self.ready_timeout), max_descriptors.to_string().into()];
        let socket = self.socket.clone().unwrap_or_default().into();
        [socket].into_iter().chain(numbers).chain(self.command.iter().cloned()).collect()
    }

    fn of_words(mut words: impl Iterator<Item = OsString>) -> Option<Self> {
        let socket = Some(words.next()?.into()).filter(|path: &PathBuf| !path.as_os_str().is_empty());
        let mut number = || words.next()?.to_str()?.parse().ok();
        let (grace, alive_timeout, ready_timeout) = (number()?, number()?, number()?);
        let max_descriptors = u32::try_from(number()?).ok()?;
        let [grace, alive_timeout, ready_timeout] = [grace, alive_timeout, ready_timeout].map(Duration::from_millis);
        let options = Options { grace, alive_timeout, max_descriptors };
        Some(Self { socket, options, ready_timeout, command: words.collect() })
    }
}

/// Keeps until it is asked to stop, or the command ends for good. Returns the command's exit code.
fn keep(settings: Settings) -> anyhow::Result<ExitCode> {
    let Settings { socket, options, ready_timeout, command } = settings;
    let signals = Signals::listen().context("cannot listen for signals")?;
    let command = match command.as_slice() {
        [] => None,
        command => Some(Invocation::new(command).map_err(|error| BadConfiguration(error.to_string()))?),
    };
    let (mut keeper, reach) = match socket {
        Some(socket) => {
            let keeper = Keeper::bind(&socket, options);
            let keeper = keeper.with_context(|| format!("cannot keep at {}", socket.display()))?;
            // Relative paths mean the same to whoever is given this one.
            (keeper, Reach::Socket(std::path::absolute(socket)?))
        }
        None => (Keeper::private(options), Reach::Parent),
    };
    let Some(command) = command else {
        while !signals.ask_to_stop() {
            keeper.turn(Some(signals.as_fd()), None)?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let is_parent = reach == Reach::Parent;
    if is_parent && process::is_tied() {
        signals.stop_with_stdin();
    }
    let mut supervisor = Supervisor::new(keeper, reach, command.clone(), signals, ready_timeout);
    let ended = supervisor.run();
    match ended {
        // It would have started without.
        Err(error) if is_parent && !supervisor.has_started() => {
            eprintln!("ferry keeper: cannot start the tunnel ({error}): its sessions end with this process");
            Err(command.become_unkept().into())
        }
        ended => ended.map(ExitCode::from).context("cannot start the tunnel"),
    }
}
