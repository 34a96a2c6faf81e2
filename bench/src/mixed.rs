//! Messages on several connections, alone and next to load: whether a session with little to say waits for one with much,
//! and whether new sessions disturb old ones.

use crate::bulk::{self, transfer};
use crate::connect::first_byte;
use crate::latency::{P50, P99, Pace, percentiles};
use crate::load::{App, Way};
use crate::pair::Pair;
use crate::section::{Better, Common, Figure, OTHERS, Sample, Section, percentile};
use crate::tunnels::Tunnel;
use crate::usage::Window;
use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{MissedTickBehavior, interval};

/// The section's heading.
pub(crate) const TITLE: &str = "Messages next to load";

/// The case without load.
pub(crate) const ALONE: &str = "alone";

/// What one in a hundred exceeds, divided by that without load.
pub(crate) const TIMES_ALONE: Figure = Figure { name: "p99 ÷ alone", better: Better::Less, digits: 2 };
/// How fast the streams are next to the messages.
const SPEED: Figure = Figure { name: "streams GiB/s", better: Better::More, digits: 2 };
/// That, divided by how fast they are without messages.
pub(crate) const KEPT: Figure = Figure { name: "÷ without messages", better: Better::More, digits: 2 };
const FAILED: Figure = Figure { name: "failed", better: Better::Neither, digits: 0 };

/// What to measure.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Connections with messages.
    #[arg(long, default_value_t = 16)]
    pub(crate) connections: u32,
    /// Messages a second on each.
    #[arg(long, default_value_t = 100)]
    pub(crate) rate: u32,
    /// New sessions a second, where these are the load.
    #[arg(long, default_value_t = 200)]
    pub(crate) sessions: u32,
}

/// Measures what was asked for.
///
/// # Errors
/// When an option is wrong; a tunnel's failure is a result.
pub(crate) async fn run(options: &Options) -> Result<Section> {
    ensure!(
        options.connections > 0 && options.sessions > 0,
        "there is at least one connection, and one session a second"
    );
    let method = format!(
        "64 B there and back on {} connections, {} times a second on each for {} s, counted from when each was due: alone, \
         next to streams as under *{}*, one way, and next to {} new sessions a second, each of which exchanges 64 B.",
        options.connections,
        options.rate,
        options.common.seconds,
        bulk::TITLE,
        options.sessions,
    );
    let section = Section::new(TITLE, method, &[P50, P99, TIMES_ALONE, SPEED, KEPT, FAILED, OTHERS]);
    section.contest(&options.common, async |tunnel| measure(tunnel, options).await).await
}

async fn measure(tunnel: &dyn Tunnel, options: &Options) -> Result<Vec<Sample>> {
    let app = App::start()?;
    let pair = Pair::start(tunnel, app.addr, None).await?;
    let mut samples = Vec::new();
    let mut alone =
        block_in_place(|| messages(&pair, options, ALONE, &mut samples)).with_context(|| pair.log_tails())?;
    let mut compare = |case: &str, mut times: Vec<f64>, samples: &mut Vec<Sample>| {
        if let (Some(loaded), Some(alone)) = (percentile(&mut times, 0.99), percentile(&mut alone, 0.99)) {
            samples.push(Sample::new(case, TIMES_ALONE, loaded / alone));
        }
    };
    for streams in [1, 8] {
        let case = format!("{streams} {} up", if streams == 1 { "stream" } else { "streams" });
        let measured = || next_to_streams(&app, &pair, options, (streams, &case), &mut samples);
        let times = block_in_place(measured).with_context(|| format!("{case}: {}", pair.log_tails()))?;
        compare(&case, times, &mut samples);
    }
    let case = format!("{} new sessions a second", options.sessions);
    let failed = Arc::new(AtomicU64::new(0));
    let load = tokio::spawn(new_sessions(pair.addr, options.sessions, failed.clone()));
    let times = block_in_place(|| messages(&pair, options, &case, &mut samples));
    load.abort();
    samples.push(Sample::new(&case, FAILED, failed.load(Relaxed) as f64));
    compare(&case, times.with_context(|| format!("{case}: {}", pair.log_tails()))?, &mut samples);
    Ok(samples)
}

fn next_to_streams(
    app: &App,
    pair: &Pair,
    options: &Options,
    (streams, case): (u8, &str),
    samples: &mut Vec<Sample>,
) -> Result<Vec<f64>> {
    let (gib, spent) = transfer(app, pair, (streams, Way::Up), options.common.duration())?;
    let without = gib / spent.seconds;
    let run = app.run(pair.addr, streams, Way::Up)?;
    thread::sleep(bulk::WARM_UP);
    let (before, start) = (run.received(), Instant::now());
    let times = messages(pair, options, case, samples)?;
    let gib = (run.received() - before) as f64 / f64::from(1 << 30);
    let speed = gib / start.elapsed().as_secs_f64();
    run.finish()?;
    samples.extend([Sample::new(case, SPEED, speed), Sample::new(case, KEPT, speed / without)]);
    Ok(times)
}

/// Sessions on schedule, until dropped.
async fn new_sessions(near: SocketAddr, rate: u32, failed: Arc<AtomicU64>) {
    let mut ticks = interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sessions = JoinSet::new();
    loop {
        ticks.tick().await;
        sessions.spawn(first_byte(near));
        while let Some(done) = sessions.try_join_next() {
            failed.fetch_add(u64::from(!matches!(done, Ok(Ok(_)))), Relaxed);
        }
    }
}

/// Sends messages on all connections, and gives what each took in seconds.
fn messages(pair: &Pair, options: &Options, case: &str, samples: &mut Vec<Sample>) -> Result<Vec<f64>> {
    let pace = Pace { rate: options.rate, size: 64, duration: options.common.duration() };
    let family = || pair.pids();
    let window = Window::open(&family);
    let times = thread::scope(|scope| {
        let threads: Vec<_> = (0..options.connections)
            .map(|number| {
                // Not all in one instant.
                let offset = Duration::from_secs(1) * number / options.connections / options.rate;
                scope.spawn(move || {
                    thread::sleep(offset);
                    pace.times(pair.addr)
                })
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a client panicked"))?);
        joined.collect::<Result<Vec<_>>>()
    })?;
    let mut times = times.concat();
    samples.push(Sample::new(case, OTHERS, window.close().others));
    samples.extend(percentiles(&mut times, case));
    Ok(times)
}
