//! The environment variables of OpenTelemetry, as its specification has them.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};

use crate::sampling::Sampling;

/// What a variable says that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable}={value} cannot be used: {problem}")]
pub struct EnvironmentError {
    variable: String,
    value: String,
    problem: String,
}

/// Where and what to export. Headers, compression and attributes of the resource are read by the library; here they are
/// only checked, as it leaves out what it cannot use.
#[derive(Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) endpoint: String,
    pub(crate) timeout: Duration,
    pub(crate) sampling: Sampling,
    /// Somebody has given this process a name.
    pub(crate) is_named: bool,
}

/// What the specification has where nothing is said.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Reads them. `None` if nothing is to be exported.
pub(crate) fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Settings>, EnvironmentError> {
    // An empty value is as good as none.
    let get = |name: &str| variable(name).filter(|value| !value.trim().is_empty()).map(|value| value.trim().to_owned());
    let Some((from, shown, endpoint)) = endpoint(get) else { return Ok(None) };
    let wrong = |name: &str, value: &str, problem: &str| EnvironmentError {
        variable: name.to_owned(),
        value: value.to_owned(),
        problem: problem.to_owned(),
    };
    // That of the signal comes first.
    let either = |of_traces: &'static str, of_all: &'static str| {
        get(of_traces).map(|value| (of_traces, value)).or_else(|| Some((of_all, get(of_all)?)))
    };
    match get("OTEL_SDK_DISABLED").as_deref().map(str::to_ascii_lowercase).as_deref() {
        None | Some("false") => {}
        Some("true") => return Ok(None),
        Some(other) => return Err(wrong("OTEL_SDK_DISABLED", other, "give `true` or `false`")),
    }
    match get("OTEL_TRACES_EXPORTER").as_deref() {
        None | Some("otlp") => {}
        Some("none") => return Ok(None),
        Some(other) => return Err(wrong("OTEL_TRACES_EXPORTER", other, "give `otlp` or `none`")),
    }
    // A password may be in front of the host.
    let shown = shown.rsplit_once('@').map_or(shown.clone(), |(_, rest)| format!("…@{rest}"));
    let uri: Uri = endpoint.parse().map_err(|_| wrong(from, &shown, "give a URL such as http://127.0.0.1:4318"))?;
    match uri.scheme_str() {
        Some("http") if uri.host().is_some_and(|host| !host.is_empty()) => {}
        Some("https") => {
            let problem =
                "spans go out over http:// only; run a collector on this host or in this cluster, which has TLS";
            return Err(wrong(from, &shown, problem));
        }
        _ => return Err(wrong(from, &shown, "give a URL such as http://127.0.0.1:4318")),
    }
    if let Some((name, protocol)) = either("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
        && protocol != "http/protobuf"
    {
        return Err(wrong(name, &protocol, "give `http/protobuf`, which collectors take at port 4318"));
    }
    if let Some((name, value)) = either("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION")
        && !matches!(value.as_str(), "gzip" | "none")
    {
        return Err(wrong(name, &value, "give `gzip` or `none`"));
    }
    if let Some((name, headers)) = either("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
        && let Some(entry) = entries(&headers).position(|entry| !is_header(entry))
    {
        // A header is likely to be a secret.
        let problem = format!("entry {} is not NAME=VALUE, as in api-key=abc,other=def", entry + 1);
        return Err(wrong(name, "…", &problem));
    }
    if let Some(attributes) = get("OTEL_RESOURCE_ATTRIBUTES")
        && entries(&attributes).any(|entry| entry.split_once('=').is_none_or(|(name, _)| name.trim().is_empty()))
    {
        let problem = "give NAME=VALUE, several with commas between them";
        return Err(wrong("OTEL_RESOURCE_ATTRIBUTES", &attributes, problem));
    }
    let timeout = match either("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT") {
        None => TIMEOUT,
        Some((name, value)) => match value.parse() {
            Ok(millis @ 1..) => Duration::from_millis(millis),
            _ => return Err(wrong(name, &value, "give milliseconds, such as 10000")),
        },
    };
    let named_by = |attributes: String| entries(&attributes).any(|entry| entry.trim().starts_with("service.name="));
    let is_named = get("OTEL_SERVICE_NAME").is_some() || get("OTEL_RESOURCE_ATTRIBUTES").is_some_and(named_by);
    Ok(Some(Settings { endpoint, timeout, sampling: sampling(get, wrong)?, is_named }))
}

/// Which variable says where traces go, what it says, and where that is.
fn endpoint(get: impl Fn(&str) -> Option<String>) -> Option<(&'static str, String, String)> {
    let of_traces = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    if let Some(endpoint) = get(of_traces) {
        return Some((of_traces, endpoint.clone(), endpoint));
    }
    let of_all = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let base = get(of_all)?;
    let endpoint = format!("{}/v1/traces", base.trim_end_matches('/'));
    Some((of_all, base, endpoint))
}

fn sampling(
    get: impl Fn(&str) -> Option<String>,
    wrong: impl Fn(&str, &str, &str) -> EnvironmentError,
) -> Result<Sampling, EnvironmentError> {
    let (name, argument) = ("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG");
    let sampler = get(name).unwrap_or_else(|| "parentbased_always_on".into());
    let (follows_parent, root) = match sampler.strip_prefix("parentbased_") {
        Some(root) => (true, root),
        None => (false, sampler.as_str()),
    };
    let ratio = match root {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => match get(argument) {
            None => 1.0,
            Some(text) => match text.parse() {
                Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
                _ => return Err(wrong(argument, &text, "give a share from 0 to 1, such as 0.1")),
            },
        },
        _ => {
            let known = "give `always_on`, `always_off` or `traceidratio`, with or without `parentbased_` in front";
            return Err(wrong(name, &sampler, known));
        }
    };
    Ok(Sampling { follows_parent, ratio })
}

fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.split_terminator(',').filter(|entry| !entry.trim().is_empty())
}

fn is_header(entry: &str) -> bool {
    let Some((name, value)) = entry.split_once('=') else { return false };
    HeaderName::try_from(name.trim()).is_ok() && HeaderValue::try_from(value.trim()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Option<Settings>, String> {
        let get = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        read(get).map_err(|error| error.to_string())
    }

    const BASE: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");

    #[test]
    fn nothing_is_exported_without_an_endpoint_or_where_it_is_switched_off() {
        assert_eq!(of(&[]), Ok(None));
        // Others on the same host may need it: nothing is wrong with it here.
        assert_eq!(of(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]), Ok(None));
        assert_eq!(of(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), Ok(None));
        assert_eq!(of(&[BASE, ("OTEL_SDK_DISABLED", "TRUE")]), Ok(None));
        assert_eq!(of(&[BASE, ("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
    }

    #[test]
    fn that_of_traces_comes_first_and_is_taken_as_it_is() {
        let endpoint = |variables: &[_]| of(variables).unwrap().unwrap().endpoint;
        assert_eq!(endpoint(&[BASE]), "http://127.0.0.1:4318/v1/traces");
        assert_eq!(endpoint(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1/x/")]), "http://c:1/x/v1/traces");
        assert_eq!(endpoint(&[BASE, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:2/y")]), "http://t:2/y");
    }

    #[test]
    fn samplers_names_and_times_are_read() {
        let settings = |variables: &[_]| of(&[&[BASE], variables].concat()).unwrap().unwrap();
        let default = settings(&[]);
        assert_eq!((default.sampling, default.is_named), (Sampling { follows_parent: true, ratio: 1.0 }, false));
        assert_eq!(default.timeout, TIMEOUT);
        let sampler = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.25")];
        assert_eq!(settings(&sampler).sampling, Sampling { follows_parent: false, ratio: 0.25 });
        assert!(settings(&[("OTEL_SERVICE_NAME", "x")]).is_named);
        assert!(settings(&[("OTEL_RESOURCE_ATTRIBUTES", "a=b, service.name=x")]).is_named);
        assert_eq!(settings(&[("OTEL_EXPORTER_OTLP_TIMEOUT", "500")]).timeout, Duration::from_millis(500));
        assert!(of(&[BASE, ("OTEL_EXPORTER_OTLP_HEADERS", "a=b,c=d%20e")]).is_ok());
    }

    #[test]
    fn a_wrong_value_is_named_with_its_variable_and_what_to_give_instead() {
        for (variable, value, says) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c:4318", "http:// only"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4318", "such as http://127.0.0.1:4318"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "://", "such as http://127.0.0.1:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "`http/protobuf`"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "`http/protobuf`"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "`gzip` or `none`"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "milliseconds"),
            ("OTEL_TRACES_SAMPLER", "sometimes", "`traceidratio`"),
            ("OTEL_SDK_DISABLED", "yes", "`true` or `false`"),
            ("OTEL_TRACES_EXPORTER", "jaeger", "`otlp` or `none`"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a", "NAME=VALUE"),
        ] {
            let error = of(&[(variable, value), BASE]).unwrap_err();
            assert!(error.starts_with(&format!("{variable}={value}")) && error.contains(says), "{error}");
        }
        let share = [("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "2"), BASE];
        assert!(of(&share).unwrap_err().starts_with("OTEL_TRACES_SAMPLER_ARG=2"));
        let secret = of(&[("OTEL_EXPORTER_OTLP_HEADERS", "ok=1,a secret"), BASE]).unwrap_err();
        assert!(secret.contains("entry 2") && !secret.contains("a secret"), "{secret}");
        let secret = of(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://me:secret@c:4318")]).unwrap_err();
        assert!(secret.contains("=…@c:4318 cannot") && !secret.contains("secret@"), "{secret}");
    }
}
