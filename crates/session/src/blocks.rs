use std::collections::VecDeque;
use std::io::IoSliceMut;

use crate::MAX_PAYLOAD;

/// Smallest block: a session of short messages need not hold a whole record's worth for each.
const MIN_BLOCK: usize = 512;

/// Most whole blocks that are filled at once, and most that are kept to be filled again.
const SPARE: usize = 16;

/// A run of bytes with absolute offsets, kept in blocks: appended at `end`, dropped at `base`.
///
/// Both halves of a session are one of these. A full block is one Data frame's payload, so that a bulk stream is cut
/// into whole TLS records without a copy. Empty, it holds no memory.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    base: u64,
    end: u64,
    /// None of them is empty, and all but the last are full.
    blocks: VecDeque<Block>,
    /// Whole blocks to be filled next; none while there are no bytes.
    spare: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Block {
    /// Offset of the first byte.
    start: u64,
    /// Never grows beyond its capacity, nor beyond one payload.
    bytes: Vec<u8>,
}

impl Block {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Its bytes from `offset` on.
    fn from(&self, offset: u64) -> &[u8] {
        let skip = usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX);
        &self.bytes[skip.min(self.bytes.len())..]
    }

    fn room(&self) -> usize {
        self.bytes.capacity().min(MAX_PAYLOAD) - self.bytes.len()
    }
}

impl Blocks {
    /// Offset of the first byte that is kept.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Offset after the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes kept.
    pub(crate) fn len(&self) -> u64 {
        self.end - self.base
    }

    /// Bytes of memory held.
    pub(crate) fn allocated(&self) -> usize {
        self.blocks.iter().map(|block| &block.bytes).chain(&self.spare).map(Vec::capacity).sum()
    }

    /// Appends `bytes`.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let block = match self.blocks.back_mut().filter(|block| block.room() > 0) {
                Some(block) => block,
                None => {
                    // Where much waits, more will: few blocks make few frames.
                    let size = bytes.len().max(usize::try_from(self.len()).unwrap_or(MAX_PAYLOAD));
                    let size = size.clamp(MIN_BLOCK, MAX_PAYLOAD).next_power_of_two().min(MAX_PAYLOAD);
                    let spare = self.spare.pop_if(|_| size == MAX_PAYLOAD);
                    let mut bytes = spare.unwrap_or_else(|| Vec::with_capacity(size));
                    bytes.clear();
                    self.blocks.push_back_mut(Block { start: self.end, bytes })
                }
            };
            let (head, rest) = bytes.split_at(block.room().min(bytes.len()));
            block.bytes.extend_from_slice(head);
            self.end += head.len() as u64;
            bytes = rest;
        }
    }

    /// Appends what `fill` writes in place, up to `want` bytes; it says how many.
    pub(crate) fn fill(&mut self, want: usize, fill: impl FnOnce(&mut [IoSliceMut<'_>]) -> usize) -> usize {
        let whole = want.div_ceil(MAX_PAYLOAD).min(SPARE);
        self.spare.resize_with(self.spare.len().max(whole), || Vec::with_capacity(MAX_PAYLOAD));
        let begun = self.blocks.pop_back_if(|last| last.room() > 0);
        let kept = begun.as_ref().map_or(0, |begun| begun.bytes.len());
        self.spare.extend(begun.map(|begun| begun.bytes));

        let mut bufs = [(); SPARE + 1].map(|()| IoSliceMut::new(&mut []));
        let (mut count, mut taken, mut left) = (0, kept, want);
        for (buf, bytes) in bufs.iter_mut().zip(self.spare.iter_mut().rev()) {
            // Nothing to clear in one that was full before.
            bytes.resize(bytes.capacity().min(MAX_PAYLOAD), 0);
            let room = &mut bytes[std::mem::take(&mut taken)..];
            let length = room.len().min(left);
            *buf = IoSliceMut::new(&mut room[..length]);
            (count, left) = (count + usize::from(length > 0), left - length);
        }
        let filled = fill(&mut bufs[..count]).min(want - left);

        self.end -= kept as u64;
        let mut rest = kept + filled;
        while let Some(mut bytes) = self.spare.pop_if(|_| rest > 0) {
            bytes.truncate(rest);
            rest -= bytes.len();
            let block = self.blocks.push_back_mut(Block { start: self.end, bytes });
            self.end = block.end();
        }
        self.tidy();
        filled
    }

    /// The bytes from `offset` to the end of its block; empty at the end.
    pub(crate) fn contiguous(&self, offset: u64) -> &[u8] {
        self.blocks.get(self.block_of(offset)).map_or(&[], |block| block.from(offset))
    }

    /// The bytes from `offset` to the end, in order.
    pub(crate) fn slices(&self, offset: u64) -> impl Iterator<Item = &[u8]> {
        debug_assert!(offset >= self.base, "bytes that were dropped are asked for");
        self.blocks.range(self.block_of(offset)..).map(move |block| block.from(offset))
    }

    /// Index of the block that holds the byte at `offset`. Mostly it is asked for what was appended last.
    fn block_of(&self, offset: u64) -> usize {
        match self.blocks.back() {
            Some(last) if offset < last.start => self.blocks.partition_point(|block| block.end() <= offset),
            Some(last) if offset < last.end() => self.blocks.len() - 1,
            _ => self.blocks.len(),
        }
    }

    /// Drops everything below `offset`, which lies between base and end.
    pub(crate) fn drop_below(&mut self, offset: u64) {
        debug_assert!((self.base..=self.end).contains(&offset));
        self.base = offset.clamp(self.base, self.end);
        while let Some(block) = self.blocks.pop_front_if(|block| block.end() <= self.base) {
            if block.bytes.capacity() == MAX_PAYLOAD && self.spare.len() < SPARE {
                self.spare.push(block.bytes);
            }
        }
        self.tidy();
    }

    /// Empty, it holds no memory.
    fn tidy(&mut self) {
        if self.base == self.end {
            (self.blocks, self.spare) = (VecDeque::new(), Vec::new());
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.drop_below(self.end);
    }
}
