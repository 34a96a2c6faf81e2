//! The files of a bundle, and how they get into a directory.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

/// A bundle: what every file in it is, by path with `/` between the parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    files: BTreeMap<String, File>,
}

/// A file of a bundle.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// What is in it.
    pub bytes: Vec<u8>,
    /// Its permissions on unix.
    pub mode: u32,
    /// Whose it is once it has been written.
    pub owner: Owner,
}

/// Whose a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Ours: written each time.
    Blueprint,
    /// The user's: written once, as something to start from.
    User,
}

/// What writing a bundle came to; paths in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Files that were not there.
    pub new: Vec<String>,
    /// Files that were there with other content.
    pub changed: Vec<String>,
    /// Files that were there as they are.
    pub unchanged: Vec<String>,
    /// Files of the user's that differ from what they started from.
    pub kept: Vec<String>,
}

impl Bundle {
    /// The files, by path.
    pub fn files(&self) -> &BTreeMap<String, File> {
        &self.files
    }

    /// The text of a file.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).and_then(|file| std::str::from_utf8(&file.bytes).ok())
    }

    pub(crate) fn add(&mut self, path: impl Into<String>, text: impl Into<Vec<u8>>) -> &mut File {
        let file = File { bytes: text.into(), mode: 0o644, owner: Owner::Blueprint };
        self.files.entry(path.into()).insert_entry(file).into_mut()
    }

    /// What [`write`](Self::write) would do to `dir`.
    ///
    /// # Errors
    ///
    /// If what is there cannot be read.
    pub fn compare(&self, dir: &Path) -> Result<Changes, WriteError> {
        let mut changes = Changes::default();
        for (path, file) in &self.files {
            let target = dir.join(path);
            let list = match fs::read(&target) {
                Ok(bytes) if bytes == file.bytes => &mut changes.unchanged,
                Ok(_) if file.owner == Owner::User => &mut changes.kept,
                Ok(_) => &mut changes.changed,
                Err(error) if error.kind() == io::ErrorKind::NotFound => &mut changes.new,
                Err(error) => return Err(WriteError { path: target, verb: "read", error }),
            };
            list.push(path.clone());
        }
        Ok(changes)
    }

    /// Writes the bundle into `dir`, which is made if need be. Other files in there are left alone. Every file is
    /// replaced as a whole, so that an interrupted run leaves none half written.
    ///
    /// # Errors
    ///
    /// If a file or directory cannot be written.
    pub fn write(&self, dir: &Path) -> Result<Changes, WriteError> {
        let changes = self.compare(dir)?;
        for path in changes.new.iter().chain(&changes.changed).chain(&changes.unchanged) {
            let (target, file) = (dir.join(path), &self.files[path]);
            if let Some(parent) = target.parent() {
                directory(parent).map_err(|error| WriteError::write(parent, error))?;
            }
            if !changes.unchanged.contains(path) {
                replace(&target, file).map_err(|error| WriteError::write(&target, error))?;
            }
            // Also on an unchanged file: it may have been copied with another mode, and a secret must stay one.
            set_mode(&target, file.mode).map_err(|error| WriteError::write(&target, error))?;
        }
        Ok(changes)
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Some are secret.
        write!(f, "File({} bytes, {:04o}, {:?})", self.bytes.len(), self.mode, self.owner)
    }
}

/// Why a bundle could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {path:?}: {error}")]
pub struct WriteError {
    path: PathBuf,
    verb: &'static str,
    #[source]
    error: io::Error,
}

impl WriteError {
    fn write(path: &Path, error: io::Error) -> Self {
        Self { path: path.into(), verb: "write", error }
    }
}

/// Whatever the umask says, nobody else may write to it.
fn directory(path: &Path) -> io::Result<()> {
    let mut directory = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut directory, 0o755);
    directory.recursive(true).create(path)
}

fn replace(target: &Path, file: &File) -> io::Result<()> {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = target.with_file_name(name);
    // Left over from a run that was interrupted, perhaps with another mode.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, file.mode);
    let mut open = options.open(&temporary)?;
    open.write_all(&file.bytes)
        .and_then(|()| open.sync_all())
        .and_then(|()| fs::rename(&temporary, target))
        .inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

#[cfg(not(unix))]
fn set_mode(_: &Path, _: u32) -> io::Result<()> {
    Ok(())
}
