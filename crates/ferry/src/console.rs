//! Lines for people on a standard stream that may not be read, such as a pipe to a process that is stuck.

use std::{
    fmt::Display,
    fs::File,
    io::{self, Write as _},
    os::fd::{AsFd as _, BorrowedFd},
    sync::Arc,
};

use anstream::{AutoStream, ColorChoice};
use anyhow::Context as _;
use ferry_log::{Flush, Queue};

/// Writes lines without waiting for their reader. Colours are left out where the stream does not take them. The last clone,
/// when it is dropped, waits at most a second for what is not written yet.
#[derive(Clone)]
pub(crate) struct Console {
    queue: Queue,
    colours: ColorChoice,
    flush: Arc<Flush>,
}

impl Console {
    /// # Errors
    ///
    /// The system has no thread or no file left.
    pub(crate) fn stdout() -> anyhow::Result<Self> {
        Self::start(io::stdout().as_fd(), AutoStream::choice(&io::stdout()))
    }

    /// # Errors
    ///
    /// As [`Console::stdout`].
    pub(crate) fn stderr() -> anyhow::Result<Self> {
        Self::start(io::stderr().as_fd(), AutoStream::choice(&io::stderr()))
    }

    fn start(stream: BorrowedFd<'_>, colours: ColorChoice) -> anyhow::Result<Self> {
        let report = |queue: &Queue, lost| {
            queue.push(format!("… {lost} lines are missing here, because nothing read them\n").as_bytes());
        };
        let (queue, flush) = queue(stream, report)?;
        Ok(Self { queue, colours, flush: Arc::new(flush) })
    }

    pub(crate) fn print(&self, text: impl Display) {
        let mut line = Vec::new();
        // Writing to memory does not fail.
        let _ = writeln!(AutoStream::new(&mut line, self.colours), "{text}");
        self.queue.push(&line);
    }

    /// Waits at most a second for what is not written yet.
    pub(crate) fn flush(&self) {
        self.flush.wait();
    }
}

/// A queue for what is written to `stream`: unbuffered, and past the lock of the standard library's own handle, which the end of
/// the process would wait for.
pub(crate) fn queue(
    stream: BorrowedFd<'_>,
    report: impl Fn(&Queue, u64) + Send + 'static,
) -> anyhow::Result<(Queue, Flush)> {
    let file = File::from(stream.try_clone_to_owned().context("cannot duplicate the descriptor to log to")?);
    Queue::start(file, report).context("cannot start the thread that writes the log")
}
