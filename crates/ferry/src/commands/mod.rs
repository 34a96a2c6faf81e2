//! The commands, one file each: its arguments, its help and what it runs.

pub(crate) mod bundle;
pub(crate) mod completions;
pub(crate) mod deploy;
pub(crate) mod doctor;
pub(crate) mod init;
pub(crate) mod initiator;
pub(crate) mod inject;
pub(crate) mod invite;
pub(crate) mod join;
#[cfg(target_os = "linux")]
pub(crate) mod keeper;
pub(crate) mod keygen;
pub(crate) mod man;
pub(crate) mod output;
mod own_config;
pub(crate) mod pubkey;
pub(crate) mod roll;
pub(crate) mod send;
pub(crate) mod status;
pub(crate) mod terminator;
pub(crate) mod top;
pub(crate) mod tunnel;
pub(crate) mod upgrade;
mod webapp;

/// Reads a duration on the command line, in the grammar of `tunnel.yaml`.
fn duration(text: &str) -> Result<std::time::Duration, &'static str> {
    ferry_units::parse_duration(text).ok_or(ferry_units::DURATION_HINT)
}
