//! The results that an output keeps, by position: the number of results before it, ever.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::Limits;
use crate::limits::take_bounded;
use crate::message::{Arrival, MessageId};

/// A slice of the output, oldest first.
#[derive(Debug)]
pub(crate) struct Page {
    /// Results kept in all.
    pub(crate) count: usize,
    pub(crate) results: Vec<Arc<Arrival>>,
}

/// What arrived after a position.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Results that were dropped before they could be read.
    pub(crate) missed: u64,
    pub(crate) results: Vec<Arc<Arrival>>,
    /// The position after the last of them.
    pub(crate) end: u64,
}

/// The message after which a page should begin is not, or no longer, kept.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("message {0:?} is unknown or no longer kept; read without `after`, from the oldest that is")]
pub(crate) struct UnknownCursor(pub(crate) String);

impl UnknownCursor {
    pub(super) fn new(id: &str) -> Self {
        Self(id.chars().take(100).collect())
    }
}

#[derive(Debug, Default)]
pub(super) struct Results {
    queue: VecDeque<Arc<Arrival>>,
    bytes: usize,
    /// Results ever dropped: the position of the oldest kept.
    start: u64,
    positions: HashMap<MessageId, u64>,
}

impl Results {
    pub(super) fn new(stored: Vec<(u64, Arrival)>, limits: &Limits) -> Self {
        let start = stored.first().map_or(0, |(position, _)| *position);
        let mut results = Self { start, ..Self::default() };
        for (_, arrival) in stored {
            results.push(Arc::new(arrival), limits);
        }
        results
    }

    pub(super) fn start(&self) -> u64 {
        self.start
    }

    pub(super) fn end(&self) -> u64 {
        self.start + self.queue.len() as u64
    }

    pub(super) fn kept(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Arrival> {
        self.queue.iter().rev().map(|arrival| &**arrival)
    }

    /// Adds a result, and returns how many old ones it displaced.
    pub(super) fn push(&mut self, arrival: Arc<Arrival>, limits: &Limits) -> u64 {
        self.positions.insert(arrival.id.clone(), self.end());
        self.bytes += arrival.bytes();
        self.queue.push_back(arrival);
        let before = self.start;
        while self.queue.len() > limits.messages || (self.bytes > limits.bytes && self.queue.len() > 1) {
            let Some(oldest) = self.queue.pop_front() else { break };
            self.positions.remove(&oldest.id);
            self.bytes -= oldest.bytes();
            self.start += 1;
        }
        self.start - before
    }

    pub(super) fn page(&self, after: Option<&str>, limit: usize, limits: &Limits) -> Result<Page, UnknownCursor> {
        let position = match after {
            None => self.start,
            Some(id) => self.position(id).ok_or_else(|| UnknownCursor::new(id))? + 1,
        };
        Ok(Page { count: self.queue.len(), results: self.slice(position, limit, limits) })
    }

    pub(super) fn since(&self, position: u64, limit: usize, limits: &Limits) -> Batch {
        let start = self.start.max(position);
        let results = self.slice(start, limit, limits);
        Batch { missed: start - position, end: start + results.len() as u64, results }
    }

    fn position(&self, id: &str) -> Option<u64> {
        self.positions.get(&MessageId::try_from(id.to_owned()).ok()?).copied()
    }

    fn slice(&self, position: u64, limit: usize, limits: &Limits) -> Vec<Arc<Arrival>> {
        let skip = usize::try_from(position.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let from = self.queue.range(skip.min(self.queue.len())..);
        take_bounded(from, limit, limits.page_bytes, |arrival| arrival.bytes()).cloned().collect()
    }
}
