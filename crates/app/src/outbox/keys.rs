//! Idempotency keys, and what they stand for.

use std::collections::{HashMap, VecDeque};

use crate::store::{Fate, Key};

/// Keys remembered; beyond that the oldest are forgotten.
const KEYS_MAX: usize = 100_000;

#[derive(Debug, Default)]
pub(super) struct Keys {
    known: HashMap<String, Key>,
    /// In the order of their messages.
    order: VecDeque<(u64, String)>,
    /// The message of the last key forgotten.
    start: u64,
    /// Keys whose fate is not stored yet.
    unstored: VecDeque<(String, Key)>,
}

impl Keys {
    /// Keys in the order of their messages.
    pub(super) fn new(keys: Vec<(String, Key)>) -> Self {
        let mut all = Self::default();
        all.extend(keys);
        all
    }

    pub(super) fn find(&self, key: &str) -> Option<Key> {
        self.known.get(key).copied()
    }

    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Notes what became of a message, if it has a key.
    pub(super) fn mark(&mut self, seq: u64, fate: Fate) {
        let Ok(at) = self.order.binary_search_by_key(&seq, |(seq, _)| *seq) else { return };
        let key = &self.order[at].1;
        if let Some(row) = self.known.get_mut(key) {
            row.fate = fate;
            self.unstored.push_back((key.clone(), *row));
        }
    }

    /// Keys whose fate is to be stored.
    pub(super) fn unstored(&self) -> impl Iterator<Item = &(String, Key)> {
        self.unstored.iter()
    }

    /// So many of them are.
    pub(super) fn marked(&mut self, count: usize) {
        self.unstored.drain(..count);
    }

    pub(super) fn extend(&mut self, keys: impl IntoIterator<Item = (String, Key)>) {
        for (key, row) in keys {
            self.order.push_back((row.seq, key.clone()));
            self.known.insert(key, row);
            if self.order.len() > KEYS_MAX
                && let Some((seq, oldest)) = self.order.pop_front()
            {
                self.known.remove(&oldest);
                self.start = seq;
            }
        }
    }
}
