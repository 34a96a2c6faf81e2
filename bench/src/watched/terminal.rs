//! A program on a terminal of its own, which nobody types on.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use anyhow::{Context, Result};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Columns and lines.
const SIZE: (u16, u16) = (200, 60);

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Terminal {
    child: Child,
    /// What it is typed on. A terminal of which this end is closed hangs up.
    _keys: File,
}

impl Terminal {
    /// Starts it, and counts what it draws.
    ///
    /// # Errors
    /// When there is no terminal to be had, or it cannot be executed.
    pub(super) fn start(program: &Path, arguments: &[&str], drawn: Arc<AtomicU64>) -> Result<Self> {
        let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).context("no terminal to be had")?;
        grantpt(&keys)?;
        unlockpt(&keys)?;
        let name = ptsname(&keys, Vec::new())?;
        let path = Path::new(OsStr::from_bytes(name.to_bytes()));
        let terminal = File::options().read(true).write(true).open(path)?;
        let (ws_col, ws_row) = SIZE;
        tcsetwinsize(&terminal, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 })?;
        let end = || Ok::<_, std::io::Error>(Stdio::from(OwnedFd::from(terminal.try_clone()?)));
        let mut command = Command::new(program);
        command.args(arguments).stdin(end()?).stdout(end()?).stderr(end()?).env("TERM", "xterm-256color");
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let keys = File::from(keys);
        let mut output = keys.try_clone()?;
        // Ends when the program has, and with it the last that had the terminal open.
        thread::spawn(move || {
            let mut bytes = [0; 16 * 1024];
            while let Ok(1..) = output.read(&mut bytes) {
                drawn.fetch_add(1, Relaxed);
            }
        });
        Ok(Self { child, _keys: keys })
    }

    /// Whether it still runs.
    pub(super) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
