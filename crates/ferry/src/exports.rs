//! What a role exports to a collector, as the environment says.

use std::fmt;

use ferry_otlp::{EnvironmentError, MetricsExport};
use ferry_trace::Exporting;
use opentelemetry_sdk::Resource;
use tracing::warn;

/// Spans and metrics are exported while this lives, if an endpoint is given. A variable that cannot be used costs what it is
/// about, not the role.
#[derive(Debug)]
pub(crate) struct Exports {
    resource: Resource,
    spans: Option<Exporting>,
    metrics: Option<MetricsExport>,
    /// What the spans' variables say that cannot be used; told with the metrics', which often say the same.
    problem: Option<String>,
}

impl Exports {
    /// Starts to export the spans of a service, about which `attributes` say more.
    pub(crate) fn start(service: &'static str, attributes: &[(&'static str, &str)]) -> Self {
        let resource = ferry_otlp::resource(service, attributes);
        let (spans, problem) = told(ferry_trace::start(&resource));
        Self { resource, spans, metrics: None, problem }
    }

    /// Exports its metrics, too, which are what `render` writes.
    pub(crate) fn add_metrics(&mut self, render: impl Fn() -> Result<String, fmt::Error> + Send + Sync + 'static) {
        let (metrics, problem) = told(MetricsExport::start(&self.resource, render));
        self.metrics = metrics;
        match (self.problem.take(), problem) {
            (Some(of_spans), Some(of_metrics)) if of_spans == of_metrics => {
                warn!("spans and metrics are not exported: {of_spans}");
            }
            (of_spans, of_metrics) => {
                of_spans.into_iter().for_each(|problem| warn!("spans are not exported: {problem}"));
                of_metrics.into_iter().for_each(|problem| warn!("metrics are not exported: {problem}"));
            }
        }
    }

    /// Exports what is last, for two seconds at most.
    pub(crate) async fn finish(self) {
        let spans = async {
            if let Some(spans) = self.spans {
                spans.finish().await
            }
        };
        let metrics = async {
            if let Some(metrics) = self.metrics {
                metrics.finish().await
            }
        };
        tokio::join!(spans, metrics);
    }
}

fn told<T>(started: Result<Option<T>, EnvironmentError>) -> (Option<T>, Option<String>) {
    match started {
        Ok(started) => (started, None),
        Err(error) => (None, Some(error.to_string())),
    }
}
