//! Why a store cannot be used, now or at all.

use std::path::PathBuf;

use rusqlite::ErrorCode;

/// Why a web-app's store cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another process has the directory.
    #[error(
        "another ferry process uses the data directory {0}: stop that one, or give each web-app its own with --data"
    )]
    InUse(PathBuf),
    /// The directory or a file in it cannot be opened or made.
    #[error("cannot use the data directory {path}: {reason}; give a directory that ferry may write to with --data")]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The files are not what was written.
    #[error(
        "the store in {path} is damaged: {reason}. Nothing was changed. Restore the directory from a backup; or move it \
         away to start with an empty store, which gives up the messages in it"
    )]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A newer version of ferry wrote it.
    #[error("the store in {path} has format {found}, but this ferry knows {known}: run the version that wrote it")]
    Version {
        /// The directory.
        path: PathBuf,
        /// As stored.
        found: u64,
        /// The only one known here.
        known: u64,
    },
    /// The disk is full. This passes when there is space again.
    #[error(
        "the disk under the data directory is full: free some space; accepted messages are kept, and nothing new is accepted"
    )]
    Full,
    /// The disk failed: its content is unknown, so the process must end.
    #[error("the store failed: {0}; ending, because the content of the disk is unknown")]
    Failed(String),
}

impl StoreError {
    /// Damage, in a directory that [`Self::within`] names.
    pub(super) fn damaged(reason: String) -> Self {
        Self::Damaged { path: PathBuf::new(), reason }
    }

    /// The same error, of a store that is being opened in `dir`: whatever SQLite cannot read is damage.
    pub(super) fn within(self, dir: &std::path::Path) -> Self {
        match self {
            Self::Damaged { reason, .. } | Self::Failed(reason) => Self::Damaged { path: dir.to_owned(), reason },
            other => other,
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        // SQLITE_IOERR_WRITE: some file systems say it for a full disk; a failed write leaves the transaction undone.
        const WRITE: i32 = 778;
        // SQLITE_IOERR_SHMSIZE: there is no room for the log's index.
        const SHMSIZE: i32 = 4874;
        match error.sqlite_error() {
            Some(failure)
                if failure.code == ErrorCode::DiskFull || matches!(failure.extended_code, WRITE | SHMSIZE) =>
            {
                Self::Full
            }
            Some(failure) if matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::damaged(error.to_string())
            }
            _ => Self::Failed(error.to_string()),
        }
    }
}
