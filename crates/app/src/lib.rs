//! The two web-apps of Ferry: the initiator and the terminator.
//!
//! A web-app takes triggers (`POST /trigger`, `/stream`, the auto-trigger), runs the user's hook on each, keeps the
//! message in its outbox until the far web-app has acknowledged it, and shows what the far side sent in its output.
//! Both ends do both. Between them runs one WebSocket with the sub-protocol [`SUBPROTOCOL`]; it may be cut and
//! replaced at any time, and either process killed and started again, without a message being lost, doubled or reordered.
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
//! From the outside in: `webapp` starts and ends everything; `http` is what local clients see; `delivery` is one
//! conversation with the far web-app, which `initiator` dials and `terminator` admits; `outbox` and `output` hold the
//! messages; `committer` puts what they take into the `store` before anyone is told of it.

mod access;
mod app;
mod arrival;
mod auto_trigger;
mod committer;
mod delivery;
#[doc(hidden)]
pub mod fuzzing;
mod hooks;
mod http;
mod initiator;
mod log_limits;
mod message;
mod metrics;
mod neighbour;
mod outbox;
mod output;
mod payload;
mod python;
mod socket;
mod store;
mod terminator;
mod time;
mod token;
mod webapp;
mod wire;

pub use access::Access;
pub use ferry_host::{Hosts, NoHost};
pub use futures_util::future::BoxFuture;
pub use hooks::{HookError, Hooks, Object, PassThrough};
pub use payload::{MAX_NUMBER_LENGTH, MAX_PAYLOAD_BYTES, MAX_PAYLOAD_DEPTH, Payload, PayloadError};
pub use python::{PythonConfig, PythonError, PythonHooks};
pub use store::StoreError;
pub use token::{NoToken, Token};
pub use webapp::{Config, Role, StartError, StopError, Webapp};
pub use wire::SUBPROTOCOL;
