//! What is held for the bytes that wait: at most about twice their size, whatever the peer's frames look like.

use ferry_session::{Block, Epoch, Frame, Payload};

use crate::pair::{ACCEPTOR, OPENER, Pair, settings};
use crate::rng::Rng;

const WINDOW: u64 = 256 * 1024;

/// Bytes held beyond twice those that wait: the piece that is being filled.
const SLACK: usize = Block::SIZE;

/// Sends Data frames of these lengths, each in a block of its own, until the window is full.
fn fill(mut length: impl FnMut() -> usize, in_blocks: impl Fn(usize) -> bool) -> Pair {
    let mut pair = Pair::open_with([settings(WINDOW, WINDOW); 2]);
    let (now, mut offset) = (pair.now, 0);
    loop {
        let bytes = vec![7; length()];
        if offset + bytes.len() as u64 > WINDOW / 2 {
            return pair;
        }
        let payload = if in_blocks(bytes.len()) {
            let mut block = Block::default();
            block[..bytes.len()].copy_from_slice(&bytes);
            Payload::owned(block, 0..bytes.len())
        } else {
            Payload::from(&bytes[..])
        };
        pair.session(ACCEPTOR).handle_frame(now, Epoch(1), Frame::Data { offset, payload });
        offset += bytes.len() as u64;
        let waiting = usize::try_from(pair.session(ACCEPTOR).receive_buffered()).unwrap();
        let held = pair.allocated(ACCEPTOR);
        assert_eq!(waiting as u64, offset);
        assert!(held <= 2 * waiting + SLACK, "{held} bytes held for {waiting}");
    }
}

#[test]
fn a_byte_in_a_record_of_its_own_does_not_hold_a_block() {
    fill(|| 1, |_| true);
}

#[test]
fn frames_that_alternate_between_tiny_and_half_a_block_hold_no_more_than_twice_their_size() {
    for large in [Block::SIZE / 2 - 1, Block::SIZE / 2, Block::SIZE / 2 + 1] {
        let mut lengths = [1, large].into_iter().cycle();
        fill(|| lengths.next().unwrap(), |_| true);
        let mut lengths = [1, large].into_iter().cycle();
        fill(|| lengths.next().unwrap(), |length| length > 1);
    }
}

#[test]
fn no_shape_of_frames_holds_more_than_twice_their_size() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let largest = [2, 600, 9_000, 16_000][rng.below(4) as usize];
        let boxed = rng.below(101);
        let mut lengths = Rng::new(seed ^ 0x5eed);
        let mut length = || {
            let largest = if lengths.chance(50) { 3 } else { largest };
            1 + lengths.below(largest) as usize
        };
        fill(&mut length, |length| Rng::new(length as u64).chance(boxed));
    }
}

#[test]
fn what_the_application_writes_in_small_pieces_between_large_ones_holds_no_more_than_twice_its_size() {
    let mut pair = Pair::open_with([settings(WINDOW, WINDOW); 2]);
    pair.hold(0, OPENER, true);
    for _ in 0..10 {
        pair.session(OPENER).write(b"x");
        pair.session(OPENER).write_with(20_000, Block::default, |bufs| bufs[0].len().min(9_000));
        let waiting = usize::try_from(pair.session(OPENER).replay_buffered()).unwrap();
        let held = pair.allocated(OPENER);
        assert!(held <= 2 * waiting + SLACK, "{held} bytes held for {waiting}");
    }
}
