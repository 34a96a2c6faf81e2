//! The memory itself, and nearly all `unsafe` of the workspace.
//!
//! It has two parts. The *words* in front are read and written as atomics only. The *slots* behind them are plain bytes;
//! each is lent to one owner at a time, who alone sees it. Nothing in either part is trusted: any bits are valid words and
//! valid bytes.
//!
//! Other processes may map the same memory. An engine is given it by its keeper once the one before it is gone, and seals
//! keep its size, so no other process writes it meanwhile, and no page of it disappears.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ferry_session::Block;
use memmap2::{MmapOptions, MmapRaw};

/// Bytes of a word.
pub(crate) const WORD: usize = size_of::<u64>();

/// Where the memory is, and who frees it.
enum Backing {
    Shared {
        map: MmapRaw,
        fd: OwnedFd,
    },
    /// Its words. For tests: nothing outlives the process.
    Heap(NonNull<[u64]>),
}

pub(crate) struct Memory {
    backing: Backing,
    words: usize,
    slots: usize,
    /// Which slots are lent.
    lent: Box<[AtomicBool]>,
    free: Mutex<Free>,
}

/// Slots that can be lent.
struct Free {
    /// Those that were lent before; the last used first, so that little memory is touched.
    again: Vec<u32>,
    /// The lowest one that was never lent.
    fresh: u32,
}

// SAFETY: the pointer of `Backing::Heap` is owned by this value alone, as a box would be; `MmapRaw` says the same of its own.
// What it points to is reached through `words`, as atomics, and through `Bytes`, each of which has its slot for itself.
#[allow(unsafe_code)]
unsafe impl Send for Memory {}

// SAFETY: as above. A shared reference reaches atomics only, and `take` hands out each slot to one owner at a time.
#[allow(unsafe_code)]
unsafe impl Sync for Memory {}

impl Memory {
    /// How many bytes this many words and slots take up.
    pub(crate) fn length(words: usize, slots: usize) -> Option<usize> {
        slots.checked_mul(Block::SIZE)?.checked_add(words.checked_mul(WORD)?)
    }

    /// Maps that much of a file, which must have it.
    pub(crate) fn shared(fd: OwnedFd, words: usize, slots: usize) -> std::io::Result<Self> {
        let length = Self::length(words, slots).ok_or(std::io::ErrorKind::InvalidInput)?;
        if rustix::fs::fstat(&fd)?.st_size.try_into() != Ok(length) {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "the file has another size"));
        }
        let map = MmapOptions::new().len(length).map_raw(&fd)?;
        Ok(Self::new(Backing::Shared { map, fd }, words, slots))
    }

    /// Cleared memory of this process.
    pub(crate) fn heap(words: usize, slots: usize) -> Self {
        let memory = vec![0u64; words + slots * (Block::SIZE / WORD)].into_boxed_slice();
        Self::new(Backing::Heap(NonNull::from(Box::leak(memory))), words, slots)
    }

    fn new(backing: Backing, words: usize, slots: usize) -> Self {
        let lent = (0..slots).map(|_| AtomicBool::new(false)).collect();
        Self { backing, words, slots, lent, free: Mutex::new(Free { again: Vec::new(), fresh: 0 }) }
    }

    fn base(&self) -> *mut u8 {
        match &self.backing {
            Backing::Shared { map, .. } => map.as_mut_ptr(),
            Backing::Heap(memory) => memory.as_ptr().cast(),
        }
    }

    /// The file that it is in, if any.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.backing {
            Backing::Shared { fd, .. } => Some(fd.as_fd()),
            Backing::Heap(_) => None,
        }
    }

    /// Some of the words.
    ///
    /// # Panics
    /// Unless they are there.
    #[allow(unsafe_code)]
    pub(crate) fn words(&self, range: Range<usize>) -> &[AtomicU64] {
        assert!(range.start <= range.end && range.end <= self.words, "words beyond the end");
        // SAFETY: the words are in front of the memory, `self.words` of them, which is as long as this value lives. It is
        // aligned to pages, or to u64 on the heap. An atomic has the size and the alignment of its word, any bits are one, and
        // these words are never reached but as atomics.
        unsafe { std::slice::from_raw_parts(self.base().cast::<AtomicU64>().add(range.start), range.len()) }
    }

    /// Lends a slot that is not lent.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Bytes> {
        let index = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            match free.again.pop() {
                Some(index) => index,
                None if (free.fresh as usize) < self.slots => {
                    free.fresh += 1;
                    free.fresh - 1
                }
                None => return None,
            }
        };
        self.lend(index)
    }

    /// Of the slots below `fresh` lends those that are `taken`, and has the others lent again.
    pub(crate) fn restore(self: &Arc<Self>, fresh: u32, taken: impl Fn(u32) -> bool) -> Vec<Bytes> {
        let fresh = fresh.min(u32::try_from(self.slots).unwrap_or(u32::MAX));
        let bytes = (0..fresh).filter(|index| taken(*index)).filter_map(|index| self.lend(index)).collect();
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.again = (0..fresh).rev().filter(|index| !taken(*index)).collect();
        free.fresh = fresh;
        bytes
    }

    fn lend(self: &Arc<Self>, index: u32) -> Option<Bytes> {
        let lent = self.lent.get(index as usize)?;
        // Whatever the lists above say, nobody is lent what somebody has.
        (!lent.swap(true, Ordering::Acquire)).then(|| Bytes { memory: self.clone(), index })
    }
}

#[allow(unsafe_code)]
impl Drop for Memory {
    fn drop(&mut self) {
        if let Backing::Heap(memory) = self.backing {
            // SAFETY: it was leaked from a box in `heap`, and nobody else frees it. No slot is lent: `Bytes` keep this value.
            drop(unsafe { Box::from_raw(memory.as_ptr()) });
        }
    }
}

/// The bytes of one slot, until dropped.
pub(crate) struct Bytes {
    memory: Arc<Memory>,
    index: u32,
}

#[allow(unsafe_code)]
impl Bytes {
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    fn start(&self) -> *mut [u8; Block::SIZE] {
        let offset = self.memory.words * WORD + self.index as usize * Block::SIZE;
        // SAFETY: `index` is below `slots`, as `lend` found it in `lent`, so the slot ends within the memory.
        unsafe { self.memory.base().add(offset) }.cast()
    }

    pub(crate) fn get(&self) -> &[u8; Block::SIZE] {
        // SAFETY: the slot is within the memory, which `self.memory` keeps; bytes have no alignment, and any bits are bytes.
        // While `lent` says so this value is the slot's only owner, so there is no other reference but shared ones from here.
        unsafe { &*self.start() }
    }

    pub(crate) fn get_mut(&mut self) -> &mut [u8; Block::SIZE] {
        // SAFETY: as above, and `&mut self` rules out every other reference.
        unsafe { &mut *self.start() }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        self.memory.lent[self.index as usize].store(false, Ordering::Release);
        self.memory.free.lock().unwrap_or_else(PoisonError::into_inner).again.push(self.index);
    }
}
