//! Worker threads: each has a runtime of its own and carries the sessions that were given to it.
//!
//! On a runtime that threads share, one that has nothing to do waits for everybody's sockets, and is woken for bytes that
//! another is about to read anyway: `docs/decisions/0030`.

use std::future::Future;
use std::io;
use std::iter::once;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Context;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

/// A worker looks after its sockets and its mail each time that it has run as many tasks: so long a session of many
/// bytes may keep the others waiting.
const TASKS_BETWEEN_LOOKS: u32 = 4;

/// What carries sessions, and the runtime for everything else.
pub(crate) struct Workers {
    control: Handle,
    first: Arc<Worker>,
    others: Vec<Arc<Worker>>,
}

struct Worker {
    handle: Handle,
    sessions: AtomicUsize,
}

/// The worker threads; dropped, they end, and what they carry.
pub(crate) struct Threads {
    /// Each ends when its sender is dropped.
    _ends: Vec<oneshot::Sender<()>>,
}

/// A session's slot at a worker, counted there.
pub(crate) struct WorkerSlot(Arc<Worker>);

/// A worker does not get to anything: its sessions stand still.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("worker-{worker} has run nothing for {within:?}: its sessions stand still")]
pub(crate) struct Stuck {
    worker: usize,
    within: Duration,
}

impl Workers {
    /// Starts a worker for each processor.
    ///
    /// # Errors
    /// When the system has no threads or files left.
    pub(crate) fn start() -> io::Result<(Self, Threads)> {
        let (first, end) = Worker::start(0)?;
        let (mut others, mut ends) = (Vec::new(), vec![end]);
        for index in 1..thread::available_parallelism().map_or(1, usize::from) {
            let (worker, end) = Worker::start(index)?;
            others.push(worker);
            ends.push(end);
        }
        Ok((Self { control: Handle::current(), first, others }, Threads { _ends: ends }))
    }

    /// No threads of their own: sessions run where everything else does.
    pub(crate) fn none() -> (Self, Threads) {
        let control = Handle::current();
        let first = Worker::new(control.clone());
        (Self { control, first, others: Vec::new() }, Threads { _ends: Vec::new() })
    }

    /// A slot where fewest sessions are: with the worker that asks, if that is one of them.
    pub(crate) fn slot(&self) -> WorkerSlot {
        let here = Handle::current().id();
        let rank = |worker: &&Arc<Worker>| (worker.sessions.load(Ordering::Relaxed), worker.handle.id() != here);
        let worker = once(&self.first).chain(&self.others).min_by_key(rank).unwrap_or(&self.first);
        worker.sessions.fetch_add(1, Ordering::Relaxed);
        WorkerSlot(worker.clone())
    }

    /// Whether each worker gets to a task that it is given now, within this time.
    ///
    /// # Errors
    /// The first that does not.
    pub(crate) async fn respond(&self, within: Duration) -> Result<(), Stuck> {
        let end = Instant::now() + within;
        // All at once, so that they share the time.
        let tasks: Vec<_> = once(&self.first).chain(&self.others).map(|worker| worker.handle.spawn(async {})).collect();
        for (worker, task) in tasks.into_iter().enumerate() {
            match timeout_at(end, task).await {
                Ok(Ok(())) => {}
                _ => return Err(Stuck { worker, within }),
            }
        }
        Ok(())
    }

    /// Runs what would keep sessions waiting.
    pub(crate) fn spawn_on_control<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.control.spawn(task)
    }
}

impl Worker {
    fn start(index: usize) -> io::Result<(Arc<Self>, oneshot::Sender<()>)> {
        let runtime = runtime()?;
        let (end, ended) = oneshot::channel();
        let worker = Self::new(runtime.handle().clone());
        thread::Builder::new().name(format!("worker-{index}")).spawn(move || carry(&runtime, ended))?;
        Ok((worker, end))
    }

    fn new(handle: Handle) -> Arc<Self> {
        Arc::new(Self { handle, sessions: AtomicUsize::new(0) })
    }
}

impl WorkerSlot {
    pub(crate) fn runtime(&self) -> &Handle {
        &self.0.handle
    }
}

impl Drop for WorkerSlot {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .event_interval(TASKS_BETWEEN_LOOKS)
        .global_queue_interval(TASKS_BETWEEN_LOOKS)
        .build()
}

/// Has the task that is polled run again after its worker's next look at the sockets, behind whoever has something by then.
/// At the end of the queue it would run before that look.
pub(crate) fn yield_to_ready(cx: &mut Context<'_>) {
    let _ = pin!(yield_now()).poll(cx);
}

fn carry(runtime: &Runtime, ended: oneshot::Receiver<()>) {
    if let Err(error) = ferry_slice::set(ferry_slice::SHORT) {
        debug!("messages may wait for handshakes: this thread's slice stays as it is: {error}");
    }
    // Nothing is ever sent.
    let _ = runtime.block_on(ended);
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use tokio::io::AsyncReadExt as _;
    use tokio::net::UnixStream;

    use super::*;

    #[test]
    fn a_task_that_yields_lets_those_go_first_whose_sockets_have_become_ready() {
        let runtime = runtime().unwrap();
        let polls = Arc::new(AtomicUsize::new(0));
        let seen = runtime.block_on(async {
            let (mut waiting, knocking) = UnixStream::pair().unwrap();
            let (counted, seen) = (polls.clone(), polls.clone());
            let waiting = tokio::spawn(async move { waiting.read_u8().await.map(|_| seen.load(Ordering::Relaxed)) });
            // It waits for its socket by then.
            yield_now().await;
            tokio::spawn(poll_fn(move |cx| {
                if counted.fetch_add(1, Ordering::Relaxed) == 0 {
                    knocking.try_write(&[1]).unwrap();
                }
                yield_to_ready(cx);
                Poll::<()>::Pending
            }));
            waiting.await.unwrap()
        });
        assert_eq!(seen.unwrap(), 1);
    }

    fn two() -> Workers {
        let runtime = |_| Builder::new_current_thread().build().expect("a runtime");
        let [first, second] = [0, 1].map(runtime).map(|runtime| Worker::new(runtime.handle().clone()));
        let control = first.handle.clone();
        Workers { control, first, others: vec![second] }
    }

    #[test]
    fn sessions_are_spread_evenly_and_a_place_that_is_left_is_taken_again() {
        let workers = two();
        let _control = workers.control.enter();
        let mut slots: Vec<_> = (0..8).map(|_| workers.slot()).collect();
        let at = |slots: &[WorkerSlot], worker: &Arc<Worker>| {
            slots.iter().filter(|slot| Arc::ptr_eq(&slot.0, worker)).count()
        };
        assert_eq!((at(&slots, &workers.first), at(&slots, &workers.others[0])), (4, 4));
        slots.retain(|slot| !Arc::ptr_eq(&slot.0, &workers.others[0]));
        slots.extend((0..4).map(|_| workers.slot()));
        assert_eq!((at(&slots, &workers.first), at(&slots, &workers.others[0])), (4, 4));
    }

    #[test]
    fn a_worker_keeps_a_session_that_no_other_is_freer_for() {
        let workers = two();
        let _here = workers.others[0].handle.enter();
        for _ in 0..4 {
            assert!(Arc::ptr_eq(&workers.slot().0, &workers.others[0]));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_runs_nothing_is_found() {
        let stuck = Builder::new_current_thread().build().expect("a runtime");
        let [first, second] = [Handle::current(), stuck.handle().clone()].map(Worker::new);
        let mut workers = Workers { control: Handle::current(), first, others: vec![second] };
        let within = Duration::from_secs(1);
        assert_eq!(workers.respond(within).await, Err(Stuck { worker: 1, within }));
        workers.others.clear();
        assert_eq!(workers.respond(within).await, Ok(()));
        stuck.shutdown_background();
    }
}
