//! Bulk transfer: how fast, and for how much processor time.

use crate::load::{App, Way};
use crate::pair::Pair;
use crate::section::{Better, Common, Figure, OTHERS, Sample, Section};
use crate::tunnels::Tunnel;
use crate::usage::{Spent, Window};
use anyhow::{Context, Result};
use clap::Args;
use std::time::Duration;
use tokio::task::block_in_place;

/// Time for congestion windows and buffers to grow before it counts.
pub(crate) const WARM_UP: Duration = Duration::from_millis(500);

/// The section's heading.
pub(crate) const TITLE: &str = "Bulk";

/// How fast bytes arrive, all streams and both ways together.
pub(crate) const SPEED: Figure = Figure { name: "GiB/s", better: Better::More, digits: 2 };

/// What the tunnel's processes use for them.
pub(crate) const COST: Figure = Figure { name: "CPU s/GiB", better: Better::Less, digits: 2 };

/// What the bench itself uses for them.
pub(crate) const LOAD: Figure = Figure { name: "load tool's CPU s/GiB", better: Better::Neither, digits: 2 };

/// The row of what would be possible with the kernel and the cipher alone.
pub(crate) const CEILING: &str = "ceiling";

/// What to measure.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Numbers of streams, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "1,8")]
    pub(crate) streams: Vec<u8>,
}

/// Measures what was asked for.
///
/// # Errors
/// When an option is wrong; a tunnel's failure is a result.
pub(crate) async fn run(options: &Options) -> Result<Section> {
    let method = format!(
        "Streams of a pattern for {} s after a warm-up of {} s; every byte is compared with what is due. *CPU s/GiB*: \
         user and kernel time of all the tunnel's processes per GiB delivered. *Ceiling*: all cores, if a pair cost \
         nothing but two more hops of loopback TCP (as much as `direct` costs here, less the comparing) and AES-256-GCM \
         once each way.",
        options.common.seconds,
        WARM_UP.as_secs_f64(),
    );
    let section = Section::new(TITLE, method, &[SPEED, COST, LOAD, OTHERS]);
    let measured = section.contest(&options.common, async |tunnel| measure(tunnel, options).await);
    let mut section = measured.await?;
    let cases: Vec<_> = section.cases().into_iter().map(str::to_owned).collect();
    let own = OwnCost::measure()?;
    for case in cases {
        let Some(load) = section.median("direct", &case, LOAD.name) else { continue };
        let limit = 2.0 * (load - own.compare).max(0.0) + own.cipher;
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let samples = [Sample::new(&case, SPEED, cores / (load + limit)), Sample::new(&case, COST, limit)];
        section.samples.extend(samples.map(|sample| (CEILING.to_owned(), sample)));
    }
    Ok(section)
}

/// One measurement of a tunnel.
///
/// # Errors
/// When it cannot be started, or a stream fails.
pub(crate) async fn measure(tunnel: &dyn Tunnel, options: &Options) -> Result<Vec<Sample>> {
    let app = App::start()?;
    let pair = Pair::start(tunnel, app.addr, None).await?;
    let mut samples = Vec::new();
    for streams in &options.streams {
        for way in Way::ALL {
            let case = format!("{streams} {} {}", if *streams == 1 { "stream" } else { "streams" }, way.name());
            let transfer = || transfer(&app, &pair, (*streams, way), options.common.duration());
            let (gib, spent) = block_in_place(transfer).with_context(|| format!("{case}: {}", pair.log_tails()))?;
            samples.extend([
                Sample::new(&case, SPEED, gib / spent.seconds),
                Sample::new(&case, COST, spent.tunnel / gib),
                Sample::new(&case, LOAD, spent.load / gib),
                Sample::new(&case, OTHERS, spent.others),
            ]);
        }
    }
    Ok(samples)
}

/// Transfers for `duration`, and says how many GiB arrived in it and what was used.
///
/// # Errors
/// When a stream fails, or nothing arrives.
pub(crate) fn transfer(app: &App, pair: &Pair, (streams, way): (u8, Way), duration: Duration) -> Result<(f64, Spent)> {
    let run = app.run(pair.addr, streams, way)?;
    std::thread::sleep(WARM_UP);
    let family = || pair.pids();
    let (before, window) = (run.received(), Window::open(&family));
    std::thread::sleep(duration);
    let (bytes, spent) = (run.received() - before, window.close());
    run.finish()?;
    anyhow::ensure!(bytes > 0, "nothing arrived");
    Ok((bytes as f64 / f64::from(1 << 30), spent))
}

/// Processor seconds per GiB for what is computed rather than moved.
#[derive(Debug)]
struct OwnCost {
    /// Comparing what arrives.
    compare: f64,
    /// Sealing and opening records.
    cipher: f64,
}

impl OwnCost {
    fn measure() -> Result<Self> {
        Ok(Self { compare: crate::limit::compare(), cipher: crate::limit::cipher()? })
    }
}
