//! The Unix socket between engine and keeper: where it may be, who may use it, and packets with descriptors.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::{fs, io};

use nix::sys::socket::{getsockopt, sockopt};
use rustix::cmsg_space;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use crate::wire::MAX_BATCH;

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);
const BACKLOG: i32 = 16;

/// In place of a path: the keeper is the engine's parent, and its standard input is the connection to it.
pub const PARENT: &str = "-";

/// The keeper's socket, and the lock that says that it is in use.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: OwnedFd,
    path: PathBuf,
    /// Held for as long as this process lives.
    _lock: OwnedFd,
}

impl Listener {
    /// Takes the place at `path`. What a dead keeper left there is replaced.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        check_directory(directory(path))?;
        let lock = take_lock(path)?;
        match fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
            Ok(_) => return Err(io::Error::other(format!("{} exists and is not a socket", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        // Before it listens, so that there is no moment in which others could connect.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(Self { socket, path: path.to_owned(), _lock: lock })
    }

    /// The next engine that connects, and its process where that is known.
    pub(crate) fn accept(&self) -> io::Result<(OwnedFd, Peer)> {
        let socket = rustix::net::accept_with(&self.socket, FLAGS)?;
        let peer = Peer::of(&socket)?;
        Ok((socket, peer))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Still under the lock: it is no successor's.
        _ = fs::remove_file(&self.path);
    }
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes the directory if it is missing. Others must not be able to put a socket of theirs into it.
fn check_directory(dir: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(io::Error::new(error.kind(), format!("cannot make {}: {error}", dir.display())));
        }
        _ => {}
    }
    let found = fs::metadata(dir)?;
    let problem = directory_problem(found.is_dir(), found.uid(), found.mode(), rustix::process::geteuid().as_raw());
    problem.map_or(Ok(()), |problem| {
        let text = format!("{} {problem}; use a directory of this user with mode 0700", dir.display());
        Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
    })
}

fn directory_problem(is_dir: bool, owner: u32, mode: u32, own: u32) -> Option<&'static str> {
    if !is_dir {
        Some("is not a directory")
    } else if owner != own {
        Some("belongs to another user")
    } else if mode & 0o022 != 0 {
        Some("can be written by others")
    } else {
        None
    }
}

fn take_lock(path: &Path) -> io::Result<OwnedFd> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let lock = rustix::fs::open(&name, flags, Mode::RUSR | Mode::WUSR)?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(Errno::WOULDBLOCK) => {
            let text = format!("another keeper is running at {}", path.display());
            Err(io::Error::new(io::ErrorKind::AddrInUse, text))
        }
        Err(error) => Err(error.into()),
    }
}

/// The two ends of a connection between a keeper and its child.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?)
}

/// Connects to a keeper, and checks that it is the same user's.
pub(crate) fn connect(path: &Path) -> io::Result<OwnedFd> {
    if path.as_os_str() == PARENT {
        // It was made for this process, by a parent of the same user.
        return io::stdin().as_fd().try_clone_to_owned();
    }
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Peer::of(&socket)?;
    Ok(socket)
}

/// The process at the other end when it connected, or listened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// None if it is in another PID namespace.
    pub(crate) pid: Option<rustix::process::Pid>,
}

impl Peer {
    fn of(socket: &OwnedFd) -> io::Result<Self> {
        let found = getsockopt(socket, sockopt::PeerCredentials)?;
        Self::checked(found.uid(), found.pid(), rustix::process::geteuid().as_raw())
    }

    fn checked(uid: u32, pid: i32, own: u32) -> io::Result<Self> {
        if uid != own {
            let text = format!("the process at the other end is user {uid}'s, this one is user {own}'s");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        Ok(Self { pid: rustix::process::Pid::from_raw(pid) })
    }
}

/// A packet as it was received.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) len: usize,
    pub(crate) descriptors: Vec<OwnedFd>,
    /// It was longer than the buffer.
    pub(crate) is_cut: bool,
    /// There were more descriptors than fit, or this process could not receive them.
    pub(crate) lost_descriptors: bool,
}

/// Sends one packet. Never blocks.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_BATCH))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
    }
    let bytes = io::IoSlice::new(bytes);
    match rustix::net::sendmsg(socket, &[bytes], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
        Ok(_) => Ok(()),
        // As many of this user's descriptors are under way as may be: room comes when they are received.
        Err(Errno::TOOMANYREFS) => Err(io::ErrorKind::WouldBlock.into()),
        Err(error) => Err(error.into()),
    }
}

/// Receives one packet with at most `MAX` descriptors; None at the end. Never blocks.
pub(crate) fn receive<const SPACE: usize>(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<Packet>> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(socket, &mut [io::IoSliceMut::new(buffer)], &mut control, flags)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    let lost_descriptors = received.flags.contains(ReturnFlags::CTRUNC);
    if received.bytes == 0 && descriptors.is_empty() && !lost_descriptors {
        return Ok(None);
    }
    let is_cut = received.flags.contains(ReturnFlags::TRUNC);
    Ok(Some(Packet { len: received.bytes, descriptors, is_cut, lost_descriptors }))
}

/// Space for one descriptor, the most that a request carries.
pub(crate) const ONE: usize = cmsg_space!(ScmRights(1));
/// Space for as many as one message can carry.
pub(crate) const BATCH: usize = cmsg_space!(ScmRights(MAX_BATCH));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_another_user_is_refused() {
        let refused = Peer::checked(1001, 17, 1000).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(Peer::checked(0, 17, 1000).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert!(Peer::checked(1000, 17, 1000).unwrap().pid.is_some());
    }

    #[test]
    fn a_process_of_another_pid_namespace_has_no_pid() {
        assert_eq!(Peer::checked(1000, 0, 1000).unwrap(), Peer { pid: None });
    }

    #[test]
    fn only_a_directory_that_is_the_users_own_will_do() {
        assert_eq!(directory_problem(true, 1000, 0o40700, 1000), None);
        assert_eq!(directory_problem(true, 1000, 0o40755, 1000), None);
        assert!(directory_problem(true, 0, 0o41777, 1000).is_some());
        assert!(directory_problem(true, 1000, 0o40777, 1000).is_some());
        assert!(directory_problem(true, 1000, 0o40770, 1000).is_some());
        assert!(directory_problem(false, 1000, 0o100700, 1000).is_some());
    }
}
