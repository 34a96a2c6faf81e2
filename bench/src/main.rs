//! Ferry beside its peers: which faults an application's connection survives, and what it costs.

mod all;
mod bulk;
mod cgroup;
mod chart;
mod connect;
mod contest;
mod flow;
mod idle;
mod keeper;
mod latency;
mod limit;
mod load;
mod long;
mod machine;
mod mixed;
mod pair;
mod process;
mod rotation;
mod scale;
mod section;
mod survival;
mod targets;
mod tunnels;
mod usage;
mod watched;

use anyhow::Result;
use clap::{Parser, Subcommand};
use section::Section;
use std::net::SocketAddr;

/// Ferry beside its peers, in one run on one machine.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Bench {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// What becomes of a session's bytes when the link, the address, the keys or the peer change under it.
    Survival(survival::Options),
    /// How fast bytes go through, and for how much processor time.
    Bulk(bulk::Options),
    /// How long a message takes there and back.
    Latency(latency::Options),
    /// How long messages take next to streams and next to new sessions.
    Mixed(mixed::Options),
    /// How soon a new session's first byte is there, and how many sessions a second.
    Connect(connect::Options),
    /// What thousands of idle sessions cost in memory and processor time.
    Idle(idle::Options),
    /// What a rotation every second costs.
    Rotation(rotation::Options),
    /// What a keeper costs, and how soon sessions are back after a kill or an upgrade.
    Keeper(keeper::Options),
    /// What a page, `ferry top`, scrapes and spans cost the tunnel that they are about.
    Watched(watched::Options),
    /// All of these but survival, the keeper and watching, as a page of the documentation.
    All(all::Options),
    /// How fast one stream is over a long path, by the kernel's buffers; or a table of many paths.
    Long(long::Options),
    /// What very many sessions cost, and what that makes of a pod.
    Scale(scale::Options),
    /// The application of a measurement, in a process of its own.
    #[command(hide = true)]
    Echo {
        /// Where it listens.
        addr: SocketAddr,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    match Bench::parse().mode {
        Mode::Survival(options) => survival::run(options).await?,
        Mode::Bulk(options) => show(&[bulk::run(&options).await?]),
        Mode::Latency(options) => show(&[latency::run(&options).await?]),
        Mode::Mixed(options) => show(&[mixed::run(&options).await?]),
        Mode::Connect(options) => show(&connect::run(&options).await?),
        Mode::Idle(options) => show(&[idle::run(&options).await?]),
        Mode::Keeper(options) => show(&keeper::run(options).await?),
        Mode::Watched(options) => watched::run(&options).await?,
        Mode::All(options) => all::run(options).await?,
        Mode::Long(options) => long::run(options).await?,
        Mode::Scale(options) => scale::run(options).await?,
        Mode::Echo { addr } => {
            let _echo = pair::Echo::start_at(addr).await?;
            std::future::pending::<()>().await;
        }
        Mode::Rotation(options) => show(&[rotation::run(&options).await]),
    }
    Ok(())
}

fn show(sections: &[Section]) {
    for section in sections {
        println!("## {}\n\n{}\n\n{}", section.title, section.method, section.table());
    }
}

/// The command that repeats this run.
fn command_line() -> String {
    repeated(std::env::args().skip(1))
}

/// What this process adds for itself, and where its samples go, change no result.
fn repeated(mut arguments: impl Iterator<Item = String>) -> String {
    let mut command = "cargo run --release -p bench --".to_owned();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--apart" => {}
            "--json" => drop(arguments.next()),
            argument if argument.starts_with("--json=") => {}
            argument => command.extend([" ", argument]),
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_the_command_without_where_its_samples_went() {
        let asked = "long --table --json /tmp/samples.json --within 41 --json=more.json --write page.md --apart";
        let command = repeated(asked.split(' ').map(str::to_owned));
        assert_eq!(command, "cargo run --release -p bench -- long --table --within 41 --write page.md");
    }
}
