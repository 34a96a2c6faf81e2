//! The supervisor: what it starts, when it starts it again, and when it gives up.
//!
//! The engines are copies of this program; the last word of such a file says how it behaves.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test, a panic is the report")]
#![cfg(target_os = "linux")]

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{env, thread};

use ferry_processes::Family;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use ferry_keeper::{Client, Event, Invocation, KEEPER_VARIABLE, Keeper, Options, Reach, Signals, Supervisor, Tag};

const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than an engine is without a turn on a loaded machine, and short enough to be waited for.
const SHORT: Duration = Duration::from_secs(8);
/// Crashes that are longer ago than this are no loop.
const CRASH_LOOP_WINDOW: Duration = Duration::from_secs(10);
const ARGS: [&str; 4] = ["engine_process", "--exact", "--nocapture", "--test-threads=1"];

/// A program that is being written cannot be started; nor can it while a child of another test has it open.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn my_turn() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

fn say(text: &str) {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, ">{text}").unwrap();
    stdout.flush().unwrap();
}

/// Not a test: the keeper that the tests start.
#[test]
fn supervisor_process() {
    let (Some(socket), Some(program)) = (env::var_os("SUPERVISE_AT"), env::var_os("SUPERVISE")) else { return };
    let signals = Signals::listen().unwrap();
    let seconds = |name| Duration::from_secs(env::var(name).unwrap().parse().unwrap());
    let options = Options { alive_timeout: seconds("ALIVE_WITHIN"), ..Options::default() };
    let keeper = Keeper::bind(Path::new(&socket), options).unwrap();
    let command: Vec<OsString> = [program].into_iter().chain(ARGS.map(OsString::from)).collect();
    let command = Invocation::new(&command).unwrap();
    let ready = seconds("READY_WITHIN");
    let mut supervisor = Supervisor::new(keeper, Reach::Socket(socket.into()), command, signals, ready);
    std::process::exit(supervisor.run().unwrap().into());
}

/// Not a test: the engines.
#[test]
fn engine_process() {
    let Some(socket) = env::var_os(KEEPER_VARIABLE) else { return };
    let program = fs::read("/proc/self/exe").unwrap();
    let behaviour = String::from_utf8(program.rsplit(|byte| *byte == b' ').next().unwrap().to_vec()).unwrap();
    let pid = std::process::id();
    let stopped = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&stopped)).unwrap();
    let idle = || {
        while !stopped.load(Ordering::SeqCst) {
            thread::park_timeout(Duration::from_millis(20));
        }
    };
    match behaviour.as_str() {
        "fails" => std::process::exit(1),
        "misconfigured" => std::process::exit(78),
        "mute" => {
            say(&format!("mute {pid}"));
            idle();
            std::process::exit(7);
        }
        _ => {}
    }
    let (mut client, inherited) = Client::connect(Path::new(&socket), PATIENCE).unwrap();
    let file = File::open("/dev/null").unwrap();
    client.store(&Tag([u8::try_from(inherited.descriptors.len()).unwrap(); 32]), file.as_fd()).unwrap();
    if behaviour == "stuck" {
        thread::park();
    }
    if behaviour != "unready" {
        client.ready().unwrap();
    }
    let seq = client.remove(&Tag([99; 32])).unwrap();
    while client.poll_event().unwrap() != Some(Event::Confirmed { through: seq }) {
        thread::yield_now();
    }
    say(&format!("{behaviour} {pid} {} {}", inherited.descriptors.len(), inherited.crash_loop));
    while !stopped.load(Ordering::SeqCst) {
        thread::park_timeout(Duration::from_millis(20));
        _ = client.alive();
        while client.poll_event().is_ok_and(|event| event.is_some()) {}
    }
    _ = client.finish();
    std::process::exit(5);
}

/// How long a keeper waits for an engine.
struct Timeouts {
    alive: Duration,
    ready: Duration,
}

struct Supervised {
    family: Family,
    output: BufReader<ChildStdout>,
    program: PathBuf,
    dir: TempDir,
}

impl Supervised {
    fn start(behaviour: &str) -> Self {
        Self::start_with(behaviour, &Timeouts { alive: PATIENCE, ready: PATIENCE })
    }

    fn start_with(behaviour: &str, timeouts: &Timeouts) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("engine");
        install(&program, behaviour);
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["supervisor_process", "--exact", "--nocapture", "--test-threads=1"])
            .env("SUPERVISE_AT", dir.path().join("keeper.sock"))
            .env("SUPERVISE", &program)
            .env("ALIVE_WITHIN", timeouts.alive.as_secs().to_string())
            .env("READY_WITHIN", timeouts.ready.as_secs().to_string())
            .stdout(Stdio::piped());
        let mut family = Family::start(&mut command, dir.path());
        let output = BufReader::new(family.parent.stdout.take().unwrap());
        Self { family, output, program, dir }
    }

    /// What the next engine says first: its words, and its pid.
    fn hear(&mut self) -> (String, Pid) {
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the keeper has ended");
            if let Some((_, said)) = line.split_once('>') {
                let words: Vec<_> = said.trim().split(' ').collect();
                let pid = Pid::from_raw(words[1].parse().unwrap()).unwrap();
                return ([&words[..1], &words[2..]].concat().join(" "), pid);
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.family.parent), signal).unwrap();
    }

    fn end(mut self) -> ExitStatus {
        self.family.parent.wait().unwrap()
    }
}

/// Puts a program in place, as an upgrade does: another file under the same name.
fn install(program: &Path, behaviour: &str) {
    let new = program.with_extension("new");
    let mut text = fs::read(env::current_exe().unwrap()).unwrap();
    text.extend(format!(" {behaviour}").bytes());
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, program).unwrap();
}

#[test]
fn a_killed_engine_is_started_again_and_inherits() {
    let _turn = my_turn();
    let mut supervised = Supervised::start("first");
    let (said, pid) = supervised.hear();
    assert_eq!(said, "first 0 false");
    kill_process(pid, Signal::KILL).unwrap();
    let (said, _) = supervised.hear();
    assert_eq!(said, "first 1 false");
    supervised.signal(Signal::TERM);
    assert_eq!(supervised.end().code(), Some(5), "the engine's code is the keeper's");
}

#[test]
fn an_engine_is_told_of_the_third_crash_in_a_row() {
    let _turn = my_turn();
    let mut supervised = Supervised::start("first");
    let mut kills = Vec::new();
    for crashes in 0..4 {
        let (said, pid) = supervised.hear();
        let is_told = said == format!("first {crashes} true");
        assert!(is_told || said == format!("first {crashes} false"), "{said}");
        // A machine may be so busy that the first of them is too long ago by now.
        let recent = kills.iter().filter(|kill: &&Instant| kill.elapsed() < CRASH_LOOP_WINDOW).count();
        assert!(
            if is_told { crashes >= 3 } else { recent < 3 },
            "after {crashes} crashes, {recent} of them recent: {said}"
        );
        kills.push(Instant::now());
        kill_process(pid, Signal::KILL).unwrap();
    }
    supervised.hear();
    supervised.signal(Signal::TERM);
    supervised.end();
}

#[test]
fn an_upgrade_starts_what_is_on_the_disk_now() {
    let _turn = my_turn();
    let mut supervised = Supervised::start("first");
    assert_eq!(supervised.hear().0, "first 0 false");
    install(&supervised.program, "second");
    for upgrades in 1..6 {
        supervised.signal(Signal::USR2);
        assert_eq!(supervised.hear().0, format!("second {upgrades} false"), "an upgrade is no crash");
    }
    supervised.signal(Signal::TERM);
    supervised.end();
}

#[test]
fn a_crash_starts_what_is_on_the_disk_now() {
    let _turn = my_turn();
    let mut supervised = Supervised::start("first");
    let (_, pid) = supervised.hear();
    install(&supervised.program, "second");
    kill_process(pid, Signal::KILL).unwrap();
    assert_eq!(supervised.hear().0, "second 1 false");
    supervised.signal(Signal::TERM);
    supervised.end();
}

#[test]
fn an_upgrade_that_does_not_become_ready_is_undone() {
    let _turn = my_turn();
    let timeouts = Timeouts { alive: PATIENCE, ready: SHORT };
    let upgraded = ["fails", "misconfigured", "unready", "mute"].map(|behaviour| {
        let mut supervised = Supervised::start_with("first", &timeouts);
        supervised.hear();
        install(&supervised.program, behaviour);
        supervised.signal(Signal::USR2);
        (behaviour, supervised)
    });
    // Those that are waited for are waited for at once.
    for (behaviour, mut supervised) in upgraded {
        let mut said = supervised.hear();
        if said.0.starts_with(behaviour) {
            said = supervised.hear();
        }
        assert!(said.0.starts_with("first "), "after {behaviour}: {}", said.0);
        // A crash later on does not try it again; whoever asks for it does.
        kill_process(said.1, Signal::KILL).unwrap();
        assert!(supervised.hear().0.starts_with("first "));
        install(&supervised.program, "third");
        supervised.signal(Signal::USR2);
        assert!(supervised.hear().0.starts_with("third "));
        supervised.signal(Signal::TERM);
        assert_eq!(supervised.end().code(), Some(5));
    }
}

#[test]
fn a_program_that_is_gone_from_the_disk_is_started_from_memory() {
    let _turn = my_turn();
    let mut supervised = Supervised::start("first");
    let (_, pid) = supervised.hear();
    fs::remove_file(&supervised.program).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    assert_eq!(supervised.hear().0, "first 1 false");
    supervised.signal(Signal::TERM);
    supervised.end();
}

#[test]
fn an_engine_that_hangs_is_killed_and_started_again() {
    let _turn = my_turn();
    let mut supervised = Supervised::start_with("stuck", &Timeouts { alive: SHORT, ready: PATIENCE });
    // It connects, stores, and gives no sign of life; the program that follows it does.
    let socket = supervised.dir.path().join("keeper.sock");
    while !socket.exists() {
        thread::yield_now();
    }
    install(&supervised.program, "second");
    let (said, _) = supervised.hear();
    assert!(["second 0 false", "second 1 false"].contains(&said.as_str()), "{said}");
    supervised.signal(Signal::TERM);
    supervised.end();
}

#[test]
fn an_engine_that_cannot_start_ends_the_keeper_with_its_code() {
    let _turn = my_turn();
    for (behaviour, code) in [("fails", 1), ("misconfigured", 78)] {
        assert_eq!(Supervised::start(behaviour).end().code(), Some(code));
    }
}

#[test]
fn an_engine_that_knows_no_keeper_is_supervised_as_well() {
    let _turn = my_turn();
    let mut supervised = Supervised::start("mute");
    let (_, pid) = supervised.hear();
    kill_process(pid, Signal::KILL).unwrap();
    supervised.hear();
    supervised.signal(Signal::TERM);
    assert_eq!(supervised.end().code(), Some(7));
}

#[test]
fn an_engine_outlives_its_keeper() {
    let _turn = my_turn();
    let mut supervised = Supervised::start("first");
    let (_, pid) = supervised.hear();
    supervised.signal(Signal::KILL);
    assert_eq!(supervised.family.parent.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
    // Its output ends only with it.
    kill_process(pid, Signal::TERM).unwrap();
    let mut rest = String::new();
    io::Read::read_to_string(&mut supervised.output, &mut rest).unwrap();
}
