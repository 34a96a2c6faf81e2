//! Idempotency keys and the messages they stand for.

use std::collections::{HashMap, VecDeque};

use crate::store::{Fate, KeyRecord};

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
        for key in keys {
            all.push(key, |_| false);
        }
        all
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
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
        self.unstored.drain(..count.min(self.unstored.len()));
    }

    /// Adds a key. The oldest are forgotten while there are too many.
    pub(super) fn push(&mut self, (key, row): (String, KeyRecord), too_many: impl Fn(usize) -> bool) {
        self.order.push_back((row.seq, key.clone()));
        self.known.insert(key, row);
        while too_many(self.order.len())
            && let Some((seq, oldest)) = self.order.pop_front()
        {
            self.known.remove(&oldest);
            self.start = seq;
        }
    }
}
