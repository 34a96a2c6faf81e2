//! What rotating costs: the same load through ferry with a rotation every second, and with none.

use crate::bulk::{COST, SPEED, transfer};
use crate::latency::{P50, P99, P999, Pace};
use crate::load::{App, Way};
use crate::pair::Pair;
use crate::section::{Better, Common, Figure, OTHERS, Sample, Section};
use crate::tunnels::{Tunnel, rotating};
use anyhow::{Context, Result};
use clap::Args;
use tokio::task::block_in_place;

/// How often the session that carries the messages moved to fresh keys.
const ROTATIONS: Figure = Figure { name: "rotations", better: Better::Neither, digits: 0 };

/// The row with a rotation every second.
pub(crate) const EVERY_SECOND: &str = "every second";

/// The row without any.
pub(crate) const NEVER: &str = "never";

/// The section's heading.
pub(crate) const TITLE: &str = "Rotation";

/// What to measure.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Messages of 1 kB a second.
    #[arg(long, default_value_t = 2000)]
    pub(crate) rate: u32,
}

/// Measures what was asked for.
///
/// # Errors
/// When an option is wrong; a failure of ferry is a result.
pub(crate) async fn run(options: &Options) -> Result<Section> {
    let method = format!(
        "Bulk as above and 1 kB there and back {} times a second, for {} s each, through ferry with `rotation.every: 1s` \
         and with 1 h.",
        options.rate, options.common.seconds
    );
    let mut section = Section::new(TITLE, method, &[SPEED, COST, P50, P99, P999, ROTATIONS, OTHERS]);
    (section.ours, section.reference) = (EVERY_SECOND, NEVER);
    let tunnels = [rotating(EVERY_SECOND, "1s"), rotating(NEVER, "1h")];
    section.rounds(&options.common, &tunnels, async |tunnel| measure(tunnel, options).await).await
}

async fn measure(tunnel: &dyn Tunnel, options: &Options) -> Result<Vec<Sample>> {
    let app = App::start()?;
    let pair = Pair::start(tunnel, app.addr, None).await?;
    let mut samples = Vec::new();
    for streams in [1, 8] {
        let case = format!("{streams} {} up", if streams == 1 { "stream" } else { "streams" });
        let transfer = || transfer(&app, &pair, (streams, Way::Up), options.common.duration());
        let (gib, spent) = block_in_place(transfer).with_context(|| pair.log_tails())?;
        samples.extend([
            Sample::new(&case, SPEED, gib / spent.seconds),
            Sample::new(&case, COST, spent.tunnel / gib),
            Sample::new(&case, OTHERS, spent.others),
        ]);
    }
    let before = tunnel.rotations(&pair.site)?;
    let pace = Pace { rate: options.rate, size: 1000, duration: options.common.duration() };
    let case = format!("1 kB at {}/s", options.rate);
    samples.extend(block_in_place(|| pace.samples(&pair, &case)).with_context(|| pair.log_tails())?);
    if let (Some(before), Some(after)) = (before, tunnel.rotations(&pair.site)?) {
        samples.push(Sample::new(&case, ROTATIONS, (after - before) as f64));
    }
    Ok(samples)
}
