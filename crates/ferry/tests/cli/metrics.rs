//! Metrics over OTLP, exported by real processes to a stand-in for a collector.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use rustix::process::Signal;

use crate::support::{Running, address, command, eventually, http_get, keygen, role};
use crate::traces::collector::{Collector, attributes};
use crate::traces::{exporting, trigger};

/// Values of samples, by their names with their labels.
type Samples = BTreeMap<String, f64>;

/// What the text of `/metrics` says.
fn scraped(text: &str) -> Samples {
    let samples = text.lines().filter(|line| line.starts_with("ferry_"));
    samples
        .map(|line| {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
            let labels: BTreeSet<_> =
                labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()).collect();
            (named(name, labels), value.parse().unwrap())
        })
        .collect()
}

fn named<S: AsRef<str> + Ord>(name: &str, labels: BTreeSet<S>) -> String {
    labels.iter().fold(name.to_owned(), |name, label| format!("{name} {}", label.as_ref()))
}

/// What a process exported, as Prometheus would show it.
fn exported(of: &ResourceMetrics) -> Samples {
    let mut samples = Samples::new();
    for metric in &of.scope_metrics[0].metrics {
        let name = |suffix: &str, labels: &BTreeMap<String, String>| {
            let labels = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
            named(&format!("{}{suffix}", metric.name), labels)
        };
        let points = match metric.data.as_ref().unwrap() {
            Data::Sum(sum) => {
                assert!(sum.is_monotonic && metric.name.ends_with("_total"), "{metric:?}");
                &sum.data_points
            }
            Data::Gauge(gauge) => &gauge.data_points,
            Data::Histogram(histogram) => {
                for point in &histogram.data_points {
                    let mut labels = attributes(&point.attributes);
                    samples.insert(name("_sum", &labels), point.sum.unwrap());
                    samples.insert(name("_count", &labels), point.count as f64);
                    let mut below = 0;
                    let bounds = point.explicit_bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
                    for (bound, count) in bounds.zip(&point.bucket_counts) {
                        below += count;
                        // As the text has it.
                        let bound = if bound.contains(['.', '+']) { bound } else { format!("{bound}.0") };
                        labels.insert("le".to_owned(), bound);
                        samples.insert(name("_bucket", &labels), below as f64);
                    }
                }
                continue;
            }
            other => panic!("{other:?}"),
        };
        for point in points {
            assert!(point.time_unix_nano > point.start_time_unix_nano, "{point:?}");
            let value = match point.value.unwrap() {
                Number::AsInt(value) => value as f64,
                Number::AsDouble(value) => value,
            };
            samples.insert(name("", &attributes(&point.attributes)), value);
        }
    }
    samples
}

/// The last that a service has exported.
fn last(collector: &Collector, service: &str) -> Option<Samples> {
    let is_its =
        |of: &&ResourceMetrics| attributes(&of.resource.as_ref().unwrap().attributes)["service.name"] == service;
    collector.metrics().iter().rfind(is_its).map(exported)
}

/// A terminator, an initiator behind it that has sent a message, and a tunnel that has tried to reach a peer in vain, each
/// with the address of its `/metrics`.
struct Roles {
    each: [(&'static str, Running, SocketAddr); 3],
    _dir: tempfile::TempDir,
}

impl Roles {
    fn start(mut exporting: impl FnMut(&mut Command) -> &mut Command) -> Self {
        let (terminator, ready) = role(exporting(&mut command(&["terminator", "--listen", "127.0.0.1:0"])));
        let far = address(&ready, "listen");
        let peer = format!("ws://{far}/ws");
        let args = ["initiator", "--listen", "127.0.0.1:0", "--auto-trigger", "0", "--peer", &peer];
        let (initiator, ready) = role(exporting(&mut command(&args)));
        let near = address(&ready, "listen");
        trigger(near, "");
        let dir = tempfile::tempdir().unwrap();
        keygen(&dir.path().join("key"));
        let key = keygen(&dir.path().join("there.key"));
        let text = format!(
            "name: here\nidentity: key\nadmin: 127.0.0.1:0\npeers: [{{name: there, keys: [\"{key}\"], addresses: [\"{}\"]}}]\n\
             egress: [{{listen: \"127.0.0.1:0\", peer: there, service: app}}]\n",
            crate::support::nobody(),
        );
        let config = dir.path().join("tunnel.yaml");
        fs::write(&config, text).unwrap();
        let (tunnel, ready) = role(exporting(command(&["tunnel", "--config"]).arg(&config)));
        let admin = address(&ready, "admin");
        let each = [
            ("ferry-terminator", terminator, far),
            ("ferry-initiator", initiator, near),
            ("ferry-tunnel", tunnel, admin),
        ];
        Self { each, _dir: dir }
    }
}

#[test]
fn what_a_collector_gets_is_what_metrics_shows() {
    let collector = Collector::start();
    let roles = Roles::start(|command| exporting(command, collector.address).env("OTEL_METRIC_EXPORT_INTERVAL", "100"));
    for (service, _, admin) in &roles.each {
        let shown = eventually(&format!("the metrics of {service}"), || {
            let shown = scraped(&http_get(*admin, "/metrics"));
            (last(&collector, service)? == shown).then_some(shown)
        });
        assert!(shown.len() > 15, "{shown:?}");
    }
    let of = |service, name: &str| last(&collector, service).unwrap()[name];
    assert_eq!(of("ferry-initiator", "ferry_app_delivery_seconds_count"), 1.0);
    assert_eq!(of("ferry-terminator", "ferry_app_received_messages_total"), 1.0);
}

#[test]
fn what_is_counted_last_is_exported_at_the_end() {
    let collector = Collector::start();
    // An interval that this test does not live to see.
    let every = "3600000";
    let gzip = ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip");
    let roles = Roles::start(|command| {
        exporting(command, collector.address).env("OTEL_METRIC_EXPORT_INTERVAL", every).envs([gzip])
    });
    for (service, mut running, _) in roles.each {
        assert!(last(&collector, service).is_none());
        running.signal(Signal::TERM);
        running.end();
        assert!(last(&collector, service).unwrap().len() > 15);
    }
    assert_eq!(last(&collector, "ferry-initiator").unwrap()["ferry_app_delivered_messages_total"], 1.0);
}

/// A certificate for `localhost` that nobody vouches for, and its key.
fn certificate(dir: &Path) -> Option<(PathBuf, PathBuf)> {
    let (certificate, key) = (dir.join("cert.pem"), dir.join("cert.key"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    openssl.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"]).arg(&key).arg("-out").arg(&certificate);
    let is_made = openssl.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !is_made {
        println!("left out: no openssl on PATH");
    }
    is_made.then_some((certificate, key))
}

#[test]
fn a_collector_behind_tls_is_believed_by_its_certificate_alone() {
    let dir = tempfile::tempdir().unwrap();
    let Some((certificate, key)) = certificate(dir.path()) else { return };
    let collector = Collector::start_secure(&certificate, &key);
    let endpoint = format!("https://localhost:{}", collector.address.port());
    let terminator = |by: &[(&str, &Path)]| {
        let mut terminator = command(&["terminator", "--listen", "127.0.0.1:0"]);
        exporting(&mut terminator, collector.address).env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint);
        role(terminator.env("OTEL_METRIC_EXPORT_INTERVAL", "100").envs(by.iter().copied()))
    };
    let (mut unsure, _) = terminator(&[]);
    let warning = unsure.line(|line| line.contains("do not reach the collector"));
    assert!(warning.contains("OTEL_EXPORTER_OTLP_CERTIFICATE"), "{warning}");
    assert!(last(&collector, "ferry-terminator").is_none());
    drop(unsure);

    let (_sure, ready) = terminator(&[("OTEL_EXPORTER_OTLP_CERTIFICATE", &certificate)]);
    eventually("metrics over TLS", || {
        (last(&collector, "ferry-terminator")? == scraped(&http_get(address(&ready, "listen"), "/metrics")))
            .then_some(())
    });
}
