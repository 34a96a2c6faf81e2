//! A byte stream that tells where each of its bytes belongs.
//!
//! Word *i* of the stream is a keyed permutation of *i*, so a receiver not only sees that a byte is wrong: from any
//! three whole words it finds the offset at which the stream goes on, and so counts what was lost, came twice or came
//! late, to the byte.

use std::ops::Range;

/// Bytes that determine an offset: three whole words at any alignment. Noise passes for them once in 2^144.
const PROOF: usize = 3 * 8;

/// Words up to here are believed: 2^48 words are more than any run sends.
const WORDS: u64 = 1 << 48;

const A: u64 = 0xd6e8_feb8_6659_fd93;
const B: u64 = 0xa0f2_ec75_a1fe_1575;

/// The stream of one direction of one connection.
#[derive(Debug, Clone, Copy)]
pub struct Pattern {
    key: u64,
}

impl Pattern {
    /// The stream under `key`; different keys give unrelated streams.
    pub fn new(key: u64) -> Self {
        Self { key }
    }

    fn word(self, index: u64) -> u64 {
        let mut word = index ^ self.key;
        word = (word ^ (word >> 32)).wrapping_mul(A);
        word = (word ^ (word >> 32)).wrapping_mul(B);
        word ^ (word >> 32)
    }

    /// The inverse of [`Pattern::word`]: a shift by half the width undoes itself.
    fn index(self, word: u64) -> u64 {
        let mut index = (word ^ (word >> 32)).wrapping_mul(const { inverse(B) });
        index = (index ^ (index >> 32)).wrapping_mul(const { inverse(A) });
        index ^ (index >> 32) ^ self.key
    }

    /// The stream's bytes from `offset` on.
    pub fn fill(self, offset: u64, bytes: &mut [u8]) {
        let mut index = offset / 8;
        let lead = bytes.len().min((offset.wrapping_neg() % 8) as usize);
        let (first, rest) = bytes.split_at_mut(lead);
        if lead > 0 {
            let within = (offset % 8) as usize;
            first.copy_from_slice(&self.word(index).to_le_bytes()[within..within + lead]);
            index += 1;
        }
        for chunk in rest.chunks_mut(8) {
            chunk.copy_from_slice(&self.word(index).to_le_bytes()[..chunk.len()]);
            index += 1;
        }
    }

    /// How many of `bytes`, from their start, are the stream's from `offset` on.
    fn matching(self, offset: u64, bytes: &[u8]) -> usize {
        let mut expected = [0; 4096];
        let mut good = 0;
        for chunk in bytes.chunks(expected.len()) {
            let expected = &mut expected[..chunk.len()];
            self.fill(offset + good as u64, expected);
            if chunk != expected {
                let same = chunk.iter().zip(expected.iter()).take_while(|(a, b)| a == b);
                return good + same.count();
            }
            good += chunk.len();
        }
        good
    }

    /// Where `bytes` contain a stretch of the stream first: (position in `bytes`, offset in the stream).
    fn place(self, bytes: &[u8]) -> Option<(usize, u64)> {
        let (at, index) = bytes.windows(PROOF).enumerate().find_map(|(at, window)| {
            let mut words = window.chunks_exact(8).map(|word| {
                let word = word.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte));
                self.index(word)
            });
            let first = words.next().filter(|first| *first < WORDS)?;
            words.zip(first + 1..).all(|(index, expected)| index == expected).then_some((at, first))
        })?;
        // Up to a word before it was cut short in front, and belongs to the stretch as well.
        let offset = index * 8;
        let mut whole = [0; 8];
        let before = (offset.min(7) as usize).min(at);
        self.fill(offset - before as u64, &mut whole[..before]);
        let same = bytes[..at].iter().rev().zip(whole[..before].iter().rev()).take_while(|(a, b)| a == b).count();
        Some((at - same, offset - same as u64))
    }
}

/// The inverse of an odd number modulo 2^64, by Newton's iteration.
const fn inverse(odd: u64) -> u64 {
    let mut inverse = odd;
    let mut round = 0;
    while round < 6 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse)));
        round += 1;
    }
    inverse
}

/// What a receiver counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes that came, and were compared with the pattern.
    pub checked: u64,
    /// Bytes that never came, up to the highest offset that did.
    pub lost: u64,
    /// Bytes that came although they had come before.
    pub doubled: u64,
    /// Bytes that came after later ones.
    pub reordered: u64,
    /// Bytes that belong nowhere in the stream.
    pub garbled: u64,
}

/// Compares what arrives with what should.
#[derive(Debug)]
pub struct Checker {
    pattern: Pattern,
    next: u64,
    high: u64,
    missing: Vec<Range<u64>>,
    unplaced: Vec<u8>,
    tally: Tally,
}

impl Checker {
    /// Expects the stream of `pattern` from its first byte.
    pub fn new(pattern: Pattern) -> Self {
        Self { pattern, next: 0, high: 0, missing: Vec::new(), unplaced: Vec::new(), tally: Tally::default() }
    }

    /// One more than the highest offset that has come.
    pub fn high(&self) -> u64 {
        self.high
    }

    /// What has been counted so far.
    pub fn tally(&self) -> Tally {
        let mut tally = self.tally;
        tally.lost = self.missing.iter().map(|gap| gap.end - gap.start).sum();
        tally.garbled += self.unplaced.len() as u64;
        tally
    }

    /// Takes the bytes that arrived next.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.tally.checked += bytes.len() as u64;
        let mut found;
        let mut bytes = bytes;
        loop {
            if self.unplaced.is_empty() {
                let good = self.pattern.matching(self.next, bytes);
                self.accept(good as u64);
                bytes = &bytes[good..];
            }
            self.unplaced.extend_from_slice(bytes);
            if self.unplaced.is_empty() {
                return;
            }
            let Some((at, offset)) = self.pattern.place(&self.unplaced) else {
                // The last bytes may be the beginning of a proof; what is before them belongs nowhere.
                let hopeless = self.unplaced.len().saturating_sub(PROOF + 8);
                self.unplaced.drain(..hopeless);
                self.tally.garbled += hopeless as u64;
                return;
            };
            found = self.unplaced.split_off(at);
            self.unplaced.clear();
            self.tally.garbled += at as u64;
            self.slip(offset);
            bytes = &found;
        }
    }

    /// The stream goes on here.
    fn slip(&mut self, found: u64) {
        if found > self.high {
            self.missing.push(self.high..found);
            self.high = found;
        }
        self.next = found;
    }

    /// The next `count` bytes came as they should.
    fn accept(&mut self, count: u64) {
        let came = self.next..self.next + count;
        self.next = came.end;
        if came.start < self.high {
            let again = came.start..came.end.min(self.high);
            let late = self.fill_gaps(&again);
            self.tally.reordered += late;
            self.tally.doubled += again.end - again.start - late;
        }
        self.high = self.high.max(came.end);
    }

    /// Takes a range out of what is missing, and says how many bytes of it were.
    fn fill_gaps(&mut self, came: &Range<u64>) -> u64 {
        let mut late = 0;
        let gaps = std::mem::take(&mut self.missing);
        for gap in gaps {
            let (start, end) = (gap.start.max(came.start), gap.end.min(came.end));
            if start >= end {
                self.missing.push(gap);
                continue;
            }
            late += end - start;
            let rest = [gap.start..start, end..gap.end];
            self.missing.extend(rest.into_iter().filter(|rest| !rest.is_empty()));
        }
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(from: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        Pattern::new(7).fill(from, &mut bytes);
        bytes
    }

    /// What a receiver counts that gets these stretches of the stream in pieces of `piece` bytes.
    fn tally(stretches: &[Range<u64>], piece: usize) -> Tally {
        let mut checker = Checker::new(Pattern::new(7));
        let bytes: Vec<u8> =
            stretches.iter().flat_map(|range| stream(range.start, (range.end - range.start) as usize)).collect();
        bytes.chunks(piece).for_each(|chunk| checker.feed(chunk));
        checker.tally()
    }

    #[test]
    fn every_word_tells_its_index() {
        let pattern = Pattern::new(0x1234_5678_9abc_def0);
        for index in [0, 1, 2, 1 << 20, WORDS - 1] {
            assert_eq!(pattern.index(pattern.word(index)), index);
        }
    }

    #[test]
    fn a_stream_is_the_same_from_any_offset() {
        let whole = stream(0, 64);
        for from in 0..24 {
            for length in 0..24 {
                assert_eq!(stream(from as u64, length), whole[from..from + length]);
            }
        }
    }

    #[test]
    fn a_whole_stream_has_nothing_to_count() {
        for piece in [1, 7, 64, 5000, 100_000] {
            let whole = tally(&[0..50_000, 50_000..100_000], piece);
            assert_eq!(whole, Tally { checked: 100_000, ..Tally::default() });
        }
    }

    #[test]
    fn a_gap_is_counted_to_the_byte_and_found_at_its_offset() {
        for (start, length) in [(1000, 1), (1001, 3), (4096, 64), (0, 5), (7777, 12_345)] {
            for piece in [1, 13, 4096, 100_000] {
                let end = start + length;
                let gap = tally(&[0..start, end..50_000], piece);
                assert_eq!(gap.lost, length, "{start}+{length} in pieces of {piece}");
                assert_eq!((gap.doubled, gap.reordered, gap.garbled), (0, 0, 0));
            }
        }
    }

    #[test]
    fn doubled_bytes_are_counted_to_the_byte() {
        for piece in [1, 13, 4096, 100_000] {
            let doubled = tally(&[0..10_003, 9_000..20_000], piece);
            assert_eq!((doubled.doubled, doubled.lost, doubled.reordered, doubled.garbled), (1003, 0, 0, 0));
        }
    }

    #[test]
    fn swapped_stretches_count_as_reordered_and_nothing_as_lost() {
        let swapped = tally(&[0..1000, 3000..5000, 1000..3000, 5000..9000], 100);
        assert_eq!((swapped.reordered, swapped.lost, swapped.doubled, swapped.garbled), (2000, 0, 0, 0));
    }

    #[test]
    fn foreign_bytes_are_counted_and_do_not_hide_what_follows() {
        let mut checker = Checker::new(Pattern::new(7));
        checker.feed(&stream(0, 5000));
        checker.feed(&[0xee; 777]);
        checker.feed(&stream(5000, 5000));
        let tally = checker.tally();
        assert_eq!((tally.garbled, tally.lost, tally.doubled), (777, 0, 0));
        assert_eq!(tally.checked, 10_777);
    }
}
