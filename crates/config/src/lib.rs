//! Ferry's configuration: `tunnel.yaml` and identity files, from text to values that need no further checking, and back.
//!
//! [`load`] reads a `tunnel.yaml` and the identity that it names, and reports every problem in both at once. [`parse`]
//! does as much of it as can be done without touching a file. [`Watch`] reads again what has changed. [`Token`] and
//! [`Invitations`] let two tunnels list each other without anybody writing a `tunnel.yaml`.

mod address;
mod check;
mod congestion;
pub mod fields;
mod identity;
mod joining;
mod key;
mod name;
mod pem;
mod proxy;
mod published;
mod raw;
mod report;
mod rolling;
mod secret;
pub mod settings;
mod tunnel;
mod values;
mod watch;
pub mod yaml;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use fields::Problems;
use raw::RawTunnel;
use watch::Seen;

pub use address::{Address, HostPort, WebSocketUrl};
pub use congestion::CongestionControl;
pub use identity::{Identity, IdentityError};
pub use joining::{
    Claim, Invitation, InvitationId, Invitations, Joined, JoinedEgress, Offer, OfferedService, RedeemError, Token,
    make_private_dir, unix_time,
};
pub use key::PublicKey;
pub use name::{DnsName, MAX_NAME_LEN, Name, ServiceName};
pub use proxy::Proxy;
pub use report::{Problem, Report, ValueError, quoted};
pub use rolling::{Roll, RollNotes, RollStage, RolledPeer};
pub use secret::Secret;
pub use settings::{Limits, Resume, Rotation, Settings, WarmLinks};
pub use tunnel::{Egress, EntryLimits, Ingress, Keeper, Peer, Prefer, ProxyProtocol, Route, Tunnel};
pub use watch::Watch;

/// The largest `tunnel.yaml`, in bytes: 1 MiB.
const MAX_FILE_LEN: usize = 1 << 20;

/// A configuration that is ready for use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The tunnel.
    pub tunnel: Tunnel,
    /// What looks wrong but can be worked with.
    pub warnings: Vec<Problem>,
}

/// A configuration whose identity has not been loaded: the path of its file stands for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The tunnel.
    pub tunnel: Tunnel<PathBuf>,
    /// What looks wrong but can be worked with.
    pub warnings: Vec<Problem>,
}

/// Reads a `tunnel.yaml` and the identity that it names.
///
/// # Errors
///
/// Every problem in the two files, each with its position and what to do about it.
pub fn load(path: &Path) -> Result<Loaded, Report> {
    load_seen(path, None).map(|(loaded, _)| loaded)
}

/// As [`load`], as if this peer had joined: what it would come to.
///
/// # Errors
///
/// As [`load`].
pub fn load_with(path: &Path, joined: &Joined) -> Result<Loaded, Report> {
    load_seen(path, Some(joined)).map(|(loaded, _)| loaded)
}

/// As [`load`], with what the files held.
fn load_seen(path: &Path, another: Option<&Joined>) -> Result<(Loaded, Seen), Report> {
    let source = path.display().to_string();
    let text = read_file(path).map_err(|error| Report::of_document(&source, error))?;
    let dir = path.parent().unwrap_or(Path::new(""));
    let mut seen = Seen::default();
    let identify = |path: &Path| {
        let refused = |error: IdentityError| ValueError::new(error.to_string(), error.hint());
        (seen.identity, seen.pem) = (path.to_owned(), identity::read(path).map_err(refused)?);
        Identity::of_pem(&seen.pem, path).map_err(refused)
    };
    let own = |identity: &Identity| Some(identity.public_key());
    let (mut state, mut files, mut rolled) = (None, Vec::new(), Vec::new());
    let join = |raw: &mut RawTunnel, problems: &Problems| {
        state.clone_from(&raw.state);
        files = state.as_deref().map(joining::read_all).unwrap_or_default();
        files.extend(state.as_deref().zip(another).map(|(state, joined)| joined.to_file(state)));
        joining::merge(raw, &files, dir, problems);
        rolled = raw.state.as_deref().map(rolling::read_all).unwrap_or_default();
        rolling::merge(raw, &rolled, problems);
    };
    let (tunnel, warnings) = read(&source, &text, dir, identify, own, join)?;
    Ok((Loaded { tunnel, warnings }, Seen { text, state, joined: files, rolled, ..seen }))
}

/// Reads the text of a `tunnel.yaml`. Relative paths in it are joined to `dir`; no file is touched, so neither the
/// identity nor what depends on it is checked.
///
/// # Errors
///
/// Every problem in the text, each with its position and what to do about it.
pub fn parse(text: &str, dir: &Path) -> Result<Parsed, Report> {
    let identify = |path: &Path| Ok(path.to_owned());
    let (tunnel, warnings) = read("tunnel.yaml", text, dir, identify, |_| None, |_, _| {})?;
    Ok(Parsed { tunnel, warnings })
}

/// What [`load`] and [`parse`] share: `identify` makes the identity of its path, `own` knows our public key from it, `join`
/// adds the peers that have joined.
fn read<I>(
    source: &str,
    text: &str,
    dir: &Path,
    identify: impl FnOnce(&Path) -> Result<I, ValueError>,
    own: impl FnOnce(&I) -> Option<PublicKey>,
    join: impl FnOnce(&mut RawTunnel, &Problems),
) -> Result<(Tunnel<I>, Vec<Problem>), Report> {
    if text.len() > MAX_FILE_LEN {
        return Err(Report::of_document(source, too_large()));
    }
    let document = yaml::parse(text).map_err(|problem| Report::new(source, vec![problem]))?;
    let problems = Problems::default();
    let tunnel = RawTunnel::read(&document, dir, &problems).and_then(|mut raw| {
        join(&mut raw, &problems);
        let identity = raw
            .identity
            .as_ref()
            .and_then(|path| identify(&path.value).map_err(|error| problems.add(&path.position, error)).ok());
        raw.check(identity.as_ref().and_then(own), &problems);
        let warnings = raw.warnings();
        Some((raw.build(identity?)?, warnings))
    });
    match tunnel {
        Some(tunnel) if problems.is_empty() => Ok(tunnel),
        _ => Err(Report::new(source, problems.into_problems())),
    }
}

fn read_file(path: &Path) -> Result<String, ValueError> {
    let failed = |error: std::io::Error| {
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound => "name a tunnel.yaml that exists",
            _ => "",
        };
        ValueError::new(format!("cannot read the file: {error}"), hint)
    };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_FILE_LEN as u64 + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() > MAX_FILE_LEN {
        return Err(too_large());
    }
    String::from_utf8(bytes).map_err(|_| ValueError::new("the file is not text in UTF-8", ""))
}

fn too_large() -> ValueError {
    let message = format!("larger than {}", ferry_units::render_size(MAX_FILE_LEN as u64));
    ValueError::new(message, "no tunnel.yaml needs to be; is this the right file?")
}
