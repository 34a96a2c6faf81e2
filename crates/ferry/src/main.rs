//! The `ferry` binary: tunnel, web-apps, demo and tools, each a sub-command.
//!
//! This crate is process and wiring: flags, logging, signals and exit codes here; what the roles do is in `ferry-tunnel`
//! and `ferry-app`.

mod cli;
mod client;
mod commands;
mod console;
mod demo;
#[cfg(test)]
mod documented;
mod exit;
mod logging;
mod process;
mod rate;

use std::process::ExitCode;

use clap::Parser as _;

/// The replay buffer takes and gives back blocks without a pause. The system's allocator returns their pages to the kernel each
/// time, and faults them in again: `docs/decisions/0029`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    let kept = commands::keeper::run_process();
    #[cfg(not(target_os = "linux"))]
    let kept = None;
    let result = kept.unwrap_or_else(|| match cli::Cli::parse().command {
        #[cfg(target_os = "linux")]
        cli::Command::Keeper(args) => commands::keeper::run(args),
        command => run(command).map(|()| ExitCode::SUCCESS),
    });
    match result {
        Ok(code) => code,
        Err(error) => exit::report(&error),
    }
}

/// Runs the command on a runtime of its own. Whatever way this is left by, also a panic, the runtime's tasks end with it,
/// and with those the processes that the demo started.
fn run(command: cli::Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(command.run());
    // A name being resolved holds a thread for as long as it takes; the exit does not wait for it.
    runtime.shutdown_background();
    result
}
