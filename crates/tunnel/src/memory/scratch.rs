//! Large buffers that a thread lends to whatever it is running, so that idle links and sessions hold none.

use std::cell::{Cell, RefCell};

use ferry_session::Block;

/// Enough for 16 full records at once: fewer and larger system calls are what a relay's cost depends on.
pub(crate) const BUFFER_SIZE: usize = 256 * 1024 + 32 * 1024;

/// What a carrier makes of a link's bytes at a time: full records of TLS to an endpoint, with little room behind them.
pub(crate) const WIRE_SIZE: usize = 144 * 1024;

/// Most spare blocks that a thread keeps: 1 MiB.
const MAX_SPARE_BLOCKS: usize = 64;

thread_local! {
    static READ: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static WRITE: RefCell<[Vec<u8>; 2]> = const { RefCell::new([const { Vec::new() }; 2]) };
    static WIRE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static HEAD: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static SPARE: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

/// Runs `f` with this thread's read buffer: [`BUFFER_SIZE`] bytes of anything.
pub(crate) fn with_read_buffer<T>(f: impl FnOnce(&mut [u8]) -> T) -> T {
    READ.with(|cell| {
        let mut buffer = cell.take();
        buffer.resize(BUFFER_SIZE, 0);
        let result = f(&mut buffer);
        cell.set(buffer);
        result
    })
}

/// A buffer for writing, with anything in it: as large as the thread's largest spare one, or empty.
pub(crate) fn take_write_buffer() -> Vec<u8> {
    WRITE.with_borrow_mut(|[larger, smaller]| {
        let buffer = std::mem::take(larger);
        std::mem::swap(larger, smaller);
        buffer
    })
}

/// Gives a write buffer back. The thread keeps two, the largest: what a link writes may be sealed into a second one.
pub(crate) fn return_write_buffer(mut buffer: Vec<u8>) {
    WRITE.with_borrow_mut(|spare| {
        for kept in spare {
            if buffer.len() > kept.len() {
                std::mem::swap(&mut buffer, kept);
            }
        }
    });
}

/// [`WIRE_SIZE`] bytes of anything.
pub(crate) fn take_wire_buffer() -> Vec<u8> {
    let mut buffer = WIRE.with(Cell::take);
    buffer.resize(WIRE_SIZE, 0);
    buffer
}

/// Gives a wire buffer back.
pub(crate) fn return_wire_buffer(buffer: Vec<u8>) {
    WIRE.with(|cell| cell.set(buffer));
}

/// Runs `f` with this thread's wire buffer.
pub(crate) fn with_wire_buffer<T>(f: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut buffer = take_wire_buffer();
    let result = f(&mut buffer);
    return_wire_buffer(buffer);
    result
}

/// Runs `f` with an empty buffer of this thread for a few bytes.
pub(crate) fn with_head<T>(f: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    HEAD.with(|cell| {
        let mut head = cell.take();
        head.clear();
        let result = f(&mut head);
        cell.set(head);
        result
    })
}

/// A block with anything in it: the one that was given back last, which the processor still has at hand.
pub(crate) fn take_block() -> Block {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives a block back.
pub(crate) fn return_block(block: Block) {
    if block.is_slot() {
        // Its memory is lent by somebody else, and dropping it gives it back.
        return;
    }
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < MAX_SPARE_BLOCKS {
            spare.push(block);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_buffer_does_not_take_the_place_of_a_large_one() {
        return_write_buffer(vec![0; 30]);
        return_write_buffer(vec![0; BUFFER_SIZE]);
        return_write_buffer(vec![0; 20]);
        assert!(take_write_buffer().len() >= BUFFER_SIZE);
        assert_eq!(take_write_buffer().len(), 30, "any is kept");
    }

    #[test]
    fn a_thread_keeps_a_mebibyte_of_spare_blocks_at_most() {
        (0..2 * MAX_SPARE_BLOCKS).for_each(|_| return_block(Block::default()));
        assert_eq!(SPARE.with_borrow(Vec::len) * Block::SIZE, 1024 * 1024);
    }
}
