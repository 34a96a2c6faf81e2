//! Logs of the roles: to stdout, where `kubectl logs` looks.

use std::{env, io, io::IsTerminal as _};

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use crate::exit::Usage;

/// Which lines are logged, as `tracing-subscriber` filters: `debug`, or `info,ferry_tunnel=debug`.
pub(crate) const FILTER: &str = "FERRY_LOG";
/// How lines are written: `json`, or for people.
pub(crate) const FORMAT: &str = "FERRY_LOG_FORMAT";

/// Starts logging, by the two environment variables.
///
/// # Errors
///
/// A [`Usage`] error if one of them cannot be understood.
pub(crate) fn start() -> Result<(), Usage> {
    let filter = match env::var(FILTER) {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text).map_err(|error| {
            Usage(format!("{FILTER}={text} cannot be used: {error}; try `info` or `info,ferry_tunnel=debug`"))
        })?,
        _ => EnvFilter::new("info"),
    };
    let registry = tracing_subscriber::registry().with(filter);
    match env::var(FORMAT).as_deref() {
        // Fields beside the message rather than within an object: that is how log collectors search them.
        Ok("json") => registry.with(fmt::layer().json().flatten_event(true).with_span_list(false)).init(),
        Ok("" | "text") | Err(_) => {
            let ansi = io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            registry.with(fmt::layer().with_target(false).with_ansi(ansi)).init();
        }
        Ok(other) => return Err(Usage(format!("{FORMAT}={other} cannot be used; give `text` or `json`"))),
    }
    Ok(())
}
