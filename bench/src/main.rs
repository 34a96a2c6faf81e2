//! Ferry beside its peers: which faults an application's connection survives, and what it costs.

mod contest;
mod flow;
mod idle;
mod machine;
mod pair;
mod pattern;
mod process;
mod survival;
mod tunnels;
mod usage;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Ferry beside its peers, in one run on one machine.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Bench {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// What becomes of a session's bytes when the link, the address, the keys or the peer change under it.
    Survival(survival::Options),
    /// What thousands of idle sessions cost in memory and processor time.
    Idle(idle::Options),
}

#[tokio::main]
async fn main() -> Result<()> {
    match Bench::parse().mode {
        Mode::Survival(options) => survival::run(options).await,
        Mode::Idle(options) => idle::run(options).await,
    }
}

/// The command that repeats this run.
fn command_line() -> String {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    format!("cargo run --release -p bench -- {}", arguments.join(" "))
}
