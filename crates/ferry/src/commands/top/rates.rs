//! Bytes a second over the last minute, from counters that are read now and then.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// How far back it goes.
const SPAN: Duration = Duration::from_secs(60);
/// Two readings that are closer than this make no rate.
const MIN_INTERVAL: Duration = Duration::from_millis(50);
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The rates of sessions, each by its name.
#[derive(Clone, Debug, Default)]
pub(super) struct Rates(HashMap<String, Flow>);

impl Rates {
    /// Takes the counters of what there is now; what is not among them is forgotten.
    pub(super) fn note(&mut self, now: Duration, counters: impl Iterator<Item = (String, [u64; 2])>) {
        let mut before = std::mem::take(&mut self.0);
        for (name, bytes) in counters {
            let mut flow = before.remove(&name).unwrap_or_default();
            flow.note(now, bytes);
            self.0.insert(name, flow);
        }
    }

    pub(super) fn of(&self, name: &str) -> Option<&Flow> {
        self.0.get(name)
    }
}

/// Bytes in both directions, sent first.
#[derive(Clone, Debug, Default)]
pub(super) struct Flow {
    last: Option<(Duration, [u64; 2])>,
    samples: VecDeque<Sample>,
}

#[derive(Clone, Debug)]
struct Sample {
    from: Duration,
    to: Duration,
    rates: [f64; 2],
}

impl Flow {
    /// Takes what the counters say now.
    pub(super) fn note(&mut self, now: Duration, bytes: [u64; 2]) {
        let Some((from, before)) = self.last else {
            self.last = Some((now, bytes));
            return;
        };
        let interval = now.saturating_sub(from);
        if interval < MIN_INTERVAL {
            return;
        }
        let rate =
            |direction: usize| bytes[direction].saturating_sub(before[direction]) as f64 / interval.as_secs_f64();
        self.samples.push_back(Sample { from, to: now, rates: [rate(0), rate(1)] });
        self.samples.retain(|sample| sample.to + SPAN > now);
        self.last = Some((now, bytes));
    }

    /// The last one, sent and received.
    pub(super) fn now(&self) -> [f64; 2] {
        self.samples.back().map_or([0.0; 2], |sample| sample.rates)
    }

    /// Sent and received together.
    pub(super) fn sum(&self) -> f64 {
        self.now().iter().sum()
    }

    /// The last minute in this many characters, of what `pick` takes of both directions, the highest as a full bar.
    pub(super) fn spark(&self, now: Duration, width: usize, pick: impl Fn([f64; 2]) -> f64) -> String {
        let highest = self.samples.iter().map(|sample| pick(sample.rates)).fold(0.0, f64::max);
        let step = SPAN.as_secs_f64() / width.max(1) as f64;
        let bar = |at: usize| {
            let ago = Duration::from_secs_f64((width - at) as f64 * step - step / 2.0);
            let then = now.checked_sub(ago)?;
            let sample = self.samples.iter().find(|sample| sample.from <= then && then < sample.to)?;
            let rate = pick(sample.rates);
            // What moves at all is more than nothing.
            let level = if rate > 0.0 { (rate / highest * 7.0).ceil() as usize } else { 0 };
            Some(BARS[level.min(7)])
        };
        (0..width).map(|at| bar(at).unwrap_or(' ')).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_rate_is_what_counters_grew_by_in_a_second() {
        let mut flow = Flow::default();
        flow.note(at(100), [1000, 0]);
        assert_eq!(flow.now(), [0.0, 0.0]);
        flow.note(at(102), [5000, 10]);
        assert_eq!((flow.now(), flow.sum()), ([2000.0, 5.0], 2005.0));
        // A counter that begins again has moved nothing.
        flow.note(at(103), [0, 10]);
        assert_eq!(flow.now(), [0.0, 0.0]);
    }

    #[test]
    fn a_minute_is_drawn_as_it_was_and_forgotten_after_it() {
        let mut flow = Flow::default();
        for (second, bytes) in [(0, 0), (20, 0), (30, 70), (40, 80), (60, 80)] {
            flow.note(at(second), [bytes, 0]);
        }
        assert_eq!(flow.spark(at(60), 6, |rates| rates[0]), "▁▁█▂▁▁");
        assert_eq!(flow.spark(at(90), 6, |rates| rates[0]), "▂▁▁   ");
        flow.note(at(200), [80, 0]);
        assert_eq!(flow.samples.len(), 1);
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut rates = Rates::default();
        rates.note(at(0), [("a".to_owned(), [0, 0]), ("b".to_owned(), [0, 0])].into_iter());
        rates.note(at(1), [("a".to_owned(), [7, 1])].into_iter());
        assert_eq!(rates.of("a").map(Flow::sum), Some(8.0));
        assert!(rates.of("b").is_none());
    }
}
