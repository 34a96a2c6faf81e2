//! The demo as its users meet it: commands in, exit codes and lines out.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod demo;
mod support;
