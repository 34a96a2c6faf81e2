//! Claims about a pair of web-apps, connected directly over loopback. No test sleeps or has a fixed port: they wait for
//! a state, with a deadline.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod api;
mod bounds;
mod delivery;
mod drain;
mod durable;
mod headers;
mod hooks;
mod http;
mod pair;
mod payloads;
mod peers;
mod proxy;
mod python;
mod refusals;
mod sites;
mod stream;
mod token;
