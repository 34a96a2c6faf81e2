//! The `ferry` binary as its users meet it: commands in, exit codes and lines out.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test, a panic is the report")]

mod audit;
mod bundle;
mod chaos;
mod configuration;
mod doctor;
#[cfg(target_os = "linux")]
mod failing_disk;
mod faults;
mod hook_log;
mod inject;
mod join;
mod join_carriers;
#[cfg(target_os = "linux")]
mod keeper;
#[cfg(target_os = "linux")]
mod kept;
mod keys;
mod kubectl;
mod log_export;
mod manual;
#[cfg(target_os = "linux")]
mod memory;
mod metrics;
mod modes;
mod readme;
mod roles;
mod roll;
mod roll_bundle;
mod streaming;
mod support;
mod top;
mod traces;
mod tunnels;
mod unread_log;
mod upgrade;
mod usage;
