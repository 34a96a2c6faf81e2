//! The session protocol on a virtual clock.
#![allow(clippy::expect_used, clippy::unwrap_used, unreachable_pub)]

mod close;
mod misbehave;
mod pair;
mod props;
mod resume;
mod rotate;
mod wire;
