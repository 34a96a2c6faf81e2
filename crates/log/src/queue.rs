//! The queue of lines and the thread that writes them.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::lost::count_lost;

/// Bytes that may wait for the file. Some thousands of lines: more than a reader falls behind by unless it is stuck.
const MAX_QUEUED: usize = 1 << 20;
/// How long the end of the process waits for the file to take what is queued.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause before a file that others have set to non-blocking is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(10);

/// Takes lines, and never waits. Clones share the queue.
#[derive(Debug, Clone)]
pub struct Queue(Arc<Shared>);

/// Dropped, it waits for what is queued to be written, at most one second.
#[derive(Debug)]
pub struct Flush(Queue);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Something is queued.
    queued: Condvar,
    /// Everything is written.
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    /// Lines lost since the writer last took what is queued. All of them follow `bytes`.
    lost: u64,
    /// The writer has taken lines that it has not written yet.
    writing: bool,
}

impl Queue {
    /// Starts the thread that writes to `file`. It calls `report` with the number of lines lost when the file takes
    /// lines again; what is pushed from there stands where the lost lines would.
    ///
    /// # Errors
    ///
    /// The system has no thread left.
    pub fn start(
        file: impl Write + Send + 'static,
        report: impl Fn(&Queue, u64) + Send + 'static,
    ) -> io::Result<(Self, Flush)> {
        let queue = Self(Arc::default());
        let (writer, flush) = (queue.clone(), Flush(queue.clone()));
        thread::Builder::new().name("log".into()).spawn(move || writer.write_to(file, report))?;
        Ok((queue, flush))
    }

    /// Queues a line, with its end, or counts it as lost.
    pub fn push(&self, line: &[u8]) {
        let mut state = self.0.lock();
        // Once a line is lost so are those behind it, until the writer comes: what is kept has one gap and not many.
        if state.lost > 0 || state.bytes.len() + line.len() > MAX_QUEUED {
            state.lost += 1;
            count_lost(1);
        } else {
            state.bytes.extend_from_slice(line);
        }
        drop(state);
        self.0.queued.notify_one();
    }

    /// Waits until everything is written, at most this long. Returns whether it is.
    pub fn flush(&self, timeout: Duration) -> bool {
        let is_behind = |state: &mut State| state.writing || !state.bytes.is_empty() || state.lost > 0;
        let waited = self.0.written.wait_timeout_while(self.0.lock(), timeout, is_behind);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Writes for as long as the process lives.
    fn write_to(&self, mut file: impl Write, report: impl Fn(&Queue, u64)) {
        let mut batch = Vec::new();
        // Of batches that the file refused. Reported once it has taken another: each report is a line, too.
        let mut refused = 0;
        loop {
            let lost = self.0.take(&mut batch);
            if lost > 0 {
                // With no lock held, and before the batch is written: it becomes the first line of the next one.
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
            // A burst is over; its memory is not kept.
            batch.shrink_to(MAX_QUEUED / 16);
        }
    }
}

/// Each write is a line.
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
    /// Waits for what is queued to be written, at most one second.
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
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for lines and takes them all. Returns how many were lost behind them.
    fn take(&self, batch: &mut Vec<u8>) -> u64 {
        let mut state = self.lock();
        state.writing = false;
        while state.bytes.is_empty() && state.lost == 0 {
            self.written.notify_all();
            state = self.queued.wait(state).unwrap_or_else(PoisonError::into_inner);
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
#[path = "queue_tests.rs"]
mod tests;
