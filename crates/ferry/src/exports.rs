//! What a role exports to a collector, as the environment says.

use std::fmt;

use ferry_otlp::{EnvironmentError, LinesExport, MetricsExport};
use ferry_trace::Exporting;
use opentelemetry_sdk::Resource;
use tracing::warn;

/// Spans, metrics and log lines are exported while this lives, if an endpoint is given. A variable that cannot be used costs
/// what it is about, not the role.
#[derive(Debug)]
pub(crate) struct Exports {
    resource: Resource,
    spans: Option<Exporting>,
    metrics: Option<MetricsExport>,
    lines: Option<LinesExport>,
    /// What is not exported, and why; often it is one reason for all.
    problems: Vec<(&'static str, String)>,
}

impl Exports {
    /// Starts to export the spans and the log lines of a service, about which `attributes` say more.
    pub(crate) fn start(service: &'static str, attributes: &[(&'static str, &str)]) -> Self {
        let resource = ferry_otlp::resource(service, attributes);
        let mut exports = Self { resource, spans: None, metrics: None, lines: None, problems: Vec::new() };
        exports.lines = exports.told("log lines", LinesExport::start(&exports.resource));
        exports.spans = exports.told("spans", ferry_trace::start(&exports.resource));
        exports
    }

    /// Exports its metrics, too, which are what `render` writes.
    pub(crate) fn add_metrics(&mut self, render: impl Fn() -> Result<String, fmt::Error> + Send + Sync + 'static) {
        self.metrics = self.told("metrics", MetricsExport::start(&self.resource, render));
        while let Some((_, reason)) = self.problems.first().cloned() {
            let what: Vec<_> =
                self.problems.extract_if(.., |(_, other)| *other == reason).map(|(what, _)| what).collect();
            warn!("{} are not exported: {reason}", listed(&what));
        }
    }

    fn told<T>(&mut self, what: &'static str, started: Result<Option<T>, EnvironmentError>) -> Option<T> {
        started.unwrap_or_else(|error| {
            self.problems.push((what, error.to_string()));
            None
        })
    }

    /// Exports what is last, for two seconds at most.
    pub(crate) async fn finish(self) {
        let Self { spans, metrics, lines, .. } = self;
        let spans = async {
            if let Some(spans) = spans {
                spans.finish().await
            }
        };
        let metrics = async {
            if let Some(metrics) = metrics {
                metrics.finish().await
            }
        };
        let lines = async {
            if let Some(lines) = lines {
                lines.finish().await
            }
        };
        tokio::join!(spans, metrics, lines);
    }
}

/// Words as they are listed in a sentence.
fn listed(words: &[&str]) -> String {
    match words {
        [before @ .., one, last] if !before.is_empty() => format!("{}, {one} and {last}", before.join(", ")),
        words => words.join(" and "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_listed_as_in_a_sentence() {
        assert_eq!(listed(&["spans"]), "spans");
        assert_eq!(listed(&["spans", "metrics"]), "spans and metrics");
        assert_eq!(listed(&["log lines", "spans", "metrics"]), "log lines, spans and metrics");
    }
}
