use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ferry_session::{Block, Instance};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::process::{Resource, getrlimit};
use thiserror::Error;

use crate::layout::{self, Format, MAGIC, Sizes, header};
use crate::memory::Memory;
use crate::record::{Identity, Record, State, halves, joined};
use crate::scan::{self, Inheritance};
use crate::space::Space;

/// The records and the bytes of all sessions of one tunnel.
pub struct Arena(Arc<Space>);

/// Why memory cannot be taken over.
#[derive(Debug, Error)]
pub enum OpenError {
    /// It was written by another version of this program, or is something else.
    #[error("it is in a format that this version does not know")]
    Format,
    /// Its header does not fit it.
    #[error("its header is damaged")]
    Damaged,
    /// The system does not let it be used.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Arena {
    /// An empty one in memory that can be handed to another process, as [`fd`](Self::fd).
    ///
    /// # Errors
    /// When the system has no such memory.
    pub fn create(sizes: Sizes, instance: Instance) -> io::Result<Self> {
        let sizes = sizes.clamped();
        let fd = rustix::fs::memfd_create("ferry-arena", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let length = Memory::length(sizes.words(), sizes.slots as usize).ok_or(io::ErrorKind::InvalidInput)?;
        // Past this limit the kernel does not only refuse: it sends SIGXFSZ, which ends the process.
        if getrlimit(Resource::Fsize).current.is_some_and(|most| most < length as u64) {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "a file may not be as large (ulimit -f)"));
        }
        rustix::fs::ftruncate(&fd, length as u64)?;
        // Whoever maps it must not lose pages, which would end the process at its next access.
        rustix::fs::fcntl_add_seals(&fd, SEALS)?;
        Ok(Self::formatted(Memory::shared(fd, sizes.words(), sizes.slots as usize)?, sizes, instance))
    }

    /// An empty one in this process, which nothing outlives: for tests.
    pub fn in_process(sizes: Sizes, instance: Instance) -> Self {
        let sizes = sizes.clamped();
        Self::formatted(Memory::heap(sizes.words(), sizes.slots as usize), sizes, instance)
    }

    fn formatted(memory: Memory, sizes: Sizes, instance: Instance) -> Self {
        let words = memory.words(0..header::END);
        let store = |word: usize, value: u64| words[word].store(value, Ordering::Release);
        MAGIC.into_iter().zip(header::MAGIC).for_each(|(value, word)| store(word, value));
        store(header::FORMAT, Format::NEWEST as u64);
        store(header::RECORDS, sizes.records.into());
        store(header::SLOTS, sizes.slots.into());
        halves(instance.0).into_iter().zip(header::INSTANCE).for_each(|(value, word)| store(word, value));
        store(header::STARTS, 1);
        store(header::CHECK, checked(words));
        Self(Arc::new(Space::new(memory, Format::NEWEST, sizes)))
    }

    /// The arena of a process that is gone, and what it left there.
    ///
    /// # Errors
    /// See [`OpenError`]. Nothing of it can be adopted then.
    pub fn open(fd: OwnedFd) -> Result<(Self, Inheritance), OpenError> {
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(io::Error::from)?;
        let length = rustix::fs::fstat(&fd).map_err(io::Error::from)?.st_size;
        if !seals.contains(SEALS) || length < LEAST.words() as i64 {
            return Err(OpenError::Damaged);
        }
        let mut head = [0; header::END * 8];
        if rustix::io::pread(&fd, &mut head, 0).map_err(io::Error::from)? != head.len() {
            return Err(OpenError::Damaged);
        }
        let words = head.chunks_exact(8).map(|chunk| u64::from_ne_bytes(chunk.try_into().unwrap_or_default()));
        let (format, sizes) = read_header(&words.collect::<Vec<_>>())?;
        let memory = Memory::shared(fd, sizes.words(), sizes.slots as usize)?;
        Self::take_over(memory, format, sizes)
    }

    /// As [`open`](Self::open), of words as they stand in front of an arena, and slots that `fill` fills: for tests.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_copy(
        words: &[u64],
        mut fill: impl FnMut(u32, &mut [u8; Block::SIZE]),
    ) -> Result<(Self, Inheritance), OpenError> {
        let (format, sizes) = read_header(words)?;
        if words.len() != sizes.words() {
            return Err(OpenError::Damaged);
        }
        let memory = Arc::new(Memory::heap(words.len(), sizes.slots as usize));
        for (word, value) in memory.words(0..words.len()).iter().zip(words) {
            word.store(*value, Ordering::Release);
        }
        for mut bytes in std::iter::from_fn(|| memory.take()).collect::<Vec<_>>() {
            fill(bytes.index(), bytes.get_mut());
        }
        let memory = Arc::into_inner(memory).ok_or(OpenError::Damaged)?;
        Self::take_over(memory, format, sizes)
    }

    /// A copy of the words in front of the slots: for tests.
    pub fn copy_words(&self) -> Vec<u64> {
        self.0.memory().words(0..self.sizes().words()).iter().map(|word| word.load(Ordering::Acquire)).collect()
    }

    fn take_over(memory: Memory, format: Format, sizes: Sizes) -> Result<(Self, Inheritance), OpenError> {
        let space = Arc::new(Space::new(memory, format, sizes));
        let used = |word: usize, most: u32| {
            let used = space.header()[word].load(Ordering::Acquire);
            u32::try_from(used).ok().filter(|used| *used <= most).ok_or(OpenError::Damaged)
        };
        let (records, slots) = (used(header::RECORDS_USED, sizes.records)?, used(header::SLOTS_USED, sizes.slots)?);
        space.header()[header::STARTS].fetch_add(1, Ordering::AcqRel);
        let inheritance = scan::scan(&space, records, slots);
        Ok((Self(space), inheritance))
    }

    /// The file that it is in, unless it is in this process.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.memory().fd()
    }

    /// The tunnel that it belongs to, whichever process runs that.
    pub fn instance(&self) -> Instance {
        let words = &self.0.header()[header::INSTANCE];
        Instance(joined([0, 1].map(|half| words[half].load(Ordering::Acquire))))
    }

    /// How many processes have used it.
    pub fn starts(&self) -> u64 {
        self.0.header()[header::STARTS].load(Ordering::Acquire)
    }

    /// How much it holds.
    pub fn sizes(&self) -> Sizes {
        self.0.sizes()
    }

    /// Notes a session: from then on it is found by whoever takes the arena over. Nothing if there is no room for it.
    pub fn note(&self, identity: &Identity, state: &State) -> Option<Record> {
        Record::write(&self.0, identity, state)
    }
}

/// No file of an arena is shorter than this one.
const LEAST: Sizes = Sizes { records: 1, slots: 1 };

const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// Of everything in the header that does not change.
fn checked(words: &[AtomicU64]) -> u64 {
    layout::check(words[..header::STARTS].iter().map(|word| word.load(Ordering::Acquire)))
}

fn read_header(words: &[u64]) -> Result<(Format, Sizes), OpenError> {
    let words = words.get(..header::END).ok_or(OpenError::Damaged)?;
    let is_ours = words[header::MAGIC] == MAGIC;
    let format = Format::read(words[header::FORMAT]).filter(|_| is_ours).ok_or(OpenError::Format)?;
    if words[header::CHECK] != layout::check(words[..header::STARTS].iter().copied()) {
        return Err(OpenError::Damaged);
    }
    let number = |word: usize| u32::try_from(words[word]).ok();
    let (Some(records), Some(slots)) = (number(header::RECORDS), number(header::SLOTS)) else {
        return Err(OpenError::Damaged);
    };
    let sizes = Sizes { records, slots };
    if sizes.are_possible() { Ok((format, sizes)) } else { Err(OpenError::Damaged) }
}
