//! What the demo tells in the end: what arrived, a summary, and what to try while it stays up.

use std::time::Duration;

use indicatif::{BinaryBytes, HumanCount};
use owo_colors::OwoColorize as _;
use serde_json::Value;

use crate::between::Fault;
use crate::log::cluster_style;
use crate::outputs::{Outputs, Received, hop_time, render_trail};
use crate::screen::Screen;
use crate::topology::{AUTO_TRIGGER, Cluster, Topology};
use crate::traffic::Account;
use crate::tunnels::Tunnels;

/// The picture of what is about to be raised.
pub(crate) fn opening(screen: &Screen) {
    let (a, b) = ("cluster-a".style(cluster_style("cluster-a")), "cluster-b".style(cluster_style("cluster-b")));
    screen.print(format_args!(
        "{}\n\n  {a}                      {b}\n  initiator ─▶ tunnel {} tunnel ─▶ terminator\n\n\
         Two clusters on this machine: four processes, fresh keys, free ports of 127.0.0.1.",
        "Fast International Ferry".bold(),
        "══▶".yellow(),
    ));
}

/// Results as a table, the middle of a long run left out.
pub(crate) fn results(screen: &Screen, outputs: &Outputs, topology: &Topology) {
    for (at, results) in [(&topology.terminator, &outputs.forward), (&topology.initiator, &outputs.backward)] {
        const ENDS: usize = 2;
        let title = format!("In the output of {}: {} results", at.id, results.len());
        screen.print(format_args!("\n{}", title.style(cluster_style(at.id))));
        let head = if std::ptr::eq(results, &outputs.forward) { AUTO_TRIGGER + ENDS } else { ENDS };
        let shown = |i: usize| i < head || i + ENDS >= results.len();
        let width = results.iter().map(|result| describe(&result.payload).chars().count()).max().unwrap_or_default();
        let mut left_out = 0;
        for (i, result) in results.iter().enumerate() {
            if !shown(i) {
                left_out += 1;
                continue;
            }
            if left_out > 0 {
                screen.print(format_args!("  {}", format_args!("… {left_out} more").dimmed()));
                left_out = 0;
            }
            screen.print(format_args!("  {}", row(result, width)));
        }
    }
}

fn row(result: &Received, width: usize) -> String {
    let what = describe(&result.payload);
    let took = hop_time(result).map_or("?".into(), |time| format!("{} ms", time.as_millis()));
    format!("{what:width$}  {}  {took:>6}", render_trail(result).dimmed())
}

fn describe(payload: &Value) -> String {
    let number = |pointer: &str| payload.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    let text = |key: &str| payload[key].as_str().unwrap_or_default().to_owned();
    if payload["telemetry"].is_null() {
        return format!("{} ({} of {})", text("message"), number("/n"), number("/of"));
    }
    let network = number("/sample/network_received_bytes_per_second") + number("/sample/network_sent_bytes_per_second");
    format!(
        "#{:<4} CPU {:>5.1} %, {} MiB, {} KiB/s",
        number("/telemetry"),
        payload["sample"]["cpu_percent"].as_f64().unwrap_or_default(),
        HumanCount(number("/sample/memory_used_bytes") >> 20),
        HumanCount(network >> 10),
    )
}

/// The numbers.
pub(crate) fn summary(screen: &Screen, topology: &Topology, account: &Account, outputs: &Outputs, tunnels: &Tunnels) {
    let (a, b) = (&topology.initiator, &topology.terminator);
    let (forward, backward) = outputs.payload_bytes();
    let count = |results: &[Received]| HumanCount(results.len() as u64);
    let line = |name: &str, value: String| screen.print(format_args!("  {:9} {value}", name.dimmed()));
    line("messages", format!("{} to {}, {} to {}", count(&outputs.forward), b.id, count(&outputs.backward), a.id));
    line("payload", format!("{} to {}, {} to {}", BinaryBytes(forward), b.id, BinaryBytes(backward), a.id));
    let latencies = account.latencies();
    line(
        "latency",
        format!(
            "p50 {}, p99 {}, from /stream to /stream, pauses included",
            milliseconds(percentile(&latencies, 50)),
            milliseconds(percentile(&latencies, 99))
        ),
    );
    line("keys", format!("{}, {}", short_key(a), short_key(b)));
    for session in &tunnels.near {
        line(
            "session",
            format!(
                "{} epoch {}, {} bytes sent, {} received",
                session.id,
                session.epoch,
                HumanCount(session.sent),
                HumanCount(session.received)
            ),
        );
        line(
            "link",
            format!("{} {}, its keys {:.1} s old", session.key_exchange, session.cipher, session.key_age_seconds),
        );
    }
}

/// What to try while everything is up.
pub(crate) fn invitation(screen: &Screen, topology: &Topology) {
    let (a, b) = (&topology.initiator, &topology.terminator);
    screen.heading("Everything stays up until Ctrl-C. Try");
    let line = |command: String, what: &str| {
        screen.print_as_it_is(format_args!("  {}\n  {command}\n", format_args!("# {what}").dimmed()))
    };
    for (from, to) in [(a, b), (b, a)] {
        line(
            format!(
                "curl -H 'content-type: application/json' -d '{{\"hello\": \"{}\"}}' '{}/trigger?wait=5s'",
                to.id, from.web_app
            ),
            &format!("send a message from {} to {}", from.id, to.id),
        );
        line(format!("curl '{}/output?limit=1000'", to.web_app), &format!("what has arrived at {}", to.id));
    }
    line(format!("ferry output {} --follow", b.web_app), "the same as JSON lines, as they come");
    line(format!("curl http://{}/status", a.admin), "the tunnel of cluster-a: its peers and sessions");
    line(format!("curl http://{}/metrics", b.admin), "the tunnel of cluster-b: its metrics");
    screen.print(format_args!(
        "  {}\n  {}\n",
        "# or let something happen: type a letter and Enter".dimmed(),
        Fault::ALL.map(|fault| format!("{}: {}", fault.letter(), fault.what())).join("\n  ")
    ));
}

fn short_key(cluster: &Cluster) -> String {
    let key = cluster.key.to_string();
    let short: String = key.chars().take("ferry:pub:".len() + 8).collect();
    format!("{} {short}…", cluster.tunnel)
}

fn milliseconds(duration: Option<Duration>) -> String {
    duration.map_or("unknown".into(), |duration| format!("{:.1} ms", duration.as_secs_f64() * 1000.0))
}

/// The smallest value that this many per cent of all are not above; of values in order.
fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    sorted.get((sorted.len() * percent).div_ceil(100).checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let sorted: Vec<_> = (1..=10).map(Duration::from_millis).collect();
        assert_eq!(percentile(&sorted, 50), Some(Duration::from_millis(5)));
        assert_eq!(percentile(&sorted, 99), Some(Duration::from_millis(10)));
        assert_eq!(percentile(&sorted[..1], 50), Some(Duration::from_millis(1)));
        assert_eq!(percentile(&[], 50), None);
    }
}
