//! Idempotency keys and the messages they stand for.

use std::collections::{HashMap, VecDeque};

use crate::store::{Fate, KeyRecord};

/// Keys remembered; beyond that the oldest are forgotten.
const MAX_KEYS: usize = 100_000;

#[derive(Debug, Default)]
pub(super) struct Keys {
    known: HashMap<String, KeyRecord>,
    /// In the order of their messages.
    order: VecDeque<(u64, String)>,
    /// The message of the last key forgotten.
    start: u64,
    /// Keys whose fate is not stored yet.
    unstored: VecDeque<(String, KeyRecord)>,
}

impl Keys {
    /// Keys in the order of their messages.
    pub(super) fn new(keys: Vec<(String, KeyRecord)>) -> Self {
        let mut all = Self::default();
        all.extend(keys);
        all
    }

    pub(super) fn find(&self, key: &str) -> Option<KeyRecord> {
        self.known.get(key).copied()
    }

    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Records what became of a message, if it has a key.
    pub(super) fn mark(&mut self, seq: u64, fate: Fate) {
        let Ok(at) = self.order.binary_search_by_key(&seq, |(seq, _)| *seq) else { return };
        let key = &self.order[at].1;
        if let Some(row) = self.known.get_mut(key) {
            row.fate = fate;
            self.unstored.push_back((key.clone(), *row));
        }
    }

    /// Keys whose fate is to be stored.
    pub(super) fn unstored(&self) -> impl Iterator<Item = &(String, KeyRecord)> {
        self.unstored.iter()
    }

    /// Call when the first `count` of [`Self::unstored`] are stored.
    pub(super) fn mark_stored(&mut self, count: usize) {
        self.unstored.drain(..count);
    }

    pub(super) fn extend(&mut self, keys: impl IntoIterator<Item = (String, KeyRecord)>) {
        for (key, row) in keys {
            self.order.push_back((row.seq, key.clone()));
            self.known.insert(key, row);
            if self.order.len() > MAX_KEYS
                && let Some((seq, oldest)) = self.order.pop_front()
            {
                self.known.remove(&oldest);
                self.start = seq;
            }
        }
    }
}
