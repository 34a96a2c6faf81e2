//! Ferry's sidecar: carries TCP connections between two tunnels as sessions that survive what happens between them.
//!
//! [`Tunnel::start`] takes a checked configuration and returns the bound addresses. Inside, one `driver` task moves
//! the bytes of each session between the application, the pure session of `ferry-session` and its `link`s; each
//! `peer` keeps a pool of warm links; `accept` lets peers in. The [`net`] traits stand for the network, so that
//! all of it also runs on a simulated one.

mod application;
mod config;
#[doc(hidden)]
pub mod fuzzing;
mod instance;
mod limits;
mod memory;
pub mod net;
mod peer;
#[cfg(test)]
mod seeds;
mod sessions;
mod shared;
mod supply;
mod survival;
mod telemetry;
mod transport;
mod tunnel;
mod workers;

pub use memory::kernel_buffers::note as kernel_buffers_note;
pub use survival::can_outlive_a_process;
pub use transport::join::{JoinError, JoinRefusal, join};
pub use transport::probe::{ProbeError, Probed, probe};
pub use transport::roll::{RollError, RollRequest, RollResponse, ask_to_roll};
pub use transport::tls::TlsError;
pub use tunnel::{Addresses, StartError, Tunnel, TunnelError};

/// What this build calls itself: the version of the package, or what `FERRY_VERSION` was when it was built, so that two builds of
/// one source can be told apart.
pub const VERSION: &str = match option_env!("FERRY_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};
