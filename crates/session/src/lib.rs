//! The ferry/1 session protocol as a pure value.
//!
//! A [`Session`] is one application connection end to end. It outlives the links that carry it: a *link* is one
//! authenticated connection between two tunnels, and a session attaches to one link after another, numbered by
//! [`Epoch`]. Time, randomness and bytes are arguments; there is no I/O, no clock and no lock in here, so the whole
//! protocol runs on a virtual clock in tests and is driven by a thin task in `ferry-tunnel`.
//!
//! The driver feeds the session (`attach`, `accept`, `detach`, `handle_frame`, `handle_violation`, `handle_timeout`,
//! `write`, `consume`, `finish`, `reset`, `reset_after_sent`) and, after every mutation, drains it (`poll_transmit` for each link,
//! `poll_event`, `poll_timeout`, `poll_spent`). For a session that outlives its process it stores a [`Snapshot`] before it sends
//! anything, and the next process calls [`Session::adopt`]. `docs/protocol.md` is the specification; the sentences above each check come from it.
//!
//! ```text
//!                 attach(Open)                     Accept
//!   Detached ───────────────────▶ Attaching ───────────────────▶ Attached
//!      ▲   ▲      attach(Resume)   │     │  Accept(Rotate)        │  │ ▲
//!      │   └───────────────────────┘     ▼                        │  │ │ both Retires
//!      │        next link lost        Draining ───────────────────┼──┼─┘
//!      │                                 │  attach(Rotate|Resume) │  │
//!      ├─────────────────────────────────┘     Attaching ◀────────┘  │
//!      │          either link lost         (keeps `current`)         │
//!      └─────────────────────────────────────────────────────────────┘
//!                                 link lost
//!   any ──▶ Closed: both ends done · reset · resume window over · refused · protocol violated
//! ```
//!
//! The opener walks all of these; the acceptor goes from `Detached` straight to `Attached` (or from `Attached` to
//! `Draining`) when it accepts a Hello.

mod ack_timer;
mod application;
mod attach;
mod attachment;
mod block;
mod blocks;
mod codec;
mod ending;
mod error;
mod event;
mod frame;
mod ident;
mod incoming;
mod link;
mod liveness;
mod overdue;
mod receive;
mod send;
mod session;
mod snapshot;
mod time;
mod transmit;

pub use block::{Block, Payload, Slot, TRAILER};
pub use codec::{DecodeError, HEADER, MAX_FRAME, decode};
pub use error::{AttachError, Rejection, Violation};
pub use event::{Event, Outcome, Release};
pub use frame::{
    Accept, Frame, Hello, Intent, LinkKind, MAX_PAYLOAD, MAX_REASON, MAX_SERVICE, Origin, Preface, Reject, RejectCode,
    Reset, ResetCode, VERSION,
};
pub use ident::{Epoch, Instance, SessionId};
pub use liveness::{BUSY_PING_INTERVAL, IDLE_PING_INTERVAL};
pub use session::{AckPoint, INITIAL_WINDOW, Session, Settings, Side};
pub use snapshot::{AdoptError, Snapshot, Survivor};
pub use time::Time;
