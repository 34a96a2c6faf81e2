//! The `ferry` command line: tunnel, web-apps and tools, each a sub-command.
//!
//! This crate is process and wiring: flags, logging, signals and exit codes here; what the roles do is in `ferry-tunnel`
//! and `ferry-app`. It is a library so that the demo, which is not shipped, can have the same commands.

mod admin;
mod cli;
pub mod client;
mod commands;
pub mod console;
mod exit;
mod exports;
mod kubectl;
pub mod logging;
pub mod process;
mod rate;

use std::process::ExitCode;

pub use crate::cli::{Cli, Command};

/// The replay buffer takes and gives back blocks without a pause. The system's allocator returns their pages to the kernel each
/// time, and faults them in again: `docs/decisions/0029`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Keeps a tunnel's connections, if `ferry keeper` started this process for that, until it is asked to stop.
pub fn keep() -> Option<ExitCode> {
    #[cfg(target_os = "linux")]
    return commands::keeper::run_process().map(exit_code);
    #[cfg(not(target_os = "linux"))]
    None
}

/// Runs a command on a runtime of its own, reports its error on stderr, and returns the code to exit with. Whatever way this
/// is left by, also a panic, the runtime's tasks end with it, and with those the processes that they started.
pub fn execute(command: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    exit_code(run(command).map(|()| ExitCode::SUCCESS))
}

fn run(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(command);
    // A name being resolved holds a thread for as long as it takes; the exit does not wait for it.
    runtime.shutdown_background();
    result
}

fn exit_code(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| exit::report(&error))
}
