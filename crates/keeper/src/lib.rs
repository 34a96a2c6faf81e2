//! The process that outlives the tunnel's engine, and the engine's end of it.
//!
//! A [`Keeper`] holds descriptors under tags and gives all of them to the next engine. It never looks into what they
//! carry, runs on one thread without a runtime, and never waits for an engine. A [`Supervisor`] is a keeper that also
//! starts the engine, and starts it again. A [`Client`] is what an engine talks to its keeper with.
//!
//! The protocol is in `docs/keeper-protocol.md`, how it is run and what it promises in `docs/keeper.md`.

// Sequenced packets on Unix sockets, pidfds and /proc are Linux's.
#![cfg(target_os = "linux")]

mod client;
mod connection;
mod executable;
#[doc(hidden)]
pub mod fuzzing;
mod keeper;
mod log;
mod process;
mod signals;
mod socket;
mod store;
mod supervisor;
mod wire;

pub use client::{Client, Event, Inherited};
pub use executable::{Invocation, KEEPER_VARIABLE, Reach};
pub use keeper::{EngineStatus, Keeper, Options};
pub use signals::{Signals, end_with_parent, exit_at_once};
pub use socket::PARENT;
pub use supervisor::Supervisor;
pub use wire::{MAX_BATCH, RefusedBy, Tag};
