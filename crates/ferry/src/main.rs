//! The `ferry` binary.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    ferry::keep().unwrap_or_else(|| ferry::Cli::parse().command.execute())
}
