//! The whole tunnel on real sockets: loopback, port 0, real TLS.
#![allow(clippy::expect_used, clippy::unwrap_used, unreachable_pub)]

mod carry;
mod pair;
mod reload;
mod stream;
mod survive;
