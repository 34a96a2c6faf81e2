//! The program that the engine is, as it is on the disk now, and as it was when it last worked.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::{env, io};

use rustix::fs::{Mode, OFlags};

/// Where an engine finds its keeper.
pub const KEEPER_VARIABLE: &str = "FERRY_KEEPER";

/// A program, held open: it can be started when its place on the disk has long been taken by another.
#[derive(Debug)]
pub(crate) struct Executable {
    file: OwnedFd,
    identity: Identity,
}

/// Tells one file from another that took its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl Executable {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let found = rustix::fs::fstat(&file)?;
        #[allow(clippy::useless_conversion, reason = "their types differ from one architecture to the next")]
        let changed = (i64::from(found.st_mtime), i64::try_from(found.st_mtime_nsec).unwrap_or_default());
        Ok(Self { file, identity: Identity { device: found.st_dev, inode: found.st_ino, changed } })
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Starts it, whatever is in its place on the disk now.
    pub(crate) fn start(&self, command: &Invocation, socket: &Path) -> io::Result<Child> {
        // The child resolves it while it still has the descriptor.
        command.start(format!("/proc/self/fd/{}", self.file.as_raw_fd()).as_ref(), socket)
    }
}

/// What to start as the engine.
#[derive(Debug, Clone)]
pub struct Invocation {
    name: OsString,
    path: PathBuf,
    args: Vec<OsString>,
}

impl Invocation {
    /// `command` is a program, by its path or by a name that `PATH` leads to, and its arguments.
    ///
    /// # Errors
    ///
    /// There is no such program.
    pub fn new(command: &[OsString]) -> io::Result<Self> {
        let missing = |what| io::Error::new(io::ErrorKind::NotFound, what);
        let (name, args) = command.split_first().ok_or_else(|| missing("no command is given".to_owned()))?;
        let path = find(name).ok_or_else(|| missing(format!("there is no program {}", Path::new(name).display())))?;
        Ok(Self { name: name.clone(), path, args: args.to_vec() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Starts what is on the disk, under its own name, which a start from a descriptor would not give it.
    pub(crate) fn start_from_disk(&self, socket: &Path) -> io::Result<Child> {
        self.start(self.path.as_os_str(), socket)
    }

    /// In a process group of its own: what a terminal sends to all of a group reaches the engine once, through the keeper.
    fn start(&self, program: &OsStr, socket: &Path) -> io::Result<Child> {
        let mut command = Command::new(program);
        command.arg0(&self.name).args(&self.args).env(KEEPER_VARIABLE, socket).process_group(0);
        command.spawn()
    }
}

fn find(name: &OsStr) -> Option<PathBuf> {
    if Path::new(name).components().count() > 1 {
        return Some(name.into()).filter(|path: &PathBuf| path.is_file());
    }
    let places = env::var_os("PATH")?;
    env::split_paths(&places).map(|place| place.join(name)).find(|path| path.is_file())
}
