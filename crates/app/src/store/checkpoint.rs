//! Moving the log's content into the database. It happens beside the commits, on a connection of its own: a commit waits
//! for its own sync and not for those of a checkpoint.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::{Builder, JoinHandle};

use rusqlite::Connection;

use super::StoreError;

/// A checkpoint begins when it has so many pages to move.
const PENDING_MIN: u32 = 1000;
/// The log only starts anew once all of it has been moved, which commits without a pause between them prevent. From this
/// many pages on they wait for it.
pub(super) const LOG_MAX: u32 = 8 * PENDING_MIN;

/// The thread that does it. Dropping this waits for its end.
#[derive(Debug)]
pub(super) struct Checkpointer {
    /// Dropped to end the thread.
    begin: Option<SyncSender<()>>,
    done: Receiver<Result<(), StoreError>>,
    under_way: bool,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    pub(super) fn start(connection: Connection) -> io::Result<Self> {
        let (begin, begun) = sync_channel(1);
        let (report, done) = sync_channel(1);
        let thread = Builder::new()
            .name("checkpoint".into())
            .spawn(move || while begun.recv().is_ok() && report.send(checkpoint(&connection, "PASSIVE")).is_ok() {})?;
        Ok(Self { begin: Some(begin), done, under_way: false, thread: Some(thread) })
    }

    /// Looks after the log once something has been committed on `connection`.
    pub(super) fn tend(&mut self, connection: &Connection) -> Result<(), StoreError> {
        if self.under_way {
            match self.done.try_recv() {
                Ok(result) => {
                    self.under_way = false;
                    result?;
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Err(StoreError::Failed("its checkpoints ended".into())),
            }
        }
        let log = Log::of(connection)?;
        if log.pages >= LOG_MAX {
            return self.finish(connection, "PASSIVE");
        }
        if log.pending() >= PENDING_MIN
            && !self.under_way
            && let Some(begin) = &self.begin
        {
            self.under_way = begin.send(()).is_ok();
        }
        Ok(())
    }

    /// Moves all that is committed on `connection`, so that the log starts anew, if the disk has room for it.
    pub(super) fn finish(&mut self, connection: &Connection, mode: &str) -> Result<(), StoreError> {
        if self.under_way {
            self.under_way = false;
            self.done.recv().map_err(|error| StoreError::Failed(error.to_string()))??;
        }
        checkpoint(connection, mode)
    }
}

/// How long the log is, and how much of it is in the database, in pages.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) pages: u32,
    pub(super) moved: u32,
}

impl Log {
    pub(super) fn pending(&self) -> u32 {
        self.pages.saturating_sub(self.moved)
    }

    /// A database without a log has none of either.
    pub(super) fn of(connection: &Connection) -> Result<Self, StoreError> {
        let numbers = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
        let (pages, moved) = connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], numbers)?;
        let (pages, moved) = (u32::try_from(pages).unwrap_or(0), u32::try_from(moved).unwrap_or(0));
        Ok(Self { pages, moved })
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.begin = None;
        if let Some(thread) = self.thread.take() {
            // What it reports now is found at the next start: the log is whole.
            let _ = thread.join();
        }
    }
}

/// Moves as much of the log into the database as can be. On a full disk it stays where it is.
pub(super) fn checkpoint(connection: &Connection, mode: &str) -> Result<(), StoreError> {
    match connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(())) {
        Ok(()) => Ok(()),
        Err(error) => match error.into() {
            StoreError::Full => Ok(()),
            other => Err(other),
        },
    }
}
