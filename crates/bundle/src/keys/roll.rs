//! A pod's key is replaced while its clusters are deployed one after another, in an order that locks nobody out.
//!
//! Beside the Secrets of the bundle there is, in `.roll/`, the next key of the pod and which one it is next to. Together
//! they say how far it is, whatever ended the command:
//!
//! ```text
//!   the Secret has   the key before   the next one                    what it is
//!                    Announcing ────▶ Switched                        neither: Idle
//!   peers list       both             both                            its own alone
//! ```
//!
//! `.roll/POD.SCRIPT` is there until that script has brought a step to its cluster.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{KeyError, Keys};
use crate::{Blueprint, Label};
use ferry_config::{Identity, PublicKey};

/// In the bundle. It has private keys.
const DIR: &str = ".roll";

/// The key of one pod, as it is replaced.
#[derive(Clone, Debug)]
pub struct KeyRoll {
    dir: PathBuf,
    pod: Label,
}

/// What a step has done, and which scripts bring it to the clusters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollStep {
    /// What it was.
    pub taken: RollStepTaken,
    /// Scripts of the bundle.
    pub scripts: Vec<String>,
}

/// What a step has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RollStepTaken {
    /// Nothing: the scripts have not run since the step before.
    None,
    /// There is a next key, which the peers list in addition.
    Announced,
    /// The next key is the pod's.
    Switched,
    /// The peers list it alone.
    Parted,
}

impl KeyRoll {
    /// That of a pod of the bundle at `dir`.
    pub fn of(dir: &Path, pod: &Label) -> Self {
        Self { dir: dir.join(DIR), pod: pod.clone() }
    }

    /// What peers of the pod list next to `own`, its key.
    ///
    /// # Errors
    ///
    /// If there is something that cannot be read.
    pub(super) fn also(&self, own: PublicKey) -> Result<BTreeSet<PublicKey>, KeyError> {
        let Some((before, next)) = self.keys()? else { return Ok(BTreeSet::new()) };
        let next = next.public_key();
        // Of another key, which somebody has put there since: neither of these has a place any more.
        let is_of = own == before || own == next;
        Ok([before, next].into_iter().filter(|key| is_of && *key != own).collect())
    }

    /// Takes the next step: changes `keys`, which are then to be rendered. Where a script has yet to run, nothing but that
    /// is said.
    ///
    /// # Errors
    ///
    /// If the pod has no key, or a file cannot be read or written.
    pub fn advance(&self, blueprint: &Blueprint, keys: &mut Keys) -> Result<RollStep, KeyError> {
        let own = keys.of_mut(&self.pod).ok_or_else(|| KeyError::NothingToRoll(self.pod.clone()))?;
        let found =
            self.keys()?.filter(|(before, next)| [*before, next.public_key()].contains(&own.identity.public_key()));
        let unapplied = self.unapplied(blueprint);
        if found.is_some() && !unapplied.is_empty() {
            return Ok(RollStep { taken: RollStepTaken::None, scripts: unapplied });
        }
        let (taken, scripts) = match found {
            None => {
                let scripts = scripts_of_peers(blueprint, &self.pod);
                own.also = [self.make_next(&own.identity, &scripts)?].into();
                (RollStepTaken::Announced, scripts)
            }
            Some((before, next)) if own.identity.public_key() == before => {
                let scripts = scripts_of([&self.pod].into(), blueprint);
                self.note(&scripts)?;
                // In force once the Secrets are written, as a whole.
                (own.identity, own.also) = (next, [before].into());
                (RollStepTaken::Switched, scripts)
            }
            Some(_) => {
                self.remove("next")?;
                self.remove("before")?;
                own.also.clear();
                (RollStepTaken::Parted, scripts_of_peers(blueprint, &self.pod))
            }
        };
        Ok(RollStep { taken, scripts })
    }

    /// Where it is noted that a script has yet to run.
    pub fn note_of(&self, script: &str) -> PathBuf {
        self.path(script)
    }

    /// The key before and the next one, if a roll is under way.
    fn keys(&self) -> Result<Option<(PublicKey, Identity)>, KeyError> {
        let (before, next) = (self.path("before"), self.path("next"));
        let text = match fs::read_to_string(&before) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(KeyError::Read(before, error)),
        };
        if !next.exists() {
            return Ok(None);
        }
        let damaged =
            |error: ferry_config::ValueError| KeyError::Read(before.clone(), io::Error::other(error.to_string()));
        Ok(Some((text.trim().parse().map_err(damaged)?, Identity::load(&next).map_err(KeyError::Identity)?)))
    }

    /// The next key last: without it nothing is under way.
    fn make_next(&self, own: &Identity, scripts: &[String]) -> Result<PublicKey, KeyError> {
        fs::create_dir_all(&self.dir).map_err(|error| KeyError::Write(self.dir.clone(), error))?;
        self.remove("next")?;
        let write = |path: PathBuf, text: &str| fs::write(&path, text).map_err(|error| KeyError::Write(path, error));
        write(self.dir.join(".gitignore"), "# Keys.\n*\n")?;
        self.note(scripts)?;
        write(self.path("before"), &format!("{}\n", own.public_key()))?;
        self.remove("next.new")?;
        let (next, written) = (Identity::generate().map_err(KeyError::Generate)?, self.path("next.new"));
        next.write_new(&written).map_err(KeyError::Identity)?;
        fs::rename(&written, self.path("next")).map_err(|error| KeyError::Write(written, error))?;
        Ok(next.public_key())
    }

    /// Notes that these scripts have yet to run, and no others.
    fn note(&self, scripts: &[String]) -> Result<(), KeyError> {
        scripts.iter().map(|script| self.path(script)).try_for_each(|path| {
            fs::write(&path, "Removed by this script when it has run.\n").map_err(|error| KeyError::Write(path, error))
        })
    }

    fn unapplied(&self, blueprint: &Blueprint) -> Vec<String> {
        let scripts: BTreeSet<_> = blueprint.clusters.iter().map(|cluster| blueprint.deploy_script(cluster)).collect();
        scripts.into_iter().filter(|script| self.path(script).exists()).collect()
    }

    fn remove(&self, what: &str) -> Result<(), KeyError> {
        let path = self.path(what);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(KeyError::Write(path, error)),
            _ => Ok(()),
        }
    }

    fn path(&self, what: &str) -> PathBuf {
        self.dir.join(format!("{}.{what}", self.pod))
    }
}

/// The scripts that deploy the peers of a pod.
fn scripts_of_peers(blueprint: &Blueprint, pod: &Label) -> Vec<String> {
    let ways = blueprint.connections.iter().filter(|way| way.from == *pod || way.to == *pod);
    scripts_of(ways.map(|way| if way.from == *pod { &way.to } else { &way.from }).collect(), blueprint)
}

fn scripts_of(pods: BTreeSet<&Label>, blueprint: &Blueprint) -> Vec<String> {
    let pods = blueprint.pods.iter().filter(|pod| pods.contains(&pod.id));
    let clusters = pods.filter_map(|pod| blueprint.clusters.iter().find(|cluster| cluster.id == pod.cluster));
    let scripts: BTreeSet<_> = clusters.map(|cluster| blueprint.deploy_script(cluster)).collect();
    scripts.into_iter().collect()
}
