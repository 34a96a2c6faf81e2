//! One worker: a Python process, its successors, and the calls that wait for it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{error, warn};

use super::process::Process;
use crate::hooks::HookError;
use crate::payload::Payload;

/// Calls that a process has been sent and has not answered.
const MAX_PIPELINED_CALLS: usize = 64;
/// Calls that wait to be sent.
const MAX_QUEUED_CALLS: usize = 1024;
const MIN_RETRY_DELAY: Duration = Duration::from_millis(50);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(5);
/// After this many processes in a row without an answered call, the hooks are broken rather than the calls.
const MAX_FRUITLESS: u32 = 16;

type Answer = Result<Option<Payload>, CallError>;

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// It took longer than this, and was ended.
    #[error("the hook took longer than {0:?}")]
    Overran(Duration),
    #[error(transparent)]
    Failed(#[from] HookError),
}

impl From<CallError> for HookError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Failed(error) => error,
            overran @ CallError::Overran(_) => Self::Failed(overran.to_string()),
        }
    }
}

/// The worker is at fault, or the call's code.
fn failed(why: impl Into<String>) -> CallError {
    HookError::Failed(why.into()).into()
}

/// Takes calls for one worker.
#[derive(Debug)]
pub(super) struct Worker {
    calls: mpsc::Sender<Call>,
}

#[derive(Debug)]
struct Call {
    request: Bytes,
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
        let (calls, queue) = mpsc::channel(MAX_QUEUED_CALLS);
        let worker = WorkerLoop {
            file,
            queue,
            reload,
            in_flight: VecDeque::new(),
            front_since: Instant::now(),
            backoff: Backoff::default(),
        };
        tasks.spawn(worker.run(process));
        Self { calls }
    }

    /// Runs a call. Its time starts when the process begins it.
    pub(super) async fn call(&self, request: Bytes, limit: Duration) -> Answer {
        let ended = || failed("the hook's worker has ended");
        let (answer, answered) = oneshot::channel();
        self.calls.send(Call { request, limit, answer }).await.map_err(|_| ended())?;
        answered.await.unwrap_or_else(|_| Err(ended()))
    }
}

struct WorkerLoop {
    file: PathBuf,
    queue: mpsc::Receiver<Call>,
    reload: watch::Receiver<u64>,
    /// Calls that the process has been sent; it is running the first.
    in_flight: VecDeque<Call>,
    /// When it began the first.
    front_since: Instant,
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
            Some(more) => MIN_RETRY_DELAY.saturating_mul(1 << more.min(16)).min(MAX_RETRY_DELAY),
            None => Duration::ZERO,
        }
    }
}

/// Why a process is replaced.
enum Stop {
    /// The hooks have been dropped.
    Unused,
    /// The file has changed; no call is under way.
    Reload,
    /// The call that it was running ended the process.
    Lost(CallError),
}

impl WorkerLoop {
    async fn run(mut self, mut process: Process) {
        loop {
            match self.serve(&mut process).await {
                Stop::Unused => return,
                Stop::Reload => {}
                Stop::Lost(error) => {
                    // The process may hang in a call, so kill it.
                    drop(process);
                    let call = self.in_flight.pop_front();
                    let pause = self.backoff.lost(call.is_some());
                    match call {
                        Some(call) => {
                            warn!(reason = %error, ?pause, "a call ended its hook worker, starting another");
                            // The receiver may be gone.
                            let _ = call.answer.send(Err(error));
                        }
                        None => warn!(reason = %error, ?pause, "hook worker lost, starting another"),
                    }
                    sleep(pause).await;
                }
            }
            process = self.start().await;
            self.front_since = Instant::now();
            for call in &self.in_flight {
                process.send(call.request.clone());
            }
        }
    }

    async fn start(&mut self) -> Process {
        loop {
            match Process::start(&self.file).await {
                Ok(process) => return process,
                Err(error) => {
                    error!(%error, "hook worker cannot start, retrying");
                    let text = format!("the hooks cannot run: {error}");
                    while let Some(call) = self.in_flight.pop_front().or_else(|| self.queue.try_recv().ok()) {
                        let _ = call.answer.send(Err(failed(text.clone())));
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
            if changed && self.in_flight.is_empty() {
                self.reload.mark_unchanged();
                return Stop::Reload;
            }
            let limit = self.in_flight.front().map(|call| (self.front_since + call.limit, call.limit));
            let (deadline, limit) = limit.unwrap_or((self.front_since, Duration::ZERO));
            tokio::select! {
                call = self.queue.recv(), if !changed && self.in_flight.len() < MAX_PIPELINED_CALLS => match call {
                    Some(call) => {
                        if self.in_flight.is_empty() {
                            self.front_since = Instant::now();
                        }
                        process.send(call.request.clone());
                        self.in_flight.push_back(call);
                    }
                    None => return Stop::Unused,
                },
                answer = process.answer() => match (answer, self.in_flight.pop_front()) {
                    (Some(answer), Some(call)) => {
                        let _ = call.answer.send(answer.map_err(CallError::from));
                        self.backoff.reset();
                        self.front_since = Instant::now();
                    }
                    (Some(_), None) => return Stop::Lost(failed("it answered without a call")),
                    (None, call) => {
                        if let Some(call) = call {
                            self.in_flight.push_front(call);
                        }
                        let status = process.exit_status_text().await;
                        return Stop::Lost(failed(format!("the hook ended its Python process ({status})")));
                    }
                },
                () = sleep_until(deadline), if !self.in_flight.is_empty() => {
                    return Stop::Lost(CallError::Overran(limit));
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
        assert_eq!(backoff.lost(true), MIN_RETRY_DELAY);
        backoff.reset();
        assert_eq!(backoff.lost(true), Duration::ZERO);

        let mut broken = Backoff::default();
        let pauses: Vec<_> = (0..10).map(|_| broken.lost(false)).collect();
        assert_eq!(pauses[..3], [MIN_RETRY_DELAY, 2 * MIN_RETRY_DELAY, 4 * MIN_RETRY_DELAY]);
        assert_eq!(pauses[9], MAX_RETRY_DELAY);
    }
}
