//! How many links new sessions use up before another one can be there.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Most links that are kept ready for it: as many as may be dialled at once bring no more.
const MAX_EXTRA_LINKS: usize = 64;

/// A link that was taken is replaced this much later: the session that took it needs the processors first, a handshake
/// is what costs most of them, and there are others ready meanwhile.
const REPLACE_DELAY: Duration = Duration::from_millis(5);

/// What was needed once is forgotten by half in this time.
const HALF_LIFE: Duration = Duration::from_secs(10);

/// By Little's law as many links are on their way as are taken while one is dialled: over a long path a burst would
/// otherwise find the pool empty and wait for whole handshakes.
#[derive(Debug)]
pub(crate) struct Demand {
    /// When links were taken within the time of a dial, oldest first.
    taken: VecDeque<Instant>,
    /// How long a dial takes, of late.
    dial: Duration,
    /// The most that were taken in such a time, fading.
    peak: f64,
    faded: Instant,
    /// When the last one was taken.
    last: Option<Instant>,
}

impl Demand {
    pub(crate) fn new(now: Instant) -> Self {
        Self { taken: VecDeque::new(), dial: Duration::ZERO, peak: 0.0, faded: now, last: None }
    }

    /// New sessions have taken or asked for `count` links.
    pub(crate) fn on_taken(&mut self, now: Instant, count: usize) {
        if count > 0 {
            self.last = Some(now);
        }
        self.taken.extend(std::iter::repeat_n(now, count.min(MAX_EXTRA_LINKS)));
        let surplus = self.taken.len().saturating_sub(MAX_EXTRA_LINKS);
        self.taken.drain(..surplus);
        self.fade(now);
    }

    /// A dial that worked took this long.
    pub(crate) fn on_dialled(&mut self, took: Duration) {
        let took = took + REPLACE_DELAY;
        self.dial = if self.dial.is_zero() { took } else { (self.dial * 7 + took) / 8 };
    }

    /// When links that were taken are to be replaced, if that is not now.
    pub(crate) fn replaced_at(&self, now: Instant) -> Option<Instant> {
        self.last.map(|last| last + REPLACE_DELAY).filter(|at| *at > now)
    }

    /// Links to have ready or on their way for it.
    pub(crate) fn links(&mut self, now: Instant) -> usize {
        self.fade(now);
        // A session now and then is what the configured links are for.
        self.peak.round() as usize
    }

    fn fade(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.faded);
        self.faded = now;
        self.peak *= 0.5_f64.powf(since.as_secs_f64() / HALF_LIFE.as_secs_f64());
        let dial = self.dial;
        self.taken.retain(|taken| now.saturating_duration_since(*taken) < dial);
        self.peak = self.peak.max(self.taken.len() as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIAL: Duration = Duration::from_millis(240);

    /// Sessions that come `every` so often for a while, and what is kept ready for them then.
    fn after(now: &mut Instant, demand: &mut Demand, every: Duration, lasting: Duration) -> usize {
        let end = *now + lasting;
        while *now < end {
            *now += every;
            demand.on_taken(*now, 1);
        }
        demand.links(*now)
    }

    fn demand() -> (Instant, Demand) {
        let now = Instant::now();
        let mut demand = Demand::new(now);
        demand.on_dialled(DIAL - REPLACE_DELAY);
        (now, demand)
    }

    #[test]
    fn as_many_links_are_ready_as_are_taken_while_one_is_dialled() {
        let (mut now, mut demand) = demand();
        assert_eq!(after(&mut now, &mut demand, Duration::from_millis(10), Duration::from_secs(1)), 24);
    }

    #[test]
    fn over_a_short_path_none_are_needed_beside_the_configured_ones() {
        let (mut now, mut demand) = demand();
        (0..50).for_each(|_| demand.on_dialled(Duration::from_millis(1)));
        assert!(after(&mut now, &mut demand, Duration::from_millis(10), Duration::from_secs(1)) <= 1);
    }

    #[test]
    fn however_fast_they_come_there_is_a_bound() {
        let (mut now, mut demand) = demand();
        assert_eq!(
            after(&mut now, &mut demand, Duration::from_micros(10), Duration::from_millis(100)),
            MAX_EXTRA_LINKS
        );
        demand.on_taken(now, usize::MAX);
        assert_eq!(demand.links(now), MAX_EXTRA_LINKS);
    }

    #[test]
    fn a_link_is_replaced_when_the_session_that_took_it_is_under_way() {
        let (now, mut demand) = demand();
        assert_eq!(demand.replaced_at(now), None, "nothing was taken");
        demand.on_taken(now, 1);
        demand.on_taken(now + REPLACE_DELAY / 2, 0);
        assert_eq!(demand.replaced_at(now + REPLACE_DELAY / 2), Some(now + REPLACE_DELAY));
        assert_eq!(demand.replaced_at(now + REPLACE_DELAY), None, "it is time");
    }

    #[test]
    fn a_lull_keeps_what_a_burst_needed_and_a_long_one_gives_it_up() {
        let (mut now, mut demand) = demand();
        after(&mut now, &mut demand, Duration::from_millis(10), Duration::from_secs(1));
        assert_eq!(demand.links(now + Duration::from_secs(2)), 21);
        assert_eq!(demand.links(now + Duration::from_secs(10)), 12);
        assert_eq!(demand.links(now + Duration::from_secs(60)), 0);
    }
}
