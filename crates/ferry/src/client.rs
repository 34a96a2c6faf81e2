//! A web-app as its local clients reach it: `/output` by HTTP, `/stream` by WebSocket.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ferry_text::Foreign;
use futures_util::{Sink, SinkExt as _, StreamExt as _};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::exit::Usage;

/// Results asked for at a time; the most that a web-app gives.
const PAGE: usize = 1000;
/// How long a web-app may take for an answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The base URL of a web-app.
#[derive(Debug, Clone)]
pub struct Base(Url);

impl FromStr for Base {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const HINT: &str = "give the web-app's base URL, such as http://127.0.0.1:8000";
        let mut url: Url = text.parse().map_err(|error| format!("{error}; {HINT}"))?;
        match url.scheme() {
            "http" => {}
            "https" => {
                return Err(format!("ferry speaks plain http to a web-app, on this machine or in its pod; {HINT}"));
            }
            _ => return Err(format!("it does not start with http://; {HINT}")),
        }
        if !url.has_host() || url.query().is_some() || url.fragment().is_some() {
            return Err(HINT.into());
        }
        // So that joining adds to the path and does not replace its end.
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(Self(url))
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl Base {
    pub(crate) fn join(&self, path: &str) -> anyhow::Result<Url> {
        self.0.join(path).with_context(|| format!("{self}/{path} is not a URL"))
    }
}

/// The header that presents a token.
pub struct Bearer(HeaderValue);

impl Bearer {
    /// Reads a token file, if there is one.
    pub fn read(file: Option<&Path>) -> anyhow::Result<Option<Self>> {
        let Some(file) = file else { return Ok(None) };
        let text = std::fs::read_to_string(file);
        let text = text.with_context(|| format!("cannot read the token file {}", file.display()))?;
        let value = HeaderValue::from_str(&format!("Bearer {}", text.trim_start_matches('\u{feff}').trim()));
        let value =
            value.map_err(|_| Usage(format!("{} is not a token file: its text fits no header", file.display())))?;
        Ok(Some(Self(value)))
    }

    /// The value of the header.
    pub fn value(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// A result, as `/output` and `/stream` show it.
#[derive(Debug, Clone, Deserialize)]
pub struct Arrival<P = Box<RawValue>> {
    /// The message's.
    pub id: String,
    /// What the receiving hook left of it.
    pub payload: P,
    /// Where the message was, oldest first.
    pub trail: Vec<Hop>,
}

/// A place on a message's way.
#[derive(Debug, Clone, Deserialize)]
pub struct Hop {
    /// The pod's name.
    pub pod: String,
    /// The name of the pod's cluster.
    pub cluster: String,
    /// When, in RFC 3339.
    pub at: String,
}

#[derive(Deserialize)]
struct Page {
    results: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// Reads a web-app's output, page by page.
pub struct OutputReader {
    http: reqwest::Client,
    base: Base,
    after: Option<String>,
    token: Option<Bearer>,
}

/// What a look at the output gave.
pub enum Read {
    /// Results, oldest first, as JSON; none when there are no more for now.
    Results(Vec<Box<RawValue>>),
    /// Results were dropped before they were read. The next look starts with the oldest that is kept.
    Missed,
}

/// Why a web-app could not be used.
#[derive(Debug)]
pub enum Failure {
    /// The web-app is away, or not ready. It may be back.
    Away(anyhow::Error),
    /// It will not be otherwise the next time.
    Final(anyhow::Error),
}

impl From<Failure> for anyhow::Error {
    fn from(error: Failure) -> Self {
        match error {
            Failure::Away(error) | Failure::Final(error) => error,
        }
    }
}

impl OutputReader {
    /// From the oldest result on, or from the one behind that with the id `after`.
    pub fn new(base: Base, after: Option<String>, token: Option<Bearer>) -> anyhow::Result<Self> {
        Ok(Self { http: http()?, base, after, token })
    }

    /// The id of the last result that was read.
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// Reads the next page.
    pub async fn next(&mut self) -> Result<Read, Failure> {
        let mut url = self.base.join("output").map_err(Failure::Final)?;
        url.query_pairs_mut().append_pair("limit", &PAGE.to_string());
        if let Some(after) = &self.after {
            url.query_pairs_mut().append_pair("after", after);
        }
        let away = |error: reqwest::Error| Failure::Away(unreachable(&self.base, &error.into()));
        let mut request = self.http.get(url);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.value());
        }
        let response = request.send().await.map_err(away)?;
        let status = response.status();
        if status == StatusCode::GONE {
            self.after = None;
            return Ok(Read::Missed);
        }
        let text = response.text().await.map_err(away)?;
        let what = || format!("cannot read {}/output", self.base);
        let page: Page = match decode(status, text).with_context(what) {
            Ok(page) => page,
            Err(error) if status.is_server_error() => return Err(Failure::Away(error)),
            Err(error) => return Err(Failure::Final(error)),
        };
        if let Some(last) = page.results.last() {
            #[derive(Deserialize)]
            struct Id {
                id: String,
            }
            let last = serde_json::from_str(last.get()).context("a result has no id");
            let Id { id } = last.map_err(Failure::Final)?;
            self.after = Some(id);
        }
        Ok(Read::Results(page.results))
    }
}

/// A web-app is on this machine or in its pod: no proxy is in between, and what takes long is stuck.
fn http() -> anyhow::Result<reqwest::Client> {
    let builder = reqwest::Client::builder().no_proxy().timeout(REQUEST_TIMEOUT);
    builder.build().context("cannot make an HTTP client")
}

/// The JSON at `url`.
pub async fn json_at<T: DeserializeOwned>(url: &str) -> anyhow::Result<T> {
    let read = async {
        let response = http()?.get(url).send().await?;
        let status = response.status();
        decode(status, response.text().await?)
    };
    read.await.with_context(|| format!("cannot read {url}"))
}

fn decode<T: DeserializeOwned>(status: StatusCode, text: String) -> anyhow::Result<T> {
    if !status.is_success() {
        let why = serde_json::from_str(&text).map_or(text, |Refusal { error }| error);
        bail!("answered {status}: {}", Foreign(&why));
    }
    serde_json::from_str(&text).context("the answer is not what ferry gives; is this a ferry web-app?")
}

/// What a web-app says on `/stream`.
#[derive(Debug)]
pub enum Notice {
    /// A trigger was stored, and has this id. In the order of the triggers.
    Accepted {
        /// Of the message.
        id: String,
    },
    /// The far side has a message.
    Delivered {
        /// Of the message.
        id: String,
    },
    /// The far side's hook kept refusing a message.
    Dead {
        /// Of the message.
        id: String,
        /// Why.
        error: String,
    },
    /// A trigger was refused.
    Refused {
        /// Why.
        error: String,
    },
    /// A message arrived from the far side.
    Arrived(Arrival),
    /// Messages from the far side were dropped before they could be shown.
    Missed,
}

/// The frame of a [`Notice`]: which fields it has tells what it is.
#[derive(Deserialize)]
struct NoticeFrame {
    id: Option<String>,
    delivered: Option<bool>,
    error: Option<String>,
    payload: Option<Box<RawValue>>,
    trail: Option<Vec<Hop>>,
    missed: Option<u64>,
}

impl Notice {
    fn decode(text: &str) -> anyhow::Result<Self> {
        let frame: NoticeFrame =
            serde_json::from_str(text).with_context(|| format!("not a notice: {}", Foreign(text)))?;
        Ok(match frame {
            NoticeFrame { id: Some(id), payload: Some(payload), trail: Some(trail), .. } => {
                Self::Arrived(Arrival { id, payload, trail })
            }
            NoticeFrame { id: Some(id), delivered: Some(true), .. } => Self::Delivered { id },
            NoticeFrame { id: Some(id), error: Some(error), .. } => Self::Dead { id, error },
            NoticeFrame { error: Some(error), .. } => Self::Refused { error },
            NoticeFrame { missed: Some(_), .. } => Self::Missed,
            NoticeFrame { id: Some(id), .. } => Self::Accepted { id },
            _ => bail!("not a notice: {}", Foreign(text)),
        })
    }
}

/// A WebSocket to `/stream`.
pub struct Stream(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// Triggers that are each known by their number, so that none is taken twice over however many connections.
pub struct Series<'a> {
    /// The name that the triggers' idempotency keys begin with.
    pub key: &'a str,
    /// The number of the first trigger on this connection.
    pub from: u64,
    /// The site that they are for, where the web-app has several.
    pub to: Option<&'a str>,
    /// For a web-app that asks for one.
    pub token: Option<&'a Bearer>,
}

impl Stream {
    /// Connects.
    pub async fn connect(base: &Base) -> anyhow::Result<Self> {
        Ok(Self::connect_to(base.join("stream")?, base, None).await?)
    }

    /// Connects to go on with a series.
    pub async fn connect_to_series(base: &Base, series: &Series<'_>) -> Result<Self, Failure> {
        let mut url = base.join("stream").map_err(Failure::Final)?;
        url.query_pairs_mut()
            .append_pair("key", series.key)
            .append_pair("from", &series.from.to_string())
            .extend_pairs(series.to.map(|site| ("to", site)));
        Self::connect_to(url, base, series.token).await
    }

    async fn connect_to(mut url: Url, base: &Base, token: Option<&Bearer>) -> Result<Self, Failure> {
        // http to ws is a change that every URL allows.
        let _ = url.set_scheme("ws");
        let config = WebSocketConfig::default();
        let request = url.as_str().into_client_request().context("the URL cannot be used");
        let mut request = request.map_err(Failure::Final)?;
        if let Some(token) = token {
            request.headers_mut().insert(AUTHORIZATION, token.value());
        }
        let connecting = tokio_tungstenite::connect_async_with_config(request, Some(config), true);
        let connected = tokio::time::timeout(REQUEST_TIMEOUT, connecting)
            .await
            .map_err(|_| Failure::Away(anyhow::anyhow!("{base} does not answer within {REQUEST_TIMEOUT:?}")))?;
        let (websocket, _) = connected.map_err(|error| match error {
            tungstenite::Error::Http(response) => {
                let status = response.status();
                let body = response.body().as_deref().unwrap_or_default();
                let why = serde_json::from_slice(body).map(|Refusal { error }| error);
                let why = why.unwrap_or_else(|_| "is this a ferry web-app?".into());
                let error = anyhow::anyhow!("{base}/stream answered {status}: {why}");
                if status.is_server_error() { Failure::Away(error) } else { Failure::Final(error) }
            }
            error => Failure::Away(unreachable(base, &error.into())),
        })?;
        Ok(Self(websocket))
    }

    /// Sends a trigger: one JSON object. Returns when it is on its way.
    pub async fn send(&mut self, payload: String) -> anyhow::Result<()> {
        self.0.send(Message::text(payload)).await.context("the web-app closed the connection")
    }

    /// The next notice, or `None` when the web-app has closed in good order. Cancel-safe.
    pub async fn next(&mut self) -> anyhow::Result<Option<Notice>> {
        next(&mut self.0).await
    }

    /// Halves, for sending and receiving at once.
    pub fn split(self) -> (impl Sink<Message, Error = tungstenite::Error>, Notices) {
        let (writer, reader) = self.0.split();
        (writer, Notices(reader))
    }
}

/// The receiving half of a [`Stream`].
pub struct Notices(futures_util::stream::SplitStream<WebSocketStream<MaybeTlsStream<TcpStream>>>);

impl Notices {
    /// As [`Stream::next`].
    pub async fn next(&mut self) -> anyhow::Result<Option<Notice>> {
        next(&mut self.0).await
    }
}

async fn next(
    frames: &mut (impl futures_util::Stream<Item = Result<Message, tungstenite::Error>> + Unpin),
) -> anyhow::Result<Option<Notice>> {
    loop {
        match frames.next().await {
            Some(Ok(Message::Text(text))) => return Notice::decode(&text).map(Some),
            Some(Ok(Message::Close(Some(close)))) if !close.reason.is_empty() => {
                bail!("the web-app closed the connection: {}", close.reason)
            }
            Some(Ok(Message::Close(_))) | None => return Ok(None),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error).context("the connection to the web-app was lost"),
        }
    }
}

fn unreachable(base: &Base, error: &anyhow::Error) -> anyhow::Error {
    anyhow::anyhow!("cannot reach {base}: {}; is the web-app running there?", error.root_cause())
}
