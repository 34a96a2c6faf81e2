use std::fmt;
use std::ops::{Deref, DerefMut, Range};

use crate::codec::{DATA_HEADER, MAX_FRAME};

/// The byte that stands behind application bytes in a [`Block`]: the content type of a TLS record with application data (RFC
/// 8446 §5.1), which is sealed with what is in front of it.
pub const TRAILER: u8 = 23;

/// Application bytes that fill a block: with a Data frame's header and [`TRAILER`] they are as long as it.
pub(crate) const FULL: usize = Block::SIZE - DATA_HEADER - 1;

/// Memory for the bytes of one record. The session borrows it from whoever drives it, and gives it back once it has no use for
/// it, so that sessions that rest hold none.
pub struct Block(Memory);

enum Memory {
    Heap(Box<[u8; Block::SIZE]>),
    Slot(Box<dyn Slot>),
}

/// Memory for a [`Block`] that outlives this process. Dropping it gives it back.
pub trait Slot: Send + Sync {
    /// What is in it.
    fn bytes(&self) -> &[u8; Block::SIZE];

    /// What is in it, to be changed.
    fn bytes_mut(&mut self) -> &mut [u8; Block::SIZE];

    /// Notes, before anything is written, that its first byte is to be the one at `offset` of what the application sends,
    /// or that it holds none.
    fn place(&mut self, offset: Option<u64>);
}

impl Block {
    /// Its size in bytes.
    pub const SIZE: usize = MAX_FRAME;

    /// Most application bytes that a read in place puts into one, from its beginning on.
    pub const ROOM: usize = FULL;

    /// One in memory that is kept elsewhere.
    pub fn in_slot(slot: Box<dyn Slot>) -> Self {
        Self(Memory::Slot(slot))
    }

    /// Whether its memory is kept elsewhere.
    pub fn is_slot(&self) -> bool {
        matches!(self.0, Memory::Slot(_))
    }

    pub(crate) fn place(&mut self, offset: Option<u64>) {
        if let Memory::Slot(slot) = &mut self.0 {
            slot.place(offset);
        }
    }
}

/// A copy of the contents, in memory of this process.
impl Clone for Block {
    fn clone(&self) -> Self {
        Self(Memory::Heap(Box::new(**self)))
    }
}

/// Cleared memory.
impl Default for Block {
    fn default() -> Self {
        Self(Memory::Heap(Box::new([0; Self::SIZE])))
    }
}

impl Deref for Block {
    type Target = [u8; Self::SIZE];

    fn deref(&self) -> &Self::Target {
        match &self.0 {
            Memory::Heap(bytes) => bytes,
            Memory::Slot(slot) => slot.bytes(),
        }
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut Self::Target {
        match &mut self.0 {
            Memory::Heap(bytes) => bytes,
            Memory::Slot(slot) => slot.bytes_mut(),
        }
    }
}

/// Without the contents, which are the application's.
impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Block")
    }
}

/// The application bytes of a Data frame, and where they are.
#[derive(Clone, Debug)]
pub struct Payload<'a>(Storage<'a>);

#[derive(Clone, Debug)]
enum Storage<'a> {
    Lent(&'a [u8]),
    /// The last byte is the trailer.
    Trailed(&'a [u8]),
    Own(Block, Range<usize>),
}

impl<'a> Payload<'a> {
    pub(crate) const EMPTY: Payload<'static> = Payload(Storage::Lent(&[]));

    /// Those `bytes` but the last, which is the trailer.
    pub(crate) fn with_trailer(bytes: &'a [u8]) -> Self {
        debug_assert_eq!(bytes.last(), Some(&TRAILER));
        Self(Storage::Trailed(bytes))
    }

    /// Those bytes of a block, which comes along: the session need not copy them.
    pub fn owned(block: Block, bytes: Range<usize>) -> Self {
        Self(Storage::Own(block, bytes))
    }

    /// The bytes and [`TRAILER`] behind them, if that is how they are kept.
    pub fn trailed(&self) -> Option<&'a [u8]> {
        match self.0 {
            Storage::Trailed(bytes) => Some(bytes),
            Storage::Lent(_) | Storage::Own(..) => None,
        }
    }

    /// They come in a block of their own.
    pub fn is_owned(&self) -> bool {
        matches!(self.0, Storage::Own(..))
    }

    /// The first `length` bytes of it.
    pub(crate) fn cut(self, length: usize) -> Self {
        match self.0 {
            Storage::Lent(bytes) => Self(Storage::Lent(&bytes[..length.min(bytes.len())])),
            Storage::Trailed(bytes) if length < bytes.len() - 1 => Self(Storage::Lent(&bytes[..length])),
            Storage::Trailed(bytes) => Self(Storage::Trailed(bytes)),
            Storage::Own(block, bytes) => {
                let end = bytes.end.min(bytes.start + length);
                Self(Storage::Own(block, bytes.start..end))
            }
        }
    }

    /// Its block, if it has one, and which of its bytes are the payload.
    pub(crate) fn into_block(self) -> Result<(Block, Range<usize>), Self> {
        match self.0 {
            Storage::Own(block, bytes) => Ok((block, bytes)),
            other => Err(Self(other)),
        }
    }
}

impl Deref for Payload<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Storage::Lent(bytes) => bytes,
            Storage::Trailed(bytes) => &bytes[..bytes.len() - 1],
            Storage::Own(block, bytes) => &block[bytes.clone()],
        }
    }
}

impl<'a> From<&'a [u8]> for Payload<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(Storage::Lent(bytes))
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Payload<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::from(bytes.as_slice())
    }
}

/// Compares bytes, not storage.
impl PartialEq for Payload<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Payload<'_> {}
