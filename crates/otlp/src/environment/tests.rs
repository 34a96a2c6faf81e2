use super::*;

fn of(signal: Signal, variables: &[(&str, &str)]) -> Result<Option<Settings>, String> {
    let get = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
    read(signal, &get).map_err(|error| error.to_string())
}

fn settings(variables: &[(&str, &str)]) -> Settings {
    of(Signal::Metrics, variables).unwrap().unwrap()
}

const BASE: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");

#[test]
fn nothing_is_exported_without_an_endpoint_or_where_it_is_switched_off() {
    let is_off = |variables: &[_]| of(Signal::Metrics, variables).unwrap().is_none();
    assert!(is_off(&[]));
    // Others on the same host may need it: nothing is wrong with it here.
    assert!(is_off(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]));
    assert!(is_off(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:4318/v1/traces")]));
    assert!(is_off(&[BASE, ("OTEL_SDK_DISABLED", "TRUE")]));
    assert!(is_off(&[BASE, ("OTEL_METRICS_EXPORTER", "none")]));
    assert!(!is_off(&[BASE, ("OTEL_TRACES_EXPORTER", "none")]));
    // Neither is with what would only matter if there were TLS.
    assert!(!is_off(&[BASE, ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere")]));
}

#[test]
fn log_lines_are_exported_where_somebody_asks_for_it() {
    let of = |variables: &[_]| of(Signal::Logs, variables).unwrap();
    assert!(of(&[BASE]).is_none() && of(&[BASE, ("OTEL_LOGS_EXPORTER", "none")]).is_none());
    let asked = [BASE, ("OTEL_LOGS_EXPORTER", "otlp")];
    assert_eq!(of(&asked).unwrap().endpoint, "http://127.0.0.1:4318/v1/logs");
    assert_eq!(of(&asked).unwrap().every, LOGS_DELAY);
    let often = [&asked[..], &[("OTEL_BLRP_SCHEDULE_DELAY", "50")]].concat();
    assert_eq!(of(&often).unwrap().every, Duration::from_millis(50));
}

#[test]
fn that_of_the_signal_comes_first_and_is_taken_as_it_is() {
    let endpoint = |variables: &[_]| settings(variables).endpoint.to_string();
    assert_eq!(endpoint(&[BASE]), "http://127.0.0.1:4318/v1/metrics");
    assert_eq!(endpoint(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c:1/x/")]), "https://c:1/x/v1/metrics");
    assert_eq!(endpoint(&[BASE, ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://t:2/y")]), "http://t:2/y");
    let traces = of(Signal::Traces, &[BASE, ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://t:2/y")]);
    assert_eq!(traces.unwrap().unwrap().endpoint, "http://127.0.0.1:4318/v1/traces");
}

#[test]
fn times_headers_and_compression_are_read() {
    let default = settings(&[BASE]);
    assert_eq!((default.timeout, default.every), (TIMEOUT, METRICS_INTERVAL));
    assert!(default.headers.is_empty() && !default.is_gzipped);
    let own = settings(&[
        BASE,
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "500"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1500"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=b,c=d%20e"),
        ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "gzip"),
    ]);
    assert_eq!((own.timeout, own.every), (Duration::from_millis(500), Duration::from_millis(1500)));
    assert_eq!(
        (&own.headers["a"], &own.headers["c"], own.is_gzipped),
        (&"b".parse().unwrap(), &"d e".parse().unwrap(), true)
    );
}

#[test]
fn a_name_and_a_password_in_the_url_are_sent_as_a_header_and_shown_nowhere() {
    let own = settings(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:a%40b@c:4318")]);
    assert_eq!(own.endpoint, "http://c:4318/v1/metrics");
    assert_eq!(own.headers[AUTHORIZATION], "Basic bWU6YUBi");
}

#[test]
fn a_wrong_value_is_named_with_its_variable_and_what_to_give_instead() {
    for (variable, value, says) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4318", "such as http://127.0.0.1:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://c:4318", "such as http://127.0.0.1:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "://", "such as http://127.0.0.1:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "`http/protobuf`"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/json", "`http/protobuf`"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "`gzip` or `none`"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "milliseconds"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0", "milliseconds"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta", "`cumulative`"),
        ("OTEL_SDK_DISABLED", "yes", "`true` or `false`"),
        ("OTEL_METRICS_EXPORTER", "prometheus", "`otlp` or `none`"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a", "NAME=VALUE"),
    ] {
        let error = of(Signal::Metrics, &[(variable, value), BASE]).unwrap_err();
        assert!(error.starts_with(&format!("{variable}={value}")) && error.contains(says), "{error}");
    }
    let secret = of(Signal::Metrics, &[("OTEL_EXPORTER_OTLP_HEADERS", "ok=1,a secret"), BASE]).unwrap_err();
    assert!(secret.contains("entry 2") && !secret.contains("a secret"), "{secret}");
    let secret = of(Signal::Metrics, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "gopher://me:secret@c:4318")]).unwrap_err();
    assert!(secret.contains("=…@c:4318 cannot") && !secret.contains("secret@"), "{secret}");
}

#[test]
fn a_certificate_that_cannot_be_read_is_named_with_its_variable() {
    let secure = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c:4318");
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    for (variable, value, says) in [
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere", "PEM"),
        ("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", manifest, "there is no certificate (PEM) in this file"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", manifest, "or neither"),
    ] {
        let error = of(Signal::Metrics, &[(variable, value), secure]).unwrap_err();
        assert!(error.starts_with(&format!("{variable}={value}")) && error.contains(says), "{error}");
    }
}
