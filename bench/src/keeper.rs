//! What a keeper costs, and how soon sessions are back when the process that carries them is killed or upgraded.

use crate::bulk;
use crate::idle;
use crate::latency;
use crate::pair::{Echo, Pair, exchange};
use crate::section::{Better, Common, Figure, Sample, Section, percentile};
use crate::tunnels::{Act, Tunnel, kept_and_bare};
use crate::usage::{self, raise_open_files};
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// How long a session may take to be back.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connections with a message under way at any moment, while a tunnel is upgraded.
const BUSY: usize = 16;

/// Time between a kill and the next, so that each meets sessions that are whole.
const CALM: Duration = Duration::from_secs(1);

const KEEPER: Figure = Figure { name: "keeper KiB", better: Better::Neither, digits: 0 };
const EXCHANGED: Figure = Figure { name: "a message each, s", better: Better::Neither, digits: 2 };
const BACK: Figure = Figure { name: "the same from a kill on, s", better: Better::Neither, digits: 2 };
const VERIFIED: Figure = Figure { name: "verified", better: Better::Neither, digits: 0 };
const UPGRADES: Figure = Figure { name: "upgrades", better: Better::Neither, digits: 0 };
const PAUSES: [(Figure, f64); 3] = [
    (Figure { name: "pause p50 ms", better: Better::Neither, digits: 0 }, 0.5),
    (Figure { name: "pause p99 ms", better: Better::Neither, digits: 0 }, 0.99),
    (Figure { name: "longest ms", better: Better::Neither, digits: 0 }, 1.0),
];

/// What to measure.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Measurements of each of the two, in turns, of which the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Numbers of sessions through a pair whose ends are killed, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "1000,8000")]
    sessions: Vec<usize>,
    /// Upgrades under load, at either end by turns.
    #[arg(long, default_value_t = 50)]
    upgrades: u32,
}

/// Measures what was asked for.
///
/// # Errors
/// When an option is wrong or a kept pair cannot be measured at all.
pub(crate) async fn run(options: Options) -> Result<Vec<Section>> {
    raise_open_files()?;
    let mut sections = Vec::new();
    if options.rounds > 0 {
        let (rounds, seconds) = (options.rounds, options.seconds);
        let common = Common { tunnels: Vec::new(), rounds, seconds, quiet: 0.1, quiet_wait: 60 };
        sections.extend(cost(common).await?);
    }
    let [kept, _] = kept_and_bare();
    let mut kills = Section::new(
        "Killed",
        "Sessions that each exchanged a message; then an end's engine gets SIGKILL, and a message is sent through all \
         sessions at once. *Keeper*: its memory (PSS), the larger of both ends. *Verified*: sessions whose message came \
         back right."
            .to_owned(),
        &[KEEPER, EXCHANGED, BACK, VERIFIED],
    );
    for sessions in &options.sessions {
        let samples = killed(&*kept, *sessions).await?;
        kills.samples.extend(samples.into_iter().map(|sample| (kept.name().to_owned(), sample)));
    }
    sections.push(kills);
    if options.upgrades > 0 {
        let method = format!(
            "{BUSY} connections exchange 64 B without a rest, while the program of either end by turns is replaced by \
             another file and SIGUSR2 sent to its keeper. A *pause* is the longest time that a message of a connection \
             took from one upgrade to the next."
        );
        let figures = [UPGRADES].into_iter().chain(PAUSES.map(|(figure, _)| figure)).collect::<Vec<_>>();
        let mut upgrades = Section::new("Upgraded", method, &figures);
        let samples = upgraded(&*kept, options.upgrades).await?;
        upgrades.samples.extend(samples.into_iter().map(|sample| (kept.name().to_owned(), sample)));
        sections.push(upgrades);
    }
    Ok(sections)
}

/// The same load through tunnels with a keeper and without, by turns.
async fn cost(common: Common) -> Result<Vec<Section>> {
    let tunnels = kept_and_bare();
    let compared = |mut section: Section| {
        section.reference = tunnels[1].name();
        section
    };
    let mut sections = Vec::new();
    let bulk = bulk::Options { common: common.clone(), streams: vec![1, 8] };
    let method = "As in `bench bulk`.".to_owned();
    let section = compared(Section::new(bulk::TITLE, method, &[bulk::SPEED, bulk::COST]));
    sections.push(section.rounds(&common, &tunnels, async |tunnel| bulk::measure(tunnel, &bulk).await).await?);
    // It scatters most.
    let patient = Common { rounds: 3 * common.rounds, ..common.clone() };
    let latency = latency::Options { common: patient.clone(), rate: 2000, size: 64 };
    let method = format!("As in `bench latency`, {} rounds.", patient.rounds);
    let section = compared(Section::new(latency::TITLE, method, &[latency::P50, latency::P99]));
    sections.push(section.rounds(&patient, &tunnels, async |tunnel| latency::measure(tunnel, &latency).await).await?);
    let once = Common { rounds: 1, ..common };
    let method =
        "As in `bench idle`, for 5 s; the keepers' memory is counted, most of which is there without sessions."
            .to_owned();
    let mut section = compared(Section::new(idle::TITLE, method, &[idle::MEMORY]));
    for sessions in [1000, 8000] {
        let idle = idle::Options { sessions, tunnels: Vec::new(), idle: 5 };
        let measure = async |tunnel: &dyn Tunnel| {
            let samples = idle::measure(tunnel, &idle).await?;
            Ok(samples.into_iter().map(|sample| sample.of(format!("{sessions} sessions"))).collect())
        };
        section = section.rounds(&once, &tunnels, measure).await?;
    }
    sections.push(section);
    Ok(sections)
}

/// Both ends are killed, one after the other.
async fn killed(tunnel: &dyn Tunnel, sessions: usize) -> Result<Vec<Sample>> {
    let echo = Echo::start().await?;
    let pair = Pair::start(tunnel, echo.addr, None).await?;
    let mut streams = idle::open(pair.addr, sessions).await.with_context(|| pair.log_tails())?;
    let mut samples = Vec::new();
    for (end, name) in [(0, "near"), (1, "far")] {
        sleep(CALM).await;
        let case = format!("{sessions} sessions, the {name} end");
        let keepers: Vec<_> = pair.started().iter().map(|end| usage::memory(&[end.id()])).collect::<Result<_>>()?;
        let (exchanged, _) = exchange_all(&mut streams).await;
        pair.started()[end].kill_children()?;
        let (back, verified) = exchange_all(&mut streams).await;
        samples.extend([
            Sample::new(&case, KEEPER, keepers.into_iter().max().unwrap_or_default() as f64),
            Sample::new(&case, EXCHANGED, exchanged),
            Sample::new(&case, BACK, back),
            Sample::new(&case, VERIFIED, verified as f64),
        ]);
    }
    Ok(samples)
}

/// Seconds until each stream's message is back, and how many came back right.
async fn exchange_all(streams: &mut Vec<TcpStream>) -> (f64, usize) {
    let (begun, count) = (Instant::now(), streams.len());
    let mut exchanging = JoinSet::new();
    for mut stream in streams.drain(..) {
        exchanging.spawn(async move {
            let exchanged = timeout(PATIENCE, exchange(&mut stream)).await;
            matches!(exchanged, Ok(Ok(()))).then_some(stream)
        });
    }
    while let Some(exchanged) = exchanging.join_next().await {
        streams.extend(exchanged.ok().flatten());
    }
    if streams.len() < count {
        eprintln!("{} of {count} sessions did not come back", count - streams.len());
    }
    (begun.elapsed().as_secs_f64(), streams.len())
}

/// The longest time that a message took, of each round that has begun, until it is over.
async fn pauses(addr: SocketAddr, rounds: watch::Receiver<u32>, over: Arc<AtomicBool>) -> Result<Vec<f64>> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let mut longest: Vec<f64> = Vec::new();
    while !over.load(Ordering::Relaxed) {
        // One that is under way when a round begins is of that round.
        let begun = Instant::now();
        timeout(PATIENCE, exchange(&mut stream)).await.context("a message does not come back")??;
        let round = *rounds.borrow() as usize;
        longest.resize(longest.len().max(round + 1), 0.0);
        longest[round] = longest[round].max(begun.elapsed().as_secs_f64());
    }
    // Before the first upgrade is no round.
    Ok(longest.split_off(1))
}

/// Upgrades under load.
async fn upgraded(tunnel: &dyn Tunnel, upgrades: u32) -> Result<Vec<Sample>> {
    let echo = Echo::start().await?;
    let mut pair = Pair::start(tunnel, echo.addr, None).await?;
    let over = Arc::new(AtomicBool::new(false));
    let round = watch::Sender::new(0);
    let mut busy = JoinSet::new();
    for _ in 0..BUSY {
        busy.spawn(pauses(pair.addr, round.subscribe(), over.clone()));
    }
    for upgrade in 0..upgrades {
        sleep(CALM).await;
        let end = upgrade as usize % 2;
        let before = pair.started()[end].family();
        round.send_replace(upgrade + 1);
        pair.perform(tunnel, Act::Upgrade(upgrade))?;
        let deadline = Instant::now() + PATIENCE;
        let replaced = |now: Vec<u32>| now != before && now.len() == before.len();
        while !replaced(pair.started()[end].family()) {
            ensure!(Instant::now() < deadline, "no new process: {}", pair.log_tails());
            sleep(Duration::from_millis(10)).await;
        }
    }
    sleep(CALM).await;
    over.store(true, Ordering::Relaxed);
    let mut longest = Vec::new();
    while let Some(of_one) = busy.join_next().await {
        longest.extend(of_one?.with_context(|| pair.log_tails())?);
    }
    let mut samples = vec![Sample::new("under load", UPGRADES, upgrades.into())];
    for (figure, share) in PAUSES {
        let value = percentile(&mut longest, share).context("no message came back")?;
        samples.push(Sample::new("under load", figure, value * 1e3));
    }
    Ok(samples)
}
