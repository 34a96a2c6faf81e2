//! What a mode measured: figures of each tunnel in each case, over several rounds, and the table made of them.

use crate::contest::{Contest, select};
use crate::tunnels::Tunnel;
use crate::usage::{quiet, raise_open_files};
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What all modes have in common.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// Tunnels, separated by commas; all by default.
    #[arg(long, value_delimiter = ',')]
    pub(crate) tunnels: Vec<String>,
    /// Measurements of each tunnel, of which the median counts; in turns, so that a slow minute meets all.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// The machine counts as quiet while others use less than this share of it.
    #[arg(long, default_value_t = 0.1)]
    pub(crate) quiet: f64,
    /// Seconds to wait for a quiet machine, in all; when they are used up, measuring goes on beside the others.
    #[arg(long, default_value_t = 60)]
    pub(crate) quiet_wait: u64,
}

impl Common {
    /// The length of one measurement.
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

/// Which way a figure is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Better {
    /// More of it is.
    More,
    /// Less of it is.
    Less,
    /// It says something about the measurement, and is not compared.
    Neither,
}

/// Something that is measured.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Figure {
    /// Its name and unit: the heading of its column.
    pub(crate) name: &'static str,
    /// Which way it is good.
    pub(crate) better: Better,
    /// Decimal places.
    pub(crate) digits: usize,
}

/// The processors' share that went to neither the tunnel nor the bench while it was measured.
pub(crate) const OTHERS: Figure = Figure { name: "others' load", better: Better::Neither, digits: 2 };

/// One measured value.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    case: String,
    figure: &'static str,
    value: f64,
}

impl Sample {
    /// A value of a figure in a case.
    pub(crate) fn new(case: impl Into<String>, figure: Figure, value: f64) -> Self {
        Self { case: case.into(), figure: figure.name, value }
    }

    /// The same of another case.
    pub(crate) fn of(self, case: impl Into<String>) -> Self {
        Self { case: case.into(), ..self }
    }
}

/// A mode's results.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Section {
    /// Its heading.
    pub(crate) title: &'static str,
    /// What was done, as a paragraph.
    pub(crate) method: String,
    /// The columns.
    pub(crate) figures: Vec<Figure>,
    /// Which row the others are compared with.
    pub(crate) ours: &'static str,
    /// Which row says what the machine can do at most.
    pub(crate) reference: &'static str,
    /// Everything that was measured.
    pub(crate) samples: Vec<(String, Sample)>,
    /// Tunnels in the order of the rows, as far as it is known beforehand.
    order: Vec<&'static str>,
    /// Tunnels that could not be measured, and why.
    pub(crate) failures: Vec<(String, String)>,
}

impl Section {
    /// A section without results so far, which compares with ferry and with no tunnel at all.
    pub(crate) fn new(title: &'static str, method: String, figures: &[Figure]) -> Self {
        let (ours, reference) = ("ferry", "direct");
        let figures = figures.to_vec();
        let (samples, order, failures) = (Vec::new(), Vec::new(), Vec::new());
        Self { title, method, figures, ours, reference, samples, order, failures }
    }

    /// Measures the tunnels that were asked for in turns, for as many rounds.
    ///
    /// # Errors
    /// When an option is wrong; a tunnel's failure is a result.
    pub(crate) async fn contest<F>(self, common: &Common, measure: F) -> Result<Self>
    where
        F: AsyncFn(&dyn Tunnel) -> Result<Vec<Sample>>,
    {
        let Contest { tunnels, .. } = select(&common.tunnels, crate::tunnels::priced())?;
        self.rounds(common, &tunnels, measure).await
    }

    /// Measures these tunnels in turns.
    ///
    /// # Errors
    /// When the machine does not let itself be measured; a tunnel's failure is a result.
    pub(crate) async fn rounds<F>(mut self, common: &Common, tunnels: &[Arc<dyn Tunnel>], measure: F) -> Result<Self>
    where
        F: AsyncFn(&dyn Tunnel) -> Result<Vec<Sample>>,
    {
        raise_open_files()?;
        self.order = tunnels.iter().map(|tunnel| tunnel.name()).collect();
        let mut patience = Duration::from_secs(common.quiet_wait);
        for round in 1..=common.rounds {
            for tunnel in tunnels {
                let start = Instant::now();
                if !patience.is_zero() {
                    quiet(common.quiet, patience).await;
                    patience = patience.saturating_sub(start.elapsed());
                }
                match measure(tunnel.as_ref()).await {
                    Ok(samples) => {
                        self.samples.extend(samples.into_iter().map(|sample| (tunnel.name().to_owned(), sample)));
                    }
                    Err(error) => self.fail(tunnel.name(), &error),
                }
                let took = start.elapsed().as_secs_f64();
                eprintln!("{}: round {round}: {} took {took:.1} s", self.title, tunnel.name());
            }
        }
        Ok(self)
    }

    /// A measurement of a tunnel has failed.
    pub(crate) fn fail(&mut self, tunnel: &str, error: &anyhow::Error) {
        eprintln!("{}: {tunnel}: not measured: {error:#}", self.title);
        self.failures.push((tunnel.to_owned(), error.root_cause().to_string()));
    }

    /// The median of a figure, if it was measured.
    pub(crate) fn median(&self, tunnel: &str, case: &str, figure: &str) -> Option<f64> {
        let samples = self.samples.iter().filter(|(name, _)| name == tunnel);
        let samples = samples.filter(|(_, sample)| sample.case == case && sample.figure == figure);
        let mut values: Vec<_> = samples.map(|(_, sample)| sample.value).collect();
        percentile(&mut values, 0.5)
    }

    /// The cases in the order in which they were measured.
    pub(crate) fn cases(&self) -> Vec<&str> {
        unique(self.samples.iter().map(|(_, sample)| sample.case.as_str()))
    }

    /// The tunnels, in the order in which they were to be measured.
    pub(crate) fn tunnels(&self) -> Vec<&str> {
        unique(self.order.iter().copied().chain(self.samples.iter().map(|(tunnel, _)| tunnel.as_str())))
    }

    /// A row per case and tunnel: for each figure the median, and how ours compares.
    pub(crate) fn table(&self) -> String {
        let mut text = String::from("| case | tunnel |");
        let mut rule = String::from("|---|---|");
        for figure in &self.figures {
            let _ = write!(text, " {} |", figure.name);
            rule.push_str("---:|");
            if self.has_reference(figure) {
                let _ = write!(text, " ÷ {} |", self.reference);
                rule.push_str("---:|");
            }
            if figure.better != Better::Neither {
                let _ = write!(text, " {} ÷ it |", self.ours);
                rule.push_str("---:|");
            }
        }
        let _ = writeln!(text, "\n{rule}");
        for case in self.cases() {
            for tunnel in self.tunnels() {
                let cells: String = self.figures.iter().map(|figure| self.cells(tunnel, case, figure)).collect();
                if cells.contains(|letter: char| letter.is_ascii_digit()) {
                    let _ = writeln!(text, "| {case} | {tunnel} |{cells}");
                }
            }
        }
        for (tunnel, why) in &self.failures {
            let _ = writeln!(text, "\nOne round of {tunnel} was not measured: {why}");
        }
        text
    }

    /// Whether it makes sense to compare with the reference: what no tunnel costs nothing cannot be divided by.
    fn has_reference(&self, figure: &Figure) -> bool {
        let of_reference = self.samples.iter().filter(|(tunnel, _)| tunnel == self.reference);
        let mut values =
            of_reference.filter(|(_, sample)| sample.figure == figure.name).map(|(_, sample)| sample.value);
        figure.better != Better::Neither && values.any(|value| value > 0.0)
    }

    fn cells(&self, tunnel: &str, case: &str, figure: &Figure) -> String {
        let value = self.median(tunnel, case, figure.name);
        let digits = figure.digits;
        let mut text = value.map_or(" – |".to_owned(), |value| format!(" {value:.digits$} |"));
        if self.has_reference(figure) {
            let reference = ratio(value, self.median(self.reference, case, figure.name));
            let _ = write!(text, " {} |", reference.map_or("–".to_owned(), |ratio| format!("{ratio:.2}")));
        }
        if figure.better == Better::Neither {
            return text;
        }
        let against = ratio(self.median(self.ours, case, figure.name), value).filter(|_| tunnel != self.ours);
        let against = against.map_or("–".to_owned(), |ratio| {
            let loses = if figure.better == Better::More { ratio < 0.995 } else { ratio > 1.005 };
            format!("{ratio:.2}{}", if loses { " ▼" } else { "" })
        });
        let _ = write!(text, " {against} |");
        text
    }
}

fn ratio(value: Option<f64>, to: Option<f64>) -> Option<f64> {
    Some(value? / to.filter(|to| *to > 0.0)?)
}

fn unique<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    names.fold(Vec::new(), |mut unique, name| {
        if !unique.contains(&name) {
            unique.push(name);
        }
        unique
    })
}

/// The value below which `share` of all lie; of an even number's two middle ones the mean.
pub(crate) fn percentile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let place = values.len().checked_sub(1)? as f64 * share;
    let (below, above) = (values[place.floor() as usize], values[place.ceil() as usize]);
    Some(below + (above - below) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEED: Figure = Figure { name: "GiB/s", better: Better::More, digits: 2 };

    fn section() -> Section {
        let mut section = Section::new("Bulk", String::new(), &[SPEED, OTHERS]);
        for (tunnel, value) in [("ferry", 1.0), ("ferry", 3.0), ("ferry", 2.0), ("other", 4.0), ("direct", 8.0)] {
            section.samples.push((tunnel.to_owned(), Sample::new("up", SPEED, value)));
        }
        section
    }

    #[test]
    fn losing_rows_are_marked_and_kept() {
        let table = section().table();
        assert!(table.contains("| up | ferry | 2.00 | 0.25 | – | – |"), "{table}");
        assert!(table.contains("| up | other | 4.00 | 0.50 | 0.50 ▼ | – |"), "{table}");
        let columns: Vec<_> = table.lines().map(|line| line.matches('|').count()).collect();
        assert_eq!(columns, [columns[0]; 5]);
    }

    #[test]
    fn a_percentile_lies_between_its_neighbours() {
        assert_eq!(percentile(&mut [], 0.5), None);
        assert_eq!(percentile(&mut [4.0, 1.0], 0.5), Some(2.5));
        assert_eq!(percentile(&mut [3.0, 1.0, 2.0], 1.0), Some(3.0));
    }
}
