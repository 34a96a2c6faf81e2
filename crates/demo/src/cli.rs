//! The command line: `demo`, and everything that `ferry` can do.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::demo;

/// Two clusters with a tunnel between them on this machine, and every fault that they survive.
#[derive(Debug, Parser)]
#[command(name = "ferry-demo", version, arg_required_else_help = true, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(demo::Args),
    #[command(flatten)]
    Ferry(Box<ferry::Command>),
}

impl Command {
    pub(crate) fn execute(self) -> ExitCode {
        match self {
            Self::Demo(args) => ferry::execute(demo::run(args)),
            Self::Ferry(command) => command.execute(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
