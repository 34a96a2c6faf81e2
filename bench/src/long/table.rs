//! All paths in a table: by round trip, loss and congestion control, one stream and eight, up and down.
//!
//! A measurement is short, so that the whole table takes less than an hour, and it ends by itself: no cell is begun after
//! its time is up, and what fails is a dash and a line below.

use super::{BUFFERS, Line, Options, Path};
use crate::contest::{Contest, select};
use crate::latency::{Pace, WARM_UP};
use crate::load::{Run, Way};
use crate::machine::Machine;
use crate::section::percentile;
use crate::tunnels::{self, AUTO, Tunnel};
use anyhow::{Context, Result, anyhow, ensure};
use serde::Serialize;
use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};
use tokio::task::block_in_place;

/// Minutes that the table takes at most, and its quick part.
const WITHIN: [u64; 2] = [40, 6];

/// Bytes of a packet: Ethernet's.
const MTU: u32 = 1500;

/// How long one measurement is.
const MEASURED: Duration = Duration::from_millis(1200);

/// Before it, for the streams to gain speed: this many round trips, and a moment for the ends.
const ROUND_TRIPS_TO_SPEED: u32 = 10;
const MOMENT: Duration = Duration::from_millis(500);

/// Messages a second next to the streams, and bytes of each.
const MESSAGES: u32 = 20;
const MESSAGE: usize = 64;

/// What chooses by what it measures has this long to do so where packets are lost, and for its old link to run dry.
const SETTLING: Duration = Duration::from_secs(15);

/// One cell: a tunnel over a path.
#[derive(Debug, Clone, Serialize)]
struct Cell {
    path: String,
    streams: u8,
    way: &'static str,
    tunnel: &'static str,
    megabits_per_second: f64,
    /// There and back, the median.
    message_milliseconds: f64,
}

/// What was measured, and what was not.
#[derive(Debug, Default, Serialize)]
struct Table {
    cells: Vec<Cell>,
    failures: Vec<String>,
}

impl Line {
    /// Its name, as in the table.
    fn name(&self) -> String {
        format!("{}ms/{}%/{}", self.round_trip, self.loss, self.congestion)
    }
}

/// The paths, those that say most first: what is cut off for lack of time is at the end.
fn lines(quick: bool) -> Vec<Line> {
    let (round_trips, losses): (&[u32], &[f64]) =
        if quick { (&[100], &[1.0, 0.0]) } else { (&[100, 20, 250], &[1.0, 0.0, 0.1]) };
    let mut lines = Vec::new();
    for round_trip in round_trips {
        for loss in losses {
            for congestion in ["cubic", "bbr"] {
                let congestion = congestion.to_owned();
                lines.push(Line { round_trip: *round_trip, loss: *loss, mtu: MTU, congestion });
            }
        }
    }
    lines
}

/// How many streams, and which way.
fn runs(quick: bool) -> Vec<(u8, Way)> {
    let streams: &[u8] = if quick { &[1] } else { &[1, 8] };
    streams.iter().flat_map(|streams| [(*streams, Way::Up), (*streams, Way::Down)]).collect()
}

/// Measures, prints and writes the table.
///
/// # Errors
/// When there can be no path here at all, an option is wrong, or a file cannot be written.
pub(super) async fn run(options: &Options) -> Result<()> {
    let begun = Instant::now();
    let within = options.within.unwrap_or(WITHIN[usize::from(options.quick)]);
    let deadline = begun + Duration::from_secs(60 * within);
    let known = lines(options.quick);
    let names: Vec<_> = known.iter().map(Line::name).collect();
    if let Some(unknown) = options.paths.iter().find(|path| !names.contains(path)) {
        anyhow::bail!("no such path: {unknown} (known: {})", names.join(","));
    }
    let lines: Vec<_> =
        known.into_iter().filter(|line| options.paths.is_empty() || options.paths.contains(&line.name())).collect();
    let tunnels = tunnels::far_apart();
    let asked = if options.tunnels.join(",") == super::TUNNELS { Vec::new() } else { options.tunnels.clone() };
    let Contest { tunnels, .. } = select(&asked, tunnels)?;
    crate::usage::raise_open_files()?;
    let mut table = Table::default();
    for line in &lines {
        if Instant::now() >= deadline {
            table.failures.push(format!("{}: its time was up", line.name()));
            continue;
        }
        let started = block_in_place(|| {
            let path = Path::start(line)?;
            // The large ones: what TCP makes of them is the path's.
            path.set_buffers(BUFFERS[1].1)?;
            Ok::<_, anyhow::Error>(path)
        });
        let path = match started {
            Ok(path) => path,
            Err(error) => {
                table.failures.push(format!("{}: {error:#}", line.name()));
                continue;
            }
        };
        for tunnel in &tunnels {
            if Instant::now() >= deadline {
                table.failures.push(format!("{}, {}: its time was up", line.name(), tunnel.name()));
                continue;
            }
            if let Err(error) = cells(&path, line, &**tunnel, options.quick, &mut table).await {
                table.failures.push(format!("{}, {}: {}", line.name(), tunnel.name(), error.root_cause()));
                eprintln!("{}: {}: {error:#}", line.name(), tunnel.name());
            }
        }
        eprintln!("{}: done after {:.0} s", line.name(), begun.elapsed().as_secs_f64());
    }
    let names: Vec<_> = tunnels.iter().map(|tunnel| tunnel.name()).collect();
    let text = table.render(&lines, &runs(options.quick), &names);
    println!("{text}");
    if let Some(file) = &options.json {
        fs::write(file, serde_json::to_string_pretty(&table)?).context("cannot write the JSON file")?;
    }
    if let Some(file) = &options.write {
        let command = crate::command_line();
        let page = format!(
            "# Long paths\n\nWritten by `{command}`; do not edit.\n\n{}\n\n{text}\n{}\n",
            method(),
            Machine::read()
        );
        fs::write(file, page).context("cannot write the page")?;
    }
    Ok(())
}

fn method() -> String {
    format!(
        "Mbit/s of all streams together, every byte compared with what is due, for {:.1} s after {ROUND_TRIPS_TO_SPEED} \
         round trips and {:.2} s; one measurement each. Messages go {MESSAGES} times a second on a connection of their \
         own meanwhile, and count from when each was due. A path is named by its round trip, the packets that each \
         direction loses at random, and the congestion control that is both hosts' default; it has no other limit \
         (two network namespaces, packets of {MTU} B, kernel buffers of 32 MiB at most). *{}* has WebSockets without \
         TLS around them; *{AUTO}* has `prefer: auto`, and where packets are lost {} s under load before it is \
         measured; *haproxy-plain* relays without encryption.",
        MEASURED.as_secs_f64(),
        (WARM_UP + MOMENT).as_secs_f64(),
        tunnels::WEBSOCKET,
        SETTLING.as_secs(),
    )
}

/// All cells of one tunnel over one path.
async fn cells(path: &Path, line: &Line, tunnel: &dyn Tunnel, quick: bool, table: &mut Table) -> Result<()> {
    let (app, pair) = path.pair(tunnel).await?;
    let to_speed = Duration::from_millis(line.round_trip.into()) * ROUND_TRIPS_TO_SPEED + MOMENT;
    block_in_place(|| {
        if tunnel.name() == AUTO && line.loss > 0.0 {
            let run = app.run(pair.addr, 1, Way::Up)?;
            thread::sleep(SETTLING);
            run.abandon()?;
        }
        for (streams, way) in runs(quick) {
            let run = app.run(pair.addr, streams, way)?;
            let (megabits_per_second, message_milliseconds) = observe(&run, pair.addr, to_speed)?;
            // Where packets are lost the rest may take minutes.
            if line.loss > 0.0 {
                run.abandon()?
            } else {
                run.finish()?
            }
            ensure!(megabits_per_second > 0.0 || line.loss > 0.0, "nothing arrived");
            table.cells.push(Cell {
                path: line.name(),
                streams,
                way: way.name(),
                tunnel: tunnel.name(),
                megabits_per_second,
                message_milliseconds,
            });
        }
        Ok(())
    })
    .with_context(|| pair.log_tails())
}

/// Megabits a second of streams that have gained speed, and the median of the messages next to them in milliseconds.
fn observe(run: &Run, near: SocketAddr, to_speed: Duration) -> Result<(f64, f64)> {
    let pace = Pace { rate: MESSAGES, size: MESSAGE, duration: to_speed + MEASURED };
    let messages = thread::spawn(move || pace.times(near));
    thread::sleep(WARM_UP + to_speed);
    let (before, start) = (run.received(), Instant::now());
    thread::sleep(MEASURED);
    let (bytes, seconds) = (run.received() - before, start.elapsed().as_secs_f64());
    let mut times = messages.join().map_err(|_| anyhow!("the messages' thread panicked"))??;
    // Those before were on the way while the streams gained speed, or while the session was made.
    let measured = (MEASURED.as_secs_f64() * f64::from(MESSAGES)) as usize;
    times.drain(..times.len().saturating_sub(measured));
    let median = percentile(&mut times, 0.5).context("no message came back")?;
    Ok((bytes as f64 * 8.0 / 1e6 / seconds, 1e3 * median))
}

impl Table {
    fn cell(&self, path: &str, (streams, way): (u8, Way), tunnel: &str) -> Option<&Cell> {
        let is_it = |cell: &&Cell| {
            cell.path == path && cell.streams == streams && cell.way == way.name() && cell.tunnel == tunnel
        };
        self.cells.iter().find(is_it)
    }

    fn render(&self, lines: &[Line], runs: &[(u8, Way)], tunnels: &[&str]) -> String {
        let rows = |value: fn(&Cell) -> f64| self.rows(lines, runs, tunnels, value);
        let mut text = rows(|cell| cell.megabits_per_second);
        text += &self.promises();
        let _ = write!(text, "\nA message of {MESSAGE} B there and back next to those streams, the median in ms:\n\n");
        text += &rows(|cell| cell.message_milliseconds);
        for failure in &self.failures {
            let _ = writeln!(text, "\nNot measured: {failure}");
        }
        text
    }

    /// A line for each path and run, with a column for each tunnel.
    fn rows(&self, lines: &[Line], runs: &[(u8, Way)], tunnels: &[&str], value: fn(&Cell) -> f64) -> String {
        let mut text = format!("| path | streams | way | {} |\n|---|---:|---|", tunnels.join(" | "));
        text += &"---:|".repeat(tunnels.len());
        text.push('\n');
        for line in lines {
            for run in runs {
                let _ = write!(text, "| {} | {} | {} |", line.name(), run.0, run.1.name());
                for tunnel in tunnels {
                    let cell = self.cell(&line.name(), *run, tunnel);
                    let _ = write!(text, " {} |", cell.map_or("–".to_owned(), |cell| digits(value(cell))));
                }
                text.push('\n');
            }
        }
        text
    }

    /// What a stream over the link that is chosen is to be, at the least.
    fn promises(&self) -> String {
        let one_up = (1, Way::Up);
        let speed = |path, tunnel| self.cell(path, one_up, tunnel).map(|cell| cell.megabits_per_second);
        let (auto, direct) = (|path| speed(path, AUTO), |path| speed(path, "direct"));
        let promises = [
            ("CUBIC, 1 % lost: auto ÷ direct", auto("100ms/1%/cubic"), direct("100ms/1%/cubic"), 20.0),
            ("CUBIC, 1 % lost: auto ÷ direct with BBR", auto("100ms/1%/cubic"), direct("100ms/1%/bbr"), 0.5),
            ("CUBIC, nothing lost: auto ÷ direct", auto("100ms/0%/cubic"), direct("100ms/0%/cubic"), 0.9),
        ];
        let mut text = String::new();
        for (what, value, to, least) in promises {
            let (Some(value), Some(to)) = (value, to.filter(|to| *to > 0.0)) else { continue };
            if text.is_empty() {
                text += "\n| one stream up over 100 ms | ratio | at least | met |\n|---|---:|---:|---|\n";
            }
            let (ratio, met) = (value / to, if value >= least * to { "yes" } else { "no" });
            let _ = writeln!(text, "| {what} | {ratio:.2} | {least} | {met} |");
        }
        text
    }
}

fn digits(value: f64) -> String {
    if value < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(path: &str, tunnel: &'static str, megabits_per_second: f64) -> Cell {
        let path = path.to_owned();
        Cell { path, streams: 1, way: Way::Up.name(), tunnel, megabits_per_second, message_milliseconds: 101.4 }
    }

    #[test]
    fn the_table_has_every_cell_and_the_promises_are_judged() {
        assert_eq!((lines(false).len(), runs(false).len()), (18, 4));
        let cells = vec![
            cell("100ms/1%/cubic", AUTO, 260.0),
            cell("100ms/1%/cubic", "direct", 1.25),
            cell("100ms/1%/bbr", "direct", 600.0),
        ];
        let failures = vec!["250ms/0.1%/bbr: its time was up".to_owned()];
        let text = Table { cells, failures }.render(&lines(true), &runs(true), &[AUTO, "direct"]);
        assert!(text.contains("| 100ms/1%/cubic | 1 | up | 260 | 1.2 |"), "{text}");
        assert!(text.contains("| 100ms/1%/cubic | 1 | up | 101 | 101 |"), "{text}");
        assert!(text.contains("| 100ms/0%/bbr | 1 | down | – | – |"), "{text}");
        assert!(text.contains("| CUBIC, 1 % lost: auto ÷ direct | 208.00 | 20 | yes |"), "{text}");
        assert!(text.contains("| CUBIC, 1 % lost: auto ÷ direct with BBR | 0.43 | 0.5 | no |"), "{text}");
        assert!(text.ends_with("Not measured: 250ms/0.1%/bbr: its time was up\n"), "{text}");
    }
}
