//! A connection in memory.

use std::io::{self, IoSlice, IoSliceMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use crate::net::Stream;

/// One end of a connection that takes whatever is written.
pub(crate) struct Wire {
    incoming: Arc<Mutex<Way>>,
    outgoing: Arc<Mutex<Way>>,
    calls: Arc<Mutex<Calls>>,
}

/// One direction: what was written and not read.
#[derive(Default)]
struct Way {
    bytes: Vec<u8>,
    read: usize,
}

/// What an end has asked of the connection: each would be a system call.
#[derive(Clone, Copy, Default)]
pub(crate) struct Calls {
    pub(crate) writes: u64,
    pub(crate) reads: u64,
}

/// The calls of the near end.
pub(crate) struct Counted(Arc<Mutex<Calls>>);

impl Counted {
    pub(crate) fn forget(&self) {
        *lock(&self.0) = Calls::default();
    }

    pub(crate) fn of_near_end(&self) -> Calls {
        *lock(&self.0)
    }
}

/// The near end and the far one.
pub(crate) type Ends = (Box<dyn Stream>, Box<dyn Stream>);

impl Wire {
    pub(crate) fn pair() -> (Ends, Counted) {
        let (one, other) = (Arc::<Mutex<Way>>::default(), Arc::<Mutex<Way>>::default());
        let calls = Arc::<Mutex<Calls>>::default();
        let near = Self { incoming: one.clone(), outgoing: other.clone(), calls: calls.clone() };
        let far = Self { incoming: other, outgoing: one, calls: Arc::default() };
        ((Box::new(near), Box::new(far)), Counted(calls))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stream for Wire {
    fn poll_read(&mut self, _: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        lock(&self.calls).reads += 1;
        let mut way = lock(&self.incoming);
        let mut filled = 0;
        for buf in bufs {
            let count = buf.len().min(way.bytes.len() - way.read);
            buf[..count].copy_from_slice(&way.bytes[way.read..way.read + count]);
            way.read += count;
            filled += count;
        }
        if way.read == way.bytes.len() {
            way.bytes.clear();
            way.read = 0;
        }
        if filled == 0 { Poll::Pending } else { Poll::Ready(Ok(filled)) }
    }

    fn poll_write(&mut self, _: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        lock(&self.calls).writes += 1;
        let mut way = lock(&self.outgoing);
        bufs.iter().for_each(|buf| way.bytes.extend_from_slice(buf));
        Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()))
    }

    fn poll_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn register_here(self: Box<Self>) -> Box<dyn Stream> {
        self
    }
}
