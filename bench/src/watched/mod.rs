//! What being watched costs: the same load while nobody looks, and while a page, `ferry top`, Prometheus or a collector do.

mod collector;
mod terminal;
mod watchers;

use crate::bulk::{WARM_UP, transfer};
use crate::latency::Pace;
use crate::load::{App, Way};
use crate::pair::Pair;
use crate::rotation::relative_error;
use crate::section::{Better, Figure, OTHERS, Sample, Section, percentile};
use crate::tunnels::watched;
use crate::usage::{Window, quiet};
use anyhow::{Context, Result, ensure};
use clap::Args;
use collector::Collector;
use std::fmt::Write;
use std::time::Duration;
use tokio::task::block_in_place;
use watchers::Watchers;

/// Bytes of a message.
const SIZE: usize = 64;

/// How often Prometheus asks; the first time in the middle of a stretch, so that each has one scrape at least.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(5);

/// Answers, events, screens or exports that those who watch got.
const SEEN: Figure = Figure { name: "seen", better: Better::Neither, digits: 0 };

/// What to measure.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Rounds, in each of which all rows take turns.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds of one stretch.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Messages a second.
    #[arg(long, default_value_t = 2000)]
    rate: u32,
}

/// Who looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watch {
    Nobody,
    PageAndTop,
    Scrapes,
    /// The collector, which the pair was started with.
    Collector,
}

/// One row: who looks at which pair, and by how much that may make anything worse, in percent.
struct Row {
    name: &'static str,
    pair: usize,
    watch: Watch,
    target: Option<f64>,
}

/// The row that the others are compared with.
const ALONE: &str = "alone";

const ROW_COUNT: usize = 5;

/// Two pairs that nobody looks at differ, too: what they do is what the comparison cannot tell apart.
static ROWS: [Row; ROW_COUNT] = [
    Row { name: ALONE, pair: 0, watch: Watch::Nobody, target: None },
    Row { name: "page and top", pair: 0, watch: Watch::PageAndTop, target: Some(1.0) },
    Row { name: "scrapes", pair: 0, watch: Watch::Scrapes, target: Some(1.0) },
    Row { name: "OTLP", pair: 1, watch: Watch::Collector, target: Some(3.0) },
    Row { name: "another pair, alone", pair: 2, watch: Watch::Nobody, target: None },
];

/// Something that is measured, with its columns: itself, divided by that of the pair alone, and how far that is off.
struct Measure {
    value: Figure,
    ratio: Figure,
    error: Figure,
    more_is_better: bool,
}

impl Measure {
    const fn new([value, ratio, error]: [&'static str; 3], digits: usize, more_is_better: bool) -> Self {
        // The ratios that the table makes by itself are those of medians, and here those of each round count.
        let better = Better::Neither;
        Self {
            value: Figure { name: value, better, digits },
            ratio: Figure { name: ratio, better, digits: 3 },
            error: Figure { name: error, better, digits: 3 },
            more_is_better,
        }
    }

    /// By how many percent a ratio is worse.
    fn cost(&self, ratio: f64) -> f64 {
        100.0 * (if self.more_is_better { 1.0 / ratio } else { ratio } - 1.0)
    }
}

/// A load, and what is measured of it.
struct Load {
    title: &'static str,
    case: &'static str,
    measures: [Measure; 2],
}

static BULK: Load = Load {
    title: "Watched: bulk",
    case: "1 stream up",
    measures: [
        Measure::new(["GiB/s", "GiB/s ÷ alone", "± GiB/s ÷ alone"], 3, true),
        Measure::new(["CPU s/GiB", "CPU ÷ alone", "± CPU ÷ alone"], 3, false),
    ],
};

static MESSAGES: Load = Load {
    title: "Watched: messages",
    case: "64 B",
    measures: [
        Measure::new(["p50 µs", "p50 ÷ alone", "± p50 ÷ alone"], 0, false),
        Measure::new(["p99 µs", "p99 ÷ alone", "± p99 ÷ alone"], 0, false),
    ],
};

/// What one stretch told: both measures, what those who watch have seen, and the others' load.
struct Stretch {
    values: [f64; 2],
    seen: u64,
    others: f64,
}

/// Measures, and prints the tables.
///
/// # Errors
/// When an option is wrong, or ferry cannot be measured.
pub(crate) async fn run(options: &Options) -> Result<()> {
    ensure!(options.rounds > 0 && options.rate > 0, "there is at least one round, and one message a second");
    let app = App::start()?;
    let collector = Collector::start()?;
    let mut pairs = Vec::new();
    for collector in [None, Some(collector.addr), None] {
        pairs.push(Pair::start(&*watched(collector), app.addr, None).await?);
    }
    quiet(0.1, Duration::from_secs(30)).await;
    let bench = Bench { options, app, collector, pairs };
    let sections = block_in_place(|| bench.sections())?;
    crate::show(&sections);
    println!("{}", targets(&sections));
    Ok(())
}

/// What is measured with.
struct Bench<'a> {
    options: &'a Options,
    app: App,
    collector: Collector,
    pairs: Vec<Pair>,
}

impl Bench<'_> {
    fn sections(&self) -> Result<[Section; 2]> {
        let bulk = self.section(&BULK, |pair| self.bulk(pair))?;
        let messages = self.section(&MESSAGES, |pair| self.messages(pair))?;
        ensure!(self.collector.exports() > 0, "nothing was exported to the collector: {}", self.pairs[1].log_tails());
        Ok([bulk, messages])
    }

    /// All rows in turns, for as many rounds.
    fn section(&self, load: &Load, measure: impl Fn(&Pair) -> Result<([f64; 2], f64)>) -> Result<Section> {
        let mut rows: [Vec<Stretch>; ROW_COUNT] = Default::default();
        for round in 0..self.options.rounds {
            for turn in 0..ROW_COUNT {
                // Whatever changes with time meets all rows alike.
                let turn = if round % 2 == 0 { turn } else { ROW_COUNT - 1 - turn };
                let at = (turn + round) % ROW_COUNT;
                let (row, pair) = (&ROWS[at], &self.pairs[ROWS[at].pair]);
                let exported = self.collector.exports();
                let watchers = self.watch(row.watch, pair).with_context(|| format!("{}: {}", load.title, row.name))?;
                let measured = measure(pair).with_context(|| format!("{}: {}", row.name, pair.log_tails()));
                let seen = watchers.finish().with_context(|| format!("{}: {}", row.name, pair.log_tails()))?;
                let seen = if row.watch == Watch::Collector { self.collector.exports() - exported } else { seen };
                let (values, others) = measured?;
                rows[at].push(Stretch { values, seen, others });
            }
            eprintln!("{}: round {} of {}", load.title, round + 1, self.options.rounds);
        }
        let method = format!(
            "{} s at a time, {} times, all rows in turns. *Page and top*: what the page asks for at both ends (`/status` \
             each second, `/events` held open), and `ferry top` of the near end on a terminal of 200 columns and 60 lines, \
             whose processor time is with the others' load. *Scrapes*: `/metrics` of both ends each {} s, in each stretch \
             at least once. *OTLP*: another pair, which exports its spans. The last row is a third pair: what it differs \
             by, the comparison cannot tell apart. Values are medians; *÷ alone* is the median over the rounds of what a \
             row had divided by what the first had in that round, *±* the standard error of their mean.",
            self.options.seconds,
            self.options.rounds,
            SCRAPE_INTERVAL.as_secs(),
        );
        Ok(load.section(method, &rows))
    }

    fn watch(&self, watch: Watch, pair: &Pair) -> Result<Watchers> {
        let ends = [pair.site.admin.addr(), pair.site.far_admin.addr()];
        let mut watchers = Watchers::default();
        match watch {
            Watch::Nobody | Watch::Collector => {}
            Watch::PageAndTop => {
                ends.into_iter().for_each(|end| watchers.page(end));
                watchers.top(ends[0])?;
            }
            Watch::Scrapes => {
                let first = WARM_UP + Duration::from_secs_f64(self.options.seconds / 2.0);
                ends.into_iter().for_each(|end| watchers.scrapes(end, first, SCRAPE_INTERVAL));
            }
        }
        Ok(watchers)
    }

    fn bulk(&self, pair: &Pair) -> Result<([f64; 2], f64)> {
        let duration = Duration::from_secs_f64(self.options.seconds);
        let (gib, spent) = transfer(&self.app, pair, (1, Way::Up), duration)?;
        Ok(([gib / spent.seconds, spent.tunnel / gib], spent.others))
    }

    fn messages(&self, pair: &Pair) -> Result<([f64; 2], f64)> {
        let duration = Duration::from_secs_f64(self.options.seconds);
        let family = || pair.pids();
        let window = Window::open(&family);
        let mut times = Pace { rate: self.options.rate, size: SIZE, duration }.times(pair.addr)?;
        let others = window.close().others;
        let mut at = |share| anyhow::Ok(percentile(&mut times, share).context("no message came back")? * 1e6);
        Ok(([at(0.5)?, at(0.99)?], others))
    }
}

impl Load {
    fn section(&self, method: String, rows: &[Vec<Stretch>; ROW_COUNT]) -> Section {
        let columns = self.measures.iter().flat_map(|measure| [measure.value, measure.ratio, measure.error]);
        let columns: Vec<_> = columns.chain([SEEN, OTHERS]).collect();
        let mut section = Section::new(self.title, method, &columns);
        for (row, stretches) in ROWS.iter().zip(rows) {
            let mut add = |figure, value| {
                section.samples.push((row.name.to_owned(), Sample::new(self.case, figure, value)));
            };
            for (index, measure) in self.measures.iter().enumerate() {
                let ratios = stretches.iter().zip(&rows[0]).map(|(own, alone)| own.values[index] / alone.values[index]);
                let ratios: Vec<_> = ratios.collect();
                stretches.iter().for_each(|stretch| add(measure.value, stretch.values[index]));
                if row.name != ALONE {
                    ratios.iter().for_each(|ratio| add(measure.ratio, *ratio));
                    add(measure.error, relative_error(&ratios));
                }
            }
            for stretch in stretches {
                add(SEEN, stretch.seen as f64);
                add(OTHERS, stretch.others);
            }
        }
        section
    }
}

/// What each row costs, and whether that is as little as it is to be.
fn targets(sections: &[Section; 2]) -> String {
    let mut text =
        String::from("## Targets\n\n| what | row | cost % | ± | target % | met |\n|---|---|---:|---:|---:|---|\n");
    for (load, section) in [&BULK, &MESSAGES].into_iter().zip(sections) {
        for (measure, row) in load.measures.iter().flat_map(|measure| ROWS[1..].iter().map(move |row| (measure, row))) {
            let of = |figure: Figure| section.median(row.name, load.case, figure.name);
            let Some((ratio, error)) = of(measure.ratio).zip(of(measure.error)) else { continue };
            let (cost, error) = (measure.cost(ratio), 100.0 * error);
            let target = row.target.map_or_else(|| "–".to_owned(), |target| format!("≤ {target:.0}"));
            let met = row.target.map_or("–", |target| verdict(cost, error, target));
            let (case, name) = (load.case, measure.value.name);
            let _ = writeln!(text, "| {case}: {name} | {} | {cost:+.1} | {error:.1} | {target} | {met} |", row.name);
        }
    }
    text
}

/// What lies within two standard errors of the target is neither met nor missed.
fn verdict(cost: f64, error: f64, target: f64) -> &'static str {
    match cost - target {
        over if over > 2.0 * error => "**no**",
        over if over < -2.0 * error => "yes",
        over if over <= 0.0 => "yes, within the scatter",
        _ => "within the scatter",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(values: [f64; 2]) -> Stretch {
        Stretch { values, seen: 1, others: 0.0 }
    }

    #[test]
    fn a_row_is_compared_with_the_pair_alone_of_the_same_round() {
        // The machine is half as fast in the second round, and the page costs a tenth in both.
        let row = |share: f64| vec![stretch([2.0 * share, 1.0]), stretch([share, 1.0])];
        let rows = [row(1.0), row(1.0 / 1.1), row(1.0), row(1.0), row(1.0)];
        let sections = [BULK.section(String::new(), &rows), MESSAGES.section(String::new(), &rows)];
        let text = targets(&sections);
        assert!(text.contains("| 1 stream up: GiB/s | page and top | +10.0 | 0.0 | ≤ 1 | **no** |"), "{text}");
        assert!(text.contains("| 1 stream up: CPU s/GiB | page and top | +0.0 | 0.0 | ≤ 1 | yes |"), "{text}");
        assert!(text.contains("| 64 B: p99 µs | another pair, alone | +0.0 | 0.0 | – | – |"), "{text}");
    }

    #[test]
    fn what_the_scatter_hides_is_neither_met_nor_missed() {
        assert_eq!(
            [0.1, 0.9, 1.5, 1.7].map(|cost| verdict(cost, 0.3, 1.0)),
            ["yes", "yes, within the scatter", "within the scatter", "**no**"]
        );
    }
}
