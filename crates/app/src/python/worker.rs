//! One worker: a Python process after the other, and the calls that wait for it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{error, warn};

use super::process::Process;
use crate::hooks::HookError;
use crate::payload::Payload;

/// Calls that a process has, beside the one that it is at.
const AHEAD: usize = 64;
/// Calls that wait for a place there.
const QUEUE: usize = 1024;
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// After this many processes in a row without an answered call, the hooks are broken rather than the calls.
const MAX_FRUITLESS: u32 = 16;

type Answer = Result<Option<Payload>, HookError>;

/// Where to send calls.
#[derive(Debug)]
pub(super) struct Worker {
    calls: mpsc::Sender<Call>,
}

#[derive(Debug)]
struct Call {
    request: String,
    limit: Duration,
    answer: oneshot::Sender<Answer>,
}

impl Worker {
    pub(super) fn spawn(
        tasks: &mut JoinSet<()>,
        file: PathBuf,
        process: Process,
        reload: watch::Receiver<u64>,
    ) -> Self {
        let (calls, queue) = mpsc::channel(QUEUE);
        let bench =
            Bench { file, queue, reload, at: VecDeque::new(), since: Instant::now(), backoff: Backoff::default() };
        tasks.spawn(bench.run(process));
        Self { calls }
    }

    /// Has the call run; its time starts when the process takes it up.
    pub(super) async fn call(&self, request: String, limit: Duration) -> Answer {
        let gone = || HookError::Failed("the hook's worker has ended".into());
        let (answer, answered) = oneshot::channel();
        self.calls.send(Call { request, limit, answer }).await.map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }
}

struct Bench {
    file: PathBuf,
    queue: mpsc::Receiver<Call>,
    reload: watch::Receiver<u64>,
    /// Calls that the process has; it is at the first.
    at: VecDeque<Call>,
    /// When it took up the first.
    since: Instant,
    backoff: Backoff,
}

/// Delay before the next process is started. A call that kills its process causes none, as that would punish the calls behind it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Backoff {
    /// Failed starts, or processes that answered nothing, in a row.
    fruitless: u32,
}

impl Backoff {
    /// Call when a process has answered.
    fn reset(&mut self) {
        self.fruitless = 0;
    }

    /// Call when a process has ended. Returns the delay before the next.
    fn lost(&mut self, by_a_call: bool) -> Duration {
        self.fruitless += 1;
        let free = if by_a_call { MAX_FRUITLESS } else { 0 };
        match self.fruitless.checked_sub(free + 1) {
            Some(more) => BACKOFF_MIN.saturating_mul(1 << more.min(16)).min(BACKOFF_MAX),
            None => Duration::ZERO,
        }
    }
}

/// Why a process is replaced.
enum Stop {
    /// Nobody calls any more.
    Unused,
    /// The file has changed; no call is under way.
    Reload,
    /// The call it was at cost the process.
    Lost(String),
}

impl Bench {
    async fn run(mut self, mut process: Process) {
        loop {
            match self.serve(&mut process).await {
                Stop::Unused => return,
                Stop::Reload => {}
                Stop::Lost(why) => {
                    // A process that does nothing wrong by itself may be hung in a call: it is killed here.
                    drop(process);
                    let call = self.at.pop_front();
                    let pause = self.backoff.lost(call.is_some());
                    match call {
                        Some(call) => {
                            warn!(reason = why, ?pause, "a call cost its hook worker, starting another");
                            // Nobody may be waiting any more.
                            let _ = call.answer.send(Err(HookError::Failed(why)));
                        }
                        None => warn!(reason = why, ?pause, "hook worker lost, starting another"),
                    }
                    sleep(pause).await;
                }
            }
            process = self.start().await;
            self.since = Instant::now();
            for call in &self.at {
                process.send(&call.request);
            }
        }
    }

    async fn start(&mut self) -> Process {
        loop {
            match Process::start(&self.file).await {
                Ok(process) => return process,
                Err(error) => {
                    error!(%error, "hook worker cannot start, trying on");
                    let text = format!("the hooks cannot run: {error}");
                    while let Some(call) = self.at.pop_front().or_else(|| self.queue.try_recv().ok()) {
                        let _ = call.answer.send(Err(HookError::Failed(text.clone())));
                    }
                    sleep(self.backoff.lost(false)).await;
                }
            }
        }
    }

    async fn serve(&mut self, process: &mut Process) -> Stop {
        loop {
            // The reload waits until the calls under way are answered; new ones wait for it.
            let changed = self.reload.has_changed().unwrap_or(false);
            if changed && self.at.is_empty() {
                self.reload.mark_unchanged();
                return Stop::Reload;
            }
            let limit = self.at.front().map(|call| (self.since + call.limit, call.limit));
            let (deadline, limit) = limit.unwrap_or((self.since, Duration::ZERO));
            tokio::select! {
                call = self.queue.recv(), if !changed && self.at.len() < AHEAD => match call {
                    Some(call) => {
                        if self.at.is_empty() {
                            self.since = Instant::now();
                        }
                        process.send(&call.request);
                        self.at.push_back(call);
                    }
                    None => return Stop::Unused,
                },
                answer = process.answer() => match (answer, self.at.pop_front()) {
                    (Some(answer), Some(call)) => {
                        let _ = call.answer.send(answer);
                        self.backoff.reset();
                        self.since = Instant::now();
                    }
                    (Some(_), None) => return Stop::Lost("it answered what was not asked".into()),
                    (None, call) => {
                        if let Some(call) = call {
                            self.at.push_front(call);
                        }
                        return Stop::Lost(format!("the hook ended its Python process ({})", process.obituary().await));
                    }
                },
                () = sleep_until(deadline), if !self.at.is_empty() => {
                    return Stop::Lost(format!("the hook took longer than {limit:?}"));
                }
                Ok(()) = self.reload.changed(), if !changed => self.reload.mark_changed(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_cost_their_process_make_nobody_wait_and_hooks_that_are_broken_do() {
        let mut backoff = Backoff::default();
        assert!((0..MAX_FRUITLESS).all(|_| backoff.lost(true) == Duration::ZERO));
        assert_eq!(backoff.lost(true), BACKOFF_MIN);
        backoff.reset();
        assert_eq!(backoff.lost(true), Duration::ZERO);

        let mut broken = Backoff::default();
        let pauses: Vec<_> = (0..10).map(|_| broken.lost(false)).collect();
        assert_eq!(pauses[..3], [BACKOFF_MIN, 2 * BACKOFF_MIN, 4 * BACKOFF_MIN]);
        assert_eq!(pauses[9], BACKOFF_MAX);
    }
}
