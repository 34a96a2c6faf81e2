//! What every role shares as a process: its resource limits, and the signals that end it.

use std::io::{self, Read as _};
use std::{env, thread};

use anyhow::{Context as _, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{info, warn};

/// Set for a role whose life is tied to its standard input: it drains when that ends. The demo sets it for its
/// processes, so that they end with the demo however that ends, `kill -9` included.
pub const TIED: &str = "FERRY_TIED_TO_STDIN";

/// Whether this process ends with its standard input.
pub(crate) fn is_tied() -> bool {
    env::var_os(TIED).is_some()
}

/// Whether this process is a tunnel whose keeper is its parent: standard input is the connection to it.
fn is_kept() -> bool {
    #[cfg(target_os = "linux")]
    return env::var_os(ferry_keeper::KEEPER_VARIABLE).is_some_and(|by| by == ferry_keeper::PARENT);
    #[cfg(not(target_os = "linux"))]
    false
}

/// The message of the log line that says that a role is up and where; what it listens on stands in the line's fields.
/// The demo waits for it.
pub const READY: &str = "ready";

/// Lets this process open as many files as the system allows it: a session needs a few.
pub(crate) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, current = limit.current, "cannot raise the limit of open files; fewer sessions will fit");
    }
}

/// Has this process and its children, if any, use small pages only: for a huge one the kernel clears 2 MiB while whoever
/// touched it first waits, milliseconds on a virtual machine.
pub(crate) fn refuse_huge_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        warn!(%error, "cannot turn huge pages off; a message may at times be late by milliseconds");
    }
}

/// What ends a role in good order: SIGTERM, SIGINT, or the end of the process that it is tied to.
pub(crate) struct Stop {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    tied: Option<oneshot::Receiver<()>>,
    /// A second time is for its keeper to notice: this process may see each signal twice, once by the keeper.
    is_kept: bool,
}

impl Stop {
    /// Starts to listen. From here on the signals no longer end the process by themselves.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        let is_kept = is_kept();
        // Its keeper watches standard input in its place.
        let tied = (is_tied() && !is_kept).then(end_of_stdin);
        let (terminate, interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, tied, is_kept })
    }

    /// Waits until the role is asked to end. Cancel-safe.
    pub(crate) async fn asked(&mut self) {
        let by = self.next().await;
        info!(by, "asked to stop: draining");
    }

    /// Lets the role drain, unless it is asked to end a second time.
    ///
    /// # Errors
    ///
    /// It was.
    pub(crate) async fn drained(&mut self, drain: impl Future<Output = ()>) -> anyhow::Result<()> {
        if self.is_kept {
            drain.await;
            return Ok(());
        }
        tokio::select! {
            () = drain => Ok(()),
            by = self.next() => bail!("asked to stop a second time, by {by}; what was under way is cut off"),
        }
    }

    /// Waits for one of these, and returns which. Cancel-safe.
    pub(crate) async fn next(&mut self) -> &'static str {
        let untied = async {
            match &mut self.tied {
                Some(tied) => _ = tied.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = untied => {
                self.tied = None;
                "the end of the process that started this one"
            }
        }
    }
}

/// Does this, unless the process is asked to stop: what it holds, such as a process that it has started, ends with it.
pub(crate) async fn unless_stopped<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut stop = Stop::listen()?;
    tokio::select! {
        done = work => done,
        by = stop.next() => bail!("stopped by {by}"),
    }
}

/// Resolves when standard input has ended. It is read on a thread of its own, which nobody waits for.
fn end_of_stdin() -> oneshot::Receiver<()> {
    let (ended, end) = oneshot::channel::<()>();
    thread::spawn(move || {
        let _ended = ended;
        let mut stdin = io::stdin().lock();
        while matches!(stdin.read(&mut [0; 64]), Ok(1..)) {}
    });
    end
}
