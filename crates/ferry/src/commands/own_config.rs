//! The `tunnel.yaml` that `ferry invite` and `ferry join` work with: there already, or made with an identity of its own.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};

use super::pubkey::explained;
use crate::exit::BadConfiguration;
use ferry_config::{Identity, Name, Tunnel};

/// A configuration with a state directory, and what was made for it.
pub(super) struct OwnConfig {
    pub(super) path: PathBuf,
    pub(super) tunnel: Tunnel,
    pub(super) state: PathBuf,
    made: Vec<PathBuf>,
}

/// How a configuration is made where there is none.
pub(super) enum New<'a> {
    /// It listens here.
    Listening(&'a Listeners),
    /// It only dials, and has another name than this peer.
    Dialling(&'a Name),
}

/// Where a tunnel accepts links, by what carries them.
#[derive(Debug, clap::Args)]
pub(super) struct Listeners {
    /// This host's tunnel, where the tunnel.yaml is made: where it listens.
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:18000")]
    listen: SocketAddr,
    /// The same for QUIC: a port of UDP, which may have the number of the other. Otherwise there is none.
    #[arg(long, value_name = "IP:PORT")]
    listen_quic: Option<SocketAddr>,
    /// The same for WebSockets, behind what takes HTTP alone. Otherwise there is none.
    #[arg(long, value_name = "IP:PORT")]
    listen_ws: Option<SocketAddr>,
}

impl Listeners {
    fn keys(&self) -> [(&'static str, Option<SocketAddr>); 3] {
        [("listen", Some(self.listen)), ("listen_quic", self.listen_quic), ("listen_ws", self.listen_ws)]
    }

    /// Fails if a configuration that was there already is without what was asked for.
    pub(super) fn check(&self, own: &OwnConfig) -> anyhow::Result<()> {
        let tunnel = &own.tunnel;
        for (key, asked, there) in
            [("listen_quic", self.listen_quic, tunnel.listen_quic), ("listen_ws", self.listen_ws, tunnel.listen_ws)]
        {
            if let Some(asked) = asked.filter(|_| asked != there) {
                let (file, option) = (own.path.display(), key.replace('_', "-"));
                bail!(
                    "{file} is there already, and is without `{key}: {asked}`; write it there, restart the tunnel, and \
                     leave `--{option}` out"
                );
            }
        }
        Ok(())
    }
}

impl OwnConfig {
    /// Reads the file. If there is none, writes one, and an identity next to it unless that is there.
    pub(super) fn load_or_make(path: &Path, name: Option<&Name>, new: New<'_>) -> anyhow::Result<Self> {
        let mut made = Vec::new();
        if !path.exists() {
            make(path, name, new, &mut made).inspect_err(|_| remove(&made))?;
        }
        let tunnel = match ferry_config::load(path) {
            Ok(loaded) => loaded.tunnel,
            Err(report) => {
                remove(&made);
                return Err(report.into());
            }
        };
        let Some(state) = tunnel.state.clone() else {
            let text = format!(
                "{}: without `state`; add `state: DIR`, a directory that the tunnel may write to",
                path.display()
            );
            return Err(BadConfiguration(text).into());
        };
        if let Some(name) = name.filter(|name| **name != tunnel.name) {
            bail!("{} is of a tunnel with the name {}; leave `--name {name}` out", path.display(), tunnel.name);
        }
        Ok(Self { path: path.to_owned(), tunnel, state, made })
    }

    /// Whether the file was not there before.
    pub(super) fn is_new(&self) -> bool {
        self.made.contains(&self.path)
    }

    /// Removes what was made: it is of no use.
    pub(super) fn undo(&self) {
        for dir in ["joined", "invitations", ""].map(|dir| self.state.join(dir)).iter().filter(|_| self.is_new()) {
            // Only empty ones go.
            let _ = fs::remove_dir(dir);
        }
        remove(&self.made);
    }
}

fn remove(made: &[PathBuf]) {
    // They are ours; that one stays is seen by its name at the next try.
    made.iter().for_each(|path| drop(fs::remove_file(path)));
}

fn make(path: &Path, name: Option<&Name>, new: New<'_>, made: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).filter(|stem| !stem.is_empty());
    let stem = stem.ok_or_else(|| anyhow!("{} is no name for a file; write `--config tunnel.yaml`", path.display()))?;
    let name = match (name.cloned().map_or_else(name_of_host, Ok)?, &new) {
        // Two hosts of the same name are no rarity.
        (own, New::Dialling(peer)) if name.is_none() && own == **peer => format!("{own}-2").parse()?,
        (own, _) => own,
    };
    let identity = path.with_file_name(format!("{stem}.key"));
    if identity.exists() {
        Identity::load(&identity).map_err(explained)?;
    } else {
        Identity::generate().and_then(|own| own.write_new(&identity)).map_err(explained)?;
        made.push(identity);
    }
    let mut text = format!(
        "# Made by ferry. Peers that joined are in {stem}.state/joined. All keys: docs/operations.md.\n\
         name: \"{name}\"\nidentity: \"{stem}.key\"\nstate: \"{stem}.state\"\n"
    );
    if let New::Listening(listeners) = new {
        for (key, address) in listeners.keys().into_iter().filter_map(|(key, address)| Some((key, address?))) {
            // Writing to memory does not fail.
            let _ = writeln!(text, "{key}: \"{address}\"");
        }
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path);
    let mut file = file.with_context(|| format!("cannot write {}", path.display()))?;
    made.push(path.to_owned());
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

/// This host's name, as far as it may be the name of a tunnel.
fn name_of_host() -> anyhow::Result<Name> {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy().to_ascii_lowercase();
    let fits = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    let name: String = host.chars().map(fits).collect();
    let name = name.trim_start_matches(['-', '.']).parse();
    name.map_err(|_| anyhow!("this host's name, {host:?}, is no name for a tunnel; give it one with `--name`"))
}

/// What can be done about a file that cannot be written.
pub(super) fn unwritable(path: &Path, error: &io::Error) -> anyhow::Error {
    anyhow!("cannot write to {}: {error}; run this as the user that the tunnel runs as", path.display())
}
