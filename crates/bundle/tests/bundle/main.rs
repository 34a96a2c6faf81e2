//! Claims about blueprints and the bundles that are rendered of them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test, a panic is the report")]

mod chart;
mod deploying;
mod gateway_mistakes;
#[cfg(unix)]
mod gateway_scripts;
mod gateways;
mod golden;
mod inject;
#[cfg(unix)]
mod links;
mod manifests;
mod many;
mod mistakes;
mod props;
mod replicas;
mod rolls;
#[cfg(unix)]
mod scripts;
mod stage;
mod support;
mod upgrade;
#[cfg(unix)]
mod websockets;
mod writing;
