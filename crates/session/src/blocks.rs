use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::ops::Range;

use crate::block::{Block, FULL, Payload, TRAILER};

/// Smallest piece: a session of short messages need not hold a whole block for each.
const MIN_PIECE: usize = 512;

/// Most pieces that are filled at once.
const MAX_FILLED_PIECES: usize = 17;

/// Most spent blocks that wait for being asked for.
const MAX_SPENT: usize = 64;

/// A run of bytes with absolute offsets, kept in pieces: appended at `end`, dropped at `base`.
///
/// Both halves of a session are one of these. A full piece is one Data frame's payload, so that a bulk stream is cut
/// into whole TLS records without a copy. Empty, it holds no memory but spent blocks that nobody has asked for yet.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    base: u64,
    end: u64,
    /// None of them is empty.
    pieces: VecDeque<Piece>,
    spent: Vec<Block>,
}

#[derive(Debug)]
struct Piece {
    /// Offset of the first byte.
    start: u64,
    room: Room,
}

#[derive(Debug)]
enum Room {
    /// Never grows beyond its capacity.
    Small(Vec<u8>),
    /// Those bytes of a block. One that was filled here has the trailer behind them.
    Whole(Block, Range<usize>),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match &self.room {
            Room::Small(bytes) => bytes,
            Room::Whole(block, bytes) => &block[bytes.clone()],
        }
    }

    fn len(&self) -> usize {
        match &self.room {
            Room::Small(bytes) => bytes.len(),
            Room::Whole(_, bytes) => bytes.len(),
        }
    }

    fn end(&self) -> u64 {
        self.start + self.len() as u64
    }

    /// Index of the byte at `offset`, or of the end.
    fn at(&self, offset: u64) -> usize {
        usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX).min(self.len())
    }

    /// Its bytes from `offset` on.
    fn from(&self, offset: u64) -> &[u8] {
        &self.bytes()[self.at(offset)..]
    }

    fn payload(&self, offset: u64) -> Payload<'_> {
        match &self.room {
            Room::Whole(block, bytes) if block.get(bytes.end) == Some(&TRAILER) => {
                Payload::with_trailer(&block[bytes.start + self.at(offset)..=bytes.end])
            }
            _ => Payload::from(self.from(offset)),
        }
    }

    /// Room behind the bytes of a block.
    fn tail(&mut self) -> &mut [u8] {
        match &mut self.room {
            Room::Small(_) => &mut [],
            Room::Whole(block, bytes) => {
                &mut block[bytes.end..(bytes.start + FULL).min(Block::SIZE - 1).max(bytes.end)]
            }
        }
    }

    /// The next `count` bytes of the tail are its bytes, too.
    fn extend(&mut self, count: usize) {
        if let Room::Whole(block, bytes) = &mut self.room {
            bytes.end += count;
            block[bytes.end] = TRAILER;
        }
    }
}

impl Blocks {
    /// Nothing yet; the first byte to be appended is the one at `offset`.
    pub(crate) fn at(offset: u64) -> Self {
        Self { base: offset, end: offset, ..Self::default() }
    }

    /// Appends the first `length` bytes of a block, where they are.
    pub(crate) fn restore(&mut self, mut block: Block, length: usize) {
        if let Some(behind) = block.get_mut(length) {
            *behind = TRAILER;
        }
        let piece = Piece { start: self.end, room: Room::Whole(block, 0..length) };
        self.end = piece.end();
        self.pieces.push_back(piece);
    }

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
        let room = |piece: &Piece| match &piece.room {
            Room::Small(bytes) => bytes.capacity(),
            Room::Whole(..) => Block::SIZE,
        };
        self.pieces.iter().map(room).sum::<usize>() + self.spent.len() * Block::SIZE
    }

    /// Appends `bytes`.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let free = |small: &Vec<u8>| small.capacity().min(FULL) - small.len();
            let small = match self.pieces.back_mut() {
                Some(Piece { room: Room::Small(small), .. }) if free(small) > 0 => small,
                _ => {
                    // Size new pieces by the backlog: fewer pieces, fewer frames.
                    let size = bytes.len().max(usize::try_from(self.len()).unwrap_or(FULL));
                    let size = size.clamp(MIN_PIECE, FULL).next_power_of_two().min(FULL);
                    let room = Room::Small(Vec::with_capacity(size));
                    let piece = self.pieces.push_back_mut(Piece { start: self.end, room });
                    let Room::Small(small) = &mut piece.room else { return };
                    small
                }
            };
            let (head, rest) = bytes.split_at(free(small).min(bytes.len()));
            small.extend_from_slice(head);
            self.end += head.len() as u64;
            bytes = rest;
        }
    }

    /// Appends those bytes of a block: where they are if they fill half of it, else a copy. So no choice of frames makes
    /// the bytes that are kept take up more than about twice their size.
    pub(crate) fn append(&mut self, block: Block, bytes: Range<usize>) {
        if bytes.len() < Block::SIZE / 2 {
            self.push(&block[bytes]);
            self.spend(block);
            return;
        }
        self.trim_last();
        let piece = Piece { start: self.end, room: Room::Whole(block, bytes) };
        self.end = piece.end();
        self.pieces.push_back(piece);
    }

    /// Something else comes behind the last piece: it needs no room for more.
    fn trim_last(&mut self) {
        if let Some(Piece { room: Room::Small(small), .. }) = self.pieces.back_mut() {
            small.shrink_to_fit();
        }
    }

    /// Appends what `fill` writes in place, up to `want` bytes; it says how many. `lend` gives further blocks for them.
    pub(crate) fn fill(
        &mut self,
        want: usize,
        mut lend: impl FnMut() -> Block,
        fill: impl FnOnce(&mut [IoSliceMut<'_>]) -> usize,
    ) -> usize {
        let mut room = self.pieces.back_mut().map_or(0, |last| last.tail().len());
        let first = self.pieces.len() - usize::from(room > 0);
        self.trim_last();
        while room < want && self.pieces.len() - first < MAX_FILLED_PIECES {
            let mut block = self.spent.pop().unwrap_or_else(&mut lend);
            block.place(Some(self.end + room as u64));
            self.pieces.push_back(Piece { start: self.end, room: Room::Whole(block, 0..0) });
            room += FULL;
        }
        let mut bufs = [(); MAX_FILLED_PIECES].map(|()| IoSliceMut::new(&mut []));
        let (mut count, mut left) = (0, want);
        for (buf, piece) in bufs.iter_mut().zip(self.pieces.range_mut(first..)) {
            let tail = piece.tail();
            let length = tail.len().min(left);
            *buf = IoSliceMut::new(&mut tail[..length]);
            (count, left) = (count + 1, left - length);
        }
        let filled = fill(&mut bufs[..count]).min(want - left);

        let mut rest = filled;
        for piece in self.pieces.range_mut(first..) {
            let count = piece.tail().len().min(rest);
            if piece.len() == 0 {
                piece.start = self.end;
            }
            piece.extend(count);
            self.end += count as u64;
            rest -= count;
        }
        while let Some(mut unused) = self.pieces.pop_back_if(|last| last.len() == 0) {
            if let Room::Whole(block, _) = &mut unused.room {
                block.place(None);
            }
            self.spend_piece(unused);
        }
        self.tidy();
        filled
    }

    /// How many bytes can be sent as one frame from `offset` on.
    pub(crate) fn length_at(&self, offset: u64) -> usize {
        self.pieces.get(self.index_of(offset)).map_or(0, |piece| piece.len() - piece.at(offset))
    }

    /// These bytes; none at the end.
    pub(crate) fn payload(&self, offset: u64) -> Payload<'_> {
        self.pieces.get(self.index_of(offset)).map_or(Payload::EMPTY, |piece| piece.payload(offset))
    }

    /// The bytes from `offset` to the end, in order.
    pub(crate) fn slices(&self, offset: u64) -> impl Iterator<Item = &[u8]> {
        debug_assert!(offset >= self.base, "bytes that were dropped are asked for");
        self.pieces.range(self.index_of(offset)..).map(move |piece| piece.from(offset))
    }

    /// Index of the piece that holds the byte at `offset`. Mostly it is asked for what was appended last.
    fn index_of(&self, offset: u64) -> usize {
        match self.pieces.back() {
            Some(last) if offset < last.start => self.pieces.partition_point(|piece| piece.end() <= offset),
            Some(last) if offset < last.end() => self.pieces.len() - 1,
            _ => self.pieces.len(),
        }
    }

    /// Drops everything below `offset`, which lies between base and end.
    pub(crate) fn drop_below(&mut self, offset: u64) {
        debug_assert!((self.base..=self.end).contains(&offset));
        self.base = offset.clamp(self.base, self.end);
        while let Some(piece) = self.pieces.pop_front_if(|piece| piece.end() <= self.base) {
            self.spend_piece(piece);
        }
        self.tidy();
    }

    fn spend_piece(&mut self, piece: Piece) {
        if let Room::Whole(block, _) = piece.room {
            self.spend(block);
        }
    }

    fn spend(&mut self, block: Block) {
        if self.spent.len() < MAX_SPENT {
            self.spent.push(block);
        }
    }

    /// A block that is of no use here any more, the last used first.
    pub(crate) fn poll_spent(&mut self) -> Option<Block> {
        // Asked again and again of a session that has none.
        let spent = self.spent.pop()?;
        if self.spent.is_empty() {
            self.spent = Vec::new();
        }
        Some(spent)
    }

    fn tidy(&mut self) {
        if self.base == self.end && self.pieces.capacity() > 0 {
            self.pieces = VecDeque::new();
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.drop_below(self.end);
    }
}
