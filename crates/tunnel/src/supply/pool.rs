//! Warm links of one peer: ready before a session needs them.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::supply::rotation::jitter;
use crate::transport::link::Link;

/// Links that are ready for a session of this end, and the sessions that wait for one.
#[derive(Default)]
pub(crate) struct Pool {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    ready: Vec<Warm>,
    /// In the order of what they need a link for, those that have waited longest first.
    waiting: VecDeque<Waiting>,
    /// Links can hardly be made: the last ones are not for new sessions.
    pressed: bool,
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
    fn left(&self, every: Duration) -> Duration {
        self.link.max_age(every).mul_f64(self.share).saturating_sub(self.link.age())
    }
}

/// What a session needs a link for. Those that are open come before new ones in everything that can run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    Resume,
    Rotate,
    Open,
}

/// What there is in a pool, and who waits.
pub(crate) struct Counts {
    pub(crate) ready: usize,
    /// Sessions that wait and may have the next link.
    pub(crate) waiting: usize,
    pub(crate) pressed: bool,
    /// Links that new sessions leave to others while it is pressed.
    pub(crate) reserved: usize,
}

/// A session that waits for a link.
struct Waiting {
    need: Need,
    /// It can begin before the peer's Preface.
    early: bool,
    give: oneshot::Sender<Link>,
}

/// Most links that a peer may offer for sessions of this end.
const MAX_OFFERED: usize = 256;

/// Ready links that new sessions leave to others where links can hardly be made.
const MAX_RESERVED: usize = 1;

impl State {
    /// A ready link may go to who needs it so.
    fn may_have(&self, need: Need) -> bool {
        need != Need::Open || !self.pressed || self.ready.len() > MAX_RESERVED
    }

    /// Gives the link to who is first, or back if nobody may have it.
    fn hand_over(&mut self, mut link: Link) -> Option<Link> {
        let kept = self.pressed && self.ready.len() < MAX_RESERVED;
        while let Some(waiting) = self.waiting.pop_front_if(|waiting| !kept || waiting.need != Need::Open) {
            match waiting.give.send(link) {
                Ok(()) => return None,
                Err(back) => link = back,
            }
        }
        Some(link)
    }
}

impl Pool {
    /// A link for a new session, now or as soon as there is one.
    pub(crate) async fn take_first(&self) -> Link {
        self.state.lock().asked += 1;
        self.take(Need::Open, false).await
    }

    /// A link, now or as soon as there is one. `early`: it may be one whose Preface is still to come.
    pub(crate) async fn take(&self, need: Need, early: bool) -> Link {
        loop {
            let waiting = {
                let mut state = self.state.lock();
                // The newest has the youngest keys.
                while state.may_have(need)
                    && let Some(Warm { mut link, .. }) = state.ready.pop()
                {
                    if !link.is_stale() {
                        drop(state);
                        self.changed.notify_one();
                        return link;
                    }
                }
                let (give, waiting) = oneshot::channel();
                let behind = state.waiting.partition_point(|waiting| waiting.need <= need);
                state.waiting.insert(behind, Waiting { need, early, give });
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
        let mut state = self.state.lock();
        match state.hand_over(link) {
            None => return Ok(()),
            Some(back) => link = back,
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
        let mut state = self.state.lock();
        state.waiting.retain(|waiting| !waiting.give.is_closed());
        let first = state.waiting.iter().position(|waiting| waiting.early)?;
        state.waiting.remove(first).map(|waiting| waiting.give)
    }

    /// The path has failed a session: what was made over it before is not to be relied on.
    pub(crate) fn distrust(&self) {
        let dropped = std::mem::take(&mut self.state.lock().ready);
        if !dropped.is_empty() {
            self.changed.notify_one();
        }
    }

    /// Drops links that `keep` does not want.
    pub(crate) fn retain(&self, keep: impl Fn(&Link) -> bool) {
        self.state.lock().ready.retain(|warm| keep(&warm.link));
    }

    /// Drops links that are about to be too old where keys last for `every`, and says when the next one will be.
    pub(crate) fn prune(&self, every: Duration) -> Option<Duration> {
        let mut state = self.state.lock();
        state.ready.retain(|warm| !warm.left(every).is_zero());
        state.ready.iter().map(|warm| warm.left(every)).min()
    }

    /// Links ready, and sessions waiting. Drops links that the peer has closed: nobody else looks after those that it
    /// offered.
    pub(crate) fn counts(&self) -> Counts {
        let mut state = self.state.lock();
        state.ready.retain_mut(|warm| !warm.link.is_stale());
        state.waiting.retain(|waiting| !waiting.give.is_closed());
        let pressed = state.pressed;
        let waiting = state.waiting.iter().filter(|waiting| !pressed || waiting.need != Need::Open).count();
        Counts { ready: state.ready.len(), waiting, pressed, reserved: MAX_RESERVED }
    }

    /// Whether links can hardly be made, so that new sessions leave the last ones to those that are open.
    pub(crate) fn set_pressed(&self, pressed: bool) {
        let mut state = self.state.lock();
        if !std::mem::replace(&mut state.pressed, pressed) || pressed {
            return;
        }
        while let Some(Warm { link, share }) = state.ready.pop() {
            if let Some(link) = state.hand_over(link) {
                state.ready.push(Warm { link, share });
                return;
            }
        }
    }

    pub(crate) fn is_pressed(&self) -> bool {
        self.state.lock().pressed
    }

    /// How many links new sessions have asked for since the last time.
    pub(crate) fn take_asked(&self) -> usize {
        std::mem::take(&mut self.state.lock().asked)
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
