//! The one place where errors become exit codes and lines on stderr.

use std::{fmt, io, process::ExitCode};

use anstream::eprintln;
use owo_colors::OwoColorize as _;

/// The command ran and failed.
const FAILED: u8 = 1;
/// The command line cannot be used; also what clap exits with.
const USAGE: u8 = 2;
/// The configuration cannot be used (`EX_CONFIG` of sysexits.h).
const BAD_CONFIGURATION: u8 = 78;

/// An error in how the command was called: the command line or the environment, not the world.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Says on stderr what went wrong, and returns the code to exit with.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    // Whoever read our output has seen enough, as in `ferry output URL | head`.
    if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    let label = "error:".red().bold().to_string();
    if error.is::<ferry_config::Report>() {
        // A line for each problem, each with its place.
        eprintln!("{label} the configuration cannot be used\n{error}");
    } else {
        eprintln!("{label} {error:#}");
    }
    ExitCode::from(code(error))
}

fn code(error: &anyhow::Error) -> u8 {
    if error.is::<ferry_config::Report>() {
        BAD_CONFIGURATION
    } else if error.is::<Usage>() {
        USAGE
    } else {
        FAILED
    }
}
