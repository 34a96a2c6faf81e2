//! Opening a store: its directory, its lock, its format, and whether it is intact.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tracing::warn;

use super::about::{number, set_number, set_sender};
use super::checkpoint::{Checkpointer, checkpoint};
use super::{Store, StoreError, StoredState, Witness, headers, load};
use crate::message::SenderId;

/// The format of the tables below.
pub(super) const FORMAT: u64 = 1;
const DATABASE: &str = "store.sqlite";
const WITNESS: &str = "witness";
const LOCK: &str = "lock";

/// `about` holds the values that a store has one of: format, commits, acked, sender.
const TABLES: &str = "
    CREATE TABLE about (name TEXT PRIMARY KEY, row BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE outbox (seq INTEGER PRIMARY KEY, row BLOB NOT NULL);
    CREATE TABLE output (position INTEGER PRIMARY KEY, row BLOB NOT NULL);
    CREATE TABLE senders (sender TEXT PRIMARY KEY, row BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE dead (number INTEGER PRIMARY KEY, row BLOB NOT NULL);
    CREATE TABLE keys (key TEXT PRIMARY KEY, seq INTEGER NOT NULL, row BLOB NOT NULL) WITHOUT ROWID;
    CREATE INDEX keys_by_seq ON keys (seq);
";

/// Opens the store in `dir`, or creates an empty one, and reads everything in it.
pub(crate) fn open(dir: &Path) -> Result<(Store, StoredState), StoreError> {
    let unusable = |error: std::io::Error| StoreError::Unusable { path: dir.to_owned(), reason: error.to_string() };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(unusable)?;
    let lock = lock(dir)?;
    let path = dir.join(DATABASE);
    let (witness, recorded) = Witness::open(&dir.join(WITNESS)).map_err(unusable)?;
    let known = fs::metadata(&path).is_ok_and(|metadata| metadata.len() > 0) || recorded.is_some();
    // If the kernel refuses the file, that is a matter of permissions. Only what SQLite says about its content is damage.
    drop(new_or_there().open(&path).map_err(unusable)?);
    let (mut store, state) =
        read(&path, witness, known, lock).map_err(|error| error.within(dir)).map_err(|error| match error {
            StoreError::Version { found, known, .. } => StoreError::Version { path: dir.to_owned(), found, known },
            other => other,
        })?;
    match recorded {
        Some(recorded) if recorded > store.commits => {
            let (ends, lost) = (store.commits, recorded - store.commits);
            let reason =
                format!("it ends at commit {ends}, but commit {recorded} has been stored: the last {lost} are lost");
            return Err(StoreError::damaged(reason).within(dir));
        }
        None if store.commits > 1 => {
            warn!(dir = %dir.display(), "the store's witness was missing or damaged and has been recreated; the store is intact");
        }
        _ => {}
    }
    // After a failed sync, the log may be readable from memory without being on the disk. So it is not relied on: its
    // content is written again.
    checkpoint(&store.connection, "TRUNCATE")?;
    store.checkpointer = Some(Checkpointer::start(connect(&path)?).map_err(unusable)?);
    Ok((store, state))
}

fn read(path: &Path, witness: Witness, known: bool, lock: File) -> Result<(Store, StoredState), StoreError> {
    prepare(connect(path)?, Some(witness), known, Some(lock))
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(path)?;
    // A damaged log stays as it was found; an intact one is moved by the next start.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // FULL: a commit is synced before it returns.
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;")?;
    Ok(connection)
}

fn prepare(
    mut connection: Connection,
    witness: Option<Witness>,
    known: bool,
    lock: Option<File>,
) -> Result<(Store, StoredState), StoreError> {
    if known {
        check(&connection)?;
    } else {
        create(&mut connection)?;
    }
    let commits = number(&connection, "commits")?;
    let state = load::load(&connection)?;
    let has_headers = headers::are_stored(&connection)?;
    Ok((Store { connection, checkpointer: None, witness, commits, has_headers, _lock: lock }, state))
}

/// A file of the store. Where it is made, it is for this user alone, whatever the umask says.
pub(super) fn new_or_there() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let unusable = |error: std::io::Error| StoreError::Unusable { path: dir.to_owned(), reason: error.to_string() };
    let file = new_or_there().open(dir.join(LOCK)).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
}

/// The tables and the sender id are created in one transaction, so that there is never one without the other.
fn create(connection: &mut Connection) -> Result<(), StoreError> {
    let sender = SenderId::random().map_err(|error| StoreError::Failed(format!("no randomness: {error}")))?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    for (name, number) in [("format", FORMAT), ("commits", 1), ("acked", 0)] {
        set_number(&transaction, name, number)?;
    }
    set_sender(&transaction, sender.as_str())?;
    Ok(transaction.commit()?)
}

fn check(connection: &Connection) -> Result<(), StoreError> {
    let verdict: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(StoreError::damaged(verdict));
    }
    match number(connection, "format")? {
        FORMAT => Ok(()),
        found => Err(StoreError::Version { path: Default::default(), found, known: FORMAT }),
    }
}

#[cfg(test)]
impl Store {
    /// A store that ends with the process.
    pub(crate) fn in_memory() -> (Self, StoredState) {
        prepare(Connection::open_in_memory().unwrap(), None, false, None).unwrap()
    }
}
