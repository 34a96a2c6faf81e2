//! Logging of the roles: to stdout, for `kubectl logs`, without ever blocking the caller.

mod text;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::time::Duration;
use std::{env, thread};

use tracing::{error, warn};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, fmt};

use crate::console;
use crate::exit::Usage;
use ferry_log::{Flush, Queue};
use text::Text;

/// Which lines are logged, as `tracing-subscriber` filters: `debug`, or `info,ferry_tunnel=debug`, or `info,audit=info`.
pub const FILTER: &str = "FERRY_LOG";
/// How lines are written: `json`, or for people.
pub const FORMAT: &str = "FERRY_LOG_FORMAT";

/// The audit trail has a line for each session: it is written where it is asked for by name.
const NO_AUDIT: &str = "audit=off";

/// How long a panicking thread waits for the log to be written, as the process may be about to end.
const PANIC_FLUSH_TIMEOUT: Duration = Duration::from_millis(100);

/// This process's log, if it runs a role.
static LOG: OnceLock<Queue> = OnceLock::new();

/// Starts logging as the two environment variables say. Dropping the returned guard flushes the log.
///
/// # Errors
///
/// A [`Usage`] error if one of the variables cannot be understood.
pub(crate) fn start() -> anyhow::Result<Flush> {
    let filter = match env::var(FILTER) {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(format!("{NO_AUDIT},{text}")).map_err(|error| {
            Usage(format!("{FILTER}={text} cannot be used: {error}; try `info` or `info,ferry_tunnel=debug`"))
        })?,
        _ => EnvFilter::new(format!("{NO_AUDIT},info")),
    };
    let format = env::var(FORMAT).unwrap_or_default();
    if !matches!(format.as_str(), "" | "text" | "json") {
        return Err(Usage(format!("{FORMAT}={format} cannot be used; give `text` or `json`")).into());
    }
    let (queue, flush) = console::queue(io::stdout().as_fd(), |_, lost| {
        warn!(lost, "log lines lost, because nothing read the log");
    })?;
    let lines = queue.clone();
    let writer = move || lines.clone();
    let registry = tracing_subscriber::registry().with(filter).with(ferry_otlp::lines_layer());
    if format == "json" {
        // Fields beside the message rather than within an object: that is how log collectors search them.
        registry.with(fmt::layer().json().flatten_event(true).with_span_list(false).with_writer(writer)).init();
    } else {
        let ansi = io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        registry.with(fmt::layer().event_format(Text).fmt_fields(Text).with_ansi(ansi).with_writer(writer)).init();
    }
    let _ = LOG.set(queue);
    // The default hook writes to stderr, which may block.
    std::panic::set_hook(Box::new(log_panic));
    Ok(flush)
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let what = panic.payload_as_str().unwrap_or("of an unknown kind");
    let thread = thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    match panic.location() {
        Some(place) => error!(%place, thread, "panic: {what}"),
        None => error!(thread, "panic: {what}"),
    }
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        backtrace.to_string().lines().for_each(|line| error!("{line}"));
    }
    if let Some(log) = LOG.get() {
        log.flush(PANIC_FLUSH_TIMEOUT);
    }
}
