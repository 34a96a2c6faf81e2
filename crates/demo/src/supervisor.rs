//! The demo's processes: started, listened to, and ended with the demo on every way out.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::log::{Label, Ready, Record};
use crate::screen::Screen;
use ferry::{logging, process};

/// What begins the log messages that the demo waits for, beside the one that says that a role is up.
const MILESTONE: char = '🔁';

/// Owns the processes. They are killed when it is dropped, and their directories removed.
pub(crate) struct Supervisor {
    executable: PathBuf,
    screen: Screen,
    // Dropped, and with that killed, before the directory goes.
    running: Vec<Running>,
    /// The first process that ended, if any has.
    first_end: watch::Sender<Option<Label>>,
    dir: TempDir,
}

struct Running {
    label: Label,
    child: Child,
    /// Its standard input, which lasts as long as it may.
    _tie: Option<ChildStdin>,
    /// Its two output streams.
    logs: JoinSet<()>,
}

/// A process as the acts see it.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    label: Label,
    /// `None` if it ended at once.
    pid: Option<Pid>,
    said: watch::Receiver<Said>,
}

/// What the log of a process has said so far that matters to the demo.
#[derive(Debug, Default)]
struct Said {
    ready: Option<Ready>,
    milestones: Vec<String>,
}

impl Supervisor {
    pub(crate) fn new(screen: Screen) -> anyhow::Result<Self> {
        let executable = env::current_exe().context("cannot find the executable of this process")?;
        let dir = tempfile::Builder::new().prefix("ferry-demo-").tempdir().context("cannot make a directory")?;
        Ok(Self { executable, screen, running: Vec::new(), first_end: watch::Sender::new(None), dir })
    }

    /// Makes the directory that a process will run in.
    pub(crate) fn make_dir(&self, label: Label) -> anyhow::Result<PathBuf> {
        let dir = self.dir.path().join(label.cluster).join(label.container);
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
        Ok(dir)
    }

    /// Starts `ferry` with these arguments, in this directory.
    pub(crate) fn start(&mut self, label: Label, dir: &Path, args: &[&str]) -> anyhow::Result<Process> {
        let mut command = Command::new(&self.executable);
        command.args(args).current_dir(dir).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own: Ctrl-C is for the demo, which then ends its processes in order.
        command.process_group(0);
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("FERRY_") {
                command.env_remove(name);
            }
        }
        command.env(logging::FILTER, "info").env(logging::FORMAT, "json").env(process::TIED, "1");
        let mut child = command.spawn().with_context(|| format!("cannot start {}", self.executable.display()))?;

        // Taken from the child, which would close it before it is waited for.
        let tie = child.stdin.take();
        let (say, said) = watch::channel(Said::default());
        let (screen, first_end) = (self.screen.clone(), self.first_end.clone());
        let mut logs = JoinSet::new();
        if let Some(stderr) = child.stderr.take() {
            let screen = screen.clone();
            logs.spawn(each_line(stderr, move |line| screen.log(label, &Record::verbatim(line))));
        }
        if let Some(stdout) = child.stdout.take() {
            logs.spawn(async move {
                each_line(stdout, |line| {
                    let record = Record::parse(line);
                    screen.log(label, &record);
                    say.send_if_modified(|said| said.hear(&record));
                })
                .await;
                first_end.send_if_modified(|first| first.replace(label).is_none());
            });
        }
        let pid = pid(&child);
        self.running.push(Running { label, child, _tie: tie, logs });
        Ok(Process { label, pid, said })
    }

    /// Resolves when a process has ended, which none should while the demo runs, with the error to end the demo with.
    pub(crate) fn early_end(&self) -> impl Future<Output = anyhow::Error> + use<> {
        let mut first_end = self.first_end.subscribe();
        async move {
            match first_end.wait_for(Option::is_some).await.map(|label| *label) {
                Ok(Some(label)) => anyhow::anyhow!("{} ended early; its last lines above say why", label.name()),
                _ => std::future::pending().await,
            }
        }
    }

    /// Ends all processes in good order, those started last first, and removes their directories.
    ///
    /// # Errors
    ///
    /// Those that did not end by themselves within `patience` for all of them, or not with success. They are killed then.
    pub(crate) async fn end(mut self, patience: Duration) -> Result<(), String> {
        let mut wrong = Vec::new();
        let deadline = Instant::now() + patience;
        while let Some(mut running) = self.running.pop() {
            let name = running.label.name();
            match running.end(deadline).await {
                Ok(status) if status.success() => {}
                Ok(status) => wrong.push(format!("{name} ended with {status}")),
                Err(error) => wrong.push(format!("{name} had to be killed: {error:#}")),
            }
        }
        if let Err(error) = self.dir.close() {
            wrong.push(format!("a temporary directory could not be removed: {error}"));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }
}

impl Running {
    /// Asks the process to end, and waits for that and for its last lines.
    async fn end(&mut self, deadline: Instant) -> anyhow::Result<ExitStatus> {
        // Without an id it has ended already.
        if let Some(pid) = pid(&self.child) {
            kill_process(pid, Signal::TERM).context("no signal could be sent")?;
        }
        let Ok(status) = timeout_at(deadline, self.child.wait()).await else {
            self.child.kill().await?;
            bail!("it did not end in time");
        };
        while self.logs.join_next().await.is_some() {}
        Ok(status?)
    }
}

impl Process {
    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.pid.with_context(|| format!("{} has ended", self.label.name()))?;
        kill_process(pid, signal).with_context(|| format!("{} cannot be signalled", self.label.name()))
    }

    /// Waits until it is up.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<Ready> {
        let said = self.said.wait_for(|said| said.ready.is_some()).await;
        said.ok().and_then(|said| said.ready.clone()).with_context(|| format!("{} did not start", self.label.name()))
    }

    /// Waits until its log has `count` milestones, and returns them.
    pub(crate) async fn milestones(&mut self, count: usize) -> anyhow::Result<Vec<String>> {
        let said = self.said.wait_for(|said| said.milestones.len() >= count).await;
        said.map(|said| said.milestones.clone()).with_context(|| format!("{} ended early", self.label.name()))
    }
}

impl Said {
    /// Notes what matters in a line, and returns whether anything did.
    fn hear(&mut self, record: &Record) -> bool {
        if let Some(ready) = record.ready() {
            self.ready = Some(ready);
        } else if record.message.starts_with(MILESTONE) {
            self.milestones.push(record.message.clone());
        } else {
            return false;
        }
        true
    }
}

fn pid(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| Pid::from_raw(id.cast_signed()))
}

async fn each_line(stream: impl AsyncRead + Unpin, mut take: impl FnMut(&str)) {
    let mut lines = BufReader::new(stream);
    let mut line = Vec::new();
    // A pipe that cannot be read has ended for us.
    while let Ok(1..) = lines.read_until(b'\n', &mut line).await {
        take(String::from_utf8_lossy(line.trim_ascii_end()).as_ref());
        line.clear();
    }
}
