//! A peer that came of an invitation, at either end: a file of its own, which is read in addition to `tunnel.yaml`.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::invitations::Offer;
use super::{make_private_dir, write_new};
use crate::fields::{Field, Located, Position, Problems};
use crate::name::{Name, ServiceName};
use crate::raw::{RawEgress, RawIngress, RawPeer, RawTunnel, forward, listen, service};
use crate::report::ValueError;
use crate::tunnel::{EntryLimits, Peer};
use crate::{read_file, yaml};

/// Below the state directory.
const DIR: &str = "joined";

/// A peer that has joined, or that was joined, and what goes between it and this end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The peer.
    pub peer: Peer,
    /// The services here that it may reach.
    pub services: Vec<Offer>,
    /// Its services that applications here reach.
    pub egress: Vec<JoinedEgress>,
}

/// Where applications here reach a service of the peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JoinedEgress {
    /// Where they connect to.
    pub listen: SocketAddr,
    /// The service.
    pub service: ServiceName,
}

/// The file as it is written.
#[derive(Serialize)]
struct File<'a> {
    peer: &'a Peer,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    services: Vec<FileOffer<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    egress: &'a [JoinedEgress],
}

#[derive(Serialize)]
struct FileOffer<'a> {
    service: &'a ServiceName,
    forward: String,
}

impl Joined {
    /// The file of this peer. A name has no `_`, so that no two names share a file.
    pub fn path(state: &Path, name: &Name) -> PathBuf {
        state.join(DIR).join(format!("{}.yaml", name.as_str().replace('/', "_")))
    }

    /// Writes the peer to a file of its own.
    ///
    /// # Errors
    ///
    /// If there is one of its name, or it cannot be written.
    pub fn write_new(&self, state: &Path) -> io::Result<()> {
        let path = Self::path(state, &self.peer.name);
        make_dir(state)?;
        // Whole under its name, or not at all: the tunnel may look at any moment.
        let written = path.with_extension("new");
        let _ = fs::remove_file(&written);
        write_new(&written, &self.render())?;
        let linked = fs::hard_link(&written, &path);
        let _ = fs::remove_file(&written);
        linked
    }

    /// Whether a peer could be written there: its directory is made, and a file in it.
    ///
    /// # Errors
    ///
    /// Why it could not.
    pub fn try_writing(state: &Path) -> io::Result<()> {
        let tried = make_dir(state)?.join("try.new");
        let _ = fs::remove_file(&tried);
        write_new(&tried, "")?;
        fs::remove_file(tried)
    }

    /// What would be written.
    pub(crate) fn to_file(&self, state: &Path) -> JoinedFile {
        JoinedFile { path: Self::path(state, &self.peer.name), text: Ok(self.render()) }
    }

    fn render(&self) -> String {
        let services = self.services.iter();
        let services = services.map(|offer| FileOffer { service: &offer.service, forward: offer.forward.to_string() });
        let file = File { peer: &self.peer, services: services.collect(), egress: &self.egress };
        let text = serde_saphyr::to_string(&file).unwrap_or_else(|error| format!("!! {error}"));
        format!("# Made by an invitation. To part from this peer, remove the file.\n{}\n", text.trim_end())
    }
}

fn make_dir(state: &Path) -> io::Result<PathBuf> {
    let dir = state.join(DIR);
    match make_private_dir(&dir) {
        // Not to be taken for a peer that is there.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(io::ErrorKind::NotADirectory.into()),
        made => made.map(|()| dir),
    }
}

/// One such file, as text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct JoinedFile {
    pub(crate) path: PathBuf,
    pub(crate) text: Result<String, ValueError>,
}

/// All of a state directory, in the order of their names.
pub(crate) fn read_all(state: &Path) -> Vec<JoinedFile> {
    let entries = match fs::read_dir(state.join(DIR)) {
        Ok(entries) => entries,
        // A `state` that is no directory has problems of its own: no peer has joined through it.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Vec::new();
        }
        Err(error) => {
            let text = Err(ValueError::new(format!("cannot read the directory: {error}"), ""));
            return vec![JoinedFile { path: state.join(DIR), text }];
        }
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect();
    paths.sort();
    paths.into_iter().map(|path| JoinedFile { text: read_file(&path), path }).collect()
}

/// Adds what the files say to what `tunnel.yaml` says, which comes first.
pub(crate) fn merge(raw: &mut RawTunnel, files: &[JoinedFile], dir: &Path, problems: &Problems) {
    for file in files {
        let position = Position::of_file(&file.path);
        let document = match &file.text {
            Ok(text) => yaml::parse(text).map_err(|problem| ValueError::new(problem.message, problem.hint)),
            Err(error) => Err(error.clone()),
        };
        match document {
            Ok(document) => drop(read(raw, &document, &position, dir, problems)),
            Err(error) => problems.add(&position, error),
        }
    }
}

fn read(
    raw: &mut RawTunnel,
    document: &yaml::Value,
    position: &Position,
    dir: &Path,
    problems: &Problems,
) -> Option<()> {
    let mut fields = Field::root_at(position.clone(), document, problems).fields()?;
    let peer = fields.required("peer", "write the peer's `name` and `keys`");
    let peer = peer.and_then(|field| RawPeer::read(&field, dir))?;
    let name = peer.name.clone()?;
    for field in fields.optional("services").map(|field| field.items()).unwrap_or_default() {
        let mut fields = field.fields()?;
        let offered = fields.required("service", "name the service").and_then(service)?;
        let forward = fields.required("forward", "write where the app listens").and_then(forward)?;
        fields.finish();
        offer(raw, offered, forward, name.clone());
    }
    for field in fields.optional("egress").map(|field| field.items()).unwrap_or_default() {
        let mut fields = field.fields()?;
        let listen = fields.required("listen", "write where apps connect to").and_then(listen);
        let service = fields.required("service", "name a service of the peer").and_then(service)?;
        fields.finish();
        let limits = EntryLimits::default();
        raw.egress.push(RawEgress { listen, peer: Some(name.clone()), service: Some(service.value), limits });
    }
    fields.finish();
    raw.peers.push(peer);
    Some(())
}

/// The peer may reach the service: that of `tunnel.yaml`, if there is one.
fn offer(raw: &mut RawTunnel, service: Located<ServiceName>, forward: crate::HostPort, peer: Located<Name>) {
    let same = |ingress: &&mut RawIngress| ingress.service.as_ref().is_some_and(|known| known.value == service.value);
    match raw.ingress.iter_mut().find(same) {
        Some(ingress) => ingress.allow.push(peer),
        None => raw.ingress.push(RawIngress {
            service: Some(service),
            forward: Some(forward),
            allow: vec![peer],
            proxy_protocol: None,
            limits: EntryLimits::default(),
        }),
    }
}
