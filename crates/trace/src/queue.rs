//! From a span's end to the collector: a bounded queue, one thread that exports batches, and one warning while that fails.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor as _};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tracing::{info, warn};

/// Spans that wait to be exported, some 500 bytes each; more are dropped.
const MAX_WAITING: usize = 2048;
/// Of a collector's answer; only its status counts.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Spans on their way to the exporting thread.
pub(crate) struct Queue {
    processor: BatchSpanProcessor,
    health: Arc<Health>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("health", &self.health).finish_non_exhaustive()
    }
}

impl Queue {
    /// Starts the thread. Must be called within the runtime that is to send.
    pub(crate) fn start(endpoint: &str, timeout: Duration, resource: &Resource) -> Result<Self, String> {
        let health = Arc::new(Health::default());
        let http = reqwest::Client::builder().timeout(timeout).build().map_err(|error| error.to_string())?;
        let client = Client { http, runtime: Handle::current(), health: health.clone() };
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint)
            .with_timeout(timeout)
            .build()
            .map_err(|error| error.to_string())?;
        let watched = Watched { exporter, health: health.clone() };
        // `push` is the bound, which counts what it drops.
        let config = BatchConfigBuilder::default().with_max_queue_size(MAX_WAITING).build();
        let mut processor = BatchSpanProcessor::builder(watched).with_batch_config(config).build();
        processor.set_resource(resource);
        Ok(Self { processor, health })
    }

    /// Exports what is there, as far as that takes no longer.
    pub(crate) fn finish(&self, timeout: Duration) {
        // What is wrong has been logged.
        let _ = self.processor.shutdown_with_timeout(timeout);
    }

    /// Never waits.
    pub(crate) fn push(&self, span: SpanData) {
        if self.health.waiting.fetch_add(1, Ordering::Relaxed) < MAX_WAITING {
            self.processor.on_end(span);
        } else {
            self.health.waiting.fetch_sub(1, Ordering::Relaxed);
            self.health.lose(1, || "they come faster than the collector takes them".into());
        }
    }
}

/// How exporting goes.
#[derive(Debug, Default)]
struct Health {
    waiting: AtomicUsize,
    is_failing: AtomicBool,
    lost: AtomicU64,
    /// What the last request that failed says.
    problem: Mutex<Option<String>>,
}

impl Health {
    fn lose(&self, spans: usize, reason: impl FnOnce() -> String) {
        self.lost.fetch_add(spans as u64, Ordering::Relaxed);
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            warn!(
                reason = reason(),
                "spans are lost on their way to the collector; nothing else is, and nothing waits for it"
            );
        }
    }

    fn recover(&self) {
        if self.is_failing.swap(false, Ordering::Relaxed) {
            info!(lost = self.lost.swap(0, Ordering::Relaxed), "the collector takes spans again");
        }
    }
}

/// The exporter, and what becomes of its batches.
#[derive(Debug)]
struct Watched {
    exporter: opentelemetry_otlp::SpanExporter,
    health: Arc<Health>,
}

impl SpanExporter for Watched {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.health.waiting.fetch_sub(spans, Ordering::Relaxed);
        let result = self.exporter.export(batch).await;
        match &result {
            Ok(()) => self.health.recover(),
            Err(error) => {
                self.health.lose(spans, || self.health.problem.lock().take().unwrap_or_else(|| error.to_string()))
            }
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

/// Sends what the exporting thread has, on the runtime of the process.
#[derive(Debug)]
struct Client {
    http: reqwest::Client,
    runtime: Handle,
    health: Arc<Health>,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let http = self.http.clone();
        let sent = self.runtime.spawn(async move { send(&http, request).await }).await.map_err(HttpError::from);
        let result = sent.and_then(|sent| sent);
        *self.health.problem.lock() = match &result {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("it answers {}", response.status())),
            Err(error) => Some(chain(&**error)),
        };
        result
    }
}

async fn send(http: &reqwest::Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let mut answer = http.execute(request.try_into()?).await?;
    let (status, headers, mut body) = (answer.status(), answer.headers().clone(), Vec::new());
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err("its answer is longer than any answer is".into());
        }
        body.extend_from_slice(&chunk);
    }
    let mut response = Response::builder().status(status).body(Bytes::from(body))?;
    *response.headers_mut() = headers;
    Ok(response)
}

/// An error with what caused it.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
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
        let endpoint = format!("http://{}/v1/traces", silent.local_addr().unwrap());
        let resource = Resource::builder_empty().build();
        let queue = Queue::start(&endpoint, Duration::from_secs(60), &resource).unwrap();
        (0..10_000).for_each(|_| queue.push(span()));
        assert!(queue.health.waiting.load(Ordering::Relaxed) <= MAX_WAITING);
        // One batch may be on its way.
        assert!(queue.health.lost.load(Ordering::Relaxed) >= (10_000 - MAX_WAITING - 512) as u64);
    }
}
