//! The command line: `ferry` and its sub-commands. What each takes stands with the command.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands;

const EXAMPLES: &str = "\
Examples:
  ferry keygen --out identity.key          make a tunnel's identity
  ferry tunnel --config tunnel.yaml        run the tunnel
  ferry invite --service ssh=127.0.0.1:22 | ssh a ferry join
  ferry init && ferry bundle blueprint.yaml --out ferry-bundle
  ferry send http://127.0.0.1:8000 < messages.jsonl
  ferry status                             what the tunnel on this machine does, and what is wrong
  ferry top                                the same, live

Exit codes: 0 fine, 1 failed, 2 usage, 78 bad configuration.";

/// An encrypted, resumable tunnel for two clusters, and the web-apps at its ends.
#[derive(Debug, Parser)]
#[command(name = "ferry", version = ferry_tunnel::VERSION, after_help = EXAMPLES, arg_required_else_help = true, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    /// What to do.
    pub command: Command,
}

/// A sub-command with its arguments.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "the help of each is that of its arguments")]
pub enum Command {
    Tunnel(commands::tunnel::Args),
    #[cfg(target_os = "linux")]
    Keeper(commands::keeper::Args),
    Initiator(commands::initiator::Args),
    Terminator(commands::terminator::Args),
    Keygen(commands::keygen::Args),
    Pubkey(commands::pubkey::Args),
    Invite(commands::invite::Args),
    Join(commands::join::Args),
    Roll(commands::roll::Args),
    Send(commands::send::Args),
    Output(commands::output::Args),
    Status(commands::status::Args),
    Top(commands::top::Args),
    Doctor(commands::doctor::Args),
    Init(commands::init::Args),
    Bundle(commands::bundle::Args),
    Deploy(commands::deploy::Args),
    Upgrade(commands::upgrade::Args),
    Inject(commands::inject::Args),
    Completions(commands::completions::Args),
    Man(commands::man::Args),
}

impl Command {
    /// Runs it to its end, reports its error on stderr, and returns the code to exit with.
    pub fn execute(self) -> ExitCode {
        match self {
            // Without a runtime, which would take more memory than a keeper.
            #[cfg(target_os = "linux")]
            Self::Keeper(args) => crate::exit_code(commands::keeper::run(args)),
            // Before there are threads.
            Self::Tunnel(args) => commands::tunnel::execute(args),
            command => crate::execute(command.run()),
        }
    }

    async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Tunnel(args) => commands::tunnel::run(args, None).await,
            #[cfg(target_os = "linux")]
            Self::Keeper(args) => commands::keeper::run(args).map(|_| ()),
            Self::Initiator(args) => commands::initiator::run(args).await,
            Self::Terminator(args) => commands::terminator::run(args).await,
            Self::Keygen(args) => commands::keygen::run(&args),
            Self::Pubkey(args) => commands::pubkey::run(&args),
            Self::Invite(args) => commands::invite::run(args).await,
            Self::Join(args) => commands::join::run(args).await,
            Self::Roll(args) => commands::roll::run(args).await,
            Self::Send(args) => commands::send::run(args).await,
            Self::Output(args) => commands::output::run(args).await,
            Self::Init(args) => commands::init::run(&args),
            Self::Status(args) => commands::status::run(args).await,
            Self::Top(args) => commands::top::run(args).await,
            Self::Doctor(args) => commands::doctor::run(args).await,
            Self::Bundle(args) => commands::bundle::run(&args),
            Self::Deploy(args) => commands::deploy::run(args).await,
            Self::Upgrade(args) => commands::upgrade::run(args).await,
            Self::Inject(args) => commands::inject::run(&args),
            Self::Completions(args) => commands::completions::run(&args),
            Self::Man(args) => commands::man::run(&args),
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
