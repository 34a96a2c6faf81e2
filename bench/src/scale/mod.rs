//! What very many sessions cost: memory, rotation, opening them and resuming them all after a cut; points at several
//! sizes, and the models drawn through them.

mod fleet;
mod model;
mod page;

use crate::bulk;
use crate::load::{App, Way};
use crate::pair::Pair;
use crate::section::{Better, Figure, OTHERS, Sample, Section, percentile};
use crate::tunnels::{Tunnel, rotating};
use crate::usage::{quiet, raise_open_files};
use anyhow::{Context, Result, ensure};
use clap::Args;
use fleet::{Ends, Fleet};
use serde::Serialize;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use tokio::task::block_in_place;
use tokio::time::sleep;

/// Time for the tunnels to give back what they needed only to open the sessions.
const CALM: Duration = Duration::from_secs(2);

/// How long to wait for a quiet machine.
const QUIET_WAIT: Duration = Duration::from_secs(60);

/// The interval of the point without rotation.
const NEVER: &str = "24h";

/// The interval that is measured, and which the page speaks of: the default.
const INTERVAL: f64 = 30.0;

/// What the streams of the measurement of bytes take.
const STREAMS: [u8; 2] = [1, 8];
const STREAM_TIME: Duration = Duration::from_secs(4);

const TITLE: &str = "Scale";

const fn figure(name: &'static str, digits: usize) -> Figure {
    Figure { name, better: Better::Neither, digits }
}

const PER_SESSION: Figure = figure("KiB/session, both ends", 1);
const NEAR: Figure = figure("near MiB", 1);
const FAR: Figure = figure("far MiB", 1);
const OPENED: Figure = figure("opened in s", 1);
const OPENING: Figure = figure("CPU ms/opening", 2);
const ROTATIONS: Figure = figure("rotations/s", 1);
const CORES: Figure = figure("idle cores, both ends", 3);
const MESSAGE: Figure = figure("CPU µs/message", 0);
const HALF: Figure = figure("half resumed in s", 2);
const RESUMED: Figure = figure("all resumed in s", 2);
const RESUMING: Figure = figure("CPU ms/resume", 2);
const VERIFIED: Figure = figure("verified", 0);

/// What to measure.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Numbers of sessions through one pair, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "1000,2000,4000,8000")]
    sessions: Vec<usize>,
    /// Pairs that carry the largest number each, as a last point; 1 leaves it out.
    #[arg(long, default_value_t = 2)]
    pairs: u8,
    /// Seconds for which the sessions stay idle.
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// Write the points and the models as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the page of the documentation, and its charts into a directory of that name.
    #[arg(long, value_name = "FILE.md")]
    write: Option<PathBuf>,
}

/// What was measured with one number of sessions.
#[derive(Debug, Clone, Serialize)]
struct Point {
    pairs: u8,
    sessions: usize,
    rotates: bool,
    /// KiB of each end's processes before the first session, and with all of them idle.
    empty: Ends<f64>,
    memory: Ends<f64>,
    opened: f64,
    /// Processor seconds of both ends.
    opening: f64,
    /// Rotations a second, and cores of each end, while idle.
    rotations: f64,
    cores: Ends<f64>,
    /// Processor seconds of both ends for a message there and back through each session.
    exchanging: f64,
    /// Seconds from the cut until each session's message was back: the median and the last.
    half_resumed: f64,
    all_resumed: f64,
    /// Processor seconds of each end until then.
    resuming: Ends<f64>,
    others: f64,
}

/// Processor seconds of both ends per GiB, with the bytes going both ways.
#[derive(Debug, Clone, Serialize)]
struct Bytes {
    streams: u8,
    cost: f64,
    speed: f64,
}

/// All that was measured.
#[derive(Debug, Clone, Serialize)]
struct Scale {
    points: Vec<Point>,
    bytes: Vec<Bytes>,
}

/// Measures, prints and writes what was asked for.
///
/// # Errors
/// When an option is wrong, a session is lost, or a file cannot be written.
pub(crate) async fn run(options: Options) -> Result<()> {
    ensure!(!options.sessions.is_empty() && !options.sessions.contains(&0), "a point has at least one session");
    ensure!(options.idle as f64 > INTERVAL, "every session is to rotate at least once: take more than {INTERVAL} s");
    raise_open_files()?;
    let largest = options.sessions.iter().copied().max().unwrap_or_default();
    let (default, never) = (rotating("ferry", "30s"), rotating("ferry", NEVER));
    quiet(0.1, QUIET_WAIT).await;
    let mut scale = Scale { points: Vec::new(), bytes: Vec::new() };
    for sessions in &options.sessions {
        scale.points.push(point(&*default, (1, *sessions), &options).await?);
    }
    // Without rotation, so that what it costs can be told from what the sessions cost.
    scale.points.push(Point { rotates: false, ..point(&*never, (1, largest), &options).await? });
    if options.pairs > 1 {
        scale.points.push(point(&*default, (options.pairs, largest), &options).await?);
    }
    for streams in STREAMS {
        scale.bytes.push(bytes(&*default, streams).await?);
    }
    let section = scale.section(options.idle);
    println!("## {}\n\n{}\n\n{}", section.title, section.method, section.table());
    let page = page::Page::new(&scale)?;
    println!("{}", page.models());
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_string_pretty(&(&scale, &page))?).context("cannot write the JSON file")?;
    }
    if let Some(path) = &options.write {
        page.write(path, &section, &scale)?;
    }
    Ok(())
}

/// One life of a fleet: opened, idle, used, cut, used again.
async fn point(tunnel: &dyn Tunnel, (pairs, each): (u8, usize), options: &Options) -> Result<Point> {
    let sessions = usize::from(pairs) * each;
    let mut fleet = Fleet::start(tunnel, pairs).await?;
    sleep(CALM).await;
    let empty = fleet.memory()?;
    let opening = fleet.open(each).await?;
    sleep(CALM).await;
    let rotated = fleet.rotations(tunnel)?;
    let idle = fleet.rest(Duration::from_secs(options.idle)).await;
    let rotated = fleet.rotations(tunnel)? - rotated;
    let memory = fleet.memory()?;
    let (exchanging, _) = fleet.exchange().await.context("before the cut")?;
    let (resuming, mut times) = fleet.cut_and_exchange().await.context("after the cut")?;
    let time = |times: &mut [f64], share| percentile(times, share).context("no session");
    let point = Point {
        pairs,
        sessions,
        rotates: true,
        empty,
        memory,
        opened: opening.seconds,
        opening: opening.cpu.sum(),
        rotations: rotated as f64 / idle.seconds,
        cores: idle.cpu.map(|cpu| cpu / idle.seconds),
        exchanging: exchanging.cpu.sum(),
        half_resumed: time(&mut times, 0.5)?,
        all_resumed: time(&mut times, 1.0)?,
        resuming: resuming.cpu,
        others: idle.others,
    };
    eprintln!("{TITLE}: {}: resumed in {:.2} s, others' load {:.2}", point.case(), point.all_resumed, point.others);
    Ok(point)
}

/// Streams both ways, so that both ends do the same.
async fn bytes(tunnel: &dyn Tunnel, streams: u8) -> Result<Bytes> {
    let app = App::start()?;
    let pair = Pair::start(tunnel, app.addr, None).await?;
    let (gib, spent) = block_in_place(|| bulk::transfer(&app, &pair, (streams, Way::Both), STREAM_TIME))?;
    Ok(Bytes { streams, cost: spent.tunnel / gib, speed: gib / spent.seconds })
}

impl Point {
    fn case(&self) -> String {
        let pairs = if self.pairs == 1 { "1 pair".to_owned() } else { format!("{} pairs", self.pairs) };
        format!(
            "{} sessions, {pairs}{}",
            page::thousands(self.sessions as f64),
            if self.rotates { "" } else { ", never rotated" }
        )
    }

    fn values(&self) -> [(Figure, f64); 13] {
        let sessions = self.sessions as f64;
        [
            (PER_SESSION, (self.memory.sum() - self.empty.sum()) / sessions),
            (NEAR, self.memory.near / 1024.0),
            (FAR, self.memory.far / 1024.0),
            (OPENED, self.opened),
            (OPENING, self.opening * 1e3 / sessions),
            (ROTATIONS, self.rotations),
            (CORES, self.cores.sum()),
            (MESSAGE, self.exchanging * 1e6 / sessions),
            (HALF, self.half_resumed),
            (RESUMED, self.all_resumed),
            (RESUMING, self.resuming.sum() * 1e3 / sessions),
            (VERIFIED, sessions),
            (OTHERS, self.others),
        ]
    }
}

impl Scale {
    /// The points as a table.
    fn section(&self, idle: u64) -> Section {
        let method = format!(
            "Sessions through a pair of tunnels, idle for {idle} s, with a rotation every {INTERVAL} s where not said \
             otherwise. Each exchanged a message when it was opened, after the idle time and after the cut, all of them at \
             once, on the same connection; *verified* counts those that did so every time. The cut kills the sockets of all \
             links (`ss -K`); *resumed* counts from there until the application has its message back. *CPU* is of both \
             ends, a message goes there and back. *Rotations/s* is the mean over the idle time, the beginning of which has \
             none: all sessions are new then."
        );
        let figures: Vec<_> = self.points.iter().take(1).flat_map(Point::values).map(|(figure, _)| figure).collect();
        let mut section = Section::new(TITLE, method, &figures);
        for point in &self.points {
            let case = point.case();
            let samples = point.values().map(|(figure, value)| ("ferry".to_owned(), Sample::new(&case, figure, value)));
            section.samples.extend(samples);
        }
        section
    }
}
