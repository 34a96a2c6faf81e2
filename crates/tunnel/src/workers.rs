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

/// How much a session has to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    Light,
    /// So much that others would wait behind it.
    Heavy,
}

/// What carries sessions, and the runtime for everything else. Where a processor is wanted by threads of both kinds, the
/// kernel lets the one with light sessions go first.
pub(crate) struct Workers {
    control: Handle,
    light: Crew,
    heavy: Crew,
}

/// The workers for one kind of load.
#[derive(Clone)]
struct Crew {
    first: Arc<Worker>,
    others: Vec<Arc<Worker>>,
}

struct Worker {
    name: String,
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
#[error("{worker} has run nothing for {within:?}: its sessions stand still")]
pub(crate) struct Stuck {
    worker: String,
    within: Duration,
}

impl Workers {
    /// Starts a worker of each kind for each processor.
    ///
    /// # Errors
    /// When the system has no threads or files left.
    pub(crate) fn start() -> io::Result<(Self, Threads)> {
        let mut ends = Vec::new();
        let light = Crew::start(Load::Light, &mut ends)?;
        let heavy = Crew::start(Load::Heavy, &mut ends)?;
        Ok((Self { control: Handle::current(), light, heavy }, Threads { _ends: ends }))
    }

    /// No threads of their own: sessions run where everything else does.
    pub(crate) fn none() -> (Self, Threads) {
        let control = Handle::current();
        let crew = Crew { first: Worker::new("the runtime".to_owned(), control.clone()), others: Vec::new() };
        (Self { control, light: crew.clone(), heavy: crew }, Threads { _ends: Vec::new() })
    }

    /// A slot where fewest sessions of such a load are: with the worker that asks, if that is one of them.
    pub(crate) fn slot(&self, load: Load) -> WorkerSlot {
        let crew = match load {
            Load::Light => &self.light,
            Load::Heavy => &self.heavy,
        };
        let here = Handle::current().id();
        let rank = |worker: &&Arc<Worker>| (worker.sessions.load(Ordering::Relaxed), worker.handle.id() != here);
        let worker = crew.iter().min_by_key(rank).unwrap_or(&crew.first);
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
        let workers = self.light.iter().chain(self.heavy.iter());
        let tasks: Vec<_> = workers.map(|worker| (&worker.name, worker.handle.spawn(async {}))).collect();
        for (worker, task) in tasks {
            match timeout_at(end, task).await {
                Ok(Ok(())) => {}
                _ => return Err(Stuck { worker: worker.clone(), within }),
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

impl Crew {
    fn start(load: Load, ends: &mut Vec<oneshot::Sender<()>>) -> io::Result<Self> {
        let mut start = |index| {
            let (worker, end) = Worker::start(load, index)?;
            ends.push(end);
            Ok::<_, io::Error>(worker)
        };
        let first = start(0)?;
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let others = (1..processors).map(start).collect::<io::Result<_>>()?;
        Ok(Self { first, others })
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<Worker>> {
        once(&self.first).chain(&self.others)
    }
}

impl Worker {
    fn start(load: Load, index: usize) -> io::Result<(Arc<Self>, oneshot::Sender<()>)> {
        let runtime = runtime()?;
        let (end, ended) = oneshot::channel();
        let kind = if load == Load::Heavy { "heavy" } else { "worker" };
        let worker = Self::new(format!("{kind}-{index}"), runtime.handle().clone());
        thread::Builder::new().name(worker.name.clone()).spawn(move || carry(&runtime, load, ended))?;
        Ok((worker, end))
    }

    fn new(name: String, handle: Handle) -> Arc<Self> {
        Arc::new(Self { name, handle, sessions: AtomicUsize::new(0) })
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

fn carry(runtime: &Runtime, load: Load, ended: oneshot::Receiver<()>) {
    let slice = match load {
        Load::Light => ferry_slice::SHORT,
        Load::Heavy => ferry_slice::LONG,
    };
    if let Err(error) = ferry_slice::set(slice) {
        debug!("messages may wait for streams and handshakes: this thread's slice stays as it is: {error}");
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
        let [first, second, heavy] =
            [0, 1, 2].map(runtime).map(|runtime| Worker::new(String::new(), runtime.handle().clone()));
        let control = first.handle.clone();
        let light = Crew { first, others: vec![second] };
        Workers { control, light, heavy: Crew { first: heavy, others: Vec::new() } }
    }

    #[test]
    fn sessions_are_spread_evenly_and_a_place_that_is_left_is_taken_again() {
        let workers = two();
        let _control = workers.control.enter();
        let mut slots: Vec<_> = (0..8).map(|_| workers.slot(Load::Light)).collect();
        let at = |slots: &[WorkerSlot], worker: &Arc<Worker>| {
            slots.iter().filter(|slot| Arc::ptr_eq(&slot.0, worker)).count()
        };
        assert_eq!((at(&slots, &workers.light.first), at(&slots, &workers.light.others[0])), (4, 4));
        slots.retain(|slot| !Arc::ptr_eq(&slot.0, &workers.light.others[0]));
        slots.extend((0..4).map(|_| workers.slot(Load::Light)));
        assert_eq!((at(&slots, &workers.light.first), at(&slots, &workers.light.others[0])), (4, 4));
    }

    #[test]
    fn a_worker_keeps_a_session_that_no_other_is_freer_for() {
        let workers = two();
        let _here = workers.light.others[0].handle.enter();
        for _ in 0..4 {
            assert!(Arc::ptr_eq(&workers.slot(Load::Light).0, &workers.light.others[0]));
        }
    }

    #[test]
    fn a_heavy_session_has_another_worker_than_a_light_one() {
        let workers = two();
        let _here = workers.light.first.handle.enter();
        let [light, heavy] = [Load::Light, Load::Heavy].map(|load| workers.slot(load));
        assert!(!Arc::ptr_eq(&light.0, &heavy.0));
        assert!(Arc::ptr_eq(&heavy.0, &workers.heavy.first));
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_runs_nothing_is_found() {
        let stuck = Builder::new_current_thread().build().expect("a runtime");
        let (mut workers, _threads) = Workers::none();
        workers.heavy.others.push(Worker::new("heavy-1".to_owned(), stuck.handle().clone()));
        let within = Duration::from_secs(1);
        assert_eq!(workers.respond(within).await, Err(Stuck { worker: "heavy-1".to_owned(), within }));
        workers.heavy.others.clear();
        assert_eq!(workers.respond(within).await, Ok(()));
        stuck.shutdown_background();
    }
}
