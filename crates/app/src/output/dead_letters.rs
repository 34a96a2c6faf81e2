//! Dead messages, kept for a retry.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::UnknownCursor;
use crate::limits::{MAX_DEAD_BYTES, take_bounded};
use crate::message::{Arrival, DeadMessage};
use crate::peer::PeerName;

/// Dead messages kept; beyond this or [`MAX_DEAD_BYTES`], the oldest are dropped.
const MAX_DEAD_MESSAGES: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct DeadLetters {
    /// By the number that each was given when it came.
    messages: BTreeMap<u64, Arc<DeadMessage>>,
    bytes: usize,
    /// What each site has of them.
    shares: HashMap<Option<PeerName>, Share>,
    /// The last number given, ever.
    last: u64,
    /// Those that are being retried.
    in_retry: BTreeSet<u64>,
}

#[derive(Debug, Default)]
struct Share {
    messages: usize,
    bytes: usize,
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
            all.insert(Arc::new(message));
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

    /// Adds a dead message, and returns the numbers of those that are dropped for it: the oldest of the site that has the most.
    pub(super) fn push(&mut self, message: Arc<DeadMessage>) -> Vec<u64> {
        self.last += 1;
        self.insert(message);
        let mut dropped = Vec::new();
        loop {
            let by_count = self.messages.len() > MAX_DEAD_MESSAGES;
            if !by_count && (self.bytes <= MAX_DEAD_BYTES || self.messages.len() <= 1) {
                return dropped;
            }
            let size = |share: &Share| if by_count { share.messages } else { share.bytes };
            let largest = self.shares.iter().max_by_key(|(_, share)| size(share)).map(|(site, _)| site.clone());
            let is_free = |number: &u64| !self.in_retry.contains(number);
            let of_largest = |message: &DeadMessage| largest.as_ref() == Some(&message.arrival.site);
            let mut free = self.messages.iter().filter(|(number, _)| is_free(number));
            let oldest = free.clone().find(|(_, message)| of_largest(message)).or_else(|| free.next());
            let Some(oldest) = oldest.map(|(number, _)| *number) else { return dropped };
            self.remove(oldest);
            dropped.push(oldest);
        }
    }

    /// Adds it under the last number given.
    fn insert(&mut self, message: Arc<DeadMessage>) {
        self.bytes += message.bytes();
        let share = self.shares.entry(message.arrival.site.clone()).or_default();
        (share.messages, share.bytes) = (share.messages + 1, share.bytes + message.bytes());
        self.messages.insert(self.last, message);
    }

    pub(super) fn remove(&mut self, number: u64) {
        self.in_retry.remove(&number);
        let Some(message) = self.messages.remove(&number) else { return };
        self.bytes -= message.bytes();
        let site = &message.arrival.site;
        if let Some(share) = self.shares.get_mut(site) {
            (share.messages, share.bytes) = (share.messages - 1, share.bytes - message.bytes());
            if share.messages == 0 {
                self.shares.remove(site);
            }
        }
    }

    /// How many each site has.
    pub(super) fn by_site(&self) -> HashMap<Option<PeerName>, usize> {
        self.shares.iter().map(|(site, share)| (site.clone(), share.messages)).collect()
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
