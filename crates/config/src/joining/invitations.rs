//! The invitations of a tunnel: files below its state directory, shared by `ferry invite` and the tunnel that runs.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::joined::{Joined, read_all};
use super::token::InvitationId;
use super::{make_private_dir, unix_time, write_new};
use crate::address::HostPort;
use crate::key::PublicKey;
use crate::name::{Name, ServiceName};
use crate::report::ValueError;
use crate::tunnel::{EntryLimits, Peer, Route};

/// The largest file of an invitation, in bytes.
const MAX_FILE_LEN: u64 = 64 * 1024;

/// For so many seconds after its end an invitation is remembered, so that its bearer learns why it does not work.
const REMEMBERED: u64 = 7 * 24 * 3600;

/// A service here that whoever joins may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its name.
    pub service: ServiceName,
    /// Where its application listens. An `ingress` of this name in `tunnel.yaml` comes before it.
    pub forward: HostPort,
}

/// An invitation as it is kept: without the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// Which one it is.
    pub id: InvitationId,
    /// SHA-256 of the secret.
    hash: Vec<u8>,
    /// When it ends, in seconds since 1970.
    pub expires: u64,
    /// What the peer is to be called; otherwise it chooses.
    pub name: Option<Name>,
    /// What it may reach.
    pub offers: Vec<Offer>,
}

/// Who wants to use an invitation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The key that it has proved.
    pub key: PublicKey,
    /// How it calls itself.
    pub name: Name,
}

/// Why an invitation does not work.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// There is none of this id, or the secret is another one: which of both is not for a stranger to know.
    #[error("there is no such invitation here, or the secret is wrong")]
    Unknown,
    /// Somebody has used it.
    #[error("the invitation was used {ago} s ago by {name} with the key {key}")]
    Used {
        /// The peer that used it.
        name: String,
        /// Its key.
        key: String,
        /// So many seconds ago.
        ago: u64,
    },
    /// It has ended.
    #[error("the invitation expired {ago} s ago")]
    Expired {
        /// So many seconds ago.
        ago: u64,
        /// This host's time, in seconds since 1970.
        now: u64,
    },
    /// Another peer has the name.
    #[error("there is another peer of the name {0} already")]
    NameTaken(Name),
    /// Another peer has the key.
    #[error("the key {0} is a peer's already")]
    KeyTaken(PublicKey),
    /// What came of it cannot be kept.
    #[error("{0:?}: {1}")]
    Io(PathBuf, io::Error),
}

/// The directory that they are in.
#[derive(Clone, Debug)]
pub struct Invitations {
    state: PathBuf,
    dir: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct File {
    hash: String,
    expires: u64,
    name: Option<String>,
    services: Vec<FileOffer>,
}

#[derive(Serialize, Deserialize)]
struct FileOffer {
    service: String,
    forward: String,
}

/// Who used an invitation.
#[derive(Serialize, Deserialize)]
struct Used {
    name: String,
    key: String,
    at: u64,
}

impl Invitation {
    /// An invitation that this secret is for.
    pub fn new(id: InvitationId, secret: &[u8; 32], expires: u64, name: Option<Name>, offers: Vec<Offer>) -> Self {
        Self { id, hash: digest(&SHA256, secret).as_ref().to_vec(), expires, name, offers }
    }

    fn from_file(id: InvitationId, file: File) -> Result<Self, ValueError> {
        let offers = file
            .services
            .iter()
            .map(|offer| Ok(Offer { service: offer.service.parse()?, forward: offer.forward.parse()? }));
        Ok(Self {
            id,
            hash: URL_SAFE_NO_PAD.decode(file.hash).map_err(|_| ValueError::new("no hash", ""))?,
            expires: file.expires,
            name: file.name.map(|name| name.parse()).transpose()?,
            offers: offers.collect::<Result<_, ValueError>>()?,
        })
    }

    fn to_file(&self) -> File {
        let offer =
            |offer: &Offer| FileOffer { service: offer.service.to_string(), forward: offer.forward.to_string() };
        File {
            hash: URL_SAFE_NO_PAD.encode(&self.hash),
            expires: self.expires,
            name: self.name.as_ref().map(ToString::to_string),
            services: self.offers.iter().map(offer).collect(),
        }
    }
}

impl Invitations {
    /// Those of the tunnel with this state directory.
    pub fn of(state: &Path) -> Self {
        Self { state: state.to_owned(), dir: state.join("invitations") }
    }

    /// Whether nobody can have been invited. What cannot be read counts as none.
    pub fn is_empty(&self) -> bool {
        fs::read_dir(&self.dir).map_or(true, |mut entries| entries.next().is_none())
    }

    /// Keeps an invitation, and forgets those that ended long ago.
    ///
    /// # Errors
    ///
    /// The path that cannot be written, and why.
    pub fn add(&self, invitation: &Invitation) -> Result<(), RedeemError> {
        make_private_dir(&self.dir).map_err(|error| RedeemError::Io(self.dir.clone(), error))?;
        self.forget_before(unix_time().saturating_sub(REMEMBERED));
        write_json(&self.path(invitation.id, "json"), &invitation.to_file())
    }

    /// Lets whoever has the secret join: once, or again with the key that it was used with, so that an answer that was lost
    /// can be asked for again. `check` says whether the tunnel can list such a peer.
    ///
    /// # Errors
    ///
    /// Why not. Only a bearer of the secret learns more than [`RedeemError::Unknown`].
    pub fn redeem(
        &self,
        id: InvitationId,
        secret: &[u8],
        claim: &Claim,
        check: impl FnOnce(&Claim) -> Result<(), RedeemError>,
    ) -> Result<Joined, RedeemError> {
        let invitation = self.read(id).ok_or(RedeemError::Unknown)?;
        let hash = digest(&SHA256, secret);
        verify_slices_are_equal(hash.as_ref(), &invitation.hash).map_err(|_| RedeemError::Unknown)?;
        let claim = Claim { name: invitation.name.clone().unwrap_or_else(|| claim.name.clone()), ..claim.clone() };
        let joined = invitation.joined(&claim);
        if let Some(used) = self.used(id)? {
            let is_answered_again = used.key == claim.key.to_string()
                && used.name == claim.name.as_str()
                && Joined::path(&self.state, &claim.name).exists();
            return if is_answered_again { Ok(joined) } else { Err(used.into()) };
        }
        let now = unix_time();
        if now >= invitation.expires {
            return Err(RedeemError::Expired { ago: now - invitation.expires, now });
        }
        check(&claim)?;
        if is_listed(&self.state, &claim.key) {
            return Err(RedeemError::KeyTaken(claim.key));
        }
        let used = Used { name: claim.name.to_string(), key: claim.key.to_string(), at: now };
        let path = self.path(id, "used");
        write_json(&path, &used).or_else(|error| match error {
            // Another one was faster.
            RedeemError::Io(_, error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(self.used(id)?.map_or(RedeemError::Unknown, Into::into))
            }
            error => Err(error),
        })?;
        joined.write_new(&self.state).map_err(|error| {
            // Nobody has joined by it. That it cannot be given back leaves it used.
            let _ = fs::remove_file(&path);
            match error.kind() {
                io::ErrorKind::AlreadyExists => RedeemError::NameTaken(claim.name.clone()),
                _ => RedeemError::Io(Joined::path(&self.state, &claim.name), error),
            }
        })?;
        Ok(joined)
    }

    fn read(&self, id: InvitationId) -> Option<Invitation> {
        let file = serde_json::from_str(&read_small(&self.path(id, "json")).ok()?).ok()?;
        Invitation::from_file(id, file).ok()
    }

    fn used(&self, id: InvitationId) -> Result<Option<Used>, RedeemError> {
        let path = self.path(id, "used");
        match read_small(&path) {
            // One that is being written names nobody yet.
            Ok(text) => Ok(Some(serde_json::from_str(&text).unwrap_or_else(|_| Used::by_somebody()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(RedeemError::Io(path, error)),
        }
    }

    fn path(&self, id: InvitationId, extension: &str) -> PathBuf {
        self.dir.join(format!("{id}.{extension}"))
    }

    fn forget_before(&self, time: u64) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let id = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            let Some(id) = id.filter(|_| path.extension().is_some_and(|extension| extension == "json")) else {
                continue;
            };
            if self.read(id).is_some_and(|invitation| invitation.expires < time) {
                // One that stays is looked at again with the next invitation.
                let _ = fs::remove_file(path);
                let _ = fs::remove_file(self.path(id, "used"));
            }
        }
    }
}

impl Invitation {
    fn joined(&self, claim: &Claim) -> Joined {
        let peer = Peer {
            name: claim.name.clone(),
            keys: BTreeSet::from([claim.key]),
            addresses: Vec::new(),
            route: Route::default(),
            limits: EntryLimits::default(),
        };
        Joined { peer, services: self.offers.clone(), egress: Vec::new() }
    }
}

impl Used {
    fn by_somebody() -> Self {
        Self { name: "somebody".to_owned(), key: "unknown".to_owned(), at: unix_time() }
    }
}

impl From<Used> for RedeemError {
    fn from(used: Used) -> Self {
        Self::Used { ago: unix_time().saturating_sub(used.at), name: used.name, key: used.key }
    }
}

/// A peer that has joined has this key, whether or not that is in force yet.
fn is_listed(state: &Path, key: &PublicKey) -> bool {
    let key = key.to_string();
    read_all(state).iter().any(|file| file.text.as_ref().is_ok_and(|text| text.contains(&key)))
}

fn read_small(path: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_FILE_LEN).read_to_string(&mut text)?;
    Ok(text)
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), RedeemError> {
    let failed = |error: io::Error| RedeemError::Io(path.to_owned(), error);
    let text = serde_json::to_string_pretty(value).map_err(|error| failed(error.into()))?;
    write_new(path, &text).map_err(failed)
}
