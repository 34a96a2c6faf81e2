//! Control groups: processes that hang, or that the kernel ends for want of memory, through no doing of their own.

use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Beyond what is in use, in bytes.
const ROOM: u64 = 32 << 20;

/// What is asked for at most before the kernel must have ended something.
const MOST: u64 = 4 << 30;

/// How long the kernel may take to end a process.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Processes that do not run, until this is dropped. A stopped process would be known for one that somebody examines.
#[derive(Debug)]
pub(crate) struct Frozen(Group);

impl Frozen {
    /// Freezes these.
    ///
    /// # Errors
    /// Where the system has no control groups of version 2, or they are not this user's.
    pub(crate) fn new(pids: &[u32]) -> Result<Self> {
        let mounted = mounts().into_iter().find(|mount| mount.kind == "cgroup2");
        let root = mounted.context("no control groups of version 2 here, so nothing can be frozen")?;
        let group = Group::below(&root.path, pids)?;
        group.write("cgroup.freeze", "1")?;
        Ok(Self(group))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = self.0.write("cgroup.freeze", "0");
    }
}

/// Has the kernel's OOM killer end each of these, and waits until it has.
///
/// # Errors
/// Where the system has no control groups for memory, or they are not this user's.
pub(crate) fn exhaust_memory(pids: &[u32]) -> Result<()> {
    // One may end with another.
    pids.iter().filter(|pid| is_alive(**pid)).try_for_each(|pid| exhaust_memory_of(*pid))
}

fn exhaust_memory_of(victim: u32) -> Result<()> {
    let (root, limit, used) = memory_controller()?;
    let mut hog = Hog::start()?;
    let group = Group::below(&root, &[hog.0.id(), victim])?;
    // Of the two it is to be the tunnel that is ended.
    fs::write(format!("/proc/{victim}/oom_score_adj"), "1000")?;
    let now: u64 = fs::read_to_string(group.0.join(used))?.trim().parse()?;
    group.write(limit, &(now + ROOM).to_string())?;
    hog.take_until(|| !is_alive(victim))
}

/// Whether there is such a process, and it has not ended.
pub(crate) fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ") && !stat.contains(") X "))
}

/// A control group of ours. Dropping it leaves its processes where all others are.
#[derive(Debug)]
struct Group(PathBuf);

impl Group {
    fn below(root: &Path, pids: &[u32]) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ferry-bench-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = root.join(name);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let group = Self(path);
        for pid in pids {
            group.write("cgroup.procs", &pid.to_string())?;
        }
        Ok(group)
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.0.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {text} to {}", path.display()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = self.write("cgroup.freeze", "0");
        let pids = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        let parent = self.0.parent().unwrap_or(&self.0).join("cgroup.procs");
        for pid in pids.lines() {
            let _ = fs::write(&parent, pid);
        }
        // One whose last process has just ended is busy for a moment.
        let until = Instant::now() + Duration::from_secs(1);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

struct Mount {
    kind: String,
    path: PathBuf,
    options: String,
}

fn mounts() -> Vec<Mount> {
    let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mount = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Mount { kind: kind.to_owned(), path: path.into(), options: options.to_owned() })
    };
    text.lines().filter_map(mount).collect()
}

/// Where groups for memory are, and which files of them hold the limit and what is in use.
fn memory_controller() -> Result<(PathBuf, &'static str, &'static str)> {
    for mount in mounts() {
        let has = |text: &str, separator| text.split(separator).any(|part| part.trim() == "memory");
        if mount.kind == "cgroup" && has(&mount.options, ',') {
            return Ok((mount.path, "memory.limit_in_bytes", "memory.usage_in_bytes"));
        }
        let below = fs::read_to_string(mount.path.join("cgroup.subtree_control")).unwrap_or_default();
        if mount.kind == "cgroup2" && has(&below, ' ') {
            return Ok((mount.path, "memory.max", "memory.current"));
        }
    }
    bail!("no control groups for memory here, so no process can be made to run out of it alone")
}

/// Takes memory.
struct Hog(Child);

impl Hog {
    fn start() -> Result<Self> {
        // Of a text without lines it has to keep all.
        let tail = Command::new("tail").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Ok(Self(tail.context("cannot start tail")?))
    }

    fn take_until(&mut self, is_enough: impl Fn() -> bool) -> Result<()> {
        let mut input = self.0.stdin.take().context("no input")?;
        let block = vec![b'x'; 1 << 20];
        let mut taken = 0;
        while !is_enough() && taken < MOST {
            // What the tunnel had is not always this group's: then this one is ended, too, a moment later.
            if input.write_all(&block).is_err() {
                break;
            }
            taken += block.len() as u64;
        }
        let until = Instant::now() + KILL_TIMEOUT;
        while !is_enough() {
            ensure!(Instant::now() < until, "the kernel has not ended the tunnel's process");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
