//! Processes of tunnels: started with their output in a file, ended by pid with all their descendants.

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a process may take to end after it was told to, before it is killed.
const PATIENCE: Duration = Duration::from_secs(3);

/// How to start a process.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    log: PathBuf,
}

impl Program {
    /// Runs `path` with its output, both streams, appended to the file `log`.
    pub(crate) fn new(path: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), arguments: Vec::new(), environment: Vec::new(), log: log.into() }
    }

    /// Adds one argument.
    pub(crate) fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds several arguments.
    pub(crate) fn args<S: Into<OsString>>(self, arguments: impl IntoIterator<Item = S>) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }

    /// Adds a variable to its environment.
    pub(crate) fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The same in the network namespace of the process `pid`.
    pub(crate) fn within(self, pid: u32) -> Self {
        let mut arguments: Vec<OsString> = vec![format!("--net=/proc/{pid}/ns/net").into(), self.path.into()];
        arguments.extend(self.arguments);
        Self { path: "nsenter".into(), arguments, ..self }
    }

    fn spawn(&self) -> Result<Child> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        Command::new(&self.path)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.path.display()))
    }
}

/// A running process. Dropping it kills it and its descendants.
#[derive(Debug)]
pub(crate) struct Process {
    program: Program,
    child: Child,
}

impl Process {
    /// Starts the program.
    ///
    /// # Errors
    /// When it cannot be executed, or its log not be written.
    pub(crate) fn start(program: Program) -> Result<Self> {
        let child = program.spawn()?;
        Ok(Self { program, child })
    }

    /// Sends a signal to the process itself.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.program.path.display()))
    }

    /// Ends the process and its descendants by this signal, and starts it again.
    ///
    /// # Errors
    /// When it cannot be started again.
    pub(crate) fn restart(&mut self, signal: Signal) -> Result<()> {
        self.end(signal);
        self.child = self.program.spawn()?;
        Ok(())
    }

    /// Kills its descendants, and leaves it to the process to start them again.
    ///
    /// # Errors
    /// When it has none.
    pub(crate) fn kill_children(&self) -> Result<()> {
        let children = descendants(self.child.id());
        anyhow::ensure!(!children.is_empty(), "{} has no child", self.program.path.display());
        send(&children, Signal::KILL);
        Ok(())
    }

    /// Its pid.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The pids of its descendants.
    pub(crate) fn children(&self) -> Vec<u32> {
        descendants(self.child.id())
    }

    /// Its pid and those of its descendants.
    pub(crate) fn family(&self) -> Vec<u32> {
        [self.child.id()].into_iter().chain(descendants(self.child.id())).collect()
    }

    /// The last lines of what it wrote.
    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.program.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    fn end(&mut self, signal: Signal) {
        // The parent first: some start their children again.
        send(&self.family(), signal);
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            // Not reaped yet, so that the pid is still its own.
            send(&[self.child.id()], Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(Signal::KILL);
    }
}

fn send(pids: &[u32], signal: Signal) {
    for pid in pids.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
        // Fails only for a process that has ended by itself.
        let _ = kill_process(pid, signal);
    }
}

/// Children of `pid` and theirs.
fn descendants(pid: u32) -> Vec<u32> {
    let tasks = format!("/proc/{pid}/task");
    let Ok(tasks) = fs::read_dir(tasks) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|children| children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
        .flat_map(|child| descendants(child).into_iter().chain([child]))
        .collect()
}

/// Where a program is, if `PATH` or the directories of system daemons have it.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = [PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")];
    std::env::split_paths(&path).chain(system).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// Runs a program to its end and returns what it printed, on its error stream if nothing else.
///
/// # Errors
/// When it cannot be run or fails.
pub(crate) fn output<S: AsRef<OsStr>>(path: &Path, arguments: &[S]) -> Result<String> {
    let output = Command::new(path)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", path.display()))?;
    let [text, errors] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
    anyhow::ensure!(output.status.success(), "{} failed: {errors}", path.display());
    Ok(if text.is_empty() { errors } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_a_process_ends_its_children_too() {
        let dir = tempfile::TempDir::new().unwrap();
        let program = Program::new(find("sh").unwrap(), dir.path().join("log"));
        let process = Process::start(program.args(["-c", "sleep 1000 & sleep 1000"])).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut family = Vec::new();
        while family.len() < 2 {
            assert!(Instant::now() < deadline, "the shell starts no children");
            thread::yield_now();
            family = descendants(process.child.id());
        }
        drop(process);
        // Orphans are gone or wait for init to reap them.
        for pid in family {
            while fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
                assert!(Instant::now() < deadline, "{pid} lives on");
                thread::yield_now();
            }
        }
    }
}
