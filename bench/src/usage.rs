//! What processes use: memory and processor time, as the kernel counts them.

use anyhow::{Context, Result};
use rustix::param::clock_ticks_per_second;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::time::Duration;

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

/// Processor time of processes so far, in user and kernel mode, without that of their children.
pub(crate) fn processor_time(pids: &[u32]) -> Duration {
    let ticks: u64 = pids.iter().filter_map(|pid| ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)).sum();
    Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64)
}

/// Fields 14 and 15 of a `stat` line; the second field is a name that may contain anything.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strange_name_does_not_hide_the_processor_time() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 111 222 5 5 20 0";
        assert_eq!(ticks(stat), Some(333));
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
