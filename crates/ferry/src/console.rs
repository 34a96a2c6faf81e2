//! Non-blocking output of lines to stdout or stderr, which may be a pipe that nothing reads.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use anstream::{AutoStream, ColorChoice};
use anyhow::Context as _;

use ferry_log::{Flush, Queue};

/// Prints lines without blocking; colours are stripped if the stream does not support them. Dropping the last clone flushes,
/// waiting one second at most.
#[derive(Clone)]
pub struct Console {
    queue: Queue,
    colours: ColorChoice,
    flush: Arc<Flush>,
}

impl Console {
    /// # Errors
    ///
    /// Out of threads or file descriptors.
    pub fn stdout() -> anyhow::Result<Self> {
        Self::start(io::stdout().as_fd(), AutoStream::choice(&io::stdout()))
    }

    /// # Errors
    ///
    /// As [`Console::stdout`].
    pub fn stderr() -> anyhow::Result<Self> {
        Self::start(io::stderr().as_fd(), AutoStream::choice(&io::stderr()))
    }

    fn start(stream: BorrowedFd<'_>, colours: ColorChoice) -> anyhow::Result<Self> {
        let report = |queue: &Queue, lost| {
            queue.push(format!("… {lost} lines are missing here, because nothing read them\n").as_bytes());
        };
        let (queue, flush) = queue(stream, report)?;
        Ok(Self { queue, colours, flush: Arc::new(flush) })
    }

    /// Prints a line.
    pub fn print(&self, text: impl Display) {
        let mut line = Vec::new();
        // Writing to memory does not fail.
        let _ = writeln!(AutoStream::new(&mut line, self.colours), "{text}");
        self.queue.push(&line);
    }

    /// Waits up to a second until everything is written.
    pub fn flush(&self) {
        self.flush.wait();
    }
}

/// A queue that writes to `stream` directly. The standard library's handle has a lock that a blocked write would hold when the
/// process exits.
pub(crate) fn queue(
    stream: BorrowedFd<'_>,
    report: impl Fn(&Queue, u64) + Send + 'static,
) -> anyhow::Result<(Queue, Flush)> {
    let file = File::from(stream.try_clone_to_owned().context("cannot duplicate the descriptor to log to")?);
    Queue::start(file, report).context("cannot start the thread that writes the log")
}
