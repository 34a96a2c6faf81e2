//! Which process this tunnel is, and which ones it was.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ferry_session::{Frame, Instance};
use parking_lot::Mutex;
use tracing::{info, warn};

use crate::shared::Shared;

const FILE: &str = "instance";

/// Former processes that are remembered: as many as one link may tell of.
const MAX_PREVIOUS: usize = 16;

/// How often a state directory that cannot be used is tried again. Its former process may be draining still.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// This process's instance and, where a state directory remembers them, those before.
#[derive(Debug)]
pub(crate) struct InstanceFile {
    pub(crate) instance: Instance,
    path: Option<PathBuf>,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    /// The newest first.
    former: Vec<Instance>,
    /// Locked for as long as this process lives: who holds it knows that the former ones are dead.
    lock: Option<File>,
    /// What was said last about a directory that cannot be used.
    problem: Option<String>,
}

impl InstanceFile {
    /// Chooses an instance, unless it is one that outlived the process before, and puts it before the former ones in `state`.
    pub(crate) fn open(state: Option<&Path>, kept: Option<Instance>) -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        match kept {
            Some(Instance(kept)) => bytes = kept,
            None => getrandom::fill(&mut bytes)?,
        }
        let path = state.map(|state| state.join(FILE));
        let instance_file = Self { instance: Instance(bytes), path, record: Mutex::default() };
        instance_file.try_claim();
        Ok(instance_file)
    }

    /// This process, and then the former ones, the newest first.
    pub(crate) fn instances(&self) -> Vec<Instance> {
        std::iter::once(self.instance).chain(self.record.lock().former.iter().copied()).collect()
    }

    /// What a peer is told: that the former processes are no more.
    pub(crate) fn gone(&self) -> impl Iterator<Item = Frame<'static>> {
        self.record.lock().former.clone().into_iter().map(|instance| Frame::Gone { instance })
    }

    /// Tries to take the state directory over. Says whether nothing is left to try.
    fn try_claim(&self) -> bool {
        let Some(path) = &self.path else { return true };
        let mut record = self.record.lock();
        if record.lock.is_some() {
            return true;
        }
        match claim(path, self.instance) {
            Ok((former, lock)) => {
                if record.problem.take().is_some() {
                    info!("{}: free now; peers learn that the previous process has ended", path.display());
                }
                *record = Record { former, lock: Some(lock), problem: None };
                true
            }
            Err(error) => {
                let text = error.to_string();
                if record.problem.as_ref() != Some(&text) {
                    warn!(
                        "{}: {text}; it is tried again: until then no peer learns of the former process",
                        path.display()
                    );
                    record.problem = Some(text);
                }
                false
            }
        }
    }
}

/// Takes the state directory over as soon as its former process lets go of it, and tells the peers then.
pub(crate) async fn keep_claiming(shared: Arc<Shared>) {
    let mut late = false;
    while !shared.instance_file.try_claim() {
        late = true;
        tokio::select! {
            () = shared.stopping() => return,
            () = tokio::time::sleep(RETRY_INTERVAL) => {}
        }
    }
    if late {
        // Links from before have not told. Those that replace them do.
        shared.config().peers.values().for_each(|peer| peer.distrust());
    }
}

fn claim(path: &Path, instance: Instance) -> io::Result<(Vec<Instance>, File)> {
    if let Some(state) = path.parent() {
        ferry_config::make_private_dir(state)?;
    }
    let mut options = OpenOptions::new();
    // For this user alone, whatever the umask says.
    let mut file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => io::Error::other("another process uses it"),
        TryLockError::Error(error) => error,
    })?;
    let mut bytes = Vec::new();
    Read::by_ref(&mut file).take((MAX_PREVIOUS * 16) as u64).read_to_end(&mut bytes)?;
    let (former, _) = bytes.as_chunks::<16>();
    // One that has outlived its process is not gone.
    let former: Vec<_> = former.iter().copied().filter(|former| *former != instance.0).collect();
    file.rewind()?;
    file.set_len(0)?;
    file.write_all(&instance.0)?;
    file.write_all(former.as_flattened())?;
    file.sync_data()?;
    Ok((former.into_iter().map(Instance).collect(), file))
}

#[cfg(test)]
mod tests {
    use ferry_golden::{Golden, hex, unhex};

    use super::*;

    fn open(dir: &tempfile::TempDir) -> InstanceFile {
        InstanceFile::open(Some(dir.path()), None).expect("random numbers")
    }

    fn former(instance_file: &InstanceFile) -> Vec<Instance> {
        instance_file.record.lock().former.clone()
    }

    #[test]
    fn a_process_knows_those_before_but_not_one_beside_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = open(&dir);
        assert_eq!(former(&first), []);
        let beside = open(&dir);
        assert_eq!(former(&beside), [], "the first one lives");
        let mut known = vec![first.instance];
        drop((first, beside));
        for _ in 0..MAX_PREVIOUS + 2 {
            let next = open(&dir);
            known.truncate(MAX_PREVIOUS);
            assert_eq!(former(&next), known);
            known.insert(0, next.instance);
        }
    }

    #[test]
    fn the_file_is_as_its_golden_one_and_that_is_read() {
        let golden = Golden::of(
            env!("CARGO_MANIFEST_DIR"),
            "instance",
            "txt",
            "the file, which has none yet, in crates/tunnel/src/instance.rs",
        );
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(FILE);
        let instances = [1, 2, 3].map(|number| Instance([number; 16]));
        for instance in instances.into_iter().rev() {
            InstanceFile::open(Some(dir.path()), Some(instance)).expect("a claim");
        }
        golden.hold(1, &format!("{}\n", hex(&std::fs::read(&path).expect("a file"))));
        std::fs::write(&path, unhex(golden.read(1).trim_end())).expect("written");
        assert_eq!(former(&open(&dir)), instances);
    }

    #[test]
    fn an_instance_that_outlives_its_process_is_not_told_to_be_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = open(&dir);
        let (before, kept) = (first.instance, Instance([7; 16]));
        drop(first);
        for _ in 0..3 {
            let adopting = InstanceFile::open(Some(dir.path()), Some(kept)).expect("a claim");
            assert_eq!((adopting.instance, former(&adopting)), (kept, vec![before]));
        }
        assert_eq!(former(&open(&dir)), [kept, before]);
    }

    #[test]
    fn a_process_that_starts_beside_the_former_one_takes_over_when_that_has_ended() {
        let dir = tempfile::tempdir().expect("a directory");
        let draining = open(&dir);
        let next = open(&dir);
        assert!(!next.try_claim());
        assert!(!next.try_claim());
        let gone = draining.instance;
        drop(draining);
        assert!(next.try_claim());
        assert_eq!(former(&next), [gone]);
        let beside = open(&dir);
        assert!(!beside.try_claim(), "it is held from then on");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_tried_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let in_the_way = dir.path().join("state");
        std::fs::write(&in_the_way, "a file").expect("written");
        let instance_file = InstanceFile::open(Some(&in_the_way), None).expect("random numbers");
        assert!(!instance_file.try_claim());
        std::fs::remove_file(&in_the_way).expect("removed");
        assert!(instance_file.try_claim());
    }
}
