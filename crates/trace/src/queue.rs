//! From a span's end to the collector: a bounded queue, and one thread that exports batches.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ferry_otlp::Collector;
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor as _};

/// Spans that wait to be exported, some 500 bytes each; more are dropped.
const MAX_WAITING: usize = 2048;

/// Spans on their way to the exporting thread.
pub(crate) struct Queue {
    processor: BatchSpanProcessor,
    collector: Collector,
    waiting: Arc<AtomicUsize>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("collector", &self.collector).finish_non_exhaustive()
    }
}

impl Queue {
    /// Starts the thread.
    pub(crate) fn start(collector: Collector, resource: &Resource) -> Result<Self, String> {
        let waiting = Arc::<AtomicUsize>::default();
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(collector.clone())
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(collector.endpoint())
            .with_timeout(collector.timeout())
            .build()
            .map_err(|error| error.to_string())?;
        let watched = Watched { exporter, collector: collector.clone(), waiting: waiting.clone() };
        // `push` is the bound, which counts what it drops.
        let config = BatchConfigBuilder::default().with_max_queue_size(MAX_WAITING).build();
        let mut processor = BatchSpanProcessor::builder(watched).with_batch_config(config).build();
        processor.set_resource(resource);
        Ok(Self { processor, collector, waiting })
    }

    /// Exports what is there, as far as that takes no longer.
    pub(crate) fn finish(&self, timeout: Duration) {
        // What is wrong has been logged.
        let _ = self.processor.shutdown_with_timeout(timeout);
    }

    /// Never waits.
    pub(crate) fn push(&self, span: SpanData) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) < MAX_WAITING {
            self.processor.on_end(span);
        } else {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.collector.health().lose(1, || "they come faster than the collector takes them".into());
        }
    }
}

/// The exporter, and what becomes of its batches.
#[derive(Debug)]
struct Watched {
    exporter: opentelemetry_otlp::SpanExporter,
    collector: Collector,
    waiting: Arc<AtomicUsize>,
}

impl SpanExporter for Watched {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.waiting.fetch_sub(spans, Ordering::Relaxed);
        let result = self.exporter.export(batch).await;
        let health = self.collector.health();
        match &result {
            Ok(()) => health.recover(),
            Err(error) => health.lose(spans, || health.problem().unwrap_or_else(|| error.to_string())),
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use ferry_otlp::Signal;
    use opentelemetry::InstrumentationScope;
    use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
    use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};

    use super::*;

    fn span() -> SpanData {
        let (trace, id) = (TraceId::from_bytes([1; 16]), SpanId::from_bytes([1; 8]));
        let now = std::time::SystemTime::now();
        SpanData {
            span_context: SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::NONE),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: "span".into(),
            start_time: now,
            end_time: now,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::default(),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_collector_does_not_take_is_bounded_and_the_rest_is_counted() {
        // It takes a connection and never answers.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", silent.local_addr().unwrap());
        let variables = |name: &str| match name {
            "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(endpoint.clone()),
            "OTEL_EXPORTER_OTLP_TIMEOUT" => Some("60000".to_owned()),
            _ => None,
        };
        let collector = Collector::named_by(Signal::Traces, &variables).unwrap().unwrap();
        let queue = Queue::start(collector, &Resource::builder_empty().build()).unwrap();
        (0..10_000).for_each(|_| queue.push(span()));
        assert!(queue.waiting.load(Ordering::Relaxed) <= MAX_WAITING);
        // One batch may be on its way.
        assert!(queue.collector.health().lost() >= (10_000 - MAX_WAITING - 512) as u64);
    }
}
