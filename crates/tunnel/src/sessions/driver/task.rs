//! A session's task: where it runs, and when it lets others run.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use super::Driver;
use super::alarm::Alarm;
use crate::workers::{self, Load};

/// Rounds before the task lets others at this worker run, and bytes of the application after which it does so sooner: a
/// message of another session waits for no more of them at a time.
const MAX_ROUNDS_PER_POLL: usize = 4;
const MAX_BYTES_PER_POLL: u64 = 128 * 1024;

/// What becomes of a session's task.
enum Next {
    End,
    /// The session goes on at a worker for such a load.
    Move(Load),
}

/// A session at one worker: nothing once it has moved on.
pub(super) struct Task(Option<Driver>);

impl Task {
    pub(super) fn new(driver: Driver) -> Self {
        Self(Some(driver))
    }
}

impl Future for Task {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let task = self.get_mut();
        let Some(driver) = &mut task.0 else { return Poll::Ready(()) };
        if std::mem::take(&mut driver.arrives) {
            driver.register_here();
        }
        if let Next::Move(load) = ready!(driver.poll(cx))
            && let Some(driver) = task.0.take()
        {
            driver.move_to(load);
        }
        Poll::Ready(())
    }
}

impl Driver {
    /// Drives the session until it waits for something, is over, or is another worker's from now on.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let before = self.bytes_moved();
        for _ in 0..MAX_ROUNDS_PER_POLL {
            let now = self.shared.now();
            let again = self.round(now, cx);
            if self.is_over() {
                self.unregister();
                return Poll::Ready(Next::End);
            }
            let moved = self.bytes_moved();
            if let Some(load) = self.weight.weigh(now, moved) {
                return Poll::Ready(Next::Move(load));
            }
            if !again && !self.arm(cx) {
                debug_assert!(self.is_at_rest(), "a round has left something, and nothing will wake the task for it");
                return Poll::Pending;
            }
            if moved - before >= MAX_BYTES_PER_POLL {
                break;
            }
        }
        // However much there is to do, what is due is looked after.
        self.arm(cx);
        workers::yield_to_ready(cx);
        Poll::Pending
    }

    /// Goes on in a task at a worker for such a load.
    fn move_to(mut self, load: Load) {
        let shared = self.shared.clone();
        self.registration.is_heavy.store(load == Load::Heavy, Ordering::Relaxed);
        (self.slot, self.arrives) = (shared.workers.slot(load), true);
        let worker = self.slot.runtime().clone();
        shared.spawn_session_at(&worker, Task::new(self));
    }

    /// Its sockets and its alarm wake this worker from now on.
    fn register_here(&mut self) {
        self.local.register_here();
        let links = std::mem::take(&mut self.links);
        self.links = links.into_iter().map(|(epoch, link)| (epoch, Box::new(link.register_here()))).collect();
        self.alarm = Alarm::default();
    }
}
