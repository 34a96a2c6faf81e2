//! A collector, and what it answers.

use std::fmt;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tracing::info;

use crate::environment::{self, Settings, Signal};
use crate::error::EnvironmentError;
use crate::health::Health;
use crate::tls::{self, Connector};

/// Of a collector's answer.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Where one signal goes. Clones are the same one.
#[derive(Clone)]
pub struct Collector(Arc<Way>);

struct Way {
    signal: Signal,
    endpoint: Uri,
    timeout: Duration,
    every: Duration,
    headers: HeaderMap,
    is_gzipped: bool,
    http: Client<Connector, Full<Bytes>>,
    /// Requests run there, as the threads of a library may block.
    runtime: Handle,
    health: Health,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").field("endpoint", &self.0.endpoint).field("health", &self.0.health).finish()
    }
}

/// Why a collector has not taken something.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) reason: String,
    /// It may take the same later.
    pub(crate) for_now: bool,
}

impl Collector {
    /// The one that the environment names for a signal, if any is. Must be called within the runtime that is to send.
    ///
    /// # Errors
    ///
    /// A variable that cannot be used.
    pub fn from_environment(signal: Signal) -> Result<Option<Self>, EnvironmentError> {
        Self::named_by(signal, &environment::variable)
    }

    /// As [`from_environment`](Self::from_environment), with variables of the caller's.
    ///
    /// # Errors
    ///
    /// A variable that cannot be used.
    pub fn named_by(
        signal: Signal,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, EnvironmentError> {
        let Some(settings) = environment::read(signal, variable)? else { return Ok(None) };
        Ok(Self::new(signal, settings))
    }

    /// A warning says why if there is none.
    fn new(signal: Signal, settings: Settings) -> Option<Self> {
        let Settings { endpoint, timeout, every, headers, is_gzipped, trust } = settings;
        let connector = match trust.connector() {
            Ok(connector) => connector,
            Err(error) => {
                environment::warn_of(signal, &error);
                return None;
            }
        };
        let http = Client::builder(TokioExecutor::new()).build(connector);
        let health = Health::new(signal);
        info!(collector = %endpoint, "{} are exported over OTLP", signal.as_str());
        let runtime = Handle::current();
        let way = Way { signal, endpoint, timeout, every, headers, is_gzipped, http, runtime, health };
        Some(Self(Arc::new(way)))
    }

    /// The URL that is posted to.
    pub fn endpoint(&self) -> String {
        self.0.endpoint.to_string()
    }

    /// How long an answer may take.
    pub fn timeout(&self) -> Duration {
        self.0.timeout
    }

    /// How often it is to be sent something.
    pub(crate) fn every(&self) -> Duration {
        self.0.every
    }

    /// How it goes.
    pub fn health(&self) -> &Health {
        &self.0.health
    }

    /// Sends a request of OTLP.
    pub(crate) async fn post(&self, request: &impl Message) -> Result<(), Refused> {
        let way = &self.0;
        let broken = |reason: String| Refused { reason, for_now: false };
        let mut body = request.encode_to_vec();
        let mut post = Request::post(&way.endpoint).header(CONTENT_TYPE, "application/x-protobuf");
        if way.is_gzipped {
            body = zipped(&body).map_err(|error| broken(error.to_string()))?;
            post = post.header(CONTENT_ENCODING, "gzip");
        }
        let post = post.body(Bytes::from(body)).map_err(|error| broken(error.to_string()))?;
        let answer = way.send(post).await.map_err(|reason| Refused { reason, for_now: true })?;
        let status = answer.status();
        if status.is_success() {
            return rejected(answer.body()).map_or(Ok(()), |reason| Err(broken(reason)));
        }
        // Those that the specification has for later.
        let for_now = matches!(status.as_u16(), 429 | 502 | 503 | 504);
        Err(Refused { reason: way.explain(status), for_now })
    }
}

impl Way {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
        let (mut parts, body) = request.into_parts();
        for (name, value) in &self.headers {
            parts.headers.insert(name.clone(), value.clone());
        }
        let answered = async {
            let answer = self.http.request(Request::from_parts(parts, Full::new(body))).await;
            let (parts, body) = answer.map_err(|error| chain(&error))?.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(|error| chain(&*error))?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        };
        let late = |_| Err(format!("it has not answered within {:?}", self.timeout));
        timeout(self.timeout, answered).await.unwrap_or_else(late)
    }

    /// What an answer means that is no success.
    fn explain(&self, status: StatusCode) -> String {
        let what = self.signal.as_str();
        match status {
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
                let exporter = self.signal.exporter();
                format!("{} answers {status}: it takes no {what} there; {exporter}=none exports none", self.endpoint)
            }
            _ => format!("it answers {status}"),
        }
    }
}

/// What a collector says of what it did not take of a request. All three answers are of one form.
fn rejected(answer: &[u8]) -> Option<String> {
    let partial = ExportMetricsServiceResponse::decode(answer).ok()?.partial_success?;
    let count = partial.rejected_data_points;
    (count > 0).then(|| format!("it refuses {count} of them: {}", partial.error_message.escape_debug()))
}

fn zipped(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

/// An error with what caused it, and what to do about that.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    let advice = tls::advice(&text);
    text + advice
}

/// For exporters of a library, which sends and encodes by itself.
#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let way = self.0.clone();
        let sent = self.0.runtime.spawn(async move { way.send(request).await }).await;
        let result = sent.map_err(|error| error.to_string()).and_then(|sent| sent);
        self.0.health.note(match &result {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(self.0.explain(response.status())),
            Err(error) => Some(error.clone()),
        });
        result.map_err(HttpError::from)
    }
}
