//! A `tunnel.yaml` that is looked at again and again.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::joining::{self, JoinedFile};
use crate::rolling::{self, RolledFile};
use crate::{Loaded, Report, identity, load_seen, read_file};

/// Reads a `tunnel.yaml` and the identity that it names, whenever one of them is not as it was.
///
/// What counts is what the files hold: a time stamp is too coarse to tell two changes in quick succession apart. To look costs
/// little, so that it can be done each second: files that are as they were are read, but not made sense of.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    seen: Option<Seen>,
}

/// What a configuration was read from.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) text: String,
    pub(crate) identity: PathBuf,
    pub(crate) pem: Zeroizing<Vec<u8>>,
    /// The state directory, and the peers that have joined by it.
    pub(crate) state: Option<PathBuf>,
    pub(crate) joined: Vec<JoinedFile>,
    /// Peers whose keys were replaced.
    pub(crate) rolled: Vec<RolledFile>,
}

impl Watch {
    /// A watch of the `tunnel.yaml` at `path`, of which nothing has been seen.
    pub fn new(path: PathBuf) -> Self {
        Self { path, seen: None }
    }

    /// What the files say, unless they are as they were at the last look. Files that could not be used are read again at
    /// every look.
    ///
    /// # Errors
    ///
    /// As [`load`](crate::load).
    pub fn look(&mut self) -> Option<Result<Loaded, Report>> {
        if self.seen.as_ref().is_some_and(|seen| seen.is_still_at(&self.path)) {
            return None;
        }
        self.seen = None;
        Some(load_seen(&self.path, None).map(|(loaded, seen)| {
            self.seen = Some(seen);
            loaded
        }))
    }

    /// Forgets what was seen: the next look reads whatever is there.
    pub fn forget(&mut self) {
        self.seen = None;
    }
}

impl Seen {
    fn is_still_at(&self, path: &Path) -> bool {
        read_file(path).is_ok_and(|text| text == self.text)
            && identity::read(&self.identity).is_ok_and(|pem| pem == self.pem)
            && self.state.as_deref().map(joining::read_all).unwrap_or_default() == self.joined
            && self.state.as_deref().map(rolling::read_all).unwrap_or_default() == self.rolled
    }
}
