//! The survival matrix: each fault done to a checked two-way stream through each tunnel.

mod fault;
mod report;

pub(crate) use fault::Fault;

use crate::contest::{Contest, Contestant, select};
use crate::flow::{App, Death, Flow, Outcome};
use crate::machine::Machine;
use crate::tunnels::{Reserved, Site, Tunnel, all, install_rathole};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use fault::Applied;
use ferry_relay::Relay;
use serde::Serialize;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{Instant, timeout};

/// How long a tunnel may take until a first connection comes through.
const START: Duration = Duration::from_secs(20);

/// How long a tunnel may take after a fault until a new session comes through.
const NEW_SESSION: Duration = Duration::from_secs(60);

/// What a whole measurement may take beyond its fault's length.
const BOUND: Duration = Duration::from_secs(120);

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Faults, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = Fault::DEFAULT)]
    faults: Vec<Fault>,
    /// Tunnels, separated by commas; all by default.
    #[arg(long, value_delimiter = ',')]
    tunnels: Vec<String>,
    /// Bytes a second in each direction.
    #[arg(long, default_value_t = 1 << 20)]
    rate: u64,
    /// Milliseconds that everything takes from one end to the other.
    #[arg(long, default_value_t = 20)]
    delay: u64,
    /// Measurements at the same time.
    #[arg(long, default_value_t = 3)]
    jobs: usize,
    /// Seconds that a session may stay silent after a fault is over.
    #[arg(long, default_value_t = 30)]
    patience: u64,
    /// Compile the peers that come from crates.io, if they are not there.
    #[arg(long)]
    install_peers: bool,
    /// Write the results as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the results as a page of the documentation.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

/// What became of the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "session")]
pub(crate) enum Verdict {
    /// It went on.
    Alive,
    /// An application saw it end, or nothing came any more.
    Dead(Death),
    /// The tunnel has nothing that this fault could be done to.
    Inapplicable,
    /// It could not be measured.
    Failed {
        /// Why.
        why: String,
    },
}

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cell {
    fault: String,
    tunnel: &'static str,
    #[serde(flatten)]
    verdict: Verdict,
    /// False where the tunnel would have to be told of the fault and cannot be.
    told: bool,
    #[serde(flatten)]
    outcome: Outcome,
    /// The longest pause minus the time for which the path was gone.
    pause_beyond_fault: f64,
    /// Seconds from the end of the fault until a new session came through, if one did.
    new_session: Option<f64>,
}

/// A whole run.
#[derive(Debug, Serialize)]
struct Matrix {
    command: String,
    machine: Machine,
    rate: u64,
    delay: u64,
    tunnels: Vec<Contestant>,
    faults: Vec<(String, String)>,
    cells: Vec<Cell>,
}

/// Measures, prints and writes what was asked for.
///
/// # Errors
/// When an option is wrong or a file cannot be written; a tunnel's failure is a result.
pub(crate) async fn run(options: Options) -> Result<()> {
    if options.install_peers {
        block_in_place(install_rathole)?;
    }
    let Contest { contestants, tunnels } = select(&options.tunnels, all())?;
    let jobs = Arc::new(Semaphore::new(options.jobs.max(1)));
    let mut measurements = JoinSet::new();
    let pairs = options.faults.iter().flat_map(|fault| tunnels.iter().map(|tunnel| (*fault, tunnel.clone())));
    for (order, (fault, tunnel)) in pairs.enumerate() {
        let (jobs, path) = (jobs.clone(), Path::of(&options));
        measurements.spawn(async move {
            let _job = jobs.acquire().await;
            let cell = path.measure(fault, tunnel.as_ref()).await;
            eprintln!("{}", report::line(&cell));
            (order, cell)
        });
    }
    let mut cells = Vec::new();
    while let Some(measured) = measurements.join_next().await {
        cells.push(measured?);
    }
    cells.sort_by_key(|(order, _)| *order);
    let matrix = Matrix {
        command: crate::command_line(),
        machine: Machine::read(),
        rate: options.rate,
        delay: options.delay,
        tunnels: contestants,
        faults: options.faults.iter().map(|fault| (fault.to_string(), fault.describe())).collect(),
        cells: cells.into_iter().map(|(_, cell)| cell).collect(),
    };
    println!("{}", report::summary(&matrix));
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_string_pretty(&matrix)?).context("cannot write the JSON file")?;
    }
    if let Some(path) = &options.write {
        std::fs::write(path, report::page(&matrix)).context("cannot write the page")?;
    }
    Ok(())
}

/// What is the same for all measurements.
#[derive(Debug, Clone, Copy)]
struct Path {
    rate: u64,
    delay: Duration,
    patience: Duration,
}

impl Path {
    fn of(options: &Options) -> Self {
        Self {
            rate: options.rate,
            delay: Duration::from_millis(options.delay),
            patience: Duration::from_secs(options.patience),
        }
    }

    /// One measurement, whatever happens.
    async fn measure(self, fault: Fault, tunnel: &dyn Tunnel) -> Cell {
        let mut cell = Cell {
            fault: fault.to_string(),
            tunnel: tunnel.name(),
            verdict: Verdict::Inapplicable,
            told: true,
            outcome: Outcome::default(),
            pause_beyond_fault: 0.0,
            new_session: None,
        };
        let attempt = timeout(BOUND + fault.length(), self.attempt(fault, tunnel, &mut cell)).await;
        let attempt = attempt.unwrap_or_else(|_| Err(anyhow!("it took too long")));
        cell.verdict = attempt.unwrap_or_else(|error| Verdict::Failed { why: format!("{error:#}") });
        cell.pause_beyond_fault = (cell.outcome.longest_pause - fault.length().as_secs_f64()).max(0.0);
        cell
    }

    async fn attempt(self, fault: Fault, tunnel: &dyn Tunnel, cell: &mut Cell) -> Result<Verdict> {
        let dir = TempDir::new()?;
        let app = App::bind().await?;
        let link = Reserved::new()?;
        let relay = Relay::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), link.addr())?;
        relay.delay(self.delay);
        let (near, addr) = (Reserved::new()?, app.addr()?);
        let (admin, far_admin, dir_path) = (Reserved::new()?, Reserved::new()?, dir.path().to_owned());
        let site =
            Site { near, link, relay: relay.addr(), app: addr, admin, far_admin, dir: dir_path, far_space: None };
        let mut started = block_in_place(|| tunnel.start(&site))?;
        relay.set_target(started.target);
        let met = app.meet(started.near_addr, START).await;
        let (client, server) = met.with_context(|| started.log_tails())?;
        let flow = Flow::start(client, server, self.rate);
        if let Err(death) = flow.moves(self.patience).await {
            bail!("the session died before any fault: {}", death.how);
        }
        let applied = fault.apply(&relay, tunnel, &site, &mut started).await?;
        let healed = Instant::now();
        cell.told = applied != Applied::Untold;
        let new_session = async {
            if applied != Applied::Done {
                return None;
            }
            let met = app.meet(started.near_addr, NEW_SESSION).await;
            met.is_ok().then(|| healed.elapsed().as_secs_f64())
        };
        // Beside the old session: its verdict may take long.
        let (verdict, new_session) = tokio::join!(self.verdict(applied, &flow), new_session);
        cell.new_session = new_session;
        cell.outcome = flow.finish().await;
        block_in_place(|| drop(started));
        Ok(verdict)
    }

    /// Finds out whether the session goes on after the fault.
    async fn verdict(self, applied: Applied, flow: &Flow) -> Verdict {
        if applied == Applied::Inapplicable {
            return Verdict::Inapplicable;
        }
        for _ in 0..3 {
            if let Err(death) = flow.moves(self.patience).await {
                return Verdict::Dead(death);
            }
        }
        Verdict::Alive
    }
}
