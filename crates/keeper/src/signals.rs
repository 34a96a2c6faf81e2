//! Signals as something that a poll sees.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::{flag, low_level};

const ALL: [i32; 6] = [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD];

/// The signals that a keeper handles. From here on they no longer end the process.
#[derive(Debug)]
pub struct Signals {
    wake: UnixStream,
    pending: Vec<(i32, Arc<AtomicBool>)>,
}

impl Signals {
    /// Starts to listen.
    ///
    /// # Errors
    ///
    /// The system allows it not.
    pub fn listen() -> io::Result<Self> {
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let mut pending = Vec::new();
        for signal in ALL {
            let arrived = Arc::new(AtomicBool::new(false));
            // In this order, so that what woke the poll is known when it returns.
            flag::register(signal, Arc::clone(&arrived))?;
            low_level::pipe::register(signal, waker.try_clone()?)?;
            pending.push((signal, arrived));
        }
        Ok(Self { wake, pending })
    }

    /// Those that arrived since the last call.
    pub(crate) fn take(&self) -> Vec<i32> {
        while matches!((&self.wake).read(&mut [0; 64]), Ok(1..)) {}
        let arrived = self.pending.iter().filter(|(_, arrived)| arrived.swap(false, Ordering::SeqCst));
        arrived.map(|(signal, _)| *signal).collect()
    }

    /// Whether one that ends a process has arrived.
    #[must_use]
    pub fn ask_to_stop(&self) -> bool {
        self.take().iter().any(|signal| [SIGTERM, SIGINT].contains(signal))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
