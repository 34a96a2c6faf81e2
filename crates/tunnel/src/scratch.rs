//! Large buffers that a thread lends to whatever it is running, so that idle links and sessions hold none.

use std::cell::Cell;

/// Enough for 16 full records at once: fewer and larger system calls are what a relay's cost depends on.
pub(crate) const SIZE: usize = 256 * 1024 + 32 * 1024;

thread_local! {
    static READ: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static WRITE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Runs `f` with this thread's read buffer: [`SIZE`] bytes of anything.
pub(crate) fn with_read_buffer<T>(f: impl FnOnce(&mut [u8]) -> T) -> T {
    READ.with(|cell| {
        let mut buffer = cell.take();
        buffer.resize(SIZE, 0);
        let result = f(&mut buffer);
        cell.set(buffer);
        result
    })
}

/// An empty buffer for writing, with capacity if the thread has a spare one.
pub(crate) fn take_write_buffer() -> Vec<u8> {
    WRITE.with(Cell::take)
}

/// Gives a write buffer back. The thread keeps the larger of it and the one that it has.
pub(crate) fn return_write_buffer(mut buffer: Vec<u8>) {
    buffer.clear();
    WRITE.with(|cell| {
        let spare = cell.take();
        cell.set(if spare.capacity() > buffer.capacity() { spare } else { buffer });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_buffer_does_not_take_the_place_of_a_large_one() {
        return_write_buffer(Vec::with_capacity(SIZE));
        return_write_buffer(Vec::with_capacity(30));
        assert!(take_write_buffer().capacity() >= SIZE);
        return_write_buffer(Vec::with_capacity(30));
        assert!(take_write_buffer().capacity() >= 30, "any is kept");
    }
}
