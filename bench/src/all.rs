//! Everything that is measured of a tunnel's cost, in one run, as a page of the documentation.

use crate::contest::{Contest, Contestant, select};
use crate::machine::Machine;
use crate::section::{Common, Figure, Section};
use crate::tunnels::{install_rathole, priced};
use crate::{bulk, chart, connect, idle, latency, mixed, rotation, targets};
use anyhow::{Context, Result};
use clap::Args;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use tokio::task::block_in_place;

/// What to measure.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Rounds of the latency, which scatters most.
    #[arg(long, default_value_t = 9)]
    latency_rounds: usize,
    /// Idle sessions.
    #[arg(long, default_value_t = 5000)]
    sessions: usize,
    /// Compile the peers that come from crates.io, if they are not there.
    #[arg(long)]
    install_peers: bool,
    /// Write every sample as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the results as a page of the documentation, and its charts into a directory of that name.
    #[arg(long, value_name = "FILE.md")]
    write: Option<PathBuf>,
}

/// Measures, prints and writes what was asked for.
///
/// # Errors
/// When an option is wrong or a file cannot be written; a tunnel's failure is a result.
pub(crate) async fn run(options: Options) -> Result<()> {
    if options.install_peers {
        block_in_place(install_rathole)?;
    }
    let common = &options.common;
    let Contest { contestants, tunnels } = select(&common.tunnels, priced())?;
    let sections = measure(&options).await?;
    let targets = targets::table(&sections, &tunnels);
    println!("{targets}");
    for section in &sections {
        println!("## {}\n\n{}", section.title, section.table());
    }
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_string_pretty(&sections)?).context("cannot write the JSON file")?;
    }
    if let Some(path) = &options.write {
        let charts = write_charts(path, &sections)?;
        fs::write(path, page(&sections, &targets, &contestants, &charts)).context("cannot write the page")?;
    }
    Ok(())
}

async fn measure(options: &Options) -> Result<Vec<Section>> {
    let common = options.common.clone();
    let bulk = bulk::run(&bulk::Options { common: common.clone(), streams: vec![1, 8] }).await?;
    let rounds = options.latency_rounds;
    let patient = Common { rounds, ..common.clone() };
    let latency = latency::run(&latency::Options { common: patient.clone(), rate: 2000, size: 64 }).await?;
    let mixed = mixed::Options { common: common.clone(), connections: 16, rate: 100, sessions: 200 };
    let mixed = mixed::run(&mixed).await?;
    let connect = connect::Options { common: common.clone(), rates: vec![10, 100], concurrent: 32, round_trip: 80 };
    let [first_byte, sessions] = connect::run(&connect).await?;
    let rotation = rotation::run(&rotation::Options { common: patient, rate: 2000 }).await;
    let idle = idle::Options { sessions: options.sessions, tunnels: common.tunnels, idle: 35 };
    Ok(vec![bulk, latency, mixed, first_byte, sessions, idle::run(&idle).await?, rotation])
}

/// The figures that are drawn.
const DRAWN: [(&str, Figure, &str); 6] = [
    (bulk::TITLE, bulk::SPEED, "bulk"),
    (bulk::TITLE, bulk::COST, "cpu"),
    (latency::TITLE, latency::P50, "latency"),
    (connect::PACED, connect::FIRST_BYTE, "first-byte"),
    (connect::SUSTAINED, connect::SESSIONS, "sessions"),
    (idle::TITLE, idle::MEMORY, "memory"),
];

/// Draws the charts beside the page, and gives for each the section's title and the path from the page.
fn write_charts(page: &Path, sections: &[Section]) -> Result<Vec<(&'static str, String)>> {
    let dir = page.with_extension("");
    fs::create_dir_all(&dir).context("cannot make the directory of the charts")?;
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut charts = Vec::new();
    for (title, figure, file) in DRAWN {
        let Some(section) = sections.iter().find(|section| section.title == title) else { continue };
        fs::write(dir.join(format!("{file}.svg")), chart::bars(section, figure)).context("cannot write a chart")?;
        charts.push((title, format!("![{title}: {}]({name}/{file}.svg)", figure.name)));
    }
    Ok(charts)
}

fn page(sections: &[Section], targets: &str, contestants: &[Contestant], charts: &[(&str, String)]) -> String {
    let machine = Machine::read();
    let mut text = format!(
        "# Benchmarks\n\nWritten by `{}`; do not edit.\n\n\
         Each tunnel is a pair of processes on this one machine, as is the load tool, so that absolute figures say little \
         about another machine; ratios within a run carry over within 10 to 20 %, *CPU s/GiB* best of all, high percentiles \
         least. All figures but those of rotation are medians over the rounds of a run in which the tunnels took turns. *Others' load* is the \
         share of the processors that neither the tunnel nor the load tool used while it was measured: where it is not near \
         zero, the machine was not quiet and the row is to be read with care. ▼ marks where ferry loses; where it does, \
         [speed.md](speed.md) has the reasons.\n\n\
         ## Targets\n\n{targets}",
        crate::command_line(),
    );
    for section in sections {
        let _ = write!(text, "\n## {}\n\n{}\n\n", section.title, section.method);
        for (_, chart) in charts.iter().filter(|(title, _)| *title == section.title) {
            let _ = writeln!(text, "{chart}\n");
        }
        text.push_str(&section.table());
    }
    text.push_str("\n## Tunnels\n\n| tunnel | version | set up as |\n|---|---|---|\n");
    for tunnel in contestants {
        let version = tunnel.version.as_deref().or(tunnel.skipped.as_deref()).unwrap_or_default();
        let _ = writeln!(text, "| {} | {version} | {} |", tunnel.name, tunnel.settings);
    }
    let _ = write!(text, "\n## Machine\n\n{machine}; all processes on loopback.\n");
    text
}
