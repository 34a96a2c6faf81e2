//! An identity that is being replaced: what is kept at the end whose it is, and at its peers.
//!
//! Everything but the keys themselves is below `state`: `roll/next` is the public half of the next key, `roll/listed/NAME`
//! the next key that the peer has said it lists, `roll/proved` the key that the running tunnel proves; `rolled/NAME.json` is
//! what a peer's keys have become, which [`load`](crate::load) reads in addition to `tunnel.yaml`.

mod own;
mod peer;

use std::fs;
use std::io;
use std::path::Path;

pub use own::{Roll, RollNotes, RollStage};
pub use peer::RolledPeer;
pub(crate) use peer::{RolledFile, merge, read_all};

use crate::joining::{make_private_dir, write_new};
use crate::name::Name;

/// Writes a file at a place below `state`, whole under its name or not at all. It belongs to whoever `state` belongs to: the
/// administrator may have written it, and the tunnel has to read it.
fn replace(state: &Path, place: &str, text: &str) -> io::Result<()> {
    let path = state.join(place);
    let dir = path.parent().unwrap_or(state);
    make_dir(state, dir)?;
    let mut written = path.as_os_str().to_owned();
    written.push(".new");
    let written = Path::new(&written);
    let _ = fs::remove_file(written);
    write_new(written, text)?;
    give_to_owner_of(state, written)?;
    fs::rename(written, &path)?;
    sync_dir(dir)
}

/// Makes a directory below `state`, and those above it.
fn make_dir(state: &Path, dir: &Path) -> io::Result<()> {
    make_private_dir(dir)?;
    let mut made = dir.ancestors().take_while(|made| *made != state && made.starts_with(state));
    made.try_for_each(|made| give_to_owner_of(state, made))
}

/// Has the second belong to whoever the first belongs to. Only root can need it, and do it.
#[cfg(unix)]
fn give_to_owner_of(like: &Path, path: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, chown};

    let [like, own] = [fs::metadata(like)?, fs::metadata(path)?];
    if (like.uid(), like.gid()) == (own.uid(), own.gid()) {
        return Ok(());
    }
    chown(path, Some(like.uid()), Some(like.gid()))
}

#[cfg(not(unix))]
fn give_to_owner_of(_: &Path, _: &Path) -> io::Result<()> {
    Ok(())
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    fs::File::open(dir)?.sync_all()
}

/// A name as that of a file. It has no `_`, so that no two share one.
fn file_name(name: &Name) -> String {
    name.as_str().replace('/', "_")
}
