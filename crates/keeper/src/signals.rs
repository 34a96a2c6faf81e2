//! Signals as something that a poll sees.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
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

    /// The end of standard input counts as SIGTERM from now on.
    pub fn stop_with_stdin(&self) {
        thread::spawn(|| {
            let mut stdin = io::stdin().lock();
            while matches!(stdin.read(&mut [0; 64]), Ok(1..)) {}
            _ = low_level::raise(SIGTERM);
        });
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

/// Ends this process without anything of it being dropped, which would take back what its keeper holds.
pub fn exit_at_once(code: u8) -> ! {
    low_level::exit(code.into())
}

/// Has this process end with its parent, however that ends. Returns false if it has ended already: its end of the connection,
/// standard input, is closed.
#[must_use]
pub fn end_with_parent() -> bool {
    // Every kernel can; where it is forbidden, the closed connection has to do.
    _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let stdin = io::stdin();
    let mut connection = [PollFd::new(&stdin, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    _ = poll(&mut connection, Some(&at_once));
    !connection[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
