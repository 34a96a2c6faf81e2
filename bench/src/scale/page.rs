//! The models drawn through the points, and the page that says what they make of a pod.

use super::fleet::Ends;
use super::model::Model;
use super::{INTERVAL, NEVER, Scale};
use crate::chart::{self, Series};
use crate::machine::Machine;
use crate::section::Section;
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt::Write;
use std::fs;
use std::path::Path;

const TEMPLATE: &str = include_str!("capacity.md");

/// A session rotates up to a fifth before its interval is over, at random.
const JITTER: f64 = 0.9;

/// `rotation.max_per_second` by default.
const BUDGET: f64 = 200.0;

/// Sessions of the pods that the page works out.
const PODS: [f64; 4] = [2_500.0, 5_000.0, 10_000.0, 20_000.0];

/// The one that it recommends.
const POD: f64 = 10_000.0;

const MILLION: f64 = 1e6;

/// Ports of one address towards one destination, without the first 1,024.
const PORTS: f64 = 64_512.0;

/// Ports that Linux uses for outgoing connections unless told otherwise.
const EPHEMERAL: f64 = 28_232.0;

/// Seconds for which Linux keeps the port of a connection that it closed first.
const TIME_WAIT: f64 = 60.0;

/// Seconds for which a NAT keeps the port of a connection that has ended.
const COOL_DOWNS: [f64; 3] = [60.0, 120.0, 240.0];

/// `rotation.every` in seconds.
const INTERVALS: [(f64, &str); 3] = [(INTERVAL, "30 s"), (300.0, "5 min"), (3600.0, "1 h")];

/// What the points determine.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    /// KiB of an end: for its process, and for each session.
    memory: Ends<Model>,
    /// Cores of an end: for each session, and for each rotation a second.
    cores: Ends<Model>,
    /// Processor seconds of both ends for each session that is opened.
    opening: Model,
    /// Processor seconds of an end for each session that is resumed.
    resuming: Ends<Model>,
    /// Seconds for each session until all are resumed here.
    resumed: Model,
    /// Processor seconds of both ends for a message there and back.
    message: Model,
    /// Processor seconds of both ends per GiB: with several streams, which is less than with one.
    bytes: f64,
    largest: f64,
}

impl Page {
    /// Fits the models.
    ///
    /// # Errors
    /// When there are too few points.
    pub(super) fn new(scale: &Scale) -> Result<Self> {
        let points = &scale.points;
        let fit = |terms: &dyn Fn(&super::Point) -> Vec<f64>, value: &dyn Fn(&super::Point) -> f64| {
            let rows: Vec<_> = points.iter().map(|point| (terms(point), value(point))).collect();
            Model::fit(&rows).context("these points do not determine a model: take at least two numbers of sessions")
        };
        let sessions = |point: &super::Point| point.sessions as f64;
        let each = |point: &super::Point| vec![sessions(point)];
        let held = |point: &super::Point| vec![f64::from(point.pairs), sessions(point)];
        let rested = |point: &super::Point| vec![sessions(point), point.rotations];
        let bytes = scale.bytes.iter().map(|bytes| bytes.cost).fold(0.0, f64::max);
        Ok(Self {
            memory: Ends { near: fit(&held, &|at| at.memory.near)?, far: fit(&held, &|at| at.memory.far)? },
            cores: Ends { near: fit(&rested, &|at| at.cores.near)?, far: fit(&rested, &|at| at.cores.far)? },
            opening: fit(&each, &|at| at.opening)?,
            resuming: Ends { near: fit(&each, &|at| at.resuming.near)?, far: fit(&each, &|at| at.resuming.far)? },
            resumed: fit(&each, &|at| at.all_resumed)?,
            message: fit(&each, &|at| at.exchanging)?,
            bytes,
            largest: points.iter().filter(|at| at.pairs == 1).map(sessions).fold(0.0, f64::max),
        })
    }

    /// The formulas with their coefficients.
    pub(super) fn models(&self) -> String {
        let mut text = "| what | model | misses a point by at most |\n|---|---|---:|\n".to_owned();
        let mut row = |what: &str, formula: String, model: &Model| {
            let _ = writeln!(text, "| {what} | {formula} | {:.0} % |", model.miss * 100.0);
        };
        for (end, memory, cores, resuming) in [
            ("near", &self.memory.near, &self.cores.near, &self.resuming.near),
            ("far", &self.memory.far, &self.cores.far, &self.resuming.far),
        ] {
            let [base, each] = [memory.coefficients[0] / 1024.0, memory.coefficients[1]];
            row(&format!("memory, {end} end"), format!("{base:.1} MiB + {each:.2} KiB x sessions"), memory);
            let [each, rotation] = [cores.coefficients[0] * 1e6, cores.coefficients[1] * 1e3];
            let formula = format!("{each:.2} µs/s x sessions + {rotation:.3} ms x rotations/s");
            row(&format!("idle cores, {end} end"), formula, cores);
            let each = resuming.coefficients[0] * 1e3;
            row(&format!("CPU to resume all, {end} end"), format!("{each:.3} ms x sessions"), resuming);
        }
        let each = self.opening.coefficients[0] * 1e3;
        row("CPU to open all, both ends", format!("{each:.3} ms x sessions"), &self.opening);
        let each = self.message.coefficients[0] * 1e6;
        row("CPU for a message there and back, both ends", format!("{each:.0} µs x messages"), &self.message);
        let each = self.resumed.coefficients[0] * 1e3;
        row("seconds until all are resumed, on this machine", format!("{each:.3} ms x sessions"), &self.resumed);
        text
    }

    /// Cores of the end that needs more.
    fn idle_cores(&self, sessions: f64, rotations: f64) -> f64 {
        let terms = [sessions, rotations];
        self.cores.near.at(&terms).max(self.cores.far.at(&terms))
    }

    /// KiB of the end that needs more.
    fn held(&self, sessions: f64) -> f64 {
        let terms = [1.0, sessions];
        self.memory.near.at(&terms).max(self.memory.far.at(&terms))
    }

    fn to_resume(&self, sessions: f64) -> f64 {
        self.resuming.near.at(&[sessions]).max(self.resuming.far.at(&[sessions]))
    }

    /// What pods of several sizes need.
    fn pods(&self) -> String {
        let mut text = "| sessions in a pod | process MiB | kernel MiB | rotations/s for 30 s | cores for that | oldest key at 200/s | CPU seconds to resume all | pods for a million, in each cluster | |\n|---:|---:|---:|---:|---:|---:|---:|---:|---|\n".to_owned();
        for sessions in PODS {
            let rate = sessions / (INTERVAL * JITTER);
            let age = (sessions / BUDGET).max(INTERVAL);
            let kernel = kernel_bytes().map_or("?".to_owned(), |bytes| format!("{:.0}", sessions * bytes / 1048576.0));
            let _ = writeln!(
                text,
                "| {} | {:.0} | {kernel} | {rate:.0} | {:.2} | {age:.0} s | {:.1} | {:.0} | {} |",
                thousands(sessions),
                self.held(sessions) / 1024.0,
                self.idle_cores(sessions, rate),
                self.to_resume(sessions),
                (MILLION / sessions).ceil(),
                if sessions > self.largest { "extrapolated" } else { "within what was measured" },
            );
        }
        text
    }

    fn write_charts(&self, dir: &Path, scale: &Scale) -> Result<()> {
        fs::create_dir_all(dir).context("cannot make the directory of the charts")?;
        let most =
            scale.points.iter().filter(|at| at.pairs == 1).map(|at| at.sessions).max().unwrap_or_default() as f64;
        let single = |keep: &dyn Fn(&super::Point) -> bool, value: &dyn Fn(&super::Point) -> f64| -> Vec<_> {
            let points = scale.points.iter().filter(|at| at.pairs == 1 && keep(at));
            points.map(|at| (at.sessions as f64, value(at))).collect()
        };
        let line = |value: &dyn Fn(f64) -> f64| -> Vec<_> {
            (0..=40).map(|step| f64::from(step) / 40.0 * most).map(|sessions| (sessions, value(sessions))).collect()
        };
        let end = |name: &str, points, model: &Model| {
            let line = line(&|sessions| model.at(&[1.0, sessions]) / 1024.0);
            Series { name: format!("{name} end"), points, line }
        };
        let memory = chart::points(
            "Memory of idle sessions",
            ["sessions", "MiB of one end's process"],
            &[
                end("near", single(&|at| at.rotates, &|at| at.memory.near / 1024.0), &self.memory.near),
                end("far", single(&|at| at.rotates, &|at| at.memory.far / 1024.0), &self.memory.far),
            ],
        );
        let [near, far] = [&self.cores.near.coefficients, &self.cores.far.coefficients];
        let [each, rotation] = [near[0] + far[0], near[1] + far[1]];
        let turning = |at: &super::Point| (at.rotations, (at.cores.sum() - each * at.sessions as f64).max(0.0));
        let fastest = scale.points.iter().map(|at| at.rotations).fold(0.0, f64::max);
        let cores = chart::points(
            "Cores for rotation, both ends, without what idle sessions cost anyhow",
            ["rotations/s", "cores"],
            &[Series {
                name: "one pair, and several".into(),
                points: scale.points.iter().map(turning).collect(),
                line: vec![(0.0, 0.0), (fastest, rotation * fastest)],
            }],
        );
        let resumed = chart::points(
            "Until all sessions are resumed after a cut",
            ["sessions", "seconds"],
            &[Series {
                name: "both ends and the load on this machine".into(),
                points: single(&|_| true, &|at| at.all_resumed),
                line: line(&|sessions| self.resumed.at(&[sessions])),
            }],
        );
        for (name, svg) in [("memory", memory), ("cores", cores), ("resumed", resumed)] {
            fs::write(dir.join(format!("{name}.svg")), svg).context("cannot write a chart")?;
        }
        Ok(())
    }

    /// Writes the page, and its charts beside it.
    ///
    /// # Errors
    /// Those of writing.
    pub(super) fn write(&self, path: &Path, section: &Section, scale: &Scale) -> Result<()> {
        let dir = path.with_extension("");
        self.write_charts(&dir, scale)?;
        let mut bytes = "| streams both ways | GiB/s | CPU s/GiB, both ends |\n|---:|---:|---:|\n".to_owned();
        for row in &scale.bytes {
            let _ = writeln!(bytes, "| {} | {:.2} | {:.2} |", row.streams, row.speed, row.cost);
        }
        let pod_rate = POD / (INTERVAL * JITTER);
        let kernel = kernel_bytes().map_or("not known here".to_owned(), |bytes| format!("{:.1} KiB", bytes / 1024.0));
        let worst = scale.points.iter().map(|at| at.others).fold(0.0, f64::max);
        let values = [
            ("command", crate::command_line()),
            ("machine", Machine::read().to_string()),
            ("charts", dir.file_name().unwrap_or_default().to_string_lossy().into_owned()),
            ("method", section.method.clone()),
            ("points", section.table()),
            ("models", self.models()),
            ("bytes", bytes),
            ("pods", self.pods()),
            ("never", NEVER.to_owned()),
            ("largest", thousands(self.largest)),
            ("all", thousands(scale.points.iter().map(|at| at.sessions as f64).fold(0.0, f64::max))),
            ("others", format!("{:.0} %", worst * 100.0)),
            ("kernel", kernel),
            ("pod", thousands(POD)),
            ("pod_memory", format!("{:.0}", self.held(POD) / 1024.0)),
            ("pod_rate", format!("{pod_rate:.0}")),
            ("pod_cores", format!("{:.2}", self.idle_cores(POD, pod_rate))),
            ("pod_resume", format!("{:.1}", self.to_resume(POD))),
            ("gbit_cores", format!("{:.2}", self.bytes / 2.0 * 1e9 / 8.0 / f64::from(1 << 30))),
            ("message", format!("{:.0}", self.message.coefficients[0] / 2.0 * 1e6)),
            ("pods_million", format!("{:.0}", MILLION / POD)),
            ("million_cores", format!("{:.0}", self.idle_cores(MILLION, MILLION / (INTERVAL * JITTER)))),
            ("million_memory", format!("{:.0}", self.held(POD) * (MILLION / POD) / 1048576.0)),
            ("pod_ports", thousands(POD * ports_each(INTERVAL, TIME_WAIT))),
            ("own_ports", thousands(EPHEMERAL)),
            ("own_sessions", thousands(EPHEMERAL / ports_each(INTERVAL, TIME_WAIT))),
            ("ports", ports()),
            ("flows", flows()),
        ];
        let mut text = TEMPLATE.to_owned();
        for (name, value) in values {
            text = text.replace(&format!("{{{{{name}}}}}"), value.trim_end());
        }
        fs::write(path, text).context("cannot write the page")
    }
}

/// Ports that a session occupies: its own, and those of former links that are not free again.
fn ports_each(interval: f64, cool_down: f64) -> f64 {
    1.0 + cool_down / (interval * JITTER)
}

/// A whole number with its thousands apart.
pub(super) fn thousands(number: f64) -> String {
    let digits = format!("{:.0}", number.floor());
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// NAT ports that one session occupies, and the sessions of one NAT address towards one load-balancer address.
fn ports() -> String {
    let mut text =
        "| rotation | cool-down | ports for a session | sessions behind one NAT address |\n|---:|---:|---:|---:|\n"
            .to_owned();
    for (interval, name) in INTERVALS {
        for cool_down in COOL_DOWNS {
            let ports = ports_each(interval, cool_down);
            let _ = writeln!(text, "| {name} | {cool_down:.0} s | {ports:.2} | {} |", thousands(PORTS / ports));
        }
    }
    text
}

/// Flows that a load balancer sees begin.
fn flows() -> String {
    let mut text = "| rotation | new flows/s of a pod | of a million sessions |\n|---:|---:|---:|\n".to_owned();
    for (interval, name) in INTERVALS {
        let each = 1.0 / (interval * JITTER);
        let _ = writeln!(text, "| {name} | {} | {} |", thousands(POD * each), thousands(MILLION * each));
    }
    text
}

/// What the kernel allocates for the two sockets that a session has at one end, without what waits in them. None where
/// it does not tell.
fn kernel_bytes() -> Option<f64> {
    kernel_objects(&fs::read_to_string("/proc/slabinfo").ok()?)
}

fn kernel_objects(slabs: &str) -> Option<f64> {
    let size = |name: &str| -> Option<f64> {
        let line = slabs.lines().find(|line| line.split_whitespace().next() == Some(name))?;
        line.split_whitespace().nth(3)?.parse().ok()
    };
    let socket: Option<f64> =
        ["TCP", "sock_inode_cache", "filp", "dentry", "eventpoll_epi"].into_iter().map(size).sum();
    Some(2.0 * socket?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_objects_of_two_sockets_are_added_up() {
        let slabs = "TCPv6 1 1 9999 1\nTCP 78 130 2368 13\nsock_inode_cache 2 2 832 1\nfilp 1 1 192 1\ndentry 1 1 192 1\n\
                     eventpoll_epi 1 1 128 1\n";
        assert_eq!(kernel_objects(slabs), Some(2.0 * 3712.0));
        assert_eq!(kernel_objects("TCP 1 1 2368 1\n"), None);
    }

    #[test]
    fn a_port_in_its_cool_down_counts() {
        assert!(ports().contains("| 30 s | 60 s | 3.22 | 20,020 |"), "{}", ports());
    }
}
