//! Dead messages, kept for a retry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::UnknownCursor;
use crate::limits::{MAX_DEAD_BYTES, take_bounded};
use crate::message::{Arrival, DeadMessage};

/// Dead messages kept; beyond this or [`MAX_DEAD_BYTES`], the oldest are dropped.
const MAX_DEAD_MESSAGES: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct DeadLetters {
    /// By the number that each was given when it came.
    messages: BTreeMap<u64, Arc<DeadMessage>>,
    bytes: usize,
    /// The last number given, ever.
    last: u64,
    /// Those that are being retried.
    in_retry: BTreeSet<u64>,
}

/// A dead message and its number.
#[derive(Debug)]
pub(crate) struct DeadLetter {
    pub(crate) number: u64,
    pub(crate) message: Arc<DeadMessage>,
}

/// Why a retry cannot start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BeginRetryError {
    Unknown,
    /// Another retry of it is under way.
    UnderWay,
}

impl DeadLetters {
    pub(super) fn new(stored: Vec<(u64, DeadMessage)>) -> Self {
        let mut all = Self::default();
        for (number, message) in stored {
            all.last = number;
            all.bytes += message.bytes();
            all.messages.insert(number, Arc::new(message));
        }
        all
    }

    /// The number of the next dead message.
    pub(super) fn next(&self) -> u64 {
        self.last + 1
    }

    /// The number of the oldest dead message, or of the next.
    pub(super) fn start(&self) -> u64 {
        self.messages.keys().next().copied().unwrap_or(self.next())
    }

    /// Adds a dead message, and returns the numbers of those that are dropped for it.
    pub(super) fn push(&mut self, message: Arc<DeadMessage>) -> Vec<u64> {
        self.last += 1;
        self.bytes += message.bytes();
        self.messages.insert(self.last, message);
        let mut dropped = Vec::new();
        while self.messages.len() > MAX_DEAD_MESSAGES || (self.bytes > MAX_DEAD_BYTES && self.messages.len() > 1) {
            let Some(oldest) = self.messages.keys().find(|number| !self.in_retry.contains(number)).copied() else {
                break;
            };
            self.remove(oldest);
            dropped.push(oldest);
        }
        dropped
    }

    pub(super) fn remove(&mut self, number: u64) {
        self.in_retry.remove(&number);
        if let Some(message) = self.messages.remove(&number) {
            self.bytes -= message.bytes();
        }
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.messages.contains_key(&number)
    }

    pub(super) fn kept(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn page(
        &self,
        after: Option<&str>,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<Arc<DeadMessage>>, UnknownCursor> {
        let first = match after {
            None => 0,
            Some(id) => self.find(id).ok_or_else(|| UnknownCursor::new(id))?.0 + 1,
        };
        let messages = self.messages.range(first..).map(|(_, message)| message);
        Ok(take_bounded(messages, limit, max_bytes, |message| message.bytes()).cloned().collect())
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Arrival> {
        self.messages.values().rev().map(|message| &message.arrival)
    }

    pub(super) fn begin_retry(&mut self, id: &str) -> Result<DeadLetter, BeginRetryError> {
        let (number, message) = self.find(id).ok_or(BeginRetryError::Unknown)?;
        if !self.in_retry.insert(number) {
            return Err(BeginRetryError::UnderWay);
        }
        Ok(DeadLetter { number, message })
    }

    fn find(&self, id: &str) -> Option<(u64, Arc<DeadMessage>)> {
        let found = self.messages.iter().find(|(_, message)| message.arrival.id.as_str() == id);
        found.map(|(number, message)| (*number, message.clone()))
    }

    pub(super) fn end_retry(&mut self, number: u64) {
        self.in_retry.remove(&number);
    }
}
