use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use ferry_session::{Block, Slot};

use crate::layout::{self, Sizes};
use crate::memory::{Bytes, Memory};

/// Words of a slot's header.
const OWNER: usize = 0;
const OFFSET: usize = 1;
const CHECK: usize = 2;

/// A slot that is lent to a session. Its header says whose it is, and which byte is the first in it, from before anything is
/// written to it until it is given back.
pub(crate) struct LentSlot {
    /// Where its header is.
    header: Range<usize>,
    owner: u64,
    bytes: Bytes,
}

impl LentSlot {
    pub(crate) fn new(sizes: Sizes, owner: u64, bytes: Bytes) -> Self {
        Self { header: sizes.slot(bytes.index()), owner, bytes }
    }

    fn header(&self) -> &[AtomicU64] {
        self.bytes.memory().words(self.header.clone())
    }
}

impl Slot for LentSlot {
    fn bytes(&self) -> &[u8; Block::SIZE] {
        self.bytes.get()
    }

    fn bytes_mut(&mut self) -> &mut [u8; Block::SIZE] {
        self.bytes.get_mut()
    }

    fn place(&mut self, offset: Option<u64>) {
        let header = self.header();
        // In this order, so that a header that is half written belongs to no session.
        header[OWNER].store(0, Ordering::Release);
        let Some(offset) = offset else { return };
        header[OFFSET].store(offset, Ordering::Release);
        header[CHECK].store(checked(self.owner, offset, self.bytes.index()), Ordering::Release);
        header[OWNER].store(self.owner, Ordering::Release);
    }
}

/// The header goes first: from then on the slot may be lent to another session.
impl Drop for LentSlot {
    fn drop(&mut self) {
        self.place(None);
    }
}

fn checked(owner: u64, offset: u64, index: u32) -> u64 {
    layout::check([owner, offset, index.into()])
}

/// What a slot's header says.
pub(crate) enum Header {
    Free,
    Placed { owner: u64, offset: u64 },
    Damaged,
}

impl Header {
    pub(crate) fn read(memory: &Memory, sizes: Sizes, index: u32) -> Self {
        let header = memory.words(sizes.slot(index));
        let [owner, offset, check] = [OWNER, OFFSET, CHECK].map(|word| header[word].load(Ordering::Acquire));
        match owner {
            0 => Self::Free,
            _ if check == checked(owner, offset, index) => Self::Placed { owner, offset },
            _ => Self::Damaged,
        }
    }
}
