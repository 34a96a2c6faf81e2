//! The end whose identity is replaced.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{file_name, give_to_owner_of, make_dir, replace, sync_dir};
use crate::identity::{Identity, IdentityError};
use crate::key::PublicKey;
use crate::name::Name;

/// Below the state directory.
const DIR: &str = "roll";

/// How far it is.
///
/// ```text
///   Idle ──make_next──▶ Announcing ──switch──▶ Switched ──finish──▶ Idle
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RollStage {
    /// Nothing is under way.
    Idle,
    /// There is a next key, and peers are to list it.
    Announcing,
    /// It is the tunnel's identity, and peers are to part with the one before.
    Switched,
}

/// The roll of one identity. What there is on disk says how far it is, so that it goes on after any crash.
#[derive(Clone, Debug)]
pub struct Roll {
    identity: PathBuf,
    /// What the running tunnel and its peers have said.
    pub notes: RollNotes,
}

/// What the command that rolls a key and the tunnel that runs tell each other.
#[derive(Clone, Debug)]
pub struct RollNotes {
    state: PathBuf,
    dir: PathBuf,
}

impl Roll {
    /// That of the tunnel with this identity file and this state directory.
    pub fn of(identity: &Path, state: &Path) -> Self {
        Self { identity: identity.to_owned(), notes: RollNotes::of(state) }
    }

    /// Where the next key is.
    pub fn next_path(&self) -> PathBuf {
        self.beside(".next")
    }

    /// Where the key before is.
    pub fn old_path(&self) -> PathBuf {
        self.beside(".old")
    }

    /// How far it is.
    pub fn stage(&self) -> RollStage {
        match (self.next_path().exists(), self.old_path().exists()) {
            (true, _) => RollStage::Announcing,
            (false, true) => RollStage::Switched,
            (false, false) => RollStage::Idle,
        }
    }

    /// Makes the next key, or reads the one that was made.
    ///
    /// # Errors
    ///
    /// If it cannot be written or read.
    pub fn make_next(&self) -> Result<Identity, IdentityError> {
        let path = self.next_path();
        if !path.exists() {
            let written = self.beside(".next.new");
            let _ = fs::remove_file(&written);
            Identity::generate()?.write_new(&written)?;
            // For the tunnel's user, as the identity is.
            let made = give_to_owner_of(&self.identity, &written)
                .and_then(|()| fs::set_permissions(&written, fs::metadata(&self.identity)?.permissions()))
                .and_then(|()| fs::rename(&written, &path))
                .and_then(|()| self.sync());
            made.map_err(|error| {
                // It is ours and useless.
                let _ = fs::remove_file(&written);
                IdentityError::Write(path.clone(), error)
            })?;
        }
        let next = Identity::load(&path)?;
        let told = self.notes.write("next", next.public_key());
        told.map_err(|error| IdentityError::Write(self.notes.dir.join("next"), error))?;
        Ok(next)
    }

    /// Puts the next key in the place of the identity, in one step; that is kept beside it.
    ///
    /// # Errors
    ///
    /// If a file cannot be written, or another key is where the one before is to be kept.
    pub fn switch(&self) -> Result<(), IdentityError> {
        let old = self.old_path();
        match fs::hard_link(&self.identity, &old) {
            Ok(()) => {}
            // Of a try before.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if Identity::load(&old)? != Identity::load(&self.identity)? {
                    return Err(IdentityError::Exists(old));
                }
            }
            Err(error) => return Err(IdentityError::Write(old, error)),
        }
        let renamed = self.sync().and_then(|()| fs::rename(self.next_path(), &self.identity));
        let failed = |error| IdentityError::Write(self.identity.clone(), error);
        renamed.and_then(|()| self.sync()).map_err(failed)
    }

    /// Forgets the key before, and all else of the roll.
    ///
    /// # Errors
    ///
    /// What cannot be removed.
    pub fn finish(&self) -> io::Result<()> {
        let gone = |removed: io::Result<()>, path: &Path| match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io::Error::new(error.kind(), format!("cannot remove {}: {error}", path.display())))
            }
            _ => Ok(()),
        };
        // The key last: it is what says that there is something to finish.
        gone(fs::remove_dir_all(&self.notes.dir), &self.notes.dir)?;
        gone(fs::remove_file(self.old_path()), &self.old_path())?;
        self.sync()
    }

    fn beside(&self, extension: &str) -> PathBuf {
        let mut path = OsString::from(&self.identity);
        path.push(extension);
        path.into()
    }

    fn sync(&self) -> io::Result<()> {
        sync_dir(self.identity.parent().unwrap_or(Path::new(".")))
    }
}

impl RollNotes {
    /// Those of the tunnel with this state directory.
    pub fn of(state: &Path) -> Self {
        Self { state: state.to_owned(), dir: state.join(DIR) }
    }

    /// The next key's public half, for peers that ask: whoever asks needs not be able to read the key.
    pub fn next_key(&self) -> Option<PublicKey> {
        self.read("next")
    }

    /// A peer has said that it lists this key. Says whether that is the next one.
    ///
    /// # Errors
    ///
    /// If it cannot be written down.
    pub fn note_listed(&self, peer: &Name, key: PublicKey) -> io::Result<bool> {
        if self.next_key() != Some(key) {
            return Ok(false);
        }
        self.write(&format!("listed/{}", file_name(peer)), key)?;
        Ok(true)
    }

    /// Whether the peer has said that it lists the key.
    pub fn is_listed(&self, peer: &Name, key: PublicKey) -> bool {
        self.read(&format!("listed/{}", file_name(peer))) == Some(key)
    }

    /// The tunnel that runs proves this key from now on. Of interest during a roll alone.
    pub fn note_proved(&self, key: PublicKey) {
        if self.dir.exists() && self.proved() != Some(key) {
            // Where it cannot be written, the command that waits for it says so.
            let _ = self.write("proved", key);
        }
    }

    /// Has the running tunnel say what it proves.
    ///
    /// # Errors
    ///
    /// If there can be no notes.
    pub fn begin(&self) -> io::Result<()> {
        make_dir(&self.state, &self.dir)
    }

    /// What the running tunnel has noted.
    pub fn proved(&self) -> Option<PublicKey> {
        self.read("proved")
    }

    fn write(&self, name: &str, key: PublicKey) -> io::Result<()> {
        replace(&self.state, &format!("{DIR}/{name}"), &key.to_string())
    }

    fn read(&self, name: &str) -> Option<PublicKey> {
        fs::read_to_string(self.dir.join(name)).ok()?.trim().parse().ok()
    }
}
