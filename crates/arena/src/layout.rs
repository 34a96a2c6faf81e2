//! Where everything is. All numbers are words of 64 bits, as the processor has them: the memory never leaves the machine.
//!
//! ```text
//! 0        header: magic, format, sizes, instance, counters; one page
//! 512      records: 96 words each
//!          slots' headers: 4 words each
//!          slots: 16 KiB each, from a page's beginning on
//! ```

use std::ops::Range;

/// Says what this is.
pub(crate) const MAGIC: [u64; 2] = [u64::from_le_bytes(*b"ferry ar"), u64::from_le_bytes(*b"ena\r\n\x1a\0\x7f")];

/// What an engine must know to read the rest. One of another format has nothing that this one could adopt.
///
/// An arena keeps the format of the build that made it, and every later build writes to it in that one: when an upgrade is
/// given up, the build before finds what it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Records tell no origin, and their check does not cover which record they are.
    First = 1,
    Second = 2,
}

impl Format {
    pub(crate) const NEWEST: Self = Self::Second;

    pub(crate) fn read(word: u64) -> Option<Self> {
        [Self::First, Self::Second].into_iter().find(|format| *format as u64 == word)
    }
}

const PAGE: usize = 512;

pub(crate) const RECORD: usize = 96;
pub(crate) const SLOT: usize = 4;

/// Words of the header.
pub(crate) mod header {
    use std::ops::Range;

    pub(crate) const MAGIC: Range<usize> = 0..2;
    pub(crate) const FORMAT: usize = 2;
    pub(crate) const RECORDS: usize = 3;
    pub(crate) const SLOTS: usize = 4;
    pub(crate) const INSTANCE: Range<usize> = 5..7;
    pub(crate) const STARTS: usize = 7;
    /// No record and no slot from here on was ever used, so that memory which was never touched need not be read.
    pub(crate) const RECORDS_USED: usize = 8;
    pub(crate) const SLOTS_USED: usize = 9;
    /// The last to be written.
    pub(crate) const CHECK: usize = 10;
    pub(crate) const END: usize = 11;
}

/// How much an arena holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Sessions.
    pub records: u32,
    /// Blocks of their bytes.
    pub slots: u32,
}

impl Sizes {
    /// More than any tunnel has sessions for, and so much that nothing here overflows.
    const MAX: Self = Self { records: 1 << 20, slots: 1 << 24 };

    pub(crate) fn are_possible(self) -> bool {
        self.records <= Self::MAX.records && self.slots <= Self::MAX.slots
    }

    pub(crate) fn clamped(self) -> Self {
        Self { records: self.records.clamp(1, Self::MAX.records), slots: self.slots.clamp(1, Self::MAX.slots) }
    }

    pub(crate) fn record(self, index: u32) -> Range<usize> {
        let start = PAGE + index as usize * RECORD;
        start..start + RECORD
    }

    pub(crate) fn slot(self, index: u32) -> Range<usize> {
        let start = PAGE + self.records as usize * RECORD + index as usize * SLOT;
        start..start + SLOT
    }

    /// How many words there are in front of the slots.
    pub(crate) fn words(self) -> usize {
        self.slot(self.slots).start.next_multiple_of(PAGE)
    }
}

/// Mixes words into one that tells whether they are as they were written.
pub(crate) fn check(words: impl IntoIterator<Item = u64>) -> u64 {
    // The constants of SplitMix64 (Steele et al. 2014): each bit of a word changes about half of the bits of the result.
    words.into_iter().fold(0x9e37_79b9_7f4a_7c15, |sum: u64, word| {
        let mut mixed = sum.wrapping_add(word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}
