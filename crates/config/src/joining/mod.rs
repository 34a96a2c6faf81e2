//! How two tunnels get to list each other: a token that works once, and what is left of it at both ends.
//!
//! Everything is below the `state` directory: `invitations/ID.json` is open, `invitations/ID.used` says who used it, and
//! `joined/NAME.yaml` is the peer that came of it, which [`load`](crate::load) reads in addition to `tunnel.yaml`.

mod invitations;
mod joined;
mod token;

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

pub use invitations::{Claim, Invitation, Invitations, Offer, RedeemError};
pub use joined::{Joined, JoinedEgress};
pub(crate) use joined::{JoinedFile, merge, read_all};
pub use token::{InvitationId, OfferedService, Token};

/// Seconds since 1970, by this host's clock.
pub fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Makes a directory, and those above it, that only its owner may look into.
///
/// # Errors
///
/// Those of the system.
pub fn make_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Writes a file that must not exist, for its owner alone.
pub(crate) fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).inspect_err(|_| {
        // It is ours and useless; that it cannot be removed either changes nothing.
        let _ = fs::remove_file(path);
    })
}
