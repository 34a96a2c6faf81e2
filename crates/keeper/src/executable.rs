//! The program that the engine is, as it is on the disk now, and as it was when it last worked.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::{env, io};

use rustix::fs::{Mode, OFlags};

use crate::socket::{self, PARENT};

/// Where an engine finds its keeper: a path, or [`PARENT`](crate::PARENT).
pub const KEEPER_VARIABLE: &str = "FERRY_KEEPER";

/// How an engine reaches its keeper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// By this socket. The engine outlives its keeper.
    Socket(PathBuf),
    /// By its standard input, which no other process can reach. The engine ends with its keeper.
    Parent,
}

/// An engine that was just started.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) child: Child,
    /// The connection to it, if it reaches its keeper as its parent.
    pub(crate) socket: Option<OwnedFd>,
}

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
    pub(crate) fn start(&self, command: &Invocation, reach: &Reach) -> io::Result<Spawned> {
        // The child resolves it while it still has the descriptor.
        command.start(format!("/proc/self/fd/{}", self.file.as_raw_fd()).as_ref(), reach)
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

    /// What this process was started as: under the name that it was called by, which an upgrade may give to another file.
    ///
    /// # Errors
    ///
    /// The system does not tell, or it was started by the dynamic loader, which cannot be told what to load.
    pub fn of_this_process() -> io::Result<Self> {
        let mut args = env::args_os();
        let name = args.next().unwrap_or_default();
        let own = Executable::open("/proc/self/exe".as_ref())?.identity();
        let named = find(&name).filter(|path| Executable::open(path).is_ok_and(|file| file.identity() == own));
        let path = named.map_or_else(env::current_exe, Ok)?;
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld")) {
            return Err(io::Error::other("it was started by the dynamic loader"));
        }
        Ok(Self { name, path, args: args.collect() })
    }

    /// The program.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The program and its arguments, as [`new`](Self::new) takes them.
    #[must_use]
    pub fn words(&self) -> Vec<OsString> {
        [self.path.clone().into()].into_iter().chain(self.args.iter().cloned()).collect()
    }

    /// Becomes the engine, without a keeper. Returns only if that is not possible.
    #[must_use]
    pub fn become_unkept(&self) -> io::Error {
        Command::new(&self.path).arg0(&self.name).args(&self.args).env(KEEPER_VARIABLE, "off").exec()
    }

    /// Starts what is on the disk, under its own name, which a start from a descriptor would not give it.
    pub(crate) fn start_from_disk(&self, reach: &Reach) -> io::Result<Spawned> {
        self.start(self.path.as_os_str(), reach)
    }

    fn start(&self, program: &OsStr, reach: &Reach) -> io::Result<Spawned> {
        let mut command = Command::new(program);
        command.arg0(&self.name).args(&self.args);
        let socket = match reach {
            // In a process group of its own: what a terminal sends to all of a group reaches the engine once.
            Reach::Socket(path) => {
                command.env(KEEPER_VARIABLE, path).process_group(0);
                None
            }
            Reach::Parent => {
                let (own, engines) = socket::pair()?;
                command.env(KEEPER_VARIABLE, PARENT).stdin(Stdio::from(engines));
                Some(own)
            }
        };
        Ok(Spawned { child: command.spawn()?, socket })
    }
}

fn find(name: &OsStr) -> Option<PathBuf> {
    if Path::new(name).components().count() > 1 {
        return Some(name.into()).filter(|path: &PathBuf| path.is_file());
    }
    let places = env::var_os("PATH")?;
    env::split_paths(&places).map(|place| place.join(name)).find(|path| path.is_file())
}
