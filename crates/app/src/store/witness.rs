//! The number of the last commit, in a file of its own.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::StoreError;
use super::open::new_or_there;
use super::row::checksum;

const LENGTH: usize = 12;

/// Written after each commit and never synced, so it is never ahead of what is on disk. It is exact after a process has
/// ended, and may be behind after a machine has; so the check has no false positives.
#[derive(Debug)]
pub(super) struct Witness(File);

impl Witness {
    /// Opens the witness, and returns its number: `None` if it is new or unreadable, which proves nothing.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Option<u64>)> {
        let file = new_or_there().open(path)?;
        let mut bytes = [0; LENGTH];
        let recorded = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => decode(&bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => return Err(error),
        };
        Ok((Self(file), recorded))
    }

    pub(super) fn write(&mut self, number: u64) -> Result<(), StoreError> {
        match self.0.write_all_at(&encode(number), 0) {
            Ok(()) => Ok(()),
            // The commit is stored. A witness that lags behind does no harm.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(()),
            Err(error) => Err(StoreError::Failed(error.to_string())),
        }
    }
}

pub(super) fn encode(number: u64) -> [u8; LENGTH] {
    let number = number.to_le_bytes();
    let mut bytes = [0; LENGTH];
    bytes[..8].copy_from_slice(&number);
    bytes[8..].copy_from_slice(&checksum(&number).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8; LENGTH]) -> Option<u64> {
    let (number, _) = bytes.split_first_chunk::<8>()?;
    let number = u64::from_le_bytes(*number);
    (encode(number) == *bytes).then_some(number)
}
