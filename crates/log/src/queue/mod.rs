//! The queue of lines and the thread that writes them.

use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::lost::count_lost;

/// Most bytes queued: several thousand lines, which only a stuck reader falls behind by.
const MAX_QUEUED: usize = 1 << 20;
/// How long a process that ends waits for queued lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause before retrying a file that another process made non-blocking.
const RETRY_DELAY: Duration = Duration::from_millis(10);

/// Accepts lines without ever blocking. Clones share the queue.
#[derive(Debug, Clone)]
pub struct Queue(Arc<Shared>);

/// Flushes the queue when dropped, waiting one second at most.
#[derive(Debug)]
pub struct Flush(Queue);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Signalled when there is something to write.
    queued: Condvar,
    /// Signalled when everything has been written.
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    /// Lines dropped since the writer last emptied the queue; all of them came after `bytes`.
    lost: u64,
    /// The writer holds lines that it has not written yet.
    writing: bool,
}

impl Queue {
    /// Starts the thread that writes to `file`. When writing works again after lines were dropped, it calls `report` with
    /// their number; a line pushed from there appears where the dropped ones would have been.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub fn start(
        file: impl Write + Send + 'static,
        report: impl Fn(&Queue, u64) + Send + 'static,
    ) -> io::Result<(Self, Flush)> {
        let queue = Self(Arc::default());
        let (writer, flush) = (queue.clone(), Flush(queue.clone()));
        thread::Builder::new().name("log".into()).spawn(move || writer.write_to(file, report))?;
        Ok((queue, flush))
    }

    /// Queues a line including its newline, or counts it as dropped.
    pub fn push(&self, line: &[u8]) {
        let mut state = self.0.state.lock();
        // After the first dropped line, drop all others until the writer has caught up: one gap instead of many.
        if state.lost > 0 || state.bytes.len() + line.len() > MAX_QUEUED {
            state.lost += 1;
            count_lost(1);
        } else {
            state.bytes.extend_from_slice(line);
        }
        drop(state);
        self.0.queued.notify_one();
    }

    /// Waits up to `timeout` until everything is written. Returns whether it was.
    pub fn flush(&self, timeout: Duration) -> bool {
        let is_behind = |state: &mut State| state.writing || !state.bytes.is_empty() || state.lost > 0;
        !self.0.written.wait_while_for(&mut self.0.state.lock(), is_behind, timeout).timed_out()
    }

    /// The writer thread; runs until the process exits.
    fn write_to(&self, mut file: impl Write, report: impl Fn(&Queue, u64)) {
        let mut batch = Vec::new();
        // Lines in batches that could not be written. Reported only after a successful write, because the report is
        // itself a line.
        let mut refused = 0;
        loop {
            let lost = self.0.take(&mut batch);
            if lost > 0 {
                // Before this batch is written and without the lock, so that the report is the first line of the next batch.
                report(self, lost);
            }
            match write_all(&mut file, &batch) {
                Ok(()) if refused > 0 && !batch.is_empty() => report(self, std::mem::take(&mut refused)),
                Ok(()) => {}
                Err(_) => {
                    let lines = batch.iter().filter(|byte| **byte == b'\n').count() as u64;
                    refused += lines;
                    count_lost(lines);
                }
            }
            batch.clear();
            // Do not keep a burst's memory.
            batch.shrink_to(MAX_QUEUED / 16);
        }
    }
}

/// Each `write` is one line.
impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Flush {
    /// Waits up to a second until everything is written.
    pub fn wait(&self) {
        self.0.flush(FLUSH_TIMEOUT);
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        self.wait();
    }
}

impl Shared {
    /// Waits for lines and takes all of them. Returns how many were dropped after them.
    fn take(&self, batch: &mut Vec<u8>) -> u64 {
        let mut state = self.state.lock();
        state.writing = false;
        while state.bytes.is_empty() && state.lost == 0 {
            self.written.notify_all();
            self.queued.wait(&mut state);
        }
        state.writing = true;
        std::mem::swap(&mut state.bytes, batch);
        std::mem::take(&mut state.lost)
    }
}

fn write_all(file: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY_DELAY),
            Err(error) => return Err(error),
        }
    }
    file.flush()
}

#[cfg(test)]
mod tests;
