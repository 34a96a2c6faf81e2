//! What happened, the newest first; what is alike within some seconds is counted.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use crate::admin::Event;

/// Events kept of those that are routine, and of the others.
const MAX_KEPT: usize = 200;
/// Events that are alike and this close are one line.
const ALIKE_AGE: Duration = Duration::from_secs(5);
/// How many of the newest are looked at for one that is alike.
const LOOKED_AT: usize = 4;

/// What happened.
#[derive(Clone, Debug, Default)]
pub(super) struct Timeline(VecDeque<Entry>);

/// One line of it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The last of those that are alike.
    pub(super) event: Event,
    pub(super) count: u32,
    first: Option<SystemTime>,
}

impl Timeline {
    pub(super) fn take(&mut self, event: Event) {
        let at = event.at();
        let is_close = |entry: &Entry| match (entry.first, at) {
            (Some(first), Some(at)) => at.duration_since(first).is_ok_and(|age| age < ALIKE_AGE),
            _ => false,
        };
        let same = self.0.iter().take(LOOKED_AT).position(|entry| is_alike(&entry.event, &event) && is_close(entry));
        if let Some(mut entry) = same.and_then(|same| self.0.remove(same)) {
            (entry.event, entry.count) = (event, entry.count + 1);
            self.0.push_front(entry);
            return;
        }
        // What is routine takes no place from what is not.
        let is_routine = event.is_routine();
        if self.0.iter().filter(|entry| entry.event.is_routine() == is_routine).count() >= MAX_KEPT {
            let oldest = self.0.iter().rposition(|entry| entry.event.is_routine() == is_routine);
            oldest.and_then(|oldest| self.0.remove(oldest));
        }
        self.0.push_front(Entry { event, count: 1, first: at });
    }

    /// The newest first, with what is routine or without.
    pub(super) fn entries(&self, with_routine: bool) -> impl Iterator<Item = &Entry> {
        self.0.iter().filter(move |entry| with_routine || !entry.event.is_routine())
    }
}

fn is_alike(one: &Event, other: &Event) -> bool {
    let of = |event: &Event| {
        let text = event.text.clone().or_else(|| event.problem.clone());
        (event.kind.clone(), event.peer.clone(), event.service.clone(), text)
    };
    of(one) == of(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, second: u32) -> Event {
        serde_json::from_str(&format!("{{\"kind\":\"{kind}\",\"at\":\"2026-01-31T09:15:{second:02}.000Z\"}}")).unwrap()
    }

    fn kinds(timeline: &Timeline, with_routine: bool) -> Vec<(String, u32)> {
        timeline.entries(with_routine).map(|entry| (entry.event.kind.clone(), entry.count)).collect()
    }

    #[test]
    fn what_is_alike_and_close_is_one_line_where_the_last_of_it_is() {
        let mut timeline = Timeline::default();
        for (kind, second) in [("link_lost", 0), ("session_resumed", 1), ("link_lost", 2), ("link_lost", 9)] {
            timeline.take(event(kind, second));
        }
        let expected = [("link_lost", 1), ("link_lost", 2), ("session_resumed", 1)];
        assert_eq!(kinds(&timeline, false), expected.map(|(kind, count)| (kind.to_owned(), count)));
    }

    #[test]
    fn what_is_routine_is_hidden_and_pushes_out_nothing_else() {
        let mut timeline = Timeline::default();
        timeline.take(event("started", 0));
        for _ in 0..1000 {
            timeline.take(event("session_rotated", 10));
            timeline.take(event("link_made", 20));
            timeline.take(event("session_opened", 30));
            timeline.take(event("session_ended", 40));
            timeline.take(event("session_rotated", 50));
        }
        assert_eq!(kinds(&timeline, false), [("started".to_owned(), 1)]);
        assert_eq!(timeline.entries(true).count(), MAX_KEPT + 1);
    }
}
