//! The private key of a tunnel, and the file that it is kept in.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use zeroize::Zeroizing;

use crate::key::PublicKey;
use crate::pem;
use crate::published::is_published;
use crate::secret::Secret;

/// The largest identity file, in bytes. A PEM Ed25519 key is some 120.
const MAX_FILE_LEN: usize = 16 * 1024;

/// An Ed25519 private key: what a tunnel proves itself with.
///
/// Cheap to clone; equal when the public keys are. The key is wiped when the last clone is dropped.
#[derive(Clone)]
pub struct Identity {
    pkcs8: Arc<Secret<Vec<u8>>>,
    public: PublicKey,
}

impl Identity {
    /// A new identity from the operating system's randomness.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Generate`] if there is no randomness to be had.
    pub fn generate() -> Result<Self, IdentityError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| IdentityError::Generate)?;
        Self::of_pair(&pair).ok_or(IdentityError::Generate)
    }

    /// Reads the identity from a file: one Ed25519 private key, PKCS#8 (version 1 or 2) in PEM, as
    /// [`write_new`](Self::write_new) and `openssl genpkey -algorithm ed25519` write it.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, holds anything else, or is open to others: on unix its mode may let the group read
    /// it (a mounted Secret is 0440 or 0640) but not write it, and nobody else may do either.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let text = read(path)?;
        Self::of_pem(&text, path)
    }

    /// The identity in `text`, as [`load`](Self::load) reads it from a file; `path` is where the text comes from, for
    /// messages.
    ///
    /// # Errors
    ///
    /// If the text holds anything but one such key, or one that is published.
    pub fn of_pem(text: &[u8], path: &Path) -> Result<Self, IdentityError> {
        let der = pem::private_key(text).map_err(|error| match error {
            pem::PemError::OtherAlgorithm => IdentityError::WrongAlgorithm(path.into()),
            pem::PemError::NotAKey(why) => IdentityError::NotAKey(path.into(), why),
        })?;
        Ed25519KeyPair::from_pkcs8(&der)
            .map_err(|rejected| match rejected.description_() {
                "WrongAlgorithm" => IdentityError::WrongAlgorithm(path.into()),
                _ => IdentityError::NotAKey(path.into(), "the key inside is damaged"),
            })
            .and_then(|pair| {
                if pair.public_key().as_ref().try_into().is_ok_and(is_published) {
                    return Err(IdentityError::Published(path.into()));
                }
                let why = "the key inside is degenerate";
                Self::of_pair(&pair).ok_or_else(|| IdentityError::NotAKey(path.into(), why))
            })
    }

    /// Writes the identity to a new file that only its owner may read (0600).
    ///
    /// # Errors
    ///
    /// [`IdentityError::Exists`] if there is something at `path` already: a key is never overwritten. A file that could
    /// not be written to its end is removed again.
    pub fn write_new(&self, path: &Path) -> Result<(), IdentityError> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let failed = |error: io::Error| IdentityError::Write(path.into(), error);
        let mut file = options.open(path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => IdentityError::Exists(path.into()),
            _ => failed(error),
        })?;
        file.write_all(self.to_pem().expose().as_bytes()).and_then(|()| file.sync_all()).map_err(|error| {
            // It is ours and useless; that it cannot be removed either changes nothing.
            let _ = fs::remove_file(path);
            failed(error)
        })
    }

    /// The key as [`write_new`](Self::write_new) writes it: PKCS#8 version 1 in PEM.
    pub fn to_pem(&self) -> Secret<String> {
        Secret::new(std::mem::take(&mut *pem::render_private_key(self.pkcs8.expose())))
    }

    /// The public half: what peers list in their `keys`.
    pub fn public_key(&self) -> PublicKey {
        self.public
    }

    /// The private key as PKCS#8 version 1 in DER.
    pub fn pkcs8_der(&self) -> &Secret<Vec<u8>> {
        &self.pkcs8
    }

    fn of_pair(pair: &Ed25519KeyPair) -> Option<Self> {
        let raw = pair.public_key().as_ref().try_into().ok()?;
        Some(Self {
            pkcs8: Arc::new(Secret::new(pair.to_pkcs8v1().ok()?.as_ref().to_vec())),
            public: PublicKey::from_bytes(raw).ok()?,
        })
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.public == other.public
    }
}

impl Eq for Identity {}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.public)
    }
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// There is no such file.
    #[error("there is no file {0:?}")]
    Missing(PathBuf),
    /// The mode (second) lets others read or change the file, or the group change it.
    #[error("the mode of {0:?} is {1:04o}, which lets others at the private key")]
    Exposed(PathBuf, u32),
    /// The mode (second) of the directory that the file is in lets others put another in its place.
    #[error("the mode of the directory {0:?} is {1:04o}, which lets others replace the private key in it")]
    ExposedDirectory(PathBuf, u32),
    /// A directory.
    #[error("{0:?} is a directory")]
    Directory(PathBuf),
    /// A pipe, a device or the like.
    #[error("{0:?} is not a regular file")]
    NotAFile(PathBuf),
    /// Far larger than any key.
    #[error("{0:?} is larger than {max} KiB, so it is not a key", max = MAX_FILE_LEN / 1024)]
    TooLarge(PathBuf),
    /// The file does not hold a private key, or a damaged one.
    #[error("{0:?} does not hold a private key: {1}")]
    NotAKey(PathBuf, &'static str),
    /// The file holds a private key for something else than Ed25519.
    #[error("{0:?} holds a private key, but not an Ed25519 one")]
    WrongAlgorithm(PathBuf),
    /// The key is in an example or a standard.
    #[error("{0:?} holds a private key that is published, so anybody has it")]
    Published(PathBuf),
    /// The operating system would not let us read it.
    #[error("cannot read {0:?}: {1}")]
    Read(PathBuf, #[source] io::Error),
    /// There is something at the path already.
    #[error("{0:?} exists already, and a key is never overwritten")]
    Exists(PathBuf),
    /// The operating system would not let us write it.
    #[error("cannot write {0:?}: {1}")]
    Write(PathBuf, #[source] io::Error),
    /// No key could be made.
    #[error("the operating system gave no randomness for a key")]
    Generate,
}

impl IdentityError {
    /// What to do about it; may be empty.
    pub fn hint(&self) -> String {
        match self {
            Self::Missing(path) => format!("make one with `ferry keygen --out {path:?}`"),
            Self::Exposed(path, _) => format!("run `chmod 600 {path:?}`"),
            Self::ExposedDirectory(path, _) => {
                format!("run `chmod o-w {path:?}`, or move the key into a directory of its own")
            }
            Self::NotAKey(..) | Self::WrongAlgorithm(_) | Self::TooLarge(_) => {
                "an identity is an Ed25519 private key in PEM, as `ferry keygen` writes it".into()
            }
            Self::Published(path) => {
                format!("move it away, run `ferry keygen --out {path:?}`, and list the new key at the peers")
            }
            Self::Directory(_) | Self::NotAFile(_) => "name the key file itself".into(),
            Self::Exists(_) => "choose another file, or move that one away".into(),
            Self::Read(..) | Self::Write(..) => "look at the owner and mode of file and directory".into(),
            Self::Generate => String::new(),
        }
    }
}

/// What the file holds, if it may be relied on: a regular file that is not open to others.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => IdentityError::Missing(path.into()),
        _ => IdentityError::Read(path.into(), error),
    };
    // Before opening only because opening a pipe would wait for its writer.
    check_kind(path, &fs::metadata(path).map_err(failed)?)?;
    let file = File::open(path).map_err(failed)?;
    // What counts is the file that is open, whatever the path has come to mean since.
    let metadata = file.metadata().map_err(failed)?;
    check_kind(path, &metadata)?;
    check_mode(path, &metadata)?;
    // Where it is named, and where it is.
    for dir in [Some(path), path.canonicalize().ok().as_deref()].into_iter().flatten().filter_map(Path::parent) {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        check_directory(dir, &fs::metadata(dir).map_err(failed)?)?;
    }
    // One allocation that is large enough, so that no outgrown copy of the key is left behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE_LEN + 64));
    file.take(MAX_FILE_LEN as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > MAX_FILE_LEN {
        return Err(IdentityError::TooLarge(path.into()));
    }
    Ok(bytes)
}

fn check_kind(path: &Path, metadata: &fs::Metadata) -> Result<(), IdentityError> {
    if metadata.is_dir() {
        return Err(IdentityError::Directory(path.into()));
    }
    if !metadata.is_file() {
        return Err(IdentityError::NotAFile(path.into()));
    }
    Ok(())
}

#[cfg(unix)]
fn check_mode(path: &Path, metadata: &fs::Metadata) -> Result<(), IdentityError> {
    use std::os::unix::fs::MetadataExt as _;

    let mode = metadata.mode() & 0o777;
    // Others: neither read nor write. Group: no write.
    if mode & 0o026 != 0 {
        return Err(IdentityError::Exposed(path.into(), mode));
    }
    Ok(())
}

#[cfg(unix)]
fn check_directory(dir: &Path, metadata: &fs::Metadata) -> Result<(), IdentityError> {
    use std::os::unix::fs::MetadataExt as _;

    let mode = metadata.mode() & 0o7777;
    // In a sticky one, such as a secret's in a pod, others cannot replace what is not theirs.
    if mode & 0o1002 == 0o002 {
        return Err(IdentityError::ExposedDirectory(dir.into(), mode));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_directory(_: &Path, _: &fs::Metadata) -> Result<(), IdentityError> {
    Ok(())
}

#[cfg(not(unix))]
fn check_mode(_: &Path, _: &fs::Metadata) -> Result<(), IdentityError> {
    Ok(())
}
