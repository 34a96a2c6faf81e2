//! Claims about `tunnel.yaml`, identity files and the values in them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test, a panic is the report")]

mod golden;
mod identity;
mod joining;
mod misfits;
mod mistakes;
mod props;
mod ranges;
mod rolling;
mod support;
mod tunnel_yaml;
mod values;
mod warnings;
mod watch;
