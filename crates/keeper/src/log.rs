//! Lines on standard error, for a process that must never wait for their reader.

use std::{fmt, io};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A pipe with room takes this many bytes at once: `PIPE_BUF`.
const MAX_LINE: usize = 4096;

/// Writes one line. It is dropped if nobody has room for it.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    let mut line = format!("ferry keeper: {text}").replace('\n', " ");
    while line.len() >= MAX_LINE {
        line.pop();
    }
    line.push('\n');
    let stderr = io::stderr();
    let mut has_room = [PollFd::new(&stderr, PollFlags::OUT)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(&mut has_room, Some(&at_once)).is_ok_and(|ready| ready > 0) {
        _ = rustix::io::write(&stderr, line.as_bytes());
    }
}

macro_rules! say {
    ($($arg:tt)*) => { $crate::log::line(format_args!($($arg)*)) };
}
pub(crate) use say;
