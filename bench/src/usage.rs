//! What processes use: memory and processor time, as the kernel counts them.

use anyhow::{Context, Result};
use rustix::param::clock_ticks_per_second;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Lets this process, and those that it starts, open as many files as the machine allows.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn raise_open_files() -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("cannot raise the open files")
}

/// Memory of processes in KiB; what several share counts once, in parts (PSS).
///
/// # Errors
/// When none of them is there any more.
pub(crate) fn memory(pids: &[u32]) -> Result<u64> {
    let one = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("Pss:"))?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    let each: Vec<_> = pids.iter().filter_map(one).collect();
    anyhow::ensure!(pids.is_empty() || !each.is_empty(), "the processes are gone");
    Ok(each.iter().sum())
}

/// Processor time of processes so far, in user and kernel mode, with that of the children that they waited for.
pub(crate) fn processor_time(pids: &[u32]) -> Duration {
    let ticks: u64 = pids.iter().filter_map(|pid| ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)).sum();
    Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64)
}

/// Fields 14 to 17 of a `stat` line; the second field is a name that may contain anything.
fn ticks(stat: &str) -> Option<u64> {
    let fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(4);
    fields.map(|field| field.parse::<u64>().ok()).sum()
}

/// What was used in a stretch of time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    /// Its length in seconds.
    pub(crate) seconds: f64,
    /// Processor seconds of the tunnel's processes.
    pub(crate) tunnel: f64,
    /// Processor seconds of this process.
    pub(crate) load: f64,
    /// The share of all processors that anybody else used.
    pub(crate) others: f64,
}

/// A stretch of time that has begun.
pub(crate) struct Window<'a> {
    family: &'a dyn Fn() -> Vec<u32>,
    start: Instant,
    tunnel: Duration,
    load: Duration,
    machine: MachineTime,
}

impl<'a> Window<'a> {
    /// Begins, for a tunnel whose processes at any moment `family` tells.
    pub(crate) fn open(family: &'a dyn Fn() -> Vec<u32>) -> Self {
        let [tunnel, load] = [&family()[..], &[std::process::id()]].map(processor_time);
        Self { family, start: Instant::now(), tunnel, load, machine: MachineTime::now() }
    }

    /// Ends.
    pub(crate) fn close(&self) -> Spent {
        let seconds = self.start.elapsed().as_secs_f64();
        let [tunnel, load] = [(&(self.family)()[..], self.tunnel), (&[std::process::id()], self.load)]
            .map(|(pids, before)| processor_time(pids).saturating_sub(before).as_secs_f64());
        let machine = MachineTime::now();
        let [busy, all] = [machine.busy - self.machine.busy, machine.all - self.machine.all];
        let ours = (tunnel + load) * clock_ticks_per_second() as f64;
        let others = ((busy as f64 - ours) / (all as f64).max(1.0)).max(0.0);
        Spent { seconds, tunnel, load, others }
    }
}

/// Ticks of all processors since the machine started.
#[derive(Debug, Clone, Copy)]
struct MachineTime {
    busy: u64,
    all: u64,
}

impl MachineTime {
    fn now() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = stat.lines().next().unwrap_or_default();
        // user nice system idle iowait irq softirq steal; the guests' are in the first two.
        let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).filter_map(|tick| tick.parse().ok()).collect();
        let idle: u64 = ticks.iter().skip(3).take(2).sum();
        let all = ticks.iter().sum();
        Self { busy: all - idle, all }
    }
}

/// Waits until others use less than `share` of the processors, but no longer than `bound`; the share at the end.
pub(crate) async fn quiet(share: f64, bound: Duration) -> f64 {
    let deadline = Instant::now() + bound;
    loop {
        let window = Window::open(&Vec::new);
        sleep(Duration::from_millis(500)).await;
        let others = window.close().others;
        if others < share || Instant::now() >= deadline {
            return others;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strange_name_does_not_hide_the_processor_time() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 111 222 5 6 20 0";
        assert_eq!(ticks(stat), Some(344));
    }

    #[test]
    fn this_process_uses_memory_and_time() {
        let me = [std::process::id()];
        assert!(memory(&me).unwrap() > 100);
        while processor_time(&me).is_zero() {
            std::hint::spin_loop();
        }
    }
}
