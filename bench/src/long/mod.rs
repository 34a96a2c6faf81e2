//! One stream over a long path, with the kernel's stock buffers and with large ones.
//!
//! The path is a real one for the kernel, with its own acknowledgements, windows and congestion control: two network
//! namespaces, and between them a process that holds each packet for as long as it is to take.

use crate::bulk::COST;
use crate::contest::{Contest, select};
use crate::load::{App, Way};
use crate::machine::Machine;
use crate::pair::Pair;
use crate::process::{Process, Program, find};
use crate::section::{Better, Common, Figure, OTHERS, Sample, Section};
use crate::targets;
use crate::tunnels::{self, Reserved, Tunnel};
use crate::usage::Window;
use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::block_in_place;

mod table;

const PATH: &str = include_str!("path.py");

/// The far end's address on the path.
const FAR: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

/// How long the path may take to come up.
const START: Duration = Duration::from_secs(10);

/// Least, initial and most bytes of a connection's send and receive buffer.
const BUFFERS: [(&str, [&str; 2]); 2] = [
    ("stock buffers (4 and 6 MiB)", ["4096 16384 4194304", "4096 131072 6291456"]),
    (LARGE, ["4096 65536 33554432", "4096 131072 33554432"]),
];

/// Bytes that arrive.
pub(crate) const SPEED: Figure = Figure { name: "Mbit/s", better: Better::More, digits: 0 };

/// The section's heading.
pub(crate) const TITLE: &str = "One stream over a long path";

/// The case in which the kernel's buffers are large enough.
pub(crate) const LARGE: &str = "buffers of 32 MiB";

/// Those that are measured if none are named.
const TUNNELS: &str = "ferry,stunnel,haproxy,haproxy-plain,direct";

/// What to measure.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Tunnels, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = TUNNELS)]
    tunnels: Vec<String>,
    /// Measurements of each tunnel, of which the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Seconds before it for the stream to gain speed.
    #[arg(long, default_value_t = 8)]
    warm_up: u64,
    /// Milliseconds of a round trip.
    #[arg(long, default_value_t = 100)]
    round_trip: u32,
    /// Percent of the packets that each direction loses.
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// Most bytes of a packet.
    #[arg(long, default_value_t = 9000)]
    mtu: u32,
    /// TCP's congestion control, both ends' default.
    #[arg(long, default_value = "bbr")]
    congestion: String,
    /// Also measure ferry with its key `congestion` set to this.
    #[arg(long, value_name = "NAME")]
    ferry_congestion: Option<String>,
    /// Also measure ferry with links over QUIC.
    #[arg(long)]
    ferry_quic: bool,
    /// All paths in short measurements, as a table: ferry by all that carries its links beside others.
    #[arg(long)]
    table: bool,
    /// Of the table the part that says most, in six minutes instead of forty.
    #[arg(long, requires = "table")]
    quick: bool,
    /// Minutes after which no cell of the table is begun any more.
    #[arg(long, requires = "table")]
    within: Option<u64>,
    /// Only those rows of the table, such as `100ms/1%/cubic`.
    #[arg(long, value_delimiter = ',', requires = "table")]
    paths: Vec<String>,
    /// Write every sample as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the results as a page of the documentation.
    #[arg(long, value_name = "FILE.md")]
    write: Option<PathBuf>,
    /// This process already has a network namespace of its own.
    #[arg(long, hide = true)]
    apart: bool,
}

/// Measures, prints and writes what was asked for; in a network namespace of its own, which needs root.
///
/// # Errors
/// When there can be no such path here, or a file cannot be written; a tunnel's failure is a result.
pub(crate) async fn run(options: Options) -> Result<()> {
    if !options.apart {
        return apart();
    }
    if options.table {
        return table::run(&options).await;
    }
    let path = block_in_place(|| Path::start(&Line::of(&options)))?;
    let method = format!(
        "One stream of a pattern up, every byte compared with what is due, over a path with a round trip of {} ms that loses \
         {} % of the packets each way and has no other limit (two network namespaces, a packet at a time of up to {} B), for {} s after {} s to gain \
         speed; congestion control {}. *Buffers* are the most that `net.ipv4.tcp_wmem` and `tcp_rmem` allow, at both \
         ends.",
        options.round_trip, options.loss, options.mtu, options.seconds, options.warm_up, options.congestion,
    );
    let tunnels = options.tunnels.clone();
    let common = Common { tunnels, rounds: options.rounds, seconds: 0.0, quiet: 0.1, quiet_wait: 60 };
    let section = Section::new(TITLE, method, &[SPEED, COST, OTHERS]);
    let mut known = tunnels::priced();
    if let Some(name) = &options.ferry_congestion {
        known.insert(1, tunnels::with_congestion(name));
    }
    if options.ferry_quic {
        known.insert(1, tunnels::over_quic());
    }
    let more = [(options.ferry_congestion.is_some(), tunnels::CONGESTION), (options.ferry_quic, tunnels::QUIC)];
    let more = more.into_iter().filter(|(asked, _)| *asked).map(|(_, name)| name.to_owned());
    let names: Vec<_> = common.tunnels.iter().cloned().chain(more).collect();
    let Contest { tunnels: contestants, .. } = select(&names, known)?;
    let measured = section.rounds(&common, &contestants, async |tunnel| {
        let mut samples = Vec::new();
        for (case, buffers) in BUFFERS {
            path.set_buffers(buffers)?;
            samples.extend(path.measure(tunnel, case, &options).await?);
        }
        Ok(samples)
    });
    let section = measured.await?;
    crate::show(std::slice::from_ref(&section));
    let target = targets::table(std::slice::from_ref(&section), &tunnels::priced());
    println!("{target}");
    if let Some(file) = &options.json {
        fs::write(file, serde_json::to_string_pretty(&section)?).context("cannot write the JSON file")?;
    }
    if let Some(file) = &options.write {
        let text = format!(
            "# {TITLE}\n\nWritten by `{}`; do not edit.\n\n{}\n\n{}\n{target}\n{}\n",
            crate::command_line(),
            section.method,
            section.table(),
            Machine::read(),
        );
        fs::write(file, text).context("cannot write the page")?;
    }
    Ok(())
}

/// Runs this command again in a network namespace of its own, where nothing that it sets concerns anybody else.
fn apart() -> Result<()> {
    let unshare = find("unshare").context("unshare (Debian: util-linux) is not installed")?;
    let mut command = Command::new(unshare);
    command.arg("--net").arg(std::env::current_exe()?).args(std::env::args_os().skip(1)).arg("--apart");
    let status = block_in_place(|| command.status())?;
    ensure!(status.success(), "no measurement: {status}");
    Ok(())
}

/// What a path does to packets, and what sends over it.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    /// Milliseconds there and back.
    round_trip: u32,
    /// Percent of the packets lost in each direction.
    loss: f64,
    /// Most bytes of a packet.
    mtu: u32,
    congestion: String,
}

impl Line {
    fn of(options: &Options) -> Self {
        let Options { round_trip, loss, mtu, congestion, .. } = options;
        Self { round_trip: *round_trip, loss: *loss, mtu: *mtu, congestion: congestion.clone() }
    }
}

/// A long path from this network namespace to another.
struct Path {
    /// Lives in the other one.
    far: Process,
    _forwarder: Process,
    _dir: TempDir,
}

impl Path {
    fn start(line: &Line) -> Result<Self> {
        let dir = TempDir::new()?;
        let log = |name: &str| dir.path().join(name);
        let far = Process::start(Program::new("unshare", log("far.log")).args(["--net", "sleep", "infinity"]))?;
        let path = Self::wait(|| {
            let space = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net"));
            Ok(space(&far.id().to_string())? != space("self")?)
        });
        path.context("no second network namespace")?;
        let one_way = (f64::from(line.round_trip) / 2.0).to_string();
        let (loss, mtu) = (line.loss.to_string(), line.mtu.to_string());
        let python = find("python3").context("python3 is not installed")?;
        let program = Program::new(python, log("path.log"));
        let program = program.args(["-c", PATH, &far.id().to_string(), &one_way, &loss, &mtu, &line.congestion]);
        let forwarder = Process::start(program)?;
        let ready = Self::wait(|| Ok(forwarder.log_tail().lines().any(|line| line == "ready")));
        ready.with_context(|| format!("the path does not come up: {}", forwarder.log_tail()))?;
        Ok(Self { far, _forwarder: forwarder, _dir: dir })
    }

    fn wait(met: impl Fn() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + START;
        while !met()? {
            if Instant::now() > deadline {
                bail!("nothing within {START:?}");
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Does something in the other network namespace; sockets that it makes stay there.
    fn far<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let space = File::open(format!("/proc/{}/ns/net", self.far.id()))?;
        let there = || {
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))?;
            act()
        };
        thread::scope(|scope| scope.spawn(there).join()).map_err(|_| anyhow!("a thread panicked"))?
    }

    /// Sets a kernel setting of TCP at both ends.
    fn set(&self, name: &str, value: &str) -> Result<()> {
        let set = || {
            let file = format!("/proc/sys/net/ipv4/{name}");
            fs::write(&file, value).with_context(|| format!("cannot write {value} to {file}"))
        };
        // Each thread sees the settings of its own namespace.
        set()?;
        self.far(set)
    }

    /// The kernel's buffers, for connections that are made from now on.
    fn set_buffers(&self, [wmem, rmem]: [&str; 2]) -> Result<()> {
        self.set("tcp_wmem", wmem)?;
        self.set("tcp_rmem", rmem)
    }

    /// A tunnel across the path, and an application behind it.
    async fn pair(&self, tunnel: &dyn Tunnel) -> Result<(App, Pair)> {
        let (app, link) = self.far(|| Ok((App::start_on(FAR)?, Reserved::on(FAR)?)))?;
        let pair = Pair::start_across(tunnel, self.far.id(), link, app.addr).await?;
        Ok((app, pair))
    }

    async fn measure(&self, tunnel: &dyn Tunnel, case: &str, options: &Options) -> Result<Vec<Sample>> {
        let (app, pair) = self.pair(tunnel).await?;
        block_in_place(|| {
            let run = app.run(pair.addr, 1, Way::Up)?;
            thread::sleep(Duration::from_secs(options.warm_up));
            let family = || pair.pids();
            let (before, window) = (run.received(), Window::open(&family));
            thread::sleep(Duration::from_secs(options.seconds));
            let (bytes, spent) = ((run.received() - before) as f64, window.close());
            if options.loss > 0.0 {
                run.abandon()?
            } else {
                run.finish()?
            }
            ensure!(bytes > 0.0, "nothing arrived");
            Ok(vec![
                Sample::new(case, SPEED, bytes * 8.0 / 1e6 / spent.seconds),
                Sample::new(case, COST, spent.tunnel * f64::from(1 << 30) / bytes),
                Sample::new(case, OTHERS, spent.others),
            ])
        })
        .with_context(|| pair.log_tails())
    }
}
