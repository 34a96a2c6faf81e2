//! What an operator sees of a tunnel: metrics, probes, logs. Waiting is for what they say, never for time.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Once;
use std::time::{Duration, Instant};

use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

use crate::pair::get;

/// A wait that takes longer will not end, however loaded the machine is.
pub const PATIENCE: Duration = ferry_processes::DEADLINE;

/// The samples of `/metrics` whose names begin with `prefix`, without it and without `_total`; those that are 0 are
/// left out.
pub async fn samples(admin: SocketAddr, prefix: &str) -> BTreeMap<String, i64> {
    let (code, text) = get(admin, "/metrics").await;
    assert_eq!(code, 200);
    let samples = text.lines().filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        let name = name.replacen("_total", "", 1).strip_prefix(prefix)?.to_owned();
        Some((name, value.parse().unwrap()))
    });
    samples.filter(|(_, value)| *value != 0).collect()
}

/// Waits until the samples that begin with `prefix` are exactly these.
pub async fn shows(admin: SocketAddr, prefix: &str, expected: &[(&str, i64)]) {
    let expected: BTreeMap<_, _> = expected.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    let begun = Instant::now();
    loop {
        let samples = samples(admin, prefix).await;
        if samples == expected {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{prefix}: {samples:#?}, expected {expected:#?}");
        tokio::task::yield_now().await;
    }
}

/// Waits until exactly these links have failed: role, reason, how many.
pub async fn failures(admin: SocketAddr, expected: &[(&str, &str, i64)]) {
    let samples =
        expected.iter().map(|(role, reason, count)| (format!("role=\"{role}\",reason=\"{reason}\"}}"), *count));
    let samples: Vec<_> = samples.collect();
    let samples: Vec<_> = samples.iter().map(|(sample, count)| (sample.as_str(), *count)).collect();
    shows(admin, "ferry_link_failures{", &samples).await;
}

/// Waits until the sample is at least `least`.
pub async fn reaches(admin: SocketAddr, sample: &str, least: i64) {
    let begun = Instant::now();
    loop {
        let now = samples(admin, sample).await.get("").copied().unwrap_or_default();
        if now >= least {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{sample} is {now}, expected {least}");
        tokio::task::yield_now().await;
    }
}

/// Waits until the path answers with this code; returns the body.
pub async fn answers(admin: SocketAddr, path: &str, expected: u16) -> String {
    says(admin, path, expected, "").await
}

/// Waits until the path answers with this code and a body that holds `part`.
pub async fn says(admin: SocketAddr, path: &str, expected: u16, part: &str) -> String {
    let begun = Instant::now();
    loop {
        let (code, body) = get(admin, path).await;
        if code == expected && body.contains(part) {
            return body;
        }
        assert!(begun.elapsed() < PATIENCE, "{path} answers {code}: {body}");
        tokio::task::yield_now().await;
    }
}

thread_local! {
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static KEEPS: Cell<bool> = const { Cell::new(false) };
}

/// Keeps what is logged from now on. Each test has a thread and a runtime of its own, so that its log is its own too.
pub fn log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // As the roles log: without the audit trail.
        let logged = |line: &Metadata<'_>| *line.level() <= Level::DEBUG && line.target() != "audit";
        let lines = fmt::layer().with_ansi(false).with_writer(|| Kept).with_filter(filter_fn(logged));
        tracing_subscriber::registry().with(lines).init();
    });
    KEEPS.set(true);
    LOG.with_borrow_mut(Vec::clear);
}

/// This thread's log is kept.
pub fn keeps_log() -> bool {
    KEEPS.get()
}

/// The lines of the log that hold all of `parts`.
pub fn logged(parts: &[&str]) -> Vec<String> {
    let text = LOG.with_borrow(|log| String::from_utf8(log.clone()).unwrap());
    text.lines().filter(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned).collect()
}

#[track_caller]
pub fn assert_logged(parts: &[&str]) {
    assert!(!logged(parts).is_empty(), "no line has all of {parts:?} in:\n{}", logged(&[]).join("\n"));
}

struct Kept;

impl io::Write for Kept {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        LOG.with_borrow_mut(|log| log.extend_from_slice(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
