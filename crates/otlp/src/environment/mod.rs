//! The environment variables of OpenTelemetry, as its specification has them, for each of the three signals.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use tracing::warn;

use crate::error::EnvironmentError;
use crate::tls::Trust;

/// What is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// What `/metrics` shows.
    Metrics,
    /// What is logged.
    Logs,
}

impl Signal {
    /// In messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "spans",
            Self::Metrics => "metrics",
            Self::Logs => "log lines",
        }
    }

    /// The variable that switches it off.
    pub(crate) fn exporter(self) -> String {
        format!("OTEL_{}_EXPORTER", self.variable())
    }

    /// In the names of variables.
    fn variable(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Metrics => "METRICS",
            Self::Logs => "LOGS",
        }
    }

    /// In the URL of a collector.
    fn path(self) -> &'static str {
        match self {
            Self::Traces => "v1/traces",
            Self::Metrics => "v1/metrics",
            Self::Logs => "v1/logs",
        }
    }
}

/// Where and how to export.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) endpoint: Uri,
    pub(crate) timeout: Duration,
    /// How often, unless a library sees to that.
    pub(crate) every: Duration,
    pub(crate) headers: HeaderMap,
    pub(crate) is_gzipped: bool,
    pub(crate) trust: Trust,
}

/// What the specification has where nothing is said.
const TIMEOUT: Duration = Duration::from_secs(10);
const METRICS_INTERVAL: Duration = Duration::from_secs(60);
const LOGS_DELAY: Duration = Duration::from_secs(1);

/// A variable of this process; an empty value is as good as none.
pub fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok()?;
    Some(value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// Reads them for a signal. `None` if it is not to be exported.
pub(crate) fn read(signal: Signal, get: &dyn Fn(&str) -> Option<String>) -> Result<Option<Settings>, EnvironmentError> {
    let exporter = signal.exporter();
    // The log of a container is often read already: lines are exported where somebody asks for it.
    if signal == Signal::Logs && get(&exporter).is_none() {
        return Ok(None);
    }
    let Some((from, base, endpoint)) = endpoint(signal, get) else { return Ok(None) };
    match get("OTEL_SDK_DISABLED").as_deref().map(str::to_ascii_lowercase).as_deref() {
        None | Some("false") => {}
        Some("true") => return Ok(None),
        Some(other) => return Err(EnvironmentError::new("OTEL_SDK_DISABLED", other, "give `true` or `false`")),
    }
    match get(&exporter).as_deref() {
        None | Some("otlp") => {}
        Some("none") => return Ok(None),
        Some(other) => return Err(EnvironmentError::new(&exporter, other, "give `otlp` or `none`")),
    }
    // That of the signal comes first.
    let either = |name: &str| {
        let (own, all) =
            (format!("OTEL_EXPORTER_OTLP_{}_{name}", signal.variable()), format!("OTEL_EXPORTER_OTLP_{name}"));
        get(&own).map(|value| (own, value)).or_else(|| Some((all.clone(), get(&all)?)))
    };
    let (endpoint, authorization) = address(&from, &base, &endpoint)?;
    if let Some((name, protocol)) = either("PROTOCOL")
        && protocol != "http/protobuf"
    {
        let problem = "give `http/protobuf`, which collectors take at port 4318";
        return Err(EnvironmentError::new(&name, &protocol, problem));
    }
    let is_gzipped = match either("COMPRESSION") {
        None => false,
        Some((_, value)) if value == "none" => false,
        Some((_, value)) if value == "gzip" => true,
        Some((name, value)) => return Err(EnvironmentError::new(&name, &value, "give `gzip` or `none`")),
    };
    let mut headers = HeaderMap::new();
    headers.extend(authorization.map(|value| (AUTHORIZATION, value)));
    if let Some((name, list)) = either("HEADERS") {
        for (at, entry) in entries(&list).enumerate() {
            // A header is likely to be a secret.
            let problem = || format!("entry {} is not NAME=VALUE, as in api-key=abc,other=def", at + 1);
            let (header, value) = header(entry).ok_or_else(|| EnvironmentError::new(&name, "…", problem()))?;
            headers.insert(header, value);
        }
    }
    if let Some(attributes) = get("OTEL_RESOURCE_ATTRIBUTES")
        && entries(&attributes).any(|entry| entry.split_once('=').is_none_or(|(name, _)| name.trim().is_empty()))
    {
        let problem = "give NAME=VALUE, several with commas between them";
        return Err(EnvironmentError::new("OTEL_RESOURCE_ATTRIBUTES", &attributes, problem));
    }
    let timeout = match either("TIMEOUT") {
        None => TIMEOUT,
        Some((name, value)) => milliseconds(&name, &value)?,
    };
    let every = match signal {
        Signal::Traces => Duration::ZERO,
        Signal::Metrics => metrics_interval(get)?,
        Signal::Logs => {
            let delay = "OTEL_BLRP_SCHEDULE_DELAY";
            get(delay).map_or(Ok(LOGS_DELAY), |value| milliseconds(delay, &value))?
        }
    };
    let trust = match endpoint.scheme_str() {
        Some("https") => Trust::read(&either)?,
        // Certificates may be there for others on this host.
        _ => Trust::Nobody,
    };
    Ok(Some(Settings { endpoint, timeout, every, headers, is_gzipped, trust }))
}

/// How often metrics are exported.
fn metrics_interval(get: &dyn Fn(&str) -> Option<String>) -> Result<Duration, EnvironmentError> {
    let temporality = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    match get(temporality) {
        Some(value) if !value.eq_ignore_ascii_case("cumulative") => {
            return Err(EnvironmentError::new(temporality, &value, "give `cumulative`, or let the collector convert"));
        }
        _ => {}
    }
    let interval = "OTEL_METRIC_EXPORT_INTERVAL";
    get(interval).map_or(Ok(METRICS_INTERVAL), |value| milliseconds(interval, &value))
}

/// Whether somebody has given this process a name.
pub(crate) fn is_named(get: &dyn Fn(&str) -> Option<String>) -> bool {
    let named_by = |attributes: String| entries(&attributes).any(|entry| entry.trim().starts_with("service.name="));
    get("OTEL_SERVICE_NAME").is_some() || get("OTEL_RESOURCE_ATTRIBUTES").is_some_and(named_by)
}

fn milliseconds(name: &str, value: &str) -> Result<Duration, EnvironmentError> {
    match value.parse() {
        Ok(millis @ 1..) => Ok(Duration::from_millis(millis)),
        _ => Err(EnvironmentError::new(name, value, "give milliseconds, such as 10000")),
    }
}

/// Which variable says where a signal goes, what it says, and where that is.
fn endpoint(signal: Signal, get: &dyn Fn(&str) -> Option<String>) -> Option<(String, String, String)> {
    let own = format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", signal.variable());
    if let Some(endpoint) = get(&own) {
        return Some((own, endpoint.clone(), endpoint));
    }
    let all = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let base = get(all)?;
    let endpoint = format!("{}/{}", base.trim_end_matches('/'), signal.path());
    Some((all.to_owned(), base, endpoint))
}

/// The URL without a name and password in front of the host, and these as a header.
fn address(from: &str, base: &str, endpoint: &str) -> Result<(Uri, Option<HeaderValue>), EnvironmentError> {
    let shown = base.rsplit_once('@').map_or(base.to_owned(), |(_, rest)| format!("…@{rest}"));
    let wrong = || EnvironmentError::new(from, &shown, "give a URL such as http://127.0.0.1:4318");
    let uri: Uri = endpoint.parse().map_err(|_| wrong())?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
        return Err(wrong());
    }
    let authority = uri.authority().ok_or_else(wrong)?;
    let Some((user, host)) = authority.as_str().rsplit_once('@') else { return Ok((uri, None)) };
    let (user, host) = (percent_decode_str(user).collect::<Vec<_>>(), host.parse().map_err(|_| wrong())?);
    let authorization = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(user))).map_err(|_| wrong())?;
    let mut parts = uri.into_parts();
    parts.authority = Some(host);
    Ok((Uri::from_parts(parts).map_err(|_| wrong())?, Some(authorization)))
}

fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.split_terminator(',').filter(|entry| !entry.trim().is_empty())
}

fn header(entry: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = entry.split_once('=')?;
    let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
    let mut value = HeaderValue::try_from(&*value).ok()?;
    value.set_sensitive(true);
    Some((HeaderName::try_from(name.trim()).ok()?, value))
}

/// Says that a signal is not exported.
pub(crate) fn warn_of(signal: Signal, error: &str) {
    warn!("{} are not exported: {error}", signal.as_str());
}

#[cfg(test)]
mod tests;
