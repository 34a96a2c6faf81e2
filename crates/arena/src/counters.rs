//! How far an application's connection was read and written, by the kernel's own count.
//!
//! ```text
//! read    = bytes received − bytes not read (SIOCINQ) − 1 if the application's FIN has arrived
//! written = bytes acknowledged + bytes not acknowledged (SIOCOUTQ) − 1 if this end connected − 1 if it sent its FIN
//! ```
//!
//! A FIN counts as received at once, and never as unread. The SYN counts as acknowledged at the end that connected, and the own
//! FIN as unacknowledged and then as acknowledged. The socket must not have urgent data out of line, which SIOCINQ stops at.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::GetStruct;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// `TCP_INFO`: the first words of what the kernel tells of a connection (`struct tcp_info` of linux/tcp.h).
type TcpInfoWords = [u32; 37];

/// `tcpi_bytes_acked` and `tcpi_bytes_received`, two words each.
const BYTES_ACKED: usize = 30;
const BYTES_RECEIVED: usize = 32;

#[derive(Clone, Copy)]
struct TcpInfo;

nix::getsockopt_impl!(TcpInfo, libc::IPPROTO_TCP, libc::TCP_INFO, TcpInfoWords, GetStruct<TcpInfoWords>);

/// States of a connection (include/net/tcp_states.h).
mod state {
    pub(super) const FIN_WAIT_1: u8 = 4;
    pub(super) const FIN_WAIT_2: u8 = 5;
    pub(super) const CLOSE: u8 = 7;
    pub(super) const CLOSE_WAIT: u8 = 8;
    pub(super) const LAST_ACK: u8 = 9;
    pub(super) const CLOSING: u8 = 11;
}

/// A connection that gets more bytes all the time is looked at this often until its numbers belong together.
const MAX_LOOKS: usize = 10_000;

/// What the kernel tells of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    state: u8,
    acked: u64,
    received: u64,
    unread: u64,
    unacked: u64,
    /// An error waits to be read.
    has_error: bool,
}

/// How far a connection was read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read.
    pub read: u64,
    /// The other end's FIN is what is read next, or was.
    pub finished: bool,
    /// Bytes written.
    pub written: u64,
    /// This end's FIN was sent behind them.
    pub shut_down: bool,
    /// The other end has reset it. What it sent before can still be read; nothing else is certain.
    pub was_reset: bool,
}

impl Progress {
    /// Of what came behind a preamble of this many bytes.
    pub fn behind(self, preamble: u16) -> Option<Self> {
        let written = self.written.checked_sub(preamble.into());
        // Of a connection that was reset the kernel may have forgotten it.
        let written = if self.was_reset { written.unwrap_or_default() } else { written? };
        Some(Self { written, ..self })
    }
}

impl Counters {
    /// Those of a connection that nobody reads or writes meanwhile.
    ///
    /// # Errors
    /// When the system does not tell, or the numbers never belong together.
    pub fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let mut before = info(socket)?;
        for _ in 0..MAX_LOOKS {
            let (unread, unacked) = (rustix::io::ioctl_fionread(socket)?, unacknowledged(socket)?);
            let has_error = has_error(socket)?;
            let after = info(socket)?;
            let (state, acked, received) = after;
            if after == before {
                return Ok(Self { state, acked, received, unread, unacked, has_error });
            }
            before = after;
        }
        Err(io::Error::other("the kernel's counters do not come to rest"))
    }

    /// What follows from them. `connected`: this end made the connection. `shut_down`: it may have sent its FIN. `read`: how far
    /// it knows to have read; exact if it knows of an error that it read.
    pub fn progress(self, connected: bool, shut_down: bool, read: u64) -> Option<Progress> {
        let Self { state, acked, received, unread, unacked, has_error } = self;
        let taken = received.checked_sub(unread)?;
        // After both FINs, or after a reset. A FIN counts, and a reset does not.
        let was_reset = state == state::CLOSE && (!shut_down || has_error || taken == read);
        let fin = match state {
            state::CLOSE => !was_reset,
            state => [state::CLOSE_WAIT, state::LAST_ACK, state::CLOSING].contains(&state),
        };
        let ours = match state {
            state::CLOSE => shut_down,
            state => [state::FIN_WAIT_1, state::FIN_WAIT_2, state::LAST_ACK, state::CLOSING].contains(&state),
        };
        let read = taken.checked_sub(fin.into())?;
        let written = (acked + unacked).checked_sub(u64::from(connected) + u64::from(ours));
        let written = if was_reset { written.unwrap_or_default() } else { written? };
        Some(Progress { read, finished: fin && unread == 0, written, shut_down: ours && !was_reset, was_reset })
    }
}

/// State, bytes acknowledged, bytes received.
fn info(socket: BorrowedFd<'_>) -> io::Result<(u8, u64, u64)> {
    let words = getsockopt(&socket, TcpInfo)?;
    let [state, ..] = words[0].to_ne_bytes();
    let long = |word: usize| {
        let bytes = [words[word].to_ne_bytes(), words[word + 1].to_ne_bytes()].concat();
        u64::from_ne_bytes(bytes.try_into().unwrap_or_default())
    };
    Ok((state, long(BYTES_ACKED), long(BYTES_RECEIVED)))
}

/// Bytes written that the other end has not acknowledged (`SIOCOUTQ` of tcp(7), which is `TIOCOUTQ`).
#[allow(unsafe_code)]
fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<u64> {
    type OutQ = rustix::ioctl::Getter<{ libc::TIOCOUTQ as rustix::ioctl::Opcode }, libc::c_int>;
    // SAFETY: for a descriptor of any kind this request fails or writes one int, which is what `OutQ` has room for.
    let count = unsafe { rustix::ioctl::ioctl(socket, OutQ::new()) }?;
    u64::try_from(count).map_err(io::Error::other)
}

/// Without reading it, which would take it from whoever must know of it.
fn has_error(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let mut polled = [PollFd::new(&socket, PollFlags::empty())];
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    Ok(polled[0].revents().contains(PollFlags::ERR))
}

/// Resets a connection, also one that another process has a descriptor of: closing it would not.
///
/// # Errors
/// When it cannot be reset any more.
pub fn reset(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::net::connect_unspec(socket)?)
}

/// How long the loopback may take for each step of the self-test.
const SELF_TEST_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether the counters of this system are as this module takes them to be: some systems tell nothing, or something else.
///
/// # Errors
/// What is different, for people.
pub fn self_test() -> Result<(), String> {
    let failed = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed("no socket to try with"))?;
    let address = listener.local_addr().map_err(failed("no socket to try with"))?;
    let mut near = TcpStream::connect(address).map_err(failed("no connection to try with"))?;
    let (mut far, _) = listener.accept().map_err(failed("no connection to try with"))?;
    let moved = failed("the connection that was tried with failed");
    let expect = |socket: &TcpStream, connected: bool, expected: (u64, bool, u64, bool)| {
        let until = Instant::now() + SELF_TEST_TIMEOUT;
        loop {
            let counters = Counters::of(socket.as_fd()).map_err(|error| error.to_string())?;
            let (read, _, _, shut_down) = expected;
            let found = counters.progress(connected, shut_down, read.saturating_sub(1)).map(|found| {
                let Progress { read, finished, written, shut_down, .. } = found;
                (read, finished, written, shut_down)
            });
            if found == Some(expected) {
                return Ok(());
            }
            // The loopback takes a moment.
            if Instant::now() > until {
                return Err(format!("the kernel counts {found:?} ({counters:?}) where {expected:?} is right"));
            }
            std::thread::yield_now();
        }
    };
    (&near).write_all(&[1; 100]).map_err(moved)?;
    far.read_exact(&mut [0; 40]).map_err(moved)?;
    expect(&far, false, (40, false, 0, false))?;
    expect(&near, true, (0, false, 100, false))?;
    near.shutdown(Shutdown::Write).map_err(moved)?;
    far.read_exact(&mut [0; 60]).map_err(moved)?;
    expect(&far, false, (100, true, 0, false))?;
    (&far).write_all(&[2; 7]).map_err(moved)?;
    near.read_exact(&mut [0; 7]).map_err(moved)?;
    expect(&near, true, (7, false, 100, true))?;
    far.shutdown(Shutdown::Write).map_err(moved)?;
    expect(&near, true, (7, true, 100, true))?;
    expect(&far, false, (100, true, 7, true))
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    /// Waits until the kernel has done what it was asked for.
    fn progress_once(
        socket: &TcpStream,
        (connected, shut_down, read): (bool, bool, u64),
        is_there: impl Fn(&Counters) -> bool,
    ) -> Progress {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let counters = Counters::of(socket.as_fd()).unwrap();
            if is_there(&counters) {
                return counters.progress(connected, shut_down, read).unwrap();
            }
            assert!(Instant::now() < until, "{counters:?}");
        }
    }

    #[test]
    fn this_system_counts_as_it_should() {
        self_test().unwrap();
    }

    #[test]
    fn a_reset_is_told_from_an_end_whatever_was_known() {
        for shut_down in [false, true] {
            let (mut app, mut here) = pair();
            app.write_all(&[1; 10]).unwrap();
            here.read_exact(&mut [0; 4]).unwrap();
            if shut_down {
                here.shutdown(Shutdown::Write).unwrap();
            }
            reset(app.as_fd()).unwrap();
            let is_closed = |counters: &Counters| counters.state == state::CLOSE;
            // It had noted less than it read, and the error is unread.
            let found = progress_once(&here, (false, shut_down, 3), is_closed);
            assert!(found.was_reset && !found.finished, "{found:?}");
            // It has read the error, and all that it read is noted.
            here.read_exact(&mut [0; 6]).unwrap();
            assert_eq!(here.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
            assert_eq!(here.read(&mut [0]).unwrap(), 0, "the kernel tells it once");
            let found = progress_once(&here, (false, shut_down, 10), is_closed);
            assert!(found.was_reset && !found.finished, "{found:?}");
        }
    }

    #[test]
    fn an_end_after_our_own_is_an_end() {
        let (mut app, mut here) = pair();
        app.write_all(&[1; 10]).unwrap();
        here.shutdown(Shutdown::Write).unwrap();
        assert_eq!(app.read(&mut [0]).unwrap(), 0);
        drop(app.shutdown(Shutdown::Write));
        here.read_exact(&mut [0; 4]).unwrap();
        let is_closed = |counters: &Counters| counters.state == state::CLOSE;
        let found = progress_once(&here, (false, true, 4), is_closed);
        assert_eq!((found.read, found.finished, found.was_reset), (4, false, false), "6 bytes are unread");
        here.read_exact(&mut [0; 6]).unwrap();
        let found = progress_once(&here, (false, true, 4), is_closed);
        assert_eq!((found.read, found.finished, found.was_reset, found.shut_down), (10, true, false, true));
    }

    #[test]
    fn a_reset_reaches_an_application_though_another_descriptor_is_open() {
        let (mut app, here) = pair();
        let kept = here.try_clone().unwrap();
        reset(here.as_fd()).unwrap();
        assert_eq!(app.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        drop(kept);
    }
}
