//! The process behind a connection.

use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::socket::Peer;

/// A process of this user, held so that its pid cannot become another's.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pid: Option<Pid>,
    /// None in another PID namespace, or on a kernel without pidfds.
    handle: Option<Arc<OwnedFd>>,
}

impl Process {
    /// Call while the peer's connection is fresh: the pid is still its own.
    pub(crate) fn of(peer: Peer) -> Self {
        let handle = peer.pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()).map(Arc::new);
        Self { pid: peer.pid, handle }
    }

    pub(crate) fn pid(&self) -> Option<i32> {
        self.pid.map(|pid| pid.as_raw_nonzero().get())
    }

    /// Readable once the process has ended.
    pub(crate) fn handle(&self) -> Option<BorrowedFd<'_>> {
        self.handle.as_ref().map(|handle| handle.as_fd())
    }

    /// Whether both are one process that lives.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.pid.is_some() && self.pid == other.pid && !self.has_ended()
    }

    /// Whether it is known to have ended; a process that cannot be watched counts as ended.
    pub(crate) fn has_ended(&self) -> bool {
        let Some(handle) = self.handle() else { return true };
        let mut ended = [PollFd::from_borrowed_fd(handle, PollFlags::IN)];
        poll(&mut ended, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }

    /// Kills it. Returns false if it cannot be reached.
    pub(crate) fn kill(&self) -> bool {
        self.handle().is_some_and(|handle| pidfd_send_signal(handle, Signal::KILL).is_ok())
    }

    /// Whether somebody holds it: a debugger, or SIGSTOP.
    pub(crate) fn is_stopped(&self) -> bool {
        let stat = self.pid().and_then(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok());
        // The name before the state is in brackets, and may hold brackets.
        let state = stat.as_deref().and_then(|stat| stat.rsplit_once(") ")).and_then(|(_, rest)| rest.chars().next());
        matches!(state, Some('T' | 't'))
    }
}
