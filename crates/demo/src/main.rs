//! The demo of Ferry: two clusters on one machine, with every fault between them.
//!
//! Its processes are this executable again, so its command line has all of `ferry`'s commands in addition to `demo`.

mod acts;
mod between;
mod by_hand;
mod check;
mod cli;
mod demo;
#[cfg(test)]
mod documented;
mod log;
mod outputs;
mod screen;
mod show;
mod status;
mod stream;
mod supervisor;
mod survival;
mod telemetry;
mod topology;
mod traffic;
mod tunnels;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    ferry::keep().unwrap_or_else(|| cli::Cli::parse().command.execute())
}
