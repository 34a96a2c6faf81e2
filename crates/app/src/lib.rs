//! The two web-apps of Ferry: the initiator and the terminator.
//!
//! A web-app takes triggers (`POST /trigger`, `/stream`, the auto-trigger), runs the user's hook on each, keeps the
//! message in its outbox until the far web-app has acknowledged it, and shows what the far side sent in its output.
//! Both ends do both. Between them runs one WebSocket with the sub-protocol [`SUBPROTOCOL`]; it may be cut and
//! replaced at any time, and either process killed and restarted, without a message being lost, duplicated or reordered.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use ferry_app::{Access, Config, PassThrough, Role, Webapp};
//!
//! let mut webapp = Webapp::start(
//!     Config {
//!         role: Role::Terminator,
//!         listen: "127.0.0.1:8000".parse()?,
//!         pod: "terminator".into(),
//!         cluster: "cluster-b".into(),
//!         auto_trigger: 0,
//!         output_max: 10_000,
//!         data: "ferry-data".into(),
//!         access: Access::default(),
//!     },
//!     Arc::new(PassThrough),
//! )?;
//! webapp.stopped().await?;
//! # Ok(())
//! # }
//! ```
//!
//! From the outside in: `webapp` starts and ends everything; `http` serves local clients and the WebSocket that the far
//! `initiator` dials; `delivery` is one conversation with the far web-app; `trigger` and `arrival` take a message through
//! its hook; `outbox` and `output` hold the messages; `committer` puts them into the `store` before they are confirmed.

mod access;
mod app;
mod arrival;
mod auto_trigger;
mod commit_timer;
mod committer;
mod connection_slot;
mod delivery;
mod error;
mod far_end;
#[doc(hidden)]
pub mod fuzzing;
mod headers;
mod hooks;
mod http;
mod initiator;
mod limits;
mod log_limits;
mod message;
mod metrics;
mod outbox;
mod output;
mod payload;
mod peer;
mod python;
mod sites;
mod socket;
mod socket_owner;
mod spans;
mod store;
#[cfg(test)]
mod testing;
mod time;
mod token;
mod trigger;
mod webapp;
mod wire;

pub use access::Access;
pub use error::{StartError, StopError};
pub use ferry_host::{Hosts, ParseHostError};
pub use futures_util::future::BoxFuture;
pub use hooks::{HookError, Hooks, PassThrough, Received};
pub use payload::{MAX_NUMBER_LENGTH, MAX_PAYLOAD_BYTES, MAX_PAYLOAD_DEPTH, Object, Payload, PayloadError};
pub use python::{PythonConfig, PythonError, PythonHooks};
pub use store::StoreError;
pub use token::{Token, TokenError};
pub use webapp::{Config, Role, Webapp};
pub use wire::SUBPROTOCOL;
