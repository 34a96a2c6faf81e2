//! The whole tunnel on real sockets: loopback, port 0, real TLS.
#![allow(clippy::expect_used, clippy::unwrap_used, unreachable_pub)]

mod admin;
mod carry;
mod datagrams;
mod dialled;
mod documented;
mod entry_limits;
mod events;
mod hostile;
mod joining;
mod limits;
mod load;
mod manners;
mod pair;
mod policy;
mod ports;
mod proxy_protocol;
mod quic;
mod reach;
mod reload;
mod replica_set;
mod replicas;
mod resets;
mod rogue;
mod rolling;
mod scene;
mod spread;
mod stranger;
mod stream;
mod survive;
mod watch;
