//! New sessions: how soon the first byte is there, and how many a second.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::pair::{Echo, Pair, exchange};
use crate::section::{Better, Common, Figure, OTHERS, Sample, Section, percentile};
use crate::tunnels::Tunnel;
use crate::usage::Window;

/// How long one session may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Round trips for a tunnel to make ready what it keeps for sessions to come; half a second more besides.
const SETTLING: u32 = 10;

/// The median until the first byte is back.
pub(crate) const FIRST_BYTE: Figure = Figure { name: "first byte p50 ms", better: Better::Less, digits: 2 };
/// What one in a hundred exceeds, divided by the median.
pub(crate) const SPREAD: Figure = Figure { name: "p99 ÷ p50", better: Better::Less, digits: 2 };
const FIRST_BYTE_P99: Figure = Figure { name: "p99 ms", better: Better::Less, digits: 2 };
/// Sessions opened, used once and closed.
pub(crate) const SESSIONS: Figure = Figure { name: "sessions/s", better: Better::More, digits: 0 };
const COST: Figure = Figure { name: "CPU ms/session", better: Better::Less, digits: 2 };
const FAILED: Figure = Figure { name: "failed", better: Better::Neither, digits: 0 };

/// The heading of the section on paced sessions.
pub(crate) const PACED: &str = "First byte";

/// The heading of the section on as many sessions as go.
pub(crate) const SUSTAINED: &str = "New sessions";

/// What to measure.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Sessions a second where they are paced.
    #[arg(long, value_delimiter = ',', default_value = "10,100")]
    pub(crate) rates: Vec<u32>,
    /// Sessions at the same time where they are not.
    #[arg(long, default_value_t = 32)]
    pub(crate) concurrent: usize,
    /// Milliseconds of a round trip on the long path.
    #[arg(long, default_value_t = 80)]
    pub(crate) round_trip: u32,
}

/// Measures what was asked for: sections on the first byte, and on sessions a second.
///
/// # Errors
/// When an option is wrong; a tunnel's failure is a result.
pub(crate) async fn run(options: &Options) -> Result<[Section; 2]> {
    ensure!(!options.rates.contains(&0), "a rate is at least 1 a second");
    let method = format!(
        "A new connection, 64 B there and back, on schedule whether or not the former is done; from the call of \
         `connect` until the answer is there. Over loopback, and with a relay between the tunnel's ends that makes a \
         round trip of {} ms of it.",
        options.round_trip
    );
    let paced = Section::new(PACED, method, &[FIRST_BYTE, FIRST_BYTE_P99, SPREAD, FAILED, OTHERS]);
    let paced = paced.contest(&options.common, async |tunnel| {
        let mut samples = Vec::new();
        for path in options.paths() {
            samples.extend(path.paced(tunnel, options).await?);
        }
        Ok(samples)
    });
    let paced = paced.await?;
    let method = format!(
        "{} clients at the same time, each of which connects, exchanges 64 B, closes and begins anew, for {} s.",
        options.concurrent, options.common.seconds
    );
    let sustained = Section::new(SUSTAINED, method, &[SESSIONS, COST, FAILED, OTHERS]);
    let sustained = sustained.contest(&options.common, async |tunnel| {
        let mut samples = Vec::new();
        for path in options.paths() {
            samples.extend(path.sustained(tunnel, options).await?);
        }
        Ok(samples)
    });
    Ok([paced, sustained.await?])
}

impl Options {
    fn paths(&self) -> [Path; 2] {
        [Path { round_trip: None }, Path { round_trip: Some(Duration::from_millis(self.round_trip.into())) }]
    }
}

/// What lies between the two ends.
#[derive(Debug, Clone, Copy)]
struct Path {
    round_trip: Option<Duration>,
}

impl Path {
    fn name(self) -> String {
        self.round_trip.map_or("loopback".to_owned(), |time| format!("{} ms", time.as_millis()))
    }

    async fn start(self, tunnel: &dyn Tunnel, app: SocketAddr) -> Result<Pair> {
        let pair = Pair::start(tunnel, app, self.round_trip.map(|time| time / 2)).await?;
        sleep(Duration::from_millis(500) + self.round_trip.unwrap_or_default() * SETTLING).await;
        Ok(pair)
    }

    async fn paced(self, tunnel: &dyn Tunnel, options: &Options) -> Result<Vec<Sample>> {
        let echo = Echo::start().await?;
        let mut samples = Vec::new();
        for rate in &options.rates {
            let pair = self.start(tunnel, echo.addr).await?;
            let case = format!("{}, {rate}/s", self.name());
            let family = || pair.pids();
            let window = Window::open(&family);
            let mut ticks = interval(Duration::from_secs(1) / *rate);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut sessions = JoinSet::new();
            let end = Instant::now() + options.common.duration();
            while Instant::now() < end {
                ticks.tick().await;
                sessions.spawn(first_byte(pair.addr));
            }
            let outcomes = sessions.join_all().await;
            let spent = window.close();
            let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
            let mut times: Vec<_> = outcomes.into_iter().flatten().map(|time| time * 1e3).collect();
            let median = percentile(&mut times, 0.5).with_context(|| pair.log_tails())?;
            let p99 = percentile(&mut times, 0.99).unwrap_or(median);
            samples.extend([
                Sample::new(&case, FIRST_BYTE, median),
                Sample::new(&case, FIRST_BYTE_P99, p99),
                Sample::new(&case, SPREAD, p99 / median),
                Sample::new(&case, FAILED, failed as f64),
                Sample::new(&case, OTHERS, spent.others),
            ]);
        }
        Ok(samples)
    }

    async fn sustained(self, tunnel: &dyn Tunnel, options: &Options) -> Result<Vec<Sample>> {
        let echo = Echo::start().await?;
        let pair = self.start(tunnel, echo.addr).await?;
        let (done, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut clients = JoinSet::new();
        for _ in 0..options.concurrent {
            let (near, done, failed) = (pair.addr, done.clone(), failed.clone());
            clients.spawn(async move {
                loop {
                    let count = if first_byte(near).await.is_ok() { &done } else { &failed };
                    count.fetch_add(1, Relaxed);
                }
            });
        }
        // What was kept ready is used up before it counts.
        sleep(Duration::from_millis(500)).await;
        let family = || pair.pids();
        let (before, window) = (done.load(Relaxed), Window::open(&family));
        sleep(options.common.duration()).await;
        let (count, spent) = ((done.load(Relaxed) - before) as f64, window.close());
        clients.shutdown().await;
        ensure!(count > 0.0, "no session came through; {}", pair.log_tails());
        let case = format!("{}, {} at a time", self.name(), options.concurrent);
        Ok(vec![
            Sample::new(&case, SESSIONS, count / spent.seconds),
            Sample::new(&case, COST, spent.tunnel * 1e3 / count),
            Sample::new(&case, FAILED, failed.load(Relaxed) as f64),
            Sample::new(&case, OTHERS, spent.others),
        ])
    }
}

/// Seconds until a new session's first bytes are back.
pub(crate) async fn first_byte(near: SocketAddr) -> Result<f64> {
    let start = Instant::now();
    let session = async {
        let mut stream = TcpStream::connect(near).await?;
        stream.set_nodelay(true)?;
        exchange(&mut stream).await
    };
    timeout(PATIENCE, session).await??;
    Ok(start.elapsed().as_secs_f64())
}
