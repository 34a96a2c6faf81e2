//! Metrics on their way to a collector: at each interval, and once at the end.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource;
use opentelemetry_sdk::Resource;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use crate::FLUSH_TIMEOUT;
use crate::collector::Collector;
use crate::environment::Signal;
use crate::error::EnvironmentError;
use crate::families::{self, Times};
use crate::resource::{proto, scope};

/// Exports metrics while this lives.
#[derive(Debug)]
pub struct MetricsExport {
    end: CancellationToken,
    task: JoinHandle<()>,
}

impl MetricsExport {
    /// Starts to export what `render` writes, which is the text of `/metrics`, if the environment names an endpoint. Must be
    /// called within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// A variable that cannot be used.
    pub fn start(
        resource: &Resource,
        render: impl Fn() -> Result<String, fmt::Error> + Send + Sync + 'static,
    ) -> Result<Option<Self>, EnvironmentError> {
        let Some(collector) = Collector::from_environment(Signal::Metrics)? else { return Ok(None) };
        let mut ticks = interval_at(Instant::now() + collector.every(), collector.every());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = CancellationToken::new();
        let export = Export { collector, resource: proto(resource), start: nanos(), render };
        let task = tokio::spawn(export.run(ticks, end.clone()));
        Ok(Some(Self { end, task }))
    }

    /// Exports what is there now, and ends: within two seconds, whatever the collector does.
    pub async fn finish(mut self) {
        self.end.cancel();
        if timeout(FLUSH_TIMEOUT, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

struct Export<R> {
    collector: Collector,
    resource: resource::v1::Resource,
    start: u64,
    render: R,
}

impl<R: Fn() -> Result<String, fmt::Error>> Export<R> {
    async fn run(self, mut ticks: Interval, end: CancellationToken) {
        loop {
            let is_last = tokio::select! {
                () = end.cancelled() => true,
                _ = ticks.tick() => false,
            };
            let health = self.collector.health();
            match self.export().await {
                Ok(()) => health.recover(),
                // The next export has it all.
                Err(reason) => health.lose(1, || reason),
            }
            if is_last {
                return;
            }
        }
    }

    async fn export(&self) -> Result<(), String> {
        let text = (self.render)().map_err(|_| "the metrics cannot be written as text".to_owned())?;
        let metrics = families::read(&text, Times { start: self.start, now: nanos() })?;
        let scope_metrics = ScopeMetrics { scope: Some(scope()), metrics, ..Default::default() };
        let resource_metrics = ResourceMetrics {
            resource: Some(self.resource.clone()),
            scope_metrics: vec![scope_metrics],
            ..Default::default()
        };
        let request = ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] };
        self.collector.post(&request).await.map_err(|refused| refused.reason)
    }
}

fn nanos() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
