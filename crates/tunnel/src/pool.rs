//! Warm links of one peer: ready before a session needs them.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use crate::link::Link;
use crate::rotation::jitter;

/// Links that are ready for a session of this end, and the sessions that wait for one.
#[derive(Default)]
pub(crate) struct Pool {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    ready: Vec<Warm>,
    waiting: VecDeque<Waiting>,
    /// Links that new sessions have asked for since the last count.
    asked: usize,
}

/// A link that is ready.
struct Warm {
    link: Link,
    /// It stays for this share of the longest time: links that were made together are not renewed together, in a burst of
    /// handshakes.
    share: f64,
}

impl Warm {
    fn left(&self, max_age: Duration) -> Duration {
        max_age.mul_f64(self.share).saturating_sub(self.link.age())
    }
}

/// A session that waits for a link.
struct Waiting {
    /// It can begin before the peer's Preface.
    early: bool,
    give: oneshot::Sender<Link>,
}

/// Most links that a peer may offer for sessions of this end.
const MAX_OFFERED: usize = 256;

impl Pool {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A link for a new session, now or as soon as there is one.
    pub(crate) async fn take_first(&self) -> Link {
        self.state().asked += 1;
        self.take(false).await
    }

    /// A link, now or as soon as there is one. `early`: it may be one whose Preface is still to come.
    pub(crate) async fn take(&self, early: bool) -> Link {
        loop {
            let waiting = {
                let mut state = self.state();
                // The newest has the youngest keys.
                while let Some(Warm { mut link, .. }) = state.ready.pop() {
                    if !link.is_stale() {
                        drop(state);
                        self.changed.notify_one();
                        return link;
                    }
                }
                let (give, waiting) = oneshot::channel();
                state.waiting.push_back(Waiting { early, give });
                waiting
            };
            self.changed.notify_one();
            if let Ok(link) = waiting.await {
                return link;
            }
        }
    }

    /// A new link: for the session that has waited longest, or to be kept ready. Comes back if there are too many.
    pub(crate) fn give(&self, mut link: Link) -> Result<(), Box<Link>> {
        let mut state = self.state();
        while let Some(waiting) = state.waiting.pop_front() {
            match waiting.give.send(link) {
                Ok(()) => return Ok(()),
                Err(back) => link = back,
            }
        }
        if state.ready.len() >= MAX_OFFERED {
            state.ready.retain_mut(|warm| !warm.link.is_stale());
        }
        if state.ready.len() >= MAX_OFFERED {
            return Err(Box::new(link));
        }
        state.ready.push(Warm { link, share: jitter() });
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Who gets the next link, if that can begin before the peer's Preface.
    pub(crate) fn claim_early(&self) -> Option<oneshot::Sender<Link>> {
        let mut state = self.state();
        state.waiting.retain(|waiting| !waiting.give.is_closed());
        state.waiting.pop_front_if(|waiting| waiting.early).map(|waiting| waiting.give)
    }

    /// The path has failed a session: what was made over it before is not to be relied on.
    pub(crate) fn distrust(&self) {
        let dropped = std::mem::take(&mut self.state().ready);
        if !dropped.is_empty() {
            self.changed.notify_one();
        }
    }

    /// Drops links that `keep` does not want.
    pub(crate) fn retain(&self, keep: impl Fn(&Link) -> bool) {
        self.state().ready.retain(|warm| keep(&warm.link));
    }

    /// Drops links whose keys are about to be older than `max_age`, and says when the next one will be.
    pub(crate) fn prune(&self, max_age: Duration) -> Option<Duration> {
        let mut state = self.state();
        state.ready.retain(|warm| !warm.left(max_age).is_zero());
        state.ready.iter().map(|warm| warm.left(max_age)).min()
    }

    /// Links ready, and sessions waiting. Drops links that the peer has closed: nobody else looks after those that it
    /// offered.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let mut state = self.state();
        state.ready.retain_mut(|warm| !warm.link.is_stale());
        state.waiting.retain(|waiting| !waiting.give.is_closed());
        (state.ready.len(), state.waiting.len())
    }

    /// How many links new sessions have asked for since the last time.
    pub(crate) fn take_asked(&self) -> usize {
        std::mem::take(&mut self.state().asked)
    }

    /// Something else changed that decides how many links are wanted.
    pub(crate) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Something was taken, given or asked for.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}
