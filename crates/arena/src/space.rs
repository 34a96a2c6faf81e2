use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::layout::{Format, Sizes, header};
use crate::memory::{Bytes, Memory};

/// The memory, and which parts of it are in use.
pub(crate) struct Space {
    memory: Arc<Memory>,
    format: Format,
    sizes: Sizes,
    records: Mutex<FreeRecords>,
}

/// Records that nobody uses.
#[derive(Default)]
struct FreeRecords {
    again: Vec<u32>,
    /// The lowest one that was never used.
    fresh: u32,
}

impl Space {
    pub(crate) fn new(memory: Memory, format: Format, sizes: Sizes) -> Self {
        Self { memory: Arc::new(memory), format, sizes, records: Mutex::default() }
    }

    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    pub(crate) fn sizes(&self) -> Sizes {
        self.sizes
    }

    pub(crate) fn header(&self) -> &[AtomicU64] {
        self.memory.words(0..header::END)
    }

    pub(crate) fn record(&self, index: u32) -> &[AtomicU64] {
        self.memory.words(self.sizes.record(index))
    }

    /// A record that nobody uses.
    pub(crate) fn take_record(&self) -> Option<u32> {
        let mut free = self.free_records();
        if let Some(index) = free.again.pop() {
            return Some(index);
        }
        if free.fresh >= self.sizes.records {
            return None;
        }
        free.fresh += 1;
        self.raise(header::RECORDS_USED, free.fresh);
        Some(free.fresh - 1)
    }

    pub(crate) fn give_back_record(&self, index: u32) {
        self.free_records().again.push(index);
    }

    /// Of the records below `fresh` those that are not `taken` can be used.
    pub(crate) fn restore_records(&self, fresh: u32, taken: impl Fn(u32) -> bool) {
        let mut free = self.free_records();
        free.again = (0..fresh).rev().filter(|index| !taken(*index)).collect();
        free.fresh = fresh;
    }

    pub(crate) fn take_slot(&self) -> Option<Bytes> {
        let bytes = self.memory.take()?;
        self.raise(header::SLOTS_USED, bytes.index() + 1);
        Some(bytes)
    }

    fn raise(&self, word: usize, value: u32) {
        let word = &self.header()[word];
        if word.load(Ordering::Acquire) < value.into() {
            word.fetch_max(value.into(), Ordering::AcqRel);
        }
    }

    fn free_records(&self) -> MutexGuard<'_, FreeRecords> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
