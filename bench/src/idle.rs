//! What a session costs that does nothing: memory of both ends, and processor time for keeping its keys fresh.

use crate::pair::{Echo, MESSAGE, Pair, exchange};
use crate::section::{Better, Common, Figure, Sample, Section};
use crate::tunnels::Tunnel;
use crate::usage::{self, Window};
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Sessions that are opened at the same time.
const OPENING: usize = 64;

/// How long one session may take to open, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time for a tunnel to give back what it needed only for the last messages.
const CALM: Duration = Duration::from_secs(2);

/// KiB of both ends for each session, once all have been idle for a while.
pub(crate) const MEMORY: Figure = Figure { name: "KiB/session", better: Better::Less, digits: 1 };
const JUST_OPENED: Figure = Figure { name: "just opened", better: Better::Neither, digits: 1 };
const OPENED: Figure = Figure { name: "opened in s", better: Better::Less, digits: 1 };
const CORES: Figure = Figure { name: "cores used", better: Better::Neither, digits: 2 };
const COUNT: Figure = Figure { name: "sessions", better: Better::Neither, digits: 0 };
const ROTATIONS: Figure = Figure { name: "rotations each", better: Better::Neither, digits: 2 };
const ALIVE: Figure = Figure { name: "alive", better: Better::Neither, digits: 0 };

/// The only case.
pub(crate) const CASE: &str = "idle";

/// The section's heading.
pub(crate) const TITLE: &str = "Idle sessions";

/// What to measure.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Sessions through one pair.
    #[arg(long, default_value_t = 5000)]
    pub(crate) sessions: usize,
    /// Tunnels, separated by commas; all by default.
    #[arg(long, value_delimiter = ',')]
    pub(crate) tunnels: Vec<String>,
    /// Seconds for which the sessions stay idle; with the default, ferry rotates each of them once.
    #[arg(long, default_value_t = 35)]
    pub(crate) idle: u64,
}

/// Measures the tunnels, one after the other.
///
/// # Errors
/// When an option is wrong or the machine does not allow as many files; a tunnel's failure is a result.
pub(crate) async fn run(options: &Options) -> Result<Section> {
    let method = format!(
        "Sessions that each exchanged {MESSAGE} B and then do nothing. *KiB/session*: memory (PSS) of all processes of both \
         ends, less what they had before the first session, after {} s of idleness. *Cores used*: processor seconds per \
         second of both ends meanwhile. *Alive*: sessions that still carried a message after it; where \
         TCP keep-alive is set (see Tunnels), the probes of connections opened in one burst fall due together, and what \
         they overflow is the kernel's queue for loopback (`net.core.netdev_max_backlog`), not the tunnel.",
        options.idle
    );
    let common = Common { tunnels: options.tunnels.clone(), rounds: 1, seconds: 0.0, quiet: 1.0, quiet_wait: 0 };
    let section = Section::new(TITLE, method, &[MEMORY, JUST_OPENED, OPENED, CORES, COUNT, ROTATIONS, ALIVE]);
    section.contest(&common, async |tunnel| measure(tunnel, options).await).await
}

/// One measurement of a tunnel.
///
/// # Errors
/// When it cannot be started, or a stream fails.
pub(crate) async fn measure(tunnel: &dyn Tunnel, options: &Options) -> Result<Vec<Sample>> {
    let echo = Echo::start().await?;
    let pair = Pair::start(tunnel, echo.addr, None).await?;
    sleep(CALM).await;
    let before = usage::memory(&pair.pids())?;
    let sessions = options.sessions.min(tunnel.most_sessions());
    let per_session = |memory: u64| (memory as f64 - before as f64) / sessions as f64;
    let start = Instant::now();
    let mut streams = open(pair.addr, sessions).await.with_context(|| pair.log_tails())?;
    let opened = start.elapsed().as_secs_f64();
    sleep(CALM).await;
    let just_opened = usage::memory(&pair.pids())?;
    let family = || pair.pids();
    let window = Window::open(&family);
    sleep(Duration::from_secs(options.idle)).await;
    let spent = window.close();
    let memory = usage::memory(&pair.pids())?;
    let mut alive: u32 = 0;
    for stream in &mut streams {
        alive += u32::from(matches!(timeout(PATIENCE, exchange(stream)).await, Ok(Ok(()))));
    }
    let rotations = tunnel.rotations(&pair.site)?.map(|count| (ROTATIONS, count as f64 / sessions as f64));
    let values = [
        (MEMORY, per_session(memory)),
        (JUST_OPENED, per_session(just_opened)),
        (OPENED, opened),
        (CORES, spent.tunnel / spent.seconds),
        (COUNT, sessions as f64),
        (ALIVE, alive.into()),
    ];
    Ok(values.into_iter().chain(rotations).map(|(figure, value)| Sample::new(CASE, figure, value)).collect())
}

/// Opens sessions, each of which exchanges a message.
///
/// # Errors
/// When one of them does not open.
pub(crate) async fn open(addr: SocketAddr, sessions: usize) -> Result<Vec<TcpStream>> {
    let turns = Arc::new(Semaphore::new(OPENING));
    let mut opening = JoinSet::new();
    for _ in 0..sessions {
        let turns = turns.clone();
        opening.spawn(async move {
            let _turn = turns.acquire().await?;
            let open = async {
                let mut stream = TcpStream::connect(addr).await?;
                stream.set_nodelay(true)?;
                exchange(&mut stream).await?;
                anyhow::Ok(stream)
            };
            timeout(PATIENCE, open).await.context("a session does not open")?
        });
    }
    let mut streams = Vec::new();
    let mut failed = (0, None);
    while let Some(opened) = opening.join_next().await {
        match opened? {
            Ok(stream) => streams.push(stream),
            Err(error) => failed = (failed.0 + 1, Some(error)),
        }
    }
    if let (count, Some(error)) = failed {
        return Err(error).with_context(|| format!("{count} of {sessions} sessions did not open"));
    }
    ensure!(streams.len() == sessions, "sessions went missing");
    Ok(streams)
}
