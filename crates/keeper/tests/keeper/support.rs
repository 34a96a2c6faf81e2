//! A keeper on a thread, engines on this one, and engines as processes of their own.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use tempfile::TempDir;

use ferry_keeper::{Client, Event, Inherited, Keeper, Options, Tag};

/// Long enough that only a test that fails waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A keeper that ends with the test.
pub(crate) struct Running {
    stop: Option<OwnedFd>,
    thread: Option<thread::JoinHandle<()>>,
    path: PathBuf,
    dir: Option<TempDir>,
}

impl Running {
    pub(crate) fn start(options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keeper.sock");
        let mut running = Self::start_at(&path, options);
        running.dir = Some(dir);
        running
    }

    pub(crate) fn start_at(path: &Path, options: Options) -> Self {
        let mut keeper = Keeper::bind(path, options).unwrap();
        let (wake, stop) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let thread = thread::spawn(move || {
            while !has_ended(&wake) {
                keeper.turn(Some(wake.as_fd()), None).unwrap();
            }
        });
        Self { stop: Some(stop), thread: Some(thread), path: path.to_owned(), dir: None }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn connect(&self) -> (Client, Inherited) {
        Client::connect(&self.path, PATIENCE).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop = None;
        let ended = self.thread.take().map(thread::JoinHandle::join);
        assert!(thread::panicking() || ended.is_none_or(|ended| ended.is_ok()), "the keeper failed");
    }
}

fn has_ended(pipe: &OwnedFd) -> bool {
    poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
}

pub(crate) fn tag(number: u64) -> Tag {
    let mut tag = [0; 32];
    tag[..8].copy_from_slice(&number.to_be_bytes());
    Tag(tag)
}

/// A descriptor that can be told from others: a file in memory that holds `number`.
pub(crate) fn descriptor(number: u64) -> OwnedFd {
    let file = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
    rustix::io::write(&file, &number.to_be_bytes()).unwrap();
    file
}

/// What [`descriptor`] was given.
pub(crate) fn number(descriptor: &OwnedFd) -> u64 {
    let mut bytes = [0; 8];
    rustix::io::pread(descriptor, &mut bytes, 0).unwrap();
    u64::from_be_bytes(bytes)
}

pub(crate) fn numbers(inherited: &Inherited) -> Vec<(Tag, u64)> {
    let mut numbers: Vec<_> = inherited.descriptors.iter().map(|(tag, fd)| (*tag, number(fd))).collect();
    numbers.sort();
    numbers
}

/// Waits for something from the keeper.
pub(crate) fn wait(client: &Client) {
    let mut interest = PollFlags::IN;
    interest.set(PollFlags::OUT, client.wants_write());
    poll(&mut [PollFd::new(client, interest)], None).unwrap();
}

pub(crate) fn next_event(client: &mut Client) -> io::Result<Event> {
    loop {
        if let Some(event) = client.poll_event()? {
            return Ok(event);
        }
        wait(client);
    }
}

/// Stores, and waits for room where there is none.
pub(crate) fn store(client: &mut Client, tag: &Tag, fd: &OwnedFd) -> u64 {
    loop {
        match client.store(tag, fd.as_fd()) {
            Ok(seq) => return seq,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait(client);
                client.poll_event().unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Waits until everything up to `seq` was carried out, and returns what was refused.
pub(crate) fn confirmed(client: &mut Client, seq: u64) -> Vec<Tag> {
    let mut refused = Vec::new();
    loop {
        match next_event(client).unwrap() {
            Event::Confirmed { through } if through >= seq => return refused,
            Event::Refused { tag, .. } => refused.push(tag),
            _ => {}
        }
    }
}

pub(crate) fn open_descriptors(pid: rustix::process::Pid) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// An engine in a process of its own. It does what it is told, a line at a time; see `engines::engine_process`.
pub(crate) struct EngineProcess {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl EngineProcess {
    pub(crate) fn start(socket: &Path) -> Self {
        Self::start_as("engines::engine_process", "ENGINE_OF", socket)
    }

    /// This program again, to run what looks like a test, with a variable that says that it is none.
    pub(crate) fn start_as(test: &str, variable: &str, socket: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(variable, socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    /// The next line that it says, after what the test harness says.
    pub(crate) fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the engine has ended");
            // The harness writes the name of the test in front of its first line.
            if let Some((_, said)) = line.split_once('>') {
                return said.trim().to_owned();
            }
        }
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn wait(mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for EngineProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
