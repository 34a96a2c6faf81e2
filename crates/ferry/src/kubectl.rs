//! kubectl, which knows how clusters are reached and as whom.

use std::fmt::Write as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use ferry_text::Foreign;
use tokio::process::Command;
use tokio::time::timeout;

/// How long a call may take that waits for nothing but the cluster.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// What is said where it cannot be started.
pub(crate) const MISSING: &str = "cannot run kubectl; is it installed, and in PATH?";

/// Why a call came to nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The cluster has no such object.
    NotFound(anyhow::Error),
    Other(anyhow::Error),
}

impl From<Failure> for anyhow::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotFound(error) | Failure::Other(error) => error,
        }
    }
}

/// A call that reads nothing, and ends where it is dropped.
pub(crate) fn command<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new("kubectl");
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// What it prints, of a call that does not wait.
///
/// # Errors
/// When it cannot be started, hangs, or fails: then with what it says.
pub(crate) async fn call(arguments: &[String]) -> Result<String, Failure> {
    call_within(arguments, CALL_TIMEOUT).await
}

/// What it prints, of a call that may take so long.
///
/// # Errors
/// As those of `call`.
pub(crate) async fn call_within(arguments: &[String], within: Duration) -> Result<String, Failure> {
    let output = match timeout(within, command(arguments.iter().map(String::as_str)).output()).await {
        Ok(output) => output.context(MISSING).map_err(Failure::Other)?,
        Err(_) => return Err(Failure::Other(anyhow::anyhow!("kubectl did not come back within {within:?}"))),
    };
    if output.status.success() {
        return String::from_utf8(output.stdout)
            .context("kubectl printed something that is not text")
            .map_err(Failure::Other);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let error = anyhow::anyhow!("kubectl: {}", Foreign(said.trim()));
    Err(if said.contains("(NotFound)") { Failure::NotFound(error) } else { Failure::Other(error) })
}

/// The call as a line that a shell takes.
pub(crate) fn line(arguments: &[String]) -> String {
    let mut line = "kubectl".to_owned();
    for argument in arguments {
        let is_plain = !argument.is_empty()
            && argument.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:=,@+".contains(&byte));
        // Writing to memory does not fail.
        let _ = match is_plain {
            true => write!(line, " {argument}"),
            false => write!(line, " '{}'", argument.replace('\'', r"'\''")),
        };
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_call_is_what_a_shell_makes_of_it() {
        let arguments = ["get", "it's", "{\"a\": 1}", ""].map(String::from);
        assert_eq!(line(&arguments), r#"kubectl get 'it'\''s' '{"a": 1}' ''"#);
    }
}
