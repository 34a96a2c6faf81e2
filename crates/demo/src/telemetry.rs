//! This machine's own telemetry: what the demo streams.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, Networks, RefreshKind, System};

/// Between two samples.
pub(crate) const EVERY: Duration = Duration::from_millis(100);

/// Looks at the machine.
pub(crate) struct Sampler {
    system: System,
    networks: Networks,
    last: Instant,
}

impl Sampler {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let what = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing().with_usage())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        let system = System::new_with_specifics(what)?;
        Ok(Self { system, networks: Networks::new_with_refreshed_list()?, last: Instant::now() })
    }

    /// The machine now; rates are since the last sample. Reads a few small files of the kernel.
    pub(crate) fn sample(&mut self) -> Value {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        self.networks.refresh(false);
        let now = Instant::now();
        let seconds = now.duration_since(self.last).as_secs_f64().max(0.001);
        self.last = now;
        let (received, sent) = self
            .networks
            .values()
            .fold((0, 0), |(received, sent), network| (received + network.received(), sent + network.transmitted()));
        let rate = |bytes: u64| (bytes as f64 / seconds).round() as u64;
        json!({
            "cpu_percent": f64::from((self.system.global_cpu_usage() * 10.0).round()) / 10.0,
            "memory_used_bytes": self.system.used_memory(),
            "network_received_bytes_per_second": rate(received),
            "network_sent_bytes_per_second": rate(sent),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_tells_of_a_living_machine() {
        let sample = Sampler::new().unwrap().sample();
        assert!(sample["memory_used_bytes"].as_u64().unwrap() > 0, "{sample}");
        assert!((0.0..=100.0).contains(&sample["cpu_percent"].as_f64().unwrap()), "{sample}");
        assert!(sample["network_received_bytes_per_second"].is_u64(), "{sample}");
    }
}
