//! What happened to links, sessions and the configuration, kept for a while for readers of `/events`.
//!
//! To tell costs a moment's lock and waits for no reader: each reader follows at its own pace, and one that is too slow
//! is told how many events it has missed.

mod audit;
mod kind;
pub(crate) mod spans;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use ferry_session::Instance;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;

use audit::Audit;
pub(crate) use kind::{EndFacts, Event, SessionFacts};
pub(crate) use spans::Dial;

/// Of the form of `/status` and `/events`: raised when a field changes its meaning or goes, not when one is added.
pub(crate) const FORM_VERSION: u32 = 1;

/// Events kept of each class.
const MAX_KEPT: [(Class, usize); 3] = [(Class::Notable, 1000), (Class::Routine, 1000), (Class::Foreign, 200)];

/// What keeps events of one sort from pushing out those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// What an operator looks for.
    Notable,
    /// What happens all the time while all is well.
    Routine,
    /// What others decide the rate of.
    Foreign,
}

/// An event with its place among the others.
#[derive(Debug, Serialize)]
pub(crate) struct Told {
    #[serde(skip)]
    pub(crate) number: u64,
    #[serde(serialize_with = "rfc3339")]
    at: SystemTime,
    #[serde(flatten)]
    event: Event,
}

/// The events of one running tunnel.
#[derive(Debug)]
pub(crate) struct Events {
    instance: Instance,
    audit: Audit,
    tail: Mutex<Tail>,
    /// The number of the last one.
    last: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Tail {
    last: u64,
    /// By class, each in order.
    kept: [VecDeque<Arc<Told>>; MAX_KEPT.len()],
}

impl Events {
    pub(crate) fn new(instance: Instance) -> Self {
        Self { instance, audit: Audit::default(), tail: Mutex::default(), last: watch::Sender::new(0) }
    }

    /// Something happened.
    pub(crate) fn tell(&self, event: Event) {
        self.audit.record(&event);
        spans::record(&event);
        let class = event.class();
        let number = {
            let mut tail = self.tail.lock();
            tail.last += 1;
            let number = tail.last;
            for (kept, (of, most)) in tail.kept.iter_mut().zip(MAX_KEPT) {
                if of == class {
                    if kept.len() >= most {
                        kept.pop_front();
                    }
                    kept.push_back(Arc::new(Told { number, at: SystemTime::now(), event }));
                    break;
                }
            }
            number
        };
        self.last.send_if_modified(|last| {
            let newer = number > *last;
            *last = number.max(*last);
            newer
        });
    }

    /// Follows the events behind the one with this id; without one that this process gave, from the oldest that is kept.
    pub(crate) fn follow(self: &Arc<Self>, after: Option<&str>) -> Reader {
        let after = after.and_then(|id| self.number_of(id));
        Reader { events: self.clone(), last: self.last.subscribe(), after }
    }

    /// As [`follow`](Self::follow), from the next event on.
    pub(crate) fn follow_new(self: &Arc<Self>) -> Reader {
        Reader { events: self.clone(), last: self.last.subscribe(), after: Some(self.tail.lock().last) }
    }

    /// The id of an event: no other one has it, not even of a former process.
    pub(crate) fn id(&self, told: &Told) -> String {
        format!("{}-{}", self.instance, told.number)
    }

    fn number_of(&self, id: &str) -> Option<u64> {
        let (instance, number) = id.rsplit_once('-')?;
        let number = number.parse().ok().filter(|number| *number <= self.tail.lock().last)?;
        (instance == self.instance.to_string()).then_some(number)
    }
}

/// Where somebody is who reads the events.
pub(crate) struct Reader {
    events: Arc<Events>,
    last: watch::Receiver<u64>,
    /// The last one read; none before the oldest that is kept.
    after: Option<u64>,
}

/// What a reader gets next.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Events that were dropped before they were read.
    pub(crate) lost: u64,
    pub(crate) told: Vec<Arc<Told>>,
}

impl Reader {
    /// What is there, or comes next. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Batch {
        loop {
            self.last.mark_unchanged();
            let batch = self.take();
            if !batch.told.is_empty() {
                return batch;
            }
            if self.last.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn take(&mut self) -> Batch {
        let tail = self.events.tail.lock();
        let after = self.after.unwrap_or_default();
        let mut told: Vec<_> = tail.kept.iter().flat_map(|kept| behind(kept, after)).cloned().collect();
        told.sort_unstable_by_key(|told| told.number);
        // What a class has dropped before this reader came was never its own.
        let lost = self.after.map_or(0, |after| tail.last - after - told.len() as u64);
        self.after = Some(tail.last);
        Batch { lost, told }
    }
}

/// Those of `kept` behind a number.
fn behind(kept: &VecDeque<Arc<Told>>, after: u64) -> impl Iterator<Item = &Arc<Told>> {
    kept.range(kept.partition_point(|told| told.number <= after)..)
}

fn rfc3339<S: serde::Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    // It panics outside of the years 1970 to 9999.
    let most = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(253_402_300_799);
    let at = (*at).clamp(SystemTime::UNIX_EPOCH, most);
    serializer.collect_str(&humantime::format_rfc3339_millis(at))
}

#[cfg(test)]
mod tests;
