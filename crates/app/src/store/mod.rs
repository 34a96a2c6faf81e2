//! What a web-app keeps on disk: one SQLite database per `--data` directory, with one writer.
//!
//! Everything that changes together is one [`Commit`], one transaction with one fsync. Each row carries a checksum, and
//! next to the database is a *witness*: the number of the last commit, written once that commit is on disk. A store that
//! is behind its witness has lost commits, which SQLite alone would take for an ordinary crash.

mod about;
mod checkpoint;
mod error;
mod headers;
mod load;
mod open;
mod row;
mod sites;
mod witness;

use std::fs::File;

use rusqlite::{Connection, Transaction, params};

pub use error::StoreError;
pub(crate) use load::StoredState;
pub(crate) use open::open;
pub(crate) use row::{Fate, KeyRecord};
pub(crate) use sites::{OutboxCommit, SiteRecord, StoredSite};

use crate::message::SenderId;
use crate::peer::PeerName;
use about::set_number;
use checkpoint::{Checkpointer, Log};
use witness::Witness;

/// The store of one web-app. Dropping it lets another process have the directory.
#[derive(Debug)]
pub(crate) struct Store {
    connection: Connection,
    /// Ends before the lock is given up. `None` for a store in memory.
    checkpointer: Option<Checkpointer>,
    witness: Option<Witness>,
    /// The number of the last commit.
    commits: u64,
    /// It has had messages with headers.
    has_headers: bool,
    /// Held locked while this lives.
    _lock: Option<File>,
}

/// Changes that are stored together, or not at all.
#[derive(Debug, Default)]
pub(crate) struct Commit {
    /// What changes in the outboxes.
    pub(crate) outboxes: Vec<OutboxCommit>,
    /// Sites that are removed with their outboxes; of the first, what is in its outbox.
    pub(crate) forgotten: Vec<u64>,
    /// Results that enter the output, as JSON, by position.
    pub(crate) output: Vec<(u64, String)>,
    /// The position of the oldest result to keep.
    pub(crate) output_start: u64,
    /// How far the messages of each of these senders have been processed.
    pub(crate) watermarks: Vec<(SenderId, u64)>,
    /// Whose senders these are; what is stored already stays.
    pub(crate) peers: Vec<(SenderId, PeerName)>,
    /// Dead messages to keep, as JSON, by their number here.
    pub(crate) dead: Vec<(u64, String)>,
    /// Dead messages before this number are not kept.
    pub(crate) dead_start: u64,
    /// Dead messages to remove.
    pub(crate) removed_dead: Vec<u64>,
}

impl Commit {
    /// The part of it that only frees space.
    pub(crate) fn trim(self) -> Self {
        let Self { outboxes, forgotten, output_start, dead_start, .. } = self;
        let outboxes = outboxes.into_iter().map(OutboxCommit::trim).collect();
        Self { outboxes, forgotten, output_start, dead_start, ..Self::default() }
    }
}

impl Store {
    /// Bytes that can be stored before the files grow, minus those that a checkpoint may need: trimming frees space within
    /// the database and not on the disk.
    pub(crate) fn reusable_bytes(&self) -> Result<i64, StoreError> {
        let pragma = |name| self.connection.pragma_query_value::<i64, _>(None, name, |row| row.get(0));
        let pending = Log::of(&self.connection)?.pending();
        Ok((pragma("freelist_count")? - i64::from(pending)) * pragma("page_size")?)
    }

    /// Moves the log into the database, which frees its space on the disk.
    pub(crate) fn checkpoint_now(&mut self) -> Result<(), StoreError> {
        match &mut self.checkpointer {
            Some(checkpointer) => checkpointer.finish(&self.connection, "TRUNCATE"),
            None => Ok(()),
        }
    }

    /// Stores all of it. Once this has returned `Ok`, it survives a crash of the process and of the machine.
    pub(crate) fn commit(&mut self, commit: &Commit) -> Result<(), StoreError> {
        let number = self.commits + 1;
        let transaction = self.connection.transaction()?;
        let has_headers = self.has_headers || headers::are_in(commit);
        write(&transaction, commit)?;
        if has_headers {
            headers::write(&transaction, commit)?;
        }
        set_number(&transaction, "commits", number)?;
        transaction.commit()?;
        (self.commits, self.has_headers) = (number, has_headers);
        if let Some(witness) = &mut self.witness {
            witness.write(number)?;
        }
        match &mut self.checkpointer {
            Some(checkpointer) => checkpointer.after_commit(&self.connection),
            None => Ok(()),
        }
    }
}

/// Made when it is needed first, so that versions that do not know it can still open the store.
const PEERS: &str = "CREATE TABLE IF NOT EXISTS peers (sender TEXT PRIMARY KEY, row BLOB NOT NULL) WITHOUT ROWID";

fn write(transaction: &Transaction<'_>, commit: &Commit) -> Result<(), StoreError> {
    // Free space before using it.
    sites::free(transaction, commit)?;
    transaction.prepare_cached("DELETE FROM output WHERE position < ?")?.execute([signed(commit.output_start)])?;
    transaction.prepare_cached("DELETE FROM dead WHERE number < ?")?.execute([signed(commit.dead_start)])?;
    for number in &commit.removed_dead {
        transaction.prepare_cached("DELETE FROM dead WHERE number = ?")?.execute([signed(*number)])?;
    }
    sites::write(transaction, &commit.outboxes)?;
    let mut insert = transaction.prepare_cached("INSERT INTO output VALUES (?, ?)")?;
    for (position, text) in &commit.output {
        insert.execute(params![signed(*position), row::seal(*position, text)])?;
    }
    let mut insert = transaction.prepare_cached("INSERT INTO dead VALUES (?, ?)")?;
    for (number, text) in &commit.dead {
        insert.execute(params![signed(*number), row::seal(*number, text)])?;
    }
    let mut insert = transaction.prepare_cached("INSERT OR REPLACE INTO senders VALUES (?, ?)")?;
    for (sender, watermark) in &commit.watermarks {
        insert.execute(params![sender.as_str(), row::seal(*watermark, sender.as_str())])?;
    }
    if !commit.peers.is_empty() {
        transaction.prepare_cached(PEERS)?.execute([])?;
        let mut insert = transaction.prepare_cached("INSERT OR IGNORE INTO peers VALUES (?, ?)")?;
        for (sender, peer) in &commit.peers {
            insert.execute(params![sender.as_str(), row::seal_peer(sender.as_str(), peer.as_str())])?;
        }
    }
    Ok(())
}

/// SQLite's integers are signed. No number here gets near the limit: at a million a second it takes 290,000 years.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
