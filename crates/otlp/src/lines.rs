//! Log lines on their way to a collector: what is logged waits in bounded memory, and nobody waits for it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource;
use opentelemetry_sdk::Resource;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::FLUSH_TIMEOUT;
use crate::collector::Collector;
use crate::environment::Signal;
use crate::error::EnvironmentError;
use crate::resource::{proto, scope};

/// Lines that wait to be exported, as they are sent: several thousand of them.
const MAX_WAITING_BYTES: usize = 1 << 20;
/// Lines of one request.
const MAX_BATCH: usize = 512;
/// What holding a line takes beyond its text.
const OVERHEAD: usize = size_of::<LogRecord>();

/// Those of this process, as its log is one for all of it.
static WAITING: OnceLock<Arc<Waiting>> = OnceLock::new();

/// Lines that wait, from the first that this process logs.
pub(crate) fn waiting() -> Option<&'static Arc<Waiting>> {
    WAITING.get()
}

pub(crate) fn open() -> &'static Arc<Waiting> {
    WAITING.get_or_init(Arc::default)
}

/// Lines that wait.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    state: Mutex<State>,
    /// There are some, or enough for a request.
    added: Notify,
    is_closed: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    records: VecDeque<LogRecord>,
    /// Those, and those of the request that is under way.
    bytes: usize,
    lost: usize,
}

impl Waiting {
    /// Never waits.
    pub(crate) fn push(&self, record: LogRecord) {
        if self.is_closed.load(Ordering::Relaxed) {
            return;
        }
        let size = size(&record);
        let mut state = self.state.lock();
        if state.bytes + size > MAX_WAITING_BYTES {
            state.lost += 1;
            return;
        }
        state.bytes += size;
        state.records.push_back(record);
        let is_news = matches!(state.records.len(), 1 | MAX_BATCH);
        drop(state);
        if is_news {
            self.added.notify_one();
        }
    }

    /// The next lines to send, and how many were lost behind those that waited.
    fn take(&self) -> (Vec<LogRecord>, usize) {
        let mut state = self.state.lock();
        let count = state.records.len().min(MAX_BATCH);
        (state.records.drain(..count).collect(), std::mem::take(&mut state.lost))
    }

    fn has_enough(&self) -> bool {
        self.state.lock().records.len() >= MAX_BATCH
    }

    fn release(&self, bytes: usize) {
        self.state.lock().bytes -= bytes;
    }

    /// Takes no more, and forgets those that wait.
    fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        *self.state.lock() = State::default();
    }
}

fn size(record: &LogRecord) -> usize {
    record.encoded_len() + OVERHEAD
}

/// Exports log lines while this lives.
#[derive(Debug)]
pub struct LinesExport {
    end: CancellationToken,
    task: JoinHandle<()>,
}

impl LinesExport {
    /// Starts to export what is logged (see [`lines_layer`](crate::lines_layer)), if the environment says so. Must be called
    /// within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// A variable that cannot be used.
    pub fn start(resource: &Resource) -> Result<Option<Self>, EnvironmentError> {
        let collector = Collector::from_environment(Signal::Logs);
        let Some(waiting) = waiting() else { return collector.map(|_| None) };
        match collector {
            Ok(Some(collector)) => Ok(Some(Self::of(waiting.clone(), collector, resource))),
            other => {
                waiting.close();
                other.map(|_| None)
            }
        }
    }

    fn of(waiting: Arc<Waiting>, collector: Collector, resource: &Resource) -> Self {
        let end = CancellationToken::new();
        let export = Export { waiting, collector, resource: proto(resource), held: None };
        let task = tokio::spawn(export.run(end.clone()));
        Self { end, task }
    }

    /// Exports what waits, and ends: within two seconds, whatever the collector does.
    pub async fn finish(mut self) {
        self.end.cancel();
        if timeout(FLUSH_TIMEOUT, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

struct Export {
    waiting: Arc<Waiting>,
    collector: Collector,
    resource: resource::v1::Resource,
    /// What the collector has not taken yet.
    held: Option<Request>,
}

struct Request {
    message: ExportLogsServiceRequest,
    lines: usize,
    bytes: usize,
}

impl Export {
    async fn run(mut self, end: CancellationToken) {
        let waiting = self.waiting.clone();
        while !end.is_cancelled() {
            if self.held.is_none() {
                tokio::select! {
                    () = end.cancelled() => {}
                    () = waiting.added.notified() => {}
                }
            }
            // Lines of one moment go together; after a refusal this is the pause.
            if self.held.is_some() || !waiting.has_enough() {
                tokio::select! {
                    () = end.cancelled() => {}
                    () = sleep(self.collector.every()) => {}
                }
            }
            self.send_all().await;
        }
        self.send_all().await;
        waiting.close();
    }

    /// Sends what waits, as long as the collector takes it.
    async fn send_all(&mut self) {
        while let Some(request) = self.held.take().or_else(|| self.next()) {
            let health = self.collector.health();
            match self.collector.post(&request.message).await {
                Ok(()) => health.recover(),
                Err(refused) if refused.for_now => {
                    health.lose(0, || refused.reason);
                    self.held = Some(request);
                    return;
                }
                Err(refused) => health.lose(request.lines, || refused.reason),
            }
            self.waiting.release(request.bytes);
        }
    }

    fn next(&self) -> Option<Request> {
        let (log_records, lost) = self.waiting.take();
        if lost > 0 {
            self.collector.health().lose(lost, || "they come faster than the collector takes them".to_owned());
        }
        let (lines, bytes) = (log_records.len(), log_records.iter().map(size).sum());
        let scope_logs = ScopeLogs { scope: Some(scope()), log_records, ..Default::default() };
        let resource_logs =
            ResourceLogs { resource: Some(self.resource.clone()), scope_logs: vec![scope_logs], ..Default::default() };
        let message = ExportLogsServiceRequest { resource_logs: vec![resource_logs] };
        (lines > 0).then_some(Request { message, lines, bytes })
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_a_collector_does_not_take_is_bounded_and_nobody_waits_for_it() {
        // It takes a connection and never answers.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", silent.local_addr().unwrap());
        let variables = |name: &str| match name {
            "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(endpoint.clone()),
            "OTEL_LOGS_EXPORTER" => Some("otlp".to_owned()),
            _ => None,
        };
        let collector = Collector::named_by(Signal::Logs, &variables).unwrap().unwrap();
        let waiting = Arc::<Waiting>::default();
        let export = LinesExport::of(waiting.clone(), collector, &Resource::builder_empty().build());
        let line = LogRecord { severity_text: "x".repeat(1000), ..Default::default() };
        for _ in 0..100 {
            (0..100).for_each(|_| waiting.push(line.clone()));
            tokio::task::yield_now().await;
        }
        let state = waiting.state.lock();
        assert!(state.bytes <= MAX_WAITING_BYTES && state.records.len() * size(&line) <= MAX_WAITING_BYTES);
        assert!(state.lost >= 10_000 - MAX_WAITING_BYTES / 1000, "{}", state.lost);
        drop(state);
        drop(export);
    }
}
