//! Ferry's sidecar: carries TCP connections between two tunnels as sessions that survive what happens between them.
//!
//! [`Tunnel::start`] takes a checked configuration and returns the bound addresses. Inside, one `driver` task moves
//! the bytes of each session between the application, the pure session of `ferry-session` and its `link`s; each
//! `peer` keeps a pool of warm links; `accept` lets peers in. The [`net`] traits stand for the network, so that
//! all of it also runs on a simulated one.

mod accept;
mod admin;
mod buffers;
mod demand;
mod dial;
mod dials;
mod driver;
mod egress;
mod egresses;
mod files;
mod idle;
mod ingress;
mod link;
mod local;
mod lookup;
mod mailbox;
mod memoir;
mod memory;
mod metrics;
pub mod net;
mod order;
mod path;
mod peer;
mod plan;
mod pool;
mod ports;
mod presence;
mod refill;
mod reload;
mod repeats;
mod rotation;
mod scratch;
mod segments;
mod sessions;
mod shared;
mod shares;
mod tls;
mod tunnel;
mod workers;

pub use tls::TlsError;
pub use tunnel::{Addresses, StartError, Tunnel, TunnelError};
