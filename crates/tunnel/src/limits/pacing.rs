//! A session's pace, where a limit sets one: how much it may take now, of all the limits that hold for it.

use std::sync::Arc;

use ferry_session::Time;
use parking_lot::Mutex;

use crate::limits::bucket::{Bucket, Place};
use crate::limits::entries::{Permits, Rate};

/// The pace of both directions.
pub(crate) struct Pacer {
    pub(crate) sent: Pace,
    pub(crate) received: Pace,
}

/// The pace of one direction.
pub(crate) struct Pace {
    places: Vec<Held>,
    /// It was turned away until then.
    until: Option<Time>,
}

struct Held {
    rate: Arc<Rate>,
    of: fn(&Rate) -> &Mutex<Bucket>,
    place: Place,
}

impl Pacer {
    /// Nothing if no limit sets a pace.
    pub(crate) fn new(permits: &Permits) -> Option<Box<Self>> {
        let rates: Vec<_> = permits.rates().collect();
        let pace = |of: fn(&Rate) -> &Mutex<Bucket>| {
            let places = rates.iter().map(|rate| Held { rate: rate.clone(), of, place: Place::default() });
            Pace { places: places.collect(), until: None }
        };
        (!rates.is_empty())
            .then(|| Box::new(Self { sent: pace(|rate| &rate.sent), received: pace(|rate| &rate.received) }))
    }

    /// When the session is to ask again.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.sent.until.into_iter().chain(self.received.until).min()
    }
}

impl Pace {
    /// How much may be taken now; nothing before [`Pacer::poll_timeout`] if the session `wants` any.
    pub(crate) fn ask(&mut self, now: Time, wants: bool) -> Option<usize> {
        if !wants {
            self.leave();
            return Some(usize::MAX);
        }
        // Nobody pays off what is owed before its time.
        if self.until.is_some_and(|until| now < until) {
            return None;
        }
        let asked: Vec<_> =
            self.places.iter_mut().map(|held| held.with(|bucket, place| bucket.ask(now, place))).collect();
        self.until = asked.iter().filter_map(|asked| asked.err()).max();
        if self.until.is_none() {
            let least = asked.into_iter().flatten().min().unwrap_or(u64::MAX);
            return Some(usize::try_from(least).unwrap_or(usize::MAX));
        }
        for (held, asked) in self.places.iter_mut().zip(asked) {
            if asked.is_ok() {
                held.with(|bucket, place| bucket.defer(place));
            }
        }
        None
    }

    /// So much of it was taken.
    pub(crate) fn take(&mut self, now: Time, bytes: usize) {
        for held in &mut self.places {
            held.with(|bucket, place| bucket.take(now, place, bytes as u64));
        }
    }

    fn leave(&mut self) {
        if self.until.take().is_some() {
            for held in &mut self.places {
                held.with(|bucket, place| bucket.leave(place));
            }
        }
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Held {
    fn with<T>(&mut self, ask: impl FnOnce(&mut Bucket, &mut Place) -> T) -> T {
        ask(&mut (self.of)(&self.rate).lock(), &mut self.place)
    }
}
