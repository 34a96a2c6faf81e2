//! Moving the log's content into the database. This happens in a thread and on a connection of its own, so that a commit
//! waits for its own sync and not for those of a checkpoint.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::{Builder, JoinHandle};

use rusqlite::Connection;

use super::StoreError;

/// A checkpoint begins when it has at least this many pages to move.
const MIN_PENDING_PAGES: u32 = 1000;
/// The log is reused from its start only when all of it has been moved, which back-to-back commits prevent. From this many
/// pages on, a commit waits for that.
pub(super) const MAX_LOG_PAGES: u32 = 8 * MIN_PENDING_PAGES;

/// The thread that makes checkpoints. Dropping this waits for its end.
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

    /// Call after each commit on `connection`: starts a checkpoint if one is due.
    pub(super) fn after_commit(&mut self, connection: &Connection) -> Result<(), StoreError> {
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
        if log.pages >= MAX_LOG_PAGES {
            return self.finish(connection, "PASSIVE");
        }
        if log.pending() >= MIN_PENDING_PAGES
            && !self.under_way
            && let Some(begin) = &self.begin
        {
            self.under_way = begin.send(()).is_ok();
        }
        Ok(())
    }

    /// Moves everything that is committed on `connection`, so that the log is reused from its start, if the disk has space.
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
            // Its result does not matter now: the log is intact, and the next start moves it.
            let _ = thread.join();
        }
    }
}

/// Moves as much of the log into the database as possible; nothing on a full disk.
pub(super) fn checkpoint(connection: &Connection, mode: &str) -> Result<(), StoreError> {
    match connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(())) {
        Ok(()) => Ok(()),
        Err(error) => match error.into() {
            StoreError::Full => Ok(()),
            other => Err(other),
        },
    }
}
