//! What the tests share: running the binary to its end, and next to the test.

use std::ffi::OsStr;
use std::process::Command;

pub(crate) use ferry_processes::{Running, code, eventually, stderr, stdout};

/// The binary, in an environment that nothing of ours is set in.
pub(crate) fn command<S: AsRef<OsStr>>(args: &[S]) -> Command {
    ferry_processes::command(env!("CARGO_BIN_EXE_ferry-demo"), args)
}
