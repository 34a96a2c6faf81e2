//! Warm links of one peer: ready before a session needs them.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use ferry_session::Instance;
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

/// What link a session takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want {
    pub(crate) need: Need,
    /// It can begin before the peer's Preface.
    pub(crate) early: bool,
    /// The peer's process that has the other end of the session, if that is known.
    pub(crate) of: Option<Instance>,
    /// A link of another process will do as well, to be told by it what became of that one.
    pub(crate) or_another: bool,
}

impl Want {
    /// A link of any process.
    pub(crate) fn any(need: Need) -> Self {
        Self { need, early: false, of: None, or_another: true }
    }

    /// Whether it takes a link of the process `of`, if that is known yet, which was dialled for a session of the one that
    /// is `wanted`. Where the latter has asked for, whoever answered is its best answer.
    fn takes(&self, of: Option<Instance>, wanted: Option<Instance>) -> bool {
        self.or_another || self.of.is_none() || self.of == of || self.of == wanted
    }
}

/// A session that waits for a link.
struct Waiting {
    want: Want,
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

    /// Gives the link, which was dialled for a session of the process that is `wanted`, to who is first and takes it, or
    /// back if there is nobody.
    fn hand_over(&mut self, mut link: Link, wanted: Option<Instance>) -> Option<Link> {
        let kept = self.pressed && self.ready.len() < MAX_RESERVED;
        let of = Some(link.facts().instance);
        let may = |waiting: &Waiting| (!kept || waiting.want.need != Need::Open) && waiting.want.takes(of, wanted);
        while let Some(waiting) = self.waiting.iter().position(may).and_then(|first| self.waiting.remove(first)) {
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
        self.take(Want::any(Need::Open)).await
    }

    /// A link, now or as soon as there is one.
    pub(crate) async fn take(&self, want: Want) -> Link {
        let need = want.need;
        loop {
            let waiting = {
                let mut state = self.state.lock();
                // The newest has the youngest keys.
                while state.may_have(need)
                    && let Some(newest) =
                        state.ready.iter().rposition(|warm| want.takes(Some(warm.link.facts().instance), None))
                {
                    let Warm { mut link, .. } = state.ready.remove(newest);
                    if !link.is_stale() {
                        drop(state);
                        self.changed.notify_one();
                        return link;
                    }
                }
                let (give, waiting) = oneshot::channel();
                let behind = state.waiting.partition_point(|waiting| waiting.want.need <= need);
                state.waiting.insert(behind, Waiting { want, give });
                waiting
            };
            self.changed.notify_one();
            if let Ok(link) = waiting.await {
                return link;
            }
        }
    }

    /// A new link: for the session that has waited longest, or to be kept ready. Comes back if there are too many.
    /// `wanted`: the peer's process that it was dialled for.
    pub(crate) fn give(&self, mut link: Link, wanted: Option<Instance>) -> Result<(), Box<Link>> {
        let mut state = self.state.lock();
        match state.hand_over(link, wanted) {
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

    /// Who gets the next link, dialled for the process that is `wanted`, if that can begin before the peer's Preface.
    pub(crate) fn claim_early(&self, wanted: Option<Instance>) -> Option<oneshot::Sender<Link>> {
        let mut state = self.state.lock();
        state.waiting.retain(|waiting| !waiting.give.is_closed());
        let takes = |waiting: &Waiting| waiting.want.early && waiting.want.takes(None, wanted);
        let first = state.waiting.iter().position(takes)?;
        state.waiting.remove(first).map(|waiting| waiting.give)
    }

    /// The processes that the next `count` dials are to reach, for the sessions that wait and for which none of those
    /// `under_way` is. There are fewer if the rest may reach any.
    pub(crate) fn wanted(&self, count: usize, under_way: impl Iterator<Item = Instance>) -> Vec<Instance> {
        let mut served: HashMap<Instance, usize> = HashMap::new();
        under_way.for_each(|wanted| *served.entry(wanted).or_default() += 1);
        let state = self.state.lock();
        let wanted = state.waiting.iter().filter(|waiting| !waiting.give.is_closed()).filter_map(|it| it.want.of);
        let unserved = wanted.filter(|wanted| match served.get_mut(wanted) {
            Some(dials @ 1..) => {
                *dials -= 1;
                false
            }
            _ => true,
        });
        unserved.take(count).collect()
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
        let waiting = state.waiting.iter().filter(|waiting| !pressed || waiting.want.need != Need::Open).count();
        Counts { ready: state.ready.len(), waiting, pressed, reserved: MAX_RESERVED }
    }

    /// Whether links can hardly be made, so that new sessions leave the last ones to those that are open.
    pub(crate) fn set_pressed(&self, pressed: bool) {
        let mut state = self.state.lock();
        if !std::mem::replace(&mut state.pressed, pressed) || pressed {
            return;
        }
        while let Some(Warm { link, share }) = state.ready.pop() {
            if let Some(link) = state.hand_over(link, None) {
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
