//! Who takes part in a run: the tunnels that were asked for and are there.

use crate::tunnels::Tunnel;
use anyhow::{Result, bail};
use serde::Serialize;
use std::sync::Arc;

/// A tunnel's name, version and settings; or why it is not measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Contestant {
    /// Its name in the tables.
    pub(crate) name: &'static str,
    /// How it is set up.
    pub(crate) settings: &'static str,
    /// Its version, if it is there.
    pub(crate) version: Option<String>,
    /// What is missing, if it is not.
    pub(crate) skipped: Option<String>,
}

impl Contestant {
    fn of(tunnel: &dyn Tunnel) -> Self {
        let version = tunnel.version();
        let skipped = version.as_ref().err().map(ToString::to_string);
        if let Some(why) = &skipped {
            eprintln!("{}: skipped, {why}", tunnel.name());
        }
        Self { name: tunnel.name(), settings: tunnel.settings(), version: version.ok(), skipped }
    }
}

/// The tunnels of a run.
pub(crate) struct Contest {
    /// All that were asked for.
    pub(crate) contestants: Vec<Contestant>,
    /// Those that are there.
    pub(crate) tunnels: Vec<Arc<dyn Tunnel>>,
}

/// Those of `tunnels` that were asked for by name, or all.
///
/// # Errors
/// When a name is not known.
pub(crate) fn select(names: &[String], mut tunnels: Vec<Arc<dyn Tunnel>>) -> Result<Contest> {
    let known: Vec<_> = tunnels.iter().map(|tunnel| tunnel.name()).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("no such tunnel: {unknown} (known: {})", known.join(","));
    }
    tunnels.retain(|tunnel| names.is_empty() || names.iter().any(|name| name == tunnel.name()));
    let contestants: Vec<_> = tunnels.iter().map(|tunnel| Contestant::of(tunnel.as_ref())).collect();
    tunnels.retain(|tunnel| contestants.iter().any(|c| c.name == tunnel.name() && c.skipped.is_none()));
    Ok(Contest { contestants, tunnels })
}
