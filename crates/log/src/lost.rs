//! The metric that counts dropped log lines.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;

static LOST: AtomicU64 = AtomicU64::new(0);

/// Log lines dropped since the process started.
pub fn lost_lines() -> u64 {
    LOST.load(Ordering::Relaxed)
}

pub(crate) fn count_lost(lines: u64) {
    LOST.fetch_add(lines, Ordering::Relaxed);
}

/// Collector for `ferry_log_lines_lost_total`.
#[derive(Debug)]
pub struct LostLines;

impl Collector for LostLines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counter = ConstCounter::new(lost_lines());
        let help = "Log lines lost because nothing read the log";
        counter.encode(encoder.encode_descriptor("ferry_log_lines_lost", help, None, counter.metric_type())?)
    }
}
