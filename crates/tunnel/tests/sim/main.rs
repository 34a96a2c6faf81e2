//! The whole tunnel on a simulated network and a paused clock: by seed, and as claims.
#![allow(clippy::expect_used, clippy::unwrap_used, unreachable_pub)]

mod apps;
mod burst;
mod congestion;
mod datagrams;
mod flow;
mod heal;
mod hearsay;
mod links;
mod lives;
mod names;
mod net;
mod paced;
mod path;
mod pipe;
mod quic;
mod restart;
mod reverse;
mod rng;
mod rotate;
mod scarce;
mod seeds;
mod storm;
mod stream;
mod websocket;
mod world;
