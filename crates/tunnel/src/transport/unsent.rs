//! Bytes that wait for a stream to take them.

use crate::memory::scratch;

/// A buffer of the thread's while there is something in it.
pub(super) struct Unsent {
    /// What waits is `bytes[written..end]`; what is behind is room.
    bytes: Vec<u8>,
    written: usize,
    end: usize,
}

impl Unsent {
    /// `first` goes first.
    pub(super) fn new(first: Vec<u8>) -> Self {
        Self { end: first.len(), bytes: first, written: 0 }
    }

    /// Where the next bytes go, while nothing was written: an offset into what waits.
    pub(super) fn end(&self) -> usize {
        self.end
    }

    /// A part of what waits was taken.
    pub(super) fn is_begun(&self) -> bool {
        self.written > 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.written == self.end
    }

    /// Room for `count` more bytes at the end, with anything in it.
    pub(super) fn extend(&mut self, count: usize) -> &mut [u8] {
        if self.bytes.is_empty() {
            self.bytes = scratch::take_write_buffer();
        }
        let start = self.end;
        self.end += count;
        if self.bytes.len() < self.end {
            self.bytes.resize(self.end, 0);
        }
        &mut self.bytes[start..self.end]
    }

    /// What is behind `start`, to be changed.
    pub(super) fn behind(&mut self, start: usize) -> &mut [u8] {
        &mut self.bytes[start..self.end]
    }

    /// What the stream is to take next.
    pub(super) fn unwritten(&self) -> &[u8] {
        &self.bytes[self.written..self.end]
    }

    /// The stream took so many bytes of it.
    pub(super) fn on_written(&mut self, count: usize) {
        self.written += count;
        if self.written == self.end {
            (self.written, self.end) = (0, 0);
            scratch::return_write_buffer(std::mem::take(&mut self.bytes));
        }
    }
}
