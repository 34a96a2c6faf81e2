//! Log lines over OTLP, exported by real processes to a stand-in for a collector.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Running, address, command, eventually, nobody, role};
use crate::traces::collector::{Collector, Line};
use crate::traces::{exporting, trigger};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn logging(command: &mut Command, collector: SocketAddr) -> &mut Command {
    exporting(command, collector).env("OTEL_LOGS_EXPORTER", "otlp").env("OTEL_BLRP_SCHEDULE_DELAY", "50")
}

/// A terminator, and an initiator behind it.
fn pair(mut with: impl FnMut(&mut Command) -> &mut Command) -> ((Running, Value), (Running, Value)) {
    let terminator = role(with(&mut command(&["terminator", "--listen", "127.0.0.1:0"])));
    let peer = format!("ws://{}/ws", address(&terminator.1, "listen"));
    let args = ["initiator", "--listen", "127.0.0.1:0", "--auto-trigger", "0", "--peer", &peer];
    let initiator = role(with(&mut command(&args)));
    (terminator, initiator)
}

/// What a line says, beyond its time.
fn said(line: &Line) -> BTreeMap<String, String> {
    let mut fields = line.attributes.clone();
    fields.insert("message".into(), line.message.clone());
    fields.insert("level".into(), line.level.clone());
    fields
}

/// The same of a line of JSON.
fn written(line: &str) -> Option<BTreeMap<String, String>> {
    let Value::Object(fields) = serde_json::from_str(line).ok()? else { return None };
    let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut fields: BTreeMap<_, _> = fields.into_iter().map(|(key, value)| (key, text(value))).collect();
    fields.remove("timestamp");
    Some(fields)
}

#[test]
fn a_collector_gets_the_lines_that_are_written_but_those_about_itself() {
    let collector = Collector::start();
    let (_terminator, (mut initiator, ready)) = pair(|command| logging(command, collector.address));
    trigger(address(&ready, "listen"), "");
    initiator.signal(Signal::TERM);
    let lines = initiator.rest();
    let is_own = |line: &BTreeMap<String, String>| line["target"].starts_with("ferry_otlp");
    let written: Vec<_> = lines.iter().filter_map(|line| written(line)).filter(|line| !is_own(line)).collect();
    assert!(written.len() > 1, "{lines:?}");
    let got: Vec<_> = collector.lines("ferry-initiator").iter().map(said).collect();
    // From the first on, and the last ones, too.
    assert!(got.iter().any(|line| line["message"] == "ready") && got.ends_with(&written), "{got:#?}\n{written:#?}");
    assert!(!got.iter().any(is_own), "{got:#?}");
}

#[test]
fn a_line_about_a_message_is_in_its_trace() {
    let collector = Collector::start();
    let (_terminator, (_initiator, ready)) = pair(|command| logging(command, collector.address));
    trigger(address(&ready, "listen"), &format!("traceparent: 00-{TRACE}-b7ad6b7169203331-01\r\n"));
    let line = eventually("the line of a message", || {
        collector.lines("ferry-terminator").into_iter().find(|line| line.message == "message received")
    });
    assert_eq!((&*line.trace, &*line.level), (TRACE, "INFO"));
    let span = collector.trace(TRACE, 4).into_iter().find(|span| span.name == "receive message").unwrap();
    assert_eq!(line.span, span.id);
}

/// A listener that takes connections and never answers is one, and an address that no one listens on the other.
#[test]
fn lines_wait_for_a_collector_that_is_away_and_nothing_waits_for_them() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for collector in [silent.local_addr().unwrap(), nobody()] {
        let (_terminator, (mut initiator, ready)) = pair(|command| {
            let none = [("OTEL_TRACES_EXPORTER", "none"), ("OTEL_METRICS_EXPORTER", "none")];
            logging(command, collector).envs(none).env("OTEL_EXPORTER_OTLP_TIMEOUT", "50")
        });
        initiator.line(|line| line.contains("log lines do not reach the collector"));
        (0..20).for_each(|_| _ = trigger(address(&ready, "listen"), ""));
        initiator.signal(Signal::TERM);
        let rest = initiator.rest();
        assert!(!rest.iter().any(|line| line.contains("do not reach the collector")), "{rest:#?}");
        assert_eq!(initiator.end().code(), Some(0));
    }
}
