//! The session protocol on a virtual clock.
#![allow(clippy::expect_used, clippy::unwrap_used, unreachable_pub)]

mod adopt;
mod apps;
mod close;
mod faults;
mod flow;
mod liveness;
mod memory;
mod misbehave;
mod pair;
mod props;
mod reset;
mod resume;
mod resume_window;
mod rng;
mod rotate;
mod spec;
mod wire;
