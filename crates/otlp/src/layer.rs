//! What is logged, as records of OpenTelemetry: the same lines, with the same fields.

use std::cell::Cell;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Span, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use crate::environment::{Signal, variable};
use crate::lines::{self, Waiting};

/// Who logs of exporting: a line about that would lead to the next one.
const OWN: [&str; 10] = [
    "ferry_otlp",
    "ferry_trace",
    "opentelemetry",
    "hyper",
    "hyper_util",
    "hyper_rustls",
    "h2",
    "rustls",
    "mio",
    "want",
];

/// Where in a trace something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceIds {
    /// Of the trace.
    pub trace: [u8; 16],
    /// Of the span.
    pub span: [u8; 8],
    /// Whether the spans of this trace are exported.
    pub is_sampled: bool,
}

thread_local! {
    static WITHIN: Cell<Option<TraceIds>> = const { Cell::new(None) };
}

impl TraceIds {
    /// The lines that are logged meanwhile belong there.
    pub fn log_within<T>(self, log: impl FnOnce() -> T) -> T {
        let before = WITHIN.replace(Some(self));
        let logged = log();
        WITHIN.set(before);
        logged
    }

    /// The lines that are logged within a span of the log belong there.
    pub fn mark(self, span: &Span) {
        if lines::waiting().is_none() {
            return;
        }
        span.with_subscriber(|(id, dispatch)| {
            if let Some(span) = dispatch.downcast_ref::<Registry>().and_then(|registry| registry.span(id)) {
                span.extensions_mut().replace(self);
            }
        });
    }
}

/// Takes what is logged, if the environment says that log lines are exported. They wait until
/// [`LinesExport`](crate::LinesExport) is started.
pub fn lines_layer() -> Option<LinesLayer> {
    let is_asked_for = variable(&Signal::Logs.exporter()).is_some_and(|exporter| exporter != "none");
    is_asked_for.then(|| LinesLayer(lines::open().clone()))
}

/// See [`lines_layer`].
#[derive(Debug)]
pub struct LinesLayer(Arc<Waiting>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LinesLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().replace(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        // What another library logs by `log` says in a field where it comes from.
        let target = fields.target.take().unwrap_or_else(|| metadata.target().to_owned());
        if OWN.contains(&target.split("::").next().unwrap_or_default()) {
            return;
        }
        let mut ids = WITHIN.get();
        for span in context.event_scope(event).into_iter().flatten() {
            let extensions = span.extensions();
            if let Some(of_span) = extensions.get::<Fields>() {
                fields.add_missing(of_span);
            }
            ids = ids.or_else(|| extensions.get::<TraceIds>().copied());
        }
        fields.add("target", Value::StringValue(target));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.0.push(LogRecord {
            time_unix_nano: time,
            observed_time_unix_nano: time,
            severity_number: severity(*metadata.level()) as i32,
            severity_text: metadata.level().to_string(),
            body: Some(AnyValue { value: Some(Value::StringValue(fields.message)) }),
            attributes: fields.others,
            trace_id: ids.map_or_else(Vec::new, |ids| ids.trace.to_vec()),
            span_id: ids.map_or_else(Vec::new, |ids| ids.span.to_vec()),
            flags: ids.map_or(0, |ids| u32::from(ids.is_sampled)),
            ..Default::default()
        });
    }
}

fn severity(level: Level) -> SeverityNumber {
    match level {
        Level::ERROR => SeverityNumber::Error,
        Level::WARN => SeverityNumber::Warn,
        Level::INFO => SeverityNumber::Info,
        Level::DEBUG => SeverityNumber::Debug,
        Level::TRACE => SeverityNumber::Trace,
    }
}

/// The message of an event, and its other fields; or those of a span.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    /// Of an event that came by `log`.
    target: Option<String>,
    others: Vec<KeyValue>,
}

impl Fields {
    fn add(&mut self, name: &str, value: Value) {
        match (name, value) {
            ("message", Value::StringValue(text)) => self.message = text,
            ("log.target", Value::StringValue(text)) => self.target = Some(text),
            (name, _) if name.starts_with("log.") => {}
            (name, value) => {
                let key = name.strip_prefix("r#").unwrap_or(name).to_owned();
                self.others.retain(|field| field.key != key);
                self.others.push(KeyValue { key, value: Some(AnyValue { value: Some(value) }), ..Default::default() });
            }
        }
    }

    /// What an event says itself comes first.
    fn add_missing(&mut self, of_span: &Self) {
        for field in &of_span.others {
            if !self.others.iter().any(|own| own.key == field.key) {
                self.others.push(field.clone());
            }
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field.name(), Value::DoubleValue(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field.name(), Value::IntValue(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(
            field.name(),
            i64::try_from(value).map_or_else(|_| Value::StringValue(value.to_string()), Value::IntValue),
        );
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field.name(), Value::BoolValue(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field.name(), Value::StringValue(value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field.name(), Value::StringValue(format!("{value:?}")));
    }
}
