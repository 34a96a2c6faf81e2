//! Memory that outlives the process that uses it.
//!
//! An [`Arena`] holds what a tunnel must not lose when its process is killed: a [`Record`] of each session, and the bytes that
//! its application wrote and the peer has not acknowledged. It is a sealed memory file; a keeper holds a descriptor of it, and
//! hands it to the next process.
//!
//! A process may be killed between any two instructions. So:
//!
//! * A record becomes valid by its last word. Each word of it that changes is stored in one piece, before what it tells of
//!   happens, and any mixture of old and new words is one that the session might have been in.
//! * A slot's header says whose it is, and which byte of the session is the first in it, *before* bytes are read into it, and is
//!   cleared before the slot is given to somebody else. There are no chains: who takes over scans all headers. How far the last
//!   slot is filled is nowhere: the kernel knows how much it has handed out.
//!
//! What the kernel counts of an application's connection is here, too ([`Counters`]): it is the rest of what outlives a process,
//! and asking for it takes the one other `unsafe` of the workspace.
//!
//! Nothing that is found is trusted. Damage costs the session that it hits, never a wrong byte.

mod arena;
mod counters;
#[cfg(target_endian = "little")]
#[cfg(test)]
mod golden;
mod layout;
mod memory;
mod record;
mod scan;
mod slot;
mod space;
#[cfg(test)]
mod tests;

pub use arena::{Arena, OpenError};
pub use counters::{Counters, Progress, reset, self_test};
pub use layout::Sizes;
pub use record::{Identity, Record, State};
pub use scan::{Damage, Found, Inheritance, Kept};
