//! Which process this tunnel is, and which one it was.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use ferry_session::{Frame, Instance};
use tracing::warn;

const FILE: &str = "instance";

/// This process's instance and, where a state directory remembers it, the one before.
#[derive(Debug)]
pub(crate) struct Memoir {
    pub(crate) instance: Instance,
    former: Option<Instance>,
    /// Locked for as long as this process lives: who holds it knows that the former one is dead.
    _file: Option<File>,
}

impl Memoir {
    /// Chooses an instance, and swaps it for the former one's in `state`.
    pub(crate) fn open(state: Option<&Path>) -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        let instance = Instance(bytes);
        let Some(state) = state else { return Ok(Self { instance, former: None, _file: None }) };
        match swap(&state.join(FILE), instance) {
            Ok((former, file)) => Ok(Self { instance, former, _file: Some(file) }),
            Err(error) => {
                warn!("{}: peers will not be told of the former process: {error}", state.display());
                Ok(Self { instance, former: None, _file: None })
            }
        }
    }

    /// What a peer that waits for Hellos is told: that the former process is no more.
    pub(crate) fn gone(&self) -> Option<Frame<'static>> {
        self.former.map(|instance| Frame::Gone { instance })
    }
}

fn swap(path: &Path, instance: Instance) -> io::Result<(Option<Instance>, File)> {
    if let Some(state) = path.parent() {
        std::fs::create_dir_all(state)?;
    }
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => io::Error::other("another process uses it"),
        TryLockError::Error(error) => error,
    })?;
    let mut bytes = Vec::new();
    Read::by_ref(&mut file).take(17).read_to_end(&mut bytes)?;
    file.rewind()?;
    file.set_len(0)?;
    file.write_all(&instance.0)?;
    file.sync_data()?;
    Ok((bytes.try_into().ok().map(Instance), file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_the_one_before_but_not_one_beside_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = Memoir::open(Some(dir.path())).expect("random numbers");
        assert_eq!(first.former, None);
        let beside = Memoir::open(Some(dir.path())).expect("random numbers");
        assert_eq!(beside.former, None, "the first one lives");
        let instance = first.instance;
        drop((first, beside));
        let second = Memoir::open(Some(dir.path())).expect("random numbers");
        assert_eq!(second.former, Some(instance));
    }
}
