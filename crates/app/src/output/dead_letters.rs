//! Dead messages, kept until their hook takes them after all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Gone;
use crate::message::{Arrival, DeadMessage};

/// Dead messages kept, and their bytes; beyond that the oldest are dropped.
const MESSAGES_MAX: usize = 10_000;
pub(crate) const MAX_DEAD_BYTES: usize = 16 << 20;

#[derive(Debug, Default)]
pub(super) struct Graveyard {
    graves: BTreeMap<u64, Arc<DeadMessage>>,
    bytes: usize,
    /// The number of the last grave, ever.
    last: u64,
    open: BTreeSet<u64>,
}

/// An open grave.
#[derive(Debug)]
pub(crate) struct Grave {
    pub(crate) number: u64,
    pub(crate) message: Arc<DeadMessage>,
}

/// Why a grave cannot be opened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoGrave {
    Unknown,
    /// Somebody else has opened it.
    Open,
}

impl Graveyard {
    pub(super) fn new(stored: Vec<(u64, DeadMessage)>) -> Self {
        let mut all = Self::default();
        for (number, message) in stored {
            all.last = number;
            all.bytes += message.bytes();
            all.graves.insert(number, Arc::new(message));
        }
        all
    }

    /// The number of the next grave.
    pub(super) fn next(&self) -> u64 {
        self.last + 1
    }

    /// The number of the oldest grave, or of the next.
    pub(super) fn start(&self) -> u64 {
        self.graves.keys().next().copied().unwrap_or(self.next())
    }

    /// Digs a grave, and returns the numbers of those that are given up for it.
    pub(super) fn push(&mut self, message: Arc<DeadMessage>) -> Vec<u64> {
        self.last += 1;
        self.bytes += message.bytes();
        self.graves.insert(self.last, message);
        let mut dropped = Vec::new();
        while self.graves.len() > MESSAGES_MAX || (self.bytes > MAX_DEAD_BYTES && self.graves.len() > 1) {
            let Some(oldest) = self.graves.keys().find(|number| !self.open.contains(number)).copied() else { break };
            self.remove(oldest);
            dropped.push(oldest);
        }
        dropped
    }

    pub(super) fn remove(&mut self, number: u64) {
        self.open.remove(&number);
        if let Some(message) = self.graves.remove(&number) {
            self.bytes -= message.bytes();
        }
    }

    pub(super) fn holds(&self, number: u64) -> bool {
        self.graves.contains_key(&number)
    }

    pub(super) fn kept(&self) -> usize {
        self.graves.len()
    }

    pub(super) fn page(
        &self,
        after: Option<&str>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<Arc<DeadMessage>>, Gone> {
        let first = match after {
            None => 0,
            Some(id) => self.find(id).ok_or_else(|| Gone::new(id))?.0 + 1,
        };
        let mut bytes = 0;
        let page = self.graves.range(first..).map(|(_, message)| message).take(limit).take_while(|message| {
            let first = bytes == 0;
            bytes += message.bytes();
            first || bytes <= bytes_max
        });
        Ok(page.cloned().collect())
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Arrival> {
        self.graves.values().rev().map(|message| &message.arrival)
    }

    pub(super) fn open(&mut self, id: &str) -> Result<Grave, NoGrave> {
        let (number, message) = self.find(id).ok_or(NoGrave::Unknown)?;
        if !self.open.insert(number) {
            return Err(NoGrave::Open);
        }
        Ok(Grave { number, message })
    }

    fn find(&self, id: &str) -> Option<(u64, Arc<DeadMessage>)> {
        let found = self.graves.iter().find(|(_, message)| message.arrival.id.as_str() == id);
        found.map(|(number, message)| (*number, message.clone()))
    }

    pub(super) fn close(&mut self, number: u64) {
        self.open.remove(&number);
    }
}
