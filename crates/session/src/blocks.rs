use std::collections::VecDeque;

use crate::MAX_PAYLOAD;

/// Smallest block: a session of short messages need not hold a whole record's worth for each.
const MIN_BLOCK: usize = 512;

/// A run of bytes with absolute offsets, kept in blocks: appended at `end`, dropped at `base`.
///
/// Both halves of a session are one of these. A full block is one Data frame's payload, so that a bulk stream is cut
/// into whole TLS records without a copy. Empty, it holds no memory.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    base: u64,
    end: u64,
    blocks: VecDeque<Block>,
}

#[derive(Debug)]
struct Block {
    /// Offset of the first byte; meaningless while nothing is filled.
    start: u64,
    filled: usize,
    bytes: Box<[u8]>,
}

impl Block {
    fn new(size: usize) -> Self {
        Self { start: 0, filled: 0, bytes: vec![0; size].into_boxed_slice() }
    }

    fn end(&self) -> u64 {
        self.start + self.filled as u64
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
        self.blocks.iter().map(|block| block.bytes.len()).sum()
    }

    /// Appends `bytes`.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        self.reserve(bytes.len());
        let total = bytes.len();
        for spare in self.spare(total) {
            let (head, rest) = bytes.split_at(spare.len());
            spare.copy_from_slice(head);
            bytes = rest;
        }
        self.commit(total);
    }

    /// Makes room for at least `want` bytes behind the end.
    pub(crate) fn reserve(&mut self, want: usize) {
        let mut spare: usize = self.unfilled().map(|block| block.bytes.len() - block.filled).sum();
        while spare < want {
            let size = (want - spare).next_power_of_two().clamp(MIN_BLOCK, MAX_PAYLOAD);
            self.blocks.push_back(Block::new(size));
            spare += size;
        }
    }

    /// Blocks with room: the last filled one and those behind it.
    fn unfilled(&self) -> impl Iterator<Item = &Block> {
        self.blocks.range(self.first_unfilled()..)
    }

    fn first_unfilled(&self) -> usize {
        self.blocks.iter().rposition(|block| block.filled > 0).unwrap_or(0)
    }

    /// The room behind the end, at most `limit` bytes of it, in order.
    pub(crate) fn spare(&mut self, limit: usize) -> impl Iterator<Item = &mut [u8]> {
        let mut left = limit;
        let first = self.first_unfilled();
        self.blocks.range_mut(first..).map_while(move |block| {
            let room = &mut block.bytes[block.filled..];
            let take = room.len().min(left);
            left -= take;
            (take > 0 || left > 0).then(|| &mut room[..take])
        })
    }

    /// The first `count` bytes of the room have been filled.
    pub(crate) fn commit(&mut self, count: usize) {
        let first = self.first_unfilled();
        let mut left = count;
        for block in self.blocks.range_mut(first..) {
            if left == 0 {
                break;
            }
            if block.filled == 0 {
                block.start = self.end;
            }
            let take = left.min(block.bytes.len() - block.filled);
            block.filled += take;
            self.end += take as u64;
            left -= take;
        }
        debug_assert_eq!(left, 0, "committed more than was reserved");
    }

    /// Gives back the room behind the end.
    pub(crate) fn release_spare(&mut self) {
        while self.blocks.back().is_some_and(|block| block.filled == 0) {
            self.blocks.pop_back();
        }
        self.release_if_empty();
    }

    /// The bytes from `offset` to the end of its block; empty at the end.
    pub(crate) fn contiguous(&self, offset: u64) -> &[u8] {
        self.slices(offset).next().unwrap_or_default()
    }

    /// The bytes from `offset` to the end, in order.
    pub(crate) fn slices(&self, offset: u64) -> impl Iterator<Item = &[u8]> {
        debug_assert!(offset >= self.base, "bytes that were dropped are asked for");
        let first = self.blocks.partition_point(|block| block.filled > 0 && block.end() <= offset);
        self.blocks.range(first..).take_while(|block| block.filled > 0).map(move |block| {
            let skip = usize::try_from(offset.saturating_sub(block.start)).unwrap_or(usize::MAX);
            &block.bytes[skip.min(block.filled)..block.filled]
        })
    }

    /// Drops everything below `offset`, which lies between base and end.
    pub(crate) fn drop_below(&mut self, offset: u64) {
        debug_assert!((self.base..=self.end).contains(&offset));
        self.base = offset.clamp(self.base, self.end);
        while self.blocks.front().is_some_and(|block| block.filled == block.bytes.len() && block.end() <= self.base) {
            self.blocks.pop_front();
        }
        self.release_if_empty();
    }

    fn release_if_empty(&mut self) {
        if self.base == self.end {
            self.blocks = VecDeque::new();
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.drop_below(self.end);
    }
}
