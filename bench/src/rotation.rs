//! What rotating costs: the same load through one pair, in turns with a rotation every second and with none.

use crate::bulk::{COST, SPEED, WARM_UP};
use crate::latency::{self, P50, P99, P999, Pace, percentiles};
use crate::load::{App, Way};
use crate::pair::Pair;
use crate::section::{Better, Common, Figure, OTHERS, Sample, Section};
use crate::tunnels::{Act, Tunnel, rotating};
use crate::usage::{Spent, Window, quiet};
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};
use tokio::task::block_in_place;

/// Rotations of all sessions.
const ROTATIONS: Figure = Figure { name: "rotations", better: Better::Neither, digits: 0 };

/// The standard error of the speed's ratio to that without rotations.
pub(crate) const ERROR: Figure = Figure { name: "÷ never ±", better: Better::Neither, digits: 3 };

/// So small an error of the ratio tells one percent from nothing.
const ENOUGH: f64 = 0.005;

/// Rounds of bulk at least: an error of fewer says little.
const LEAST_ROUNDS: usize = 9;

/// Rounds of bulk at most, whatever the error still is.
const MOST_ROUNDS: usize = 60;

/// Stretches of messages are so many times as long: the slowest thousandth of 6,000 are six.
const LONGER: u32 = 3;

/// The row with a rotation every second.
pub(crate) const EVERY_SECOND: &str = "every second";

/// The row without any.
pub(crate) const NEVER: &str = "never";

/// The rows, and the `rotation.every` of each.
const TURNS: [(&str, &str); 2] = [(EVERY_SECOND, "1s"), (NEVER, "1h")];

/// A turn takes this much longer than its stretch and what comes before it, at most.
const SLACK: Duration = Duration::from_millis(200);

/// After a change of the configuration each session is rotated once more within a second.
const SETTLING: Duration = Duration::from_millis(1300);

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

/// Measures what was asked for. A failure of ferry is a result.
pub(crate) async fn run(options: &Options) -> Section {
    let method = format!(
        "Bulk as above and 1 kB there and back {} times a second through one pair of ferry, whose configuration is changed \
         and read again between stretches of {} s ({:.1} s of messages), as many with `rotation.every: 1s` as with 1 h, in \
         turns: the same streams, and the same connection for all messages. Of messages there are {} stretches of each; of \
         bulk as many as it takes until the error of the ratio is at most {ENOUGH}, or {MOST_ROUNDS}. Each value is of all \
         stretches together; *{}* is the standard error of the ratios of neighbouring stretches.",
        options.rate,
        options.common.seconds,
        options.common.seconds * f64::from(LONGER),
        options.common.rounds,
        ERROR.name,
    );
    let mut section = Section::new(TITLE, method, &[SPEED, ERROR, COST, P50, P99, P999, ROTATIONS, OTHERS]);
    (section.ours, section.reference) = (EVERY_SECOND, NEVER);
    match measure(options).await {
        Ok(samples) => section.samples = samples,
        Err(error) => section.fail("ferry", &error),
    }
    section
}

async fn measure(options: &Options) -> Result<Vec<(String, Sample)>> {
    let tunnel = rotating("ferry", "1h");
    let app = App::start()?;
    let pair = Pair::start(&*tunnel, app.addr, None).await?;
    quiet(options.common.quiet, Duration::from_secs(options.common.quiet_wait)).await;
    let mut turns = Turns { tunnel: &*tunnel, pair, common: &options.common };
    let mut samples = Vec::new();
    for streams in [1, 8] {
        samples.extend(block_in_place(|| turns.bulk(&app, streams))?);
    }
    samples.extend(block_in_place(|| turns.messages(options.rate))?);
    Ok(samples)
}

/// A pair that rotates every second and not at all, in turns.
struct Turns<'a> {
    tunnel: &'a dyn Tunnel,
    pair: Pair,
    common: &'a Common,
}

/// What was used in all stretches of a row.
#[derive(Debug, Default)]
struct Row {
    spent: Vec<Spent>,
    rotations: u64,
}

impl Row {
    fn sum(&self, of: impl Fn(&Spent) -> f64) -> f64 {
        self.spent.iter().map(of).sum()
    }

    fn samples(&self, case: &str) -> [Sample; 2] {
        let others = self.sum(|spent| spent.others * spent.seconds) / self.sum(|spent| spent.seconds);
        [Sample::new(case, ROTATIONS, self.rotations as f64), Sample::new(case, OTHERS, others)]
    }
}

impl Turns<'_> {
    /// Streams of bytes.
    fn bulk(&mut self, app: &App, streams: u8) -> Result<Vec<(String, Sample)>> {
        let case = format!("{streams} {} up", if streams == 1 { "stream" } else { "streams" });
        let run = app.run(self.pair.addr, streams, Way::Up)?;
        sleep(WARM_UP);
        let (mut rows, mut bytes) = (<[Row; 2]>::default(), [Vec::new(), Vec::new()]);
        let mut error = f64::INFINITY;
        for round in 0..MOST_ROUNDS {
            self.round(round, self.common.duration(), &mut rows, |turn, stretch| {
                let before = run.received();
                stretch();
                bytes[turn].push((run.received() - before) as f64);
            })?;
            let ratios: Vec<_> = bytes[0].iter().zip(&bytes[1]).map(|(with, without)| with / without).collect();
            error = relative_error(&ratios);
            if ratios.len() >= LEAST_ROUNDS && error <= ENOUGH {
                break;
            }
        }
        run.finish().with_context(|| self.pair.log_tails())?;
        let samples = TURNS.iter().zip(&rows).zip(&bytes).flat_map(|(((name, _), row), bytes)| {
            let gib: f64 = bytes.iter().sum::<f64>() / f64::from(1 << 30);
            let seconds = row.sum(|spent| spent.seconds);
            let own = [
                Sample::new(&case, SPEED, gib / seconds),
                Sample::new(&case, COST, row.sum(|spent| spent.tunnel) / gib),
            ];
            own.into_iter().chain(row.samples(&case)).map(|sample| ((*name).to_owned(), sample))
        });
        Ok(samples.chain([(EVERY_SECOND.to_owned(), Sample::new(&case, ERROR, error))]).collect())
    }

    /// Messages there and back on one connection.
    fn messages(&mut self, rate: u32) -> Result<Vec<(String, Sample)>> {
        let case = format!("1 kB at {rate}/s");
        let length = self.common.duration() * LONGER;
        let duration = (SETTLING + length + SLACK) * 2 * self.common.rounds as u32;
        let pace = Pace { rate, size: 1000, duration };
        let near = self.pair.addr;
        let mut stretches = [Vec::new(), Vec::new()];
        let (rows, times) = scope(|scope| {
            let messages = scope.spawn(move || pace.times(near));
            let start = Instant::now();
            sleep(latency::WARM_UP);
            let mut rows = <[Row; 2]>::default();
            let measured = (0..self.common.rounds).try_for_each(|round| {
                self.round(round, length, &mut rows, |turn, stretch| {
                    let begun = start.elapsed();
                    stretch();
                    stretches[turn].push(begun..start.elapsed());
                })
            });
            let times = messages.join().map_err(|_| anyhow::anyhow!("the messages' thread panicked"));
            anyhow::Ok((measured.map(|()| rows)?, times??))
        })
        .with_context(|| self.pair.log_tails())?;
        let due = |index: usize| latency::WARM_UP + Duration::from_secs(1) * index as u32 / rate;
        let outlasted = stretches.iter().flatten().all(|stretch| stretch.end <= due(times.len()));
        ensure!(outlasted, "the messages were over before the last stretch was");
        let mut samples = Vec::new();
        for ((name, _), (row, stretches)) in TURNS.iter().zip(rows.iter().zip(&stretches)) {
            let within = |at: Duration| stretches.iter().any(|stretch| stretch.contains(&at));
            let mut times: Vec<_> =
                times.iter().enumerate().filter(|(index, _)| within(due(*index))).map(|(_, time)| *time).collect();
            let all = percentiles(&mut times, &case).chain(row.samples(&case));
            samples.extend(all.map(|sample| ((*name).to_owned(), sample)));
        }
        Ok(samples)
    }

    /// Has a stretch of this length of each row measured. `measure` is given the row's index and what lets the stretch
    /// pass.
    fn round(
        &mut self,
        number: usize,
        length: Duration,
        rows: &mut [Row; 2],
        mut measure: impl FnMut(usize, &mut dyn FnMut()),
    ) -> Result<()> {
        // Whatever changes with time meets both rows alike.
        let order = if number.is_multiple_of(2) { [0, 1] } else { [1, 0] };
        for turn in order {
            self.pair.perform(self.tunnel, Act::RotateEvery(TURNS[turn].1))?;
            sleep(SETTLING);
            let before = self.tunnel.rotations(&self.pair.site)?;
            let family = || self.pair.pids();
            let mut spent = None;
            measure(turn, &mut || {
                let window = Window::open(&family);
                sleep(length);
                spent = Some(window.close());
            });
            rows[turn].spent.extend(spent);
            let after = self.tunnel.rotations(&self.pair.site)?;
            rows[turn].rotations += after.zip(before).map_or(0, |(after, before)| after - before);
        }
        Ok(())
    }
}

/// The standard error of the mean, as a share of it; 0 of a single value.
pub(crate) fn relative_error(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value / mean - 1.0).powi(2)).sum();
    (squares / (count - 1.0).max(1.0) / count).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_values_make_the_error_smaller() {
        assert_eq!(relative_error(&[2.0]), 0.0);
        assert!((relative_error(&[1.0, 3.0]) - 0.5).abs() < 1e-9);
        assert!(relative_error(&[1.0, 3.0].repeat(8)) < 0.15);
    }
}
