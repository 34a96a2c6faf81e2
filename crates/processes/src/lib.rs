//! What tests need of the system: processes that run next to them, and ports. For tests alone, where a panic is the
//! report.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub use port::{Port, nobody};

mod port;

/// The longest that anything is waited for: far beyond what a loaded machine needs.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A program of ours, in an environment that nothing of ours is set in.
pub fn command<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("FERRY_") || text == "POD_NAME" || text == "CLUSTER_NAME" {
            command.env_remove(&name);
        }
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// Its exit code; a signal has none.
pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// What it wrote to standard output.
pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What it wrote to standard error.
pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A process next to the test. It is killed when this is dropped.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    /// Starts the command; its standard output is read line by line.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        // Reads on when nobody listens any more, so that the process is never stopped by a full pipe.
        thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(|line| _ = sender.send(line)));
        Self { child, lines }
    }

    /// The next line that the predicate holds for.
    pub fn line(&mut self, mut wanted: impl FnMut(&str) -> bool) -> String {
        let end = Instant::now() + DEADLINE;
        let mut seen = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            if wanted(&line) {
                return line;
            }
            seen.push(line);
        }
        panic!("the line did not come; there were: {seen:#?}");
    }

    /// All lines until the end of the output.
    pub fn rest(&mut self) -> Vec<String> {
        let end = Instant::now() + DEADLINE;
        let mut rest = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            rest.push(line);
        }
        rest
    }

    /// Its number.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed()).unwrap()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// What the kernel says about the process under this name.
    pub fn status(&self, name: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
    }

    /// Waits for the end of the process.
    pub fn end(&mut self) -> ExitStatus {
        eventually("the end of the process", || self.child.try_wait().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process, and those that it starts, which have a mark in their environment that no others have. All are killed when
/// this is dropped, also those that have outlived it.
pub struct Family {
    /// The process.
    pub parent: Child,
    mark: Vec<u8>,
}

impl Family {
    /// Starts the command.
    pub fn start(command: &mut Command, mark: impl AsRef<OsStr>) -> Self {
        Self { parent: command.spawn().unwrap(), mark: mark.as_ref().as_encoded_bytes().to_vec() }
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        // First, so that it starts no more of them. It may have ended already.
        let _ = self.parent.kill();
        let _ = self.parent.wait();
        for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = process.file_name().to_str().and_then(|name| Pid::from_raw(name.parse().ok()?));
            // Those of others cannot be read.
            let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
            if let Some(pid) = pid
                && environment.windows(self.mark.len()).any(|part| part == self.mark)
            {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// Polls until the check gives something.
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end {
        if let Some(found) = check() {
            return found;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("{what}: not within {DEADLINE:?}");
}
