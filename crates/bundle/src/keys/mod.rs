//! The secrets of a bundle: one identity for each pod, and a token for each pod that is exposed.

mod roll;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::core::v1 as core;

use crate::{Blueprint, Label};
use ferry_config::{Identity, IdentityError, PublicKey, Secret};

pub use roll::{KeyRoll, RollStep, RollStepTaken};

/// The file of a pod that its secrets are in.
pub(crate) const SECRETS_FILE: &str = "02-secrets.yaml";
/// The key of the identity in its Secret.
pub(crate) const IDENTITY_KEY: &str = "identity.key";
/// The key of the token in its Secret.
pub(crate) const TOKEN_KEY: &str = "token";

/// The secrets of all pods.
#[derive(Debug, Default)]
pub struct Keys {
    pods: BTreeMap<Label, PodKeys>,
}

/// The secrets of a pod.
#[derive(Debug)]
pub struct PodKeys {
    /// What its tunnel proves itself with.
    pub identity: Identity,
    /// What peers accept next to it, while it is replaced.
    pub also: BTreeSet<PublicKey>,
    /// What callers of its web-app prove themselves with; only pods that are exposed need one.
    pub token: Option<Secret<String>>,
}

impl Keys {
    /// The keys in the bundle at `dir`, of those pods of the blueprint that have some there.
    ///
    /// # Errors
    ///
    /// If there are secrets that cannot be read: they are somebody's, and must not be replaced by fresh ones.
    pub fn load(dir: &Path, blueprint: &Blueprint) -> Result<Self, KeyError> {
        let mut keys = Self::default();
        for pod in &blueprint.pods {
            let path = dir.join(pod.id.as_str()).join(SECRETS_FILE);
            let text = match fs::read_to_string(&path) {
                Ok(text) => Secret::new(text),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(KeyError::Read(path, error)),
            };
            let mut found = PodKeys::parse(text.expose(), &path)?;
            found.also = KeyRoll::of(dir, &pod.id).also(found.identity.public_key())?;
            keys.insert(pod.id.clone(), found);
        }
        Ok(keys)
    }

    /// Makes the keys that the blueprint needs and that are not there yet.
    ///
    /// # Errors
    ///
    /// If there is no randomness to be had.
    pub fn complete(&mut self, blueprint: &Blueprint) -> Result<(), KeyError> {
        for pod in &blueprint.pods {
            if !self.pods.contains_key(&pod.id) {
                let identity = Identity::generate().map_err(KeyError::Generate)?;
                self.insert(pod.id.clone(), PodKeys { identity, also: BTreeSet::new(), token: None });
            }
            if let Some(keys) = self.pods.get_mut(&pod.id).filter(|keys| pod.expose.is_some() && keys.token.is_none()) {
                keys.token = Some(fresh_token()?);
            }
        }
        Ok(())
    }

    /// Gives a pod its keys, and takes those that it had.
    pub fn insert(&mut self, pod: Label, keys: PodKeys) {
        self.pods.insert(pod, keys);
    }

    /// The keys of a pod.
    pub fn of(&self, pod: &Label) -> Option<&PodKeys> {
        self.pods.get(pod)
    }

    fn of_mut(&mut self, pod: &Label) -> Option<&mut PodKeys> {
        self.pods.get_mut(pod)
    }
}

impl PodKeys {
    /// Reads the Secrets that [`crate::render`] wrote.
    fn parse(text: &str, path: &Path) -> Result<Self, KeyError> {
        let secrets: Vec<core::Secret> = serde_saphyr::from_multiple(text)
            .map_err(|error| KeyError::NotSecrets(path.into(), error.without_snippet().to_string()))?;
        let value = |key: &str| {
            secrets.iter().find_map(|secret| {
                let written = secret.string_data.as_ref().and_then(|data| data.get(key));
                let encoded = || secret.data.as_ref().and_then(|data| data.get(key));
                written.cloned().or_else(|| String::from_utf8(encoded()?.0.clone()).ok()).map(Secret::new)
            })
        };
        let identity = value(IDENTITY_KEY)
            .ok_or_else(|| KeyError::NotSecrets(path.into(), format!("no `{IDENTITY_KEY}` in it")))?;
        let identity = Identity::of_pem(identity.expose().as_bytes(), path).map_err(|error| match error {
            IdentityError::Published(path) => KeyError::Published(path),
            error => KeyError::Identity(error),
        })?;
        Ok(Self { identity, also: BTreeSet::new(), token: value(TOKEN_KEY) })
    }
}

/// 256 random bits as text.
fn fresh_token() -> Result<Secret<String>, KeyError> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| KeyError::Generate(IdentityError::Generate))?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(bytes)))
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The operating system would not let us read the file.
    #[error("cannot read {0:?}: {1}")]
    Read(PathBuf, #[source] io::Error),
    /// The file does not hold the Secrets that it should.
    #[error("{0:?} does not hold the keys of a pod: {1}; restore the file, or move it away to have fresh keys")]
    NotSecrets(PathBuf, String),
    /// The identity in the file is no good.
    #[error("{0}; restore the file, or move it away to have fresh keys")]
    Identity(#[source] IdentityError),
    /// The identity in the file is one that everybody has.
    #[error(
        "the private key in {0:?} is published, so anybody has it; move the file away to have a fresh key, and \
             deploy both ends"
    )]
    Published(PathBuf),
    /// What belongs to the replacement of a key cannot be written.
    #[error("cannot write {0:?}: {1}")]
    Write(PathBuf, #[source] io::Error),
    /// The pod has no key that could be replaced.
    #[error("`{0}` has no key in this bundle yet; run `ferry bundle` without --roll, and deploy it")]
    NothingToRoll(Label),
    /// No key could be made.
    #[error("{0}")]
    Generate(#[source] IdentityError),
}
