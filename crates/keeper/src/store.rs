//! The descriptors that are kept.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::wire::{RefusedBy, Tag};

#[derive(Debug)]
pub(crate) struct Store {
    entries: HashMap<Tag, Entry>,
    max: u32,
}

#[derive(Debug)]
struct Entry {
    descriptor: OwnedFd,
    /// An engine that continues has not stored it again yet.
    is_stale: bool,
}

impl Store {
    pub(crate) fn new(max: u32) -> Self {
        Self { entries: HashMap::new(), max }
    }

    pub(crate) fn max(&self) -> u32 {
        self.max
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Keeps `descriptor` in place of what had this tag before.
    pub(crate) fn insert(&mut self, tag: Tag, descriptor: OwnedFd) -> Result<(), RefusedBy> {
        if self.entries.len() >= self.max as usize && !self.entries.contains_key(&tag) {
            return Err(RefusedBy::Limit);
        }
        self.entries.insert(tag, Entry { descriptor, is_stale: false });
        Ok(())
    }

    pub(crate) fn remove(&mut self, tag: &Tag) {
        self.entries.remove(tag);
    }

    pub(crate) fn tags(&self) -> Vec<Tag> {
        self.entries.keys().copied().collect()
    }

    pub(crate) fn descriptor(&self, tag: &Tag) -> Option<BorrowedFd<'_>> {
        self.entries.get(tag).map(|entry| entry.descriptor.as_fd())
    }

    pub(crate) fn mark_stale(&mut self) {
        self.entries.values_mut().for_each(|entry| entry.is_stale = true);
    }

    pub(crate) fn drop_stale(&mut self) {
        self.entries.retain(|_, entry| !entry.is_stale);
    }

    /// Drops everything after an engine that left nothing open.
    pub(crate) fn clear(&mut self) {
        self.entries = HashMap::new();
    }

    /// Drops everything that no engine came for. Connections are reset: to the application, a plain close would look like an
    /// orderly end of a stream that was cut off.
    pub(crate) fn reset_all(&mut self) {
        for (_, entry) in self.entries.drain() {
            // Not every descriptor is a socket.
            _ = rustix::net::sockopt::set_socket_linger(&entry.descriptor, Some(Duration::ZERO));
        }
        self.clear();
    }
}
