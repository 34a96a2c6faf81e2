//! Very many sessions, through one pair or several, that can all be cut at once.

use crate::idle;
use crate::pair::{Pair, exchange};
use crate::process::{Process, Program, find, output};
use crate::tunnels::{Reserved, Tunnel};
use crate::usage::{self, Window};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::net::Ipv4Addr;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{Instant, timeout};

/// How long a message may take when all sessions have something to say at once, or have lost their links.
const PATIENCE: Duration = Duration::from_secs(90);

/// Sessions and the pairs that carry them.
pub(super) struct Fleet {
    pairs: Vec<Pair>,
    streams: Vec<TcpStream>,
    /// A process of its own, so that both applications together may have twice as many sockets.
    echo: Process,
    _reserved: Reserved,
    _dir: TempDir,
}

/// What the processes of one end, near or far, used.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Ends<T> {
    pub(super) near: T,
    pub(super) far: T,
}

impl Ends<f64> {
    pub(super) fn sum(self) -> f64 {
        self.near + self.far
    }

    pub(super) fn map(self, change: impl Fn(f64) -> f64) -> Self {
        Self { near: change(self.near), far: change(self.far) }
    }
}

/// What a stretch of time cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    /// Its length.
    pub(super) seconds: f64,
    /// Processor seconds of each end.
    pub(super) cpu: Ends<f64>,
    /// The share of the machine that was used by others.
    pub(super) others: f64,
}

impl Fleet {
    /// Starts `pairs` of a tunnel, each on a loopback address of its own.
    pub(super) async fn start(tunnel: &dyn Tunnel, pairs: u8) -> Result<Self> {
        let dir = TempDir::new()?;
        let addr = Reserved::new()?;
        let echo = Program::new(std::env::current_exe()?, dir.path().join("echo.log"));
        let echo = Process::start(echo.args(["echo".to_owned(), addr.addr().to_string()]))?;
        let mut started = Vec::new();
        for number in 1..=pairs {
            let ip = Ipv4Addr::new(127, 0, 0, number);
            started.push(Pair::start_on(ip, tunnel, addr.addr(), None).await.with_context(|| echo.log_tail())?);
        }
        Ok(Self { pairs: started, streams: Vec::new(), echo, _reserved: addr, _dir: dir })
    }

    /// Opens `each` sessions through each pair; every one exchanges a message.
    pub(super) async fn open(&mut self, each: usize) -> Result<Cost> {
        let start = self.watch();
        for pair in &self.pairs {
            let opened = idle::open(pair.addr, each).await.with_context(|| pair.log_tails());
            self.streams.append(&mut opened?);
        }
        Ok(start.cost())
    }

    /// Does nothing for a while.
    pub(super) async fn rest(&self, duration: Duration) -> Cost {
        let start = self.watch();
        tokio::time::sleep(duration).await;
        start.cost()
    }

    /// Sends a message through every session at once, and gives what it cost and the seconds after which each was
    /// back.
    ///
    /// # Errors
    /// When a session does not bring its own message back.
    pub(super) async fn exchange(&mut self) -> Result<(Cost, Vec<f64>)> {
        self.exchange_since(self.watch(), Instant::now()).await
    }

    /// Cuts every link, then does the same; the time counts from the cut.
    ///
    /// # Errors
    /// When the links cannot be cut, or a session is lost.
    pub(super) async fn cut_and_exchange(&mut self) -> Result<(Cost, Vec<f64>)> {
        let (watch, start) = (self.watch(), Instant::now());
        self.cut()?;
        self.exchange_since(watch, start).await
    }

    async fn exchange_since(&mut self, watch: Watch, start: Instant) -> Result<(Cost, Vec<f64>)> {
        let count = self.streams.len();
        let mut exchanges = JoinSet::new();
        for mut stream in self.streams.drain(..) {
            exchanges.spawn(async move {
                timeout(PATIENCE, exchange(&mut stream)).await.context("no answer")??;
                anyhow::Ok((stream, start.elapsed().as_secs_f64()))
            });
        }
        let mut failures = Vec::new();
        let mut times = Vec::new();
        while let Some(done) = exchanges.join_next().await {
            match done? {
                Ok((stream, time)) => {
                    self.streams.push(stream);
                    times.push(time);
                }
                Err(error) => failures.push(error),
            }
        }
        if let Some(error) = failures.pop() {
            let logs: Vec<_> = self.pairs.iter().map(Pair::log_tails).collect();
            let lost = failures.len() + 1;
            return Err(error.context(format!("{lost} of {count} sessions are lost; {}", logs.join("\n"))));
        }
        Ok((watch.cost(), times))
    }

    /// Kills every link's socket; the far end is told by the reset that the kernel sends.
    fn cut(&self) -> Result<()> {
        let ss = find("ss").context("ss (Debian: iproute2) is not installed")?;
        let mut killed = 0;
        for pair in &self.pairs {
            let link = pair.site.link.addr();
            let (ip, port) = (link.ip().to_string(), format!(":{}", link.port()));
            let filter = ["-H", "-n", "-K", "-4", "-t", "state", "established", "dst", &ip, "dport", "=", &port];
            killed += block_in_place(|| output(&ss, &filter))?.lines().count();
        }
        ensure!(killed >= self.streams.len(), "only {killed} links were cut: the kernel may not be able to (ss -K)");
        Ok(())
    }

    /// Moves to fresh keys so far, of all pairs.
    pub(super) fn rotations(&self, tunnel: &dyn Tunnel) -> Result<u64> {
        self.pairs.iter().map(|pair| Ok(tunnel.rotations(&pair.site)?.unwrap_or_default())).sum()
    }

    /// KiB of each end's processes.
    pub(super) fn memory(&self) -> Result<Ends<f64>> {
        let of = |pids: Vec<u32>| Ok::<_, anyhow::Error>(usage::memory(&pids)? as f64);
        let ends = self.pids();
        Ok(Ends { near: of(ends.near)?, far: of(ends.far)? })
    }

    fn pids(&self) -> Ends<Vec<u32>> {
        let (near, far): (Vec<_>, Vec<_>) = self.pairs.iter().map(Pair::ends).unzip();
        Ends { near: near.concat(), far: far.concat() }
    }

    fn watch(&self) -> Watch {
        let pids = self.pids();
        let before = pids.times();
        let echo = self.echo.family();
        Watch { echo_before: usage::processor_time(&echo), echo, before, pids, machine: Window::open(&Vec::new) }
    }
}

impl Ends<Vec<u32>> {
    fn times(&self) -> Ends<f64> {
        let [near, far] = [&self.near, &self.far].map(|pids| usage::processor_time(pids).as_secs_f64());
        Ends { near, far }
    }
}

/// A stretch of time that has begun.
struct Watch {
    pids: Ends<Vec<u32>>,
    before: Ends<f64>,
    echo: Vec<u32>,
    echo_before: Duration,
    machine: Window<'static>,
}

impl Watch {
    fn cost(self) -> Cost {
        let (spent, now) = (self.machine.close(), self.pids.times());
        let cpu = Ends { near: now.near - self.before.near, far: now.far - self.before.far };
        let echo = (usage::processor_time(&self.echo) - self.echo_before).as_secs_f64();
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let others = (spent.others - (cpu.sum() + echo) / (cores * spent.seconds)).max(0.0);
        Cost { seconds: spent.seconds, cpu, others }
    }
}
