//! The one place where errors become exit codes and lines on stderr.

use std::process::ExitCode;
use std::{fmt, io};

use owo_colors::OwoColorize as _;

use crate::console::Console;

/// The command ran and failed.
const FAILED: u8 = 1;
/// The command line cannot be used; also what clap exits with.
const USAGE: u8 = 2;
/// The configuration cannot be used (`EX_CONFIG` of sysexits.h).
const BAD_CONFIGURATION: u8 = 78;

/// Every code, for the manual.
pub(crate) const CODES: [(u8, &str); 4] = [
    (0, "fine"),
    (FAILED, "failed"),
    (USAGE, "the command line or the environment cannot be used"),
    (BAD_CONFIGURATION, "the configuration cannot be used"),
];

/// An error in how the command was called: the command line or the environment, not the world.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A file that configures something and cannot be used, other than one that a [`ferry_config::Report`] is about.
#[derive(Debug)]
pub(crate) struct BadConfiguration(pub(crate) String);

impl fmt::Display for BadConfiguration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadConfiguration {}

/// Says on stderr what went wrong, and returns the code to exit with.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    // Whoever read our output has seen enough, as in `ferry output URL | head`.
    if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    let say = |text: String| {
        // Without a thread or a file left, the exit code has to do.
        if let Ok(stderr) = Console::stderr() {
            stderr.print(text);
        }
    };
    let label = "error:".red().bold().to_string();
    if error.is::<ferry_config::Report>() {
        // A line for each problem, each with its place.
        say(format!("{label} the configuration cannot be used\n{error}"));
    } else {
        say(format!("{label} {}", chain(error)));
    }
    ExitCode::from(code(error))
}

/// The error and what caused it, in one line. Many errors say in their own text what caused them: that is not said twice.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string).filter(|cause| !cause.is_empty()) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text += &format!(": {cause}");
        }
    }
    text
}

fn code(error: &anyhow::Error) -> u8 {
    if error.is::<ferry_config::Report>() || error.is::<BadConfiguration>() {
        BAD_CONFIGURATION
    } else if error.is::<Usage>() {
        USAGE
    } else {
        FAILED
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn each_cause_is_said_once() {
        let refused = || anyhow!(io::Error::from_raw_os_error(111));
        assert_eq!(chain(&refused().context("cannot dial")), "cannot dial: Connection refused (os error 111)");
        let told = refused().context("cannot listen on 127.0.0.1:1: Connection refused (os error 111)");
        assert_eq!(
            chain(&told.context("here")),
            "here: cannot listen on 127.0.0.1:1: Connection refused (os error 111)"
        );
        assert_eq!(chain(&anyhow!("alone")), "alone");
    }
}
