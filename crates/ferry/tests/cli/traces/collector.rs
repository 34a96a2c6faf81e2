//! A stand-in for a collector: it takes OTLP over HTTP, also with TLS, checks what it gets by the specification, and keeps it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::eventually;

/// A span as it was exported.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(super) service: String,
    pub(crate) name: String,
    pub(super) trace: String,
    pub(crate) id: String,
    pub(super) parent: String,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) failed: bool,
    pub(super) attributes: BTreeMap<String, String>,
    /// Of the process.
    pub(super) resource: BTreeMap<String, String>,
    /// Traces and spans.
    pub(super) links: Vec<(String, String)>,
}

/// A line of a log as it was exported.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    service: String,
    /// The name of a tunnel.
    pub(crate) tunnel: Option<String>,
    pub(crate) level: String,
    pub(crate) message: String,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) trace: String,
    pub(crate) span: String,
}

/// What a collector has got.
#[derive(Default)]
struct Kept {
    spans: Vec<Span>,
    lines: Vec<Line>,
    metrics: Vec<ResourceMetrics>,
}

pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
}

impl Collector {
    pub(crate) fn start() -> Self {
        Self::serve(|stream, kept| serve(&stream, &stream, kept))
    }

    /// Over TLS, with a certificate and its key in PEM.
    pub(crate) fn start_secure(certificate: &Path, key: &Path) -> Self {
        let chain = CertificateDer::pem_file_iter(certificate).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
        Self::serve(move |stream, kept| {
            let secure = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
            let secure = RefCell::new(secure);
            serve(Half(&secure), Half(&secure), kept);
        })
    }

    fn serve(connection: impl Fn(TcpStream, &Mutex<Kept>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, kept) = (listener.local_addr().unwrap(), Arc::<Mutex<Kept>>::default());
        let (keeps, connection) = (kept.clone(), Arc::new(connection));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (kept, connection) = (keeps.clone(), connection.clone());
                thread::spawn(move || connection(stream, &kept));
            }
        });
        Self { address, kept }
    }

    pub(super) fn spans(&self) -> Vec<Span> {
        self.kept.lock().unwrap().spans.clone()
    }

    /// What each process exported, in the order in which it came.
    pub(crate) fn metrics(&self) -> Vec<ResourceMetrics> {
        self.kept.lock().unwrap().metrics.clone()
    }

    /// The lines of a service, in the order in which they were logged.
    pub(crate) fn lines(&self, service: &str) -> Vec<Line> {
        self.kept.lock().unwrap().lines.iter().filter(|line| line.service == service).cloned().collect()
    }

    /// The spans of a trace, once it has this many.
    pub(crate) fn trace(&self, trace: &str, spans: usize) -> Vec<Span> {
        eventually(&format!("{spans} spans of {trace}"), || {
            let found: Vec<_> = self.spans().into_iter().filter(|span| span.trace == trace).collect();
            (found.len() >= spans).then_some(found)
        })
    }
}

/// One of the two halves of a connection: requests and answers take turns.
struct Half<'a>(&'a RefCell<StreamOwned<ServerConnection, TcpStream>>);

impl io::Read for Half<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().read(into)
    }
}

impl io::Write for Half<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.borrow_mut().flush()
    }
}

fn serve(reader: impl io::Read, mut writer: impl io::Write, kept: &Mutex<Kept>) {
    let mut reader = BufReader::new(reader);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            match reader.read_line(&mut line) {
                Ok(1..) if line.trim().is_empty() => break,
                Ok(1..) => head.push(line.trim().to_ascii_lowercase()),
                _ => return,
            }
        }
        let header = |name: &str| head.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        assert_eq!((header("content-type"), header("x-key")), (Some("application/x-protobuf"), Some("a secret")));
        let mut body = vec![0; header("content-length").unwrap().parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        if header("content-encoding") == Some("gzip") {
            let mut plain = Vec::new();
            GzDecoder::new(&*body).read_to_end(&mut plain).unwrap();
            body = plain;
        }
        match head[0].as_str() {
            "post /v1/traces http/1.1" => kept.lock().unwrap().spans.extend(read(&body)),
            "post /v1/metrics http/1.1" => {
                let request = ExportMetricsServiceRequest::decode(&*body).unwrap();
                kept.lock().unwrap().metrics.extend(request.resource_metrics);
            }
            "post /v1/logs http/1.1" => kept.lock().unwrap().lines.extend(read_lines(&body)),
            other => panic!("{other}"),
        }
        writer
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")
            .unwrap();
    }
}

/// The spans of a request. Panics at what a collector would refuse, which its test then waits for in vain.
fn read(body: &[u8]) -> Vec<Span> {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let (mut spans, mut ids) = (Vec::new(), BTreeSet::new());
    for resource in request.resource_spans {
        let of = attributes(&resource.resource.unwrap().attributes);
        assert!(of.contains_key("service.version") && of.contains_key("telemetry.sdk.name"), "{of:?}");
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            assert!(span.trace_id.len() == 16 && span.span_id.len() == 8 && span.trace_id != [0; 16], "{span:?}");
            assert!(matches!(span.parent_span_id.len(), 0 | 8) && span.kind > 0 && !span.name.is_empty(), "{span:?}");
            assert!(0 < span.start_time_unix_nano && span.start_time_unix_nano <= span.end_time_unix_nano, "{span:?}");
            assert!(ids.insert(span.span_id.clone()), "twice: {span:?}");
            let links = span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id)));
            spans.push(Span {
                service: of["service.name"].clone(),
                name: span.name,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                start: span.start_time_unix_nano,
                end: span.end_time_unix_nano,
                failed: span.status.is_some_and(|status| status.code == StatusCode::Error as i32),
                attributes: attributes(&span.attributes),
                resource: of.clone(),
                links: links.collect(),
            });
        }
    }
    spans
}

fn read_lines(body: &[u8]) -> Vec<Line> {
    let mut lines = Vec::new();
    for resource in ExportLogsServiceRequest::decode(body).unwrap().resource_logs {
        let of = attributes(&resource.resource.unwrap().attributes);
        for record in resource.scope_logs.into_iter().flat_map(|scope| scope.log_records) {
            assert!(matches!(record.trace_id.len(), 0 | 16) && matches!(record.span_id.len(), 0 | 8), "{record:?}");
            assert!(record.time_unix_nano > 0 && record.severity_number > 0, "{record:?}");
            let Some(Value::StringValue(message)) = record.body.unwrap().value else { panic!("no text") };
            lines.push(Line {
                service: of["service.name"].clone(),
                tunnel: of.get("ferry.name").cloned(),
                level: record.severity_text,
                message,
                attributes: attributes(&record.attributes),
                trace: hex(&record.trace_id),
                span: hex(&record.span_id),
            });
        }
    }
    lines
}

pub(crate) fn attributes(of: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &KeyValue| match value.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        Value::BoolValue(yes) => Some(yes.to_string()),
        Value::DoubleValue(number) => Some(number.to_string()),
        other => panic!("{other:?}"),
    };
    of.iter().map(|value| (value.key.clone(), text(value).unwrap())).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Spans as a tree, children in the order in which they began: each with its service, when it began behind the first, and how
/// long it took.
pub(super) fn tree(spans: &[Span]) -> String {
    let mut roots: Vec<_> = spans.iter().filter(|span| !spans.iter().any(|other| other.id == span.parent)).collect();
    roots.sort_by_key(|span| span.start);
    let mut text = String::new();
    let first = roots.first().map_or(0, |root| root.start);
    roots.into_iter().for_each(|root| draw(&mut text, spans, root, first, ("", "")));
    text
}

fn draw(text: &mut String, spans: &[Span], span: &Span, first: u64, (before, below): (&str, &str)) {
    let millis = |nanos: u64| nanos as f64 / 1e6;
    let (name, begun, took) =
        (format!("{before}{}", span.name), span.start.saturating_sub(first), span.end - span.start);
    let service = span.resource.get("ferry.name").map_or(String::new(), |tunnel| format!(" {tunnel}"));
    let service = format!("{}{service}", span.service);
    *text += &format!("{name:<40}{service:<20}{:>10.1} ms{:>10.1} ms\n", millis(begun), millis(took));
    let mut children: Vec<_> = spans.iter().filter(|child| child.parent == span.id).collect();
    children.sort_by_key(|child| child.start);
    let last = children.len().saturating_sub(1);
    for (at, child) in children.into_iter().enumerate() {
        let (branch, stem) = if at == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        draw(text, spans, child, first, (&format!("{below}{branch}"), &format!("{below}{stem}")));
    }
}

/// A tree without its times.
pub(super) fn shape(tree: &str) -> String {
    tree.lines()
        .map(|line| {
            line.split("  ").filter(|part| !part.is_empty() && !part.ends_with("ms")).collect::<Vec<_>>().join("  ")
                + "\n"
        })
        .collect()
}
