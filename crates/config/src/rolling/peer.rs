//! A peer whose key is replaced: which keys stand in for those that are listed.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{file_name, replace};
use crate::fields::{Located, Position, Problems};
use crate::key::PublicKey;
use crate::name::Name;
use crate::raw::RawTunnel;
use crate::read_file;
use crate::report::ValueError;

/// Below the state directory.
const DIR: &str = "rolled";

/// What a peer's keys have become by its rolls. Without effect where none of those that they stand in for is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledPeer {
    /// The peer, as it is called here.
    peer: String,
    /// Keys that it has proved in earlier days, of which one is listed.
    in_place_of: BTreeSet<PublicKey>,
    /// What is accepted instead: one key, or during a roll both.
    keys: BTreeSet<PublicKey>,
}

impl RolledPeer {
    /// What is known of the peer's rolls; nothing, at first.
    ///
    /// # Errors
    ///
    /// If there is something that cannot be read: it is not to be replaced by less.
    pub fn load(state: &Path, peer: &Name) -> io::Result<Self> {
        match fs::read_to_string(Self::path(state, peer)) {
            Ok(text) => serde_json::from_str(&text).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Self { peer: peer.to_string(), in_place_of: BTreeSet::new(), keys: BTreeSet::new() })
            }
            Err(error) => Err(error),
        }
    }

    /// Where it is kept.
    pub fn path(state: &Path, peer: &Name) -> PathBuf {
        state.join(place(peer))
    }

    /// Keeps it.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write(&self, state: &Path) -> io::Result<()> {
        let name: Name = self.peer.parse().map_err(|error: ValueError| io::Error::other(error.to_string()))?;
        let text = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        replace(state, &place(&name), &format!("{text}\n"))
    }

    /// The peer, which proves the key `proved`, is to have `next` in addition. An earlier next key that it has never proved is
    /// given up.
    #[must_use]
    pub fn with_next(mut self, proved: PublicKey, next: PublicKey) -> Self {
        self.in_place_of.insert(proved);
        self.keys = [proved, next].into();
        self
    }

    /// The peer proves the key `proved`: those before are not accepted any more. `None` if it is not by a roll that the key
    /// is accepted.
    #[must_use]
    pub fn with_only(mut self, proved: PublicKey) -> Option<Self> {
        self.keys.contains(&proved).then(|| {
            self.keys = [proved].into();
            self
        })
    }

    /// Whether the key is accepted by a roll, and one before it still is.
    pub fn is_rolling_to(&self, key: PublicKey) -> bool {
        self.keys.len() > 1 && self.keys.contains(&key) && !self.in_place_of.contains(&key)
    }
}

fn place(peer: &Name) -> String {
    format!("{DIR}/{}.json", file_name(peer))
}

/// One such file, as text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RolledFile {
    path: PathBuf,
    text: Result<String, ValueError>,
}

/// All of a state directory. A directory that cannot be read has nothing in it that was ever in force.
pub(crate) fn read_all(state: &Path) -> Vec<RolledFile> {
    let entries = fs::read_dir(state.join(DIR)).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|kind| kind == "json")).collect();
    paths.sort();
    paths.into_iter().map(|path| RolledFile { text: read_file(&path), path }).collect()
}

/// Puts the keys of the files in the place of those that are listed.
pub(crate) fn merge(raw: &mut RawTunnel, files: &[RolledFile], problems: &Problems) {
    for file in files {
        let position = Position::of_file(&file.path);
        let parse = |text: &String| {
            let hint = "restore the file, or remove it and list the peer's key in tunnel.yaml";
            serde_json::from_str::<RolledPeer>(text).map_err(|error| ValueError::new(error.to_string(), hint))
        };
        match file.text.as_ref().map_err(Clone::clone).and_then(parse) {
            Ok(rolled) => stand_in(raw, &rolled, &position),
            Err(error) => problems.add(&position, error),
        }
    }
}

fn stand_in(raw: &mut RawTunnel, rolled: &RolledPeer, position: &Position) {
    let of = |name: &Option<Located<Name>>| name.as_ref().is_some_and(|name| name.value.as_str() == rolled.peer);
    for peer in raw.peers.iter_mut().filter(|peer| of(&peer.name)) {
        if peer.keys.iter().any(|key| rolled.in_place_of.contains(&key.value)) {
            peer.keys.retain(|key| !rolled.in_place_of.contains(&key.value) && !rolled.keys.contains(&key.value));
            peer.keys.extend(rolled.keys.iter().map(|&value| Located { value, position: position.clone() }));
        }
    }
}
