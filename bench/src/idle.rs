//! What a session costs that does nothing: memory of both ends, and processor time for keeping its keys fresh.

use crate::contest::{Contest, select};
use crate::pair::{Echo, Pair, exchange};
use crate::tunnels::Tunnel;
use crate::usage;
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use std::fmt::Write;
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

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Sessions through one pair.
    #[arg(long, default_value_t = 5000)]
    sessions: usize,
    /// Tunnels, separated by commas; all by default.
    #[arg(long, value_delimiter = ',')]
    tunnels: Vec<String>,
    /// Seconds for which the sessions stay idle; with the default, ferry rotates each of them once.
    #[arg(long, default_value_t = 35)]
    idle: u64,
}

/// One tunnel's measurement.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    tunnel: &'static str,
    sessions: usize,
    /// Seconds until all were open and had exchanged a message.
    opened: f64,
    /// KiB of the pair before any session, with all of them, and when they had been idle for the whole time.
    memory: [u64; 3],
    /// Processor seconds per second of both ends while all sessions were idle.
    processor: f64,
    /// Sessions that still carried a message at the end.
    alive: usize,
}

impl Row {
    /// KiB per session of both ends together, just opened and at the end.
    fn per_session(&self) -> [f64; 2] {
        let [before, opened, later] = self.memory;
        [opened, later].map(|memory| (memory as f64 - before as f64) / self.sessions as f64)
    }
}

/// Measures the tunnels, one after the other, and prints a table.
///
/// # Errors
/// When an option is wrong or the machine does not allow as many files; a tunnel's failure is a result.
pub(crate) async fn run(options: Options) -> Result<()> {
    usage::raise_open_files()?;
    let Contest { tunnels, .. } = select(&options.tunnels)?;
    let mut rows = Vec::new();
    for tunnel in tunnels {
        match measure(tunnel.as_ref(), &options).await {
            Ok(row) => {
                eprintln!("{}: measured", row.tunnel);
                rows.push(row);
            }
            Err(error) => eprintln!("{}: not measured: {error:#}", tunnel.name()),
        }
    }
    print!("{}", table(&rows));
    Ok(())
}

async fn measure(tunnel: &dyn Tunnel, options: &Options) -> Result<Row> {
    let echo = Echo::start().await?;
    let pair = Pair::start(tunnel, echo.addr, None).await?;
    sleep(CALM).await;
    let before = usage::memory(&pair.pids())?;
    let start = Instant::now();
    let sessions = options.sessions.min(tunnel.most_sessions());
    let mut streams = open(&pair, sessions).await.with_context(|| pair.log_tails())?;
    let opened = start.elapsed().as_secs_f64();
    sleep(CALM).await;
    let pids = pair.pids();
    let memory = usage::memory(&pids)?;
    let (clock, processor) = (Instant::now(), usage::processor_time(&pids));
    sleep(Duration::from_secs(options.idle)).await;
    let processor =
        usage::processor_time(&pids).saturating_sub(processor).as_secs_f64() / clock.elapsed().as_secs_f64();
    let memory = [before, memory, usage::memory(&pair.pids())?];
    let mut alive = 0;
    for stream in &mut streams {
        alive += usize::from(matches!(timeout(PATIENCE, exchange(stream)).await, Ok(Ok(()))));
    }
    Ok(Row { tunnel: tunnel.name(), sessions, opened, memory, processor, alive })
}

/// Opens sessions, each of which exchanges a message.
async fn open(pair: &Pair, sessions: usize) -> Result<Vec<TcpStream>> {
    let turns = Arc::new(Semaphore::new(OPENING));
    let mut opening = JoinSet::new();
    for _ in 0..sessions {
        let (turns, addr) = (turns.clone(), pair.addr);
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

fn line(row: &Row) -> String {
    let [opened, later] = row.per_session();
    format!(
        "| {} | {} | {:.1} s | {opened:.1} | {later:.1} | {:.2} | {} |\n",
        row.tunnel, row.sessions, row.opened, row.processor, row.alive
    )
}

/// The rows as Markdown.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| tunnel | sessions | opened in | KiB per session, just opened | KiB per session, idle | cores used while idle | alive |\n\
         |---|---:|---:|---:|---:|---:|---:|\n",
    );
    for row in rows {
        let _ = write!(text, "{}", line(row));
    }
    text
}
