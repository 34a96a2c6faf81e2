//! The keeper as its engines meet it: over its socket, alive, killed and hostile.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test, a panic is the report")]
#![cfg(target_os = "linux")]

mod engines;
mod hostile;
mod storing;
mod support;
