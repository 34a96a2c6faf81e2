//! Traces of messages and sessions, exported by real processes to a stand-in for a collector.

pub(crate) mod collector;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use ferry_relay::{Cut, Relay};
use rustix::process::Signal;
use tokio::runtime::Runtime;

use crate::support::{Running, address, command, eventually, keygen, nobody, role};
use collector::{Collector, Span, shape, tree};

const MANUAL: &str = include_str!("../../../../../docs/observability.md");

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// Hooks that need no more than the standard library, and reply.
const HOOKS: &str = "
def on_trigger(payload, headers):
    return {**payload, 'trigger': headers.get('traceparent')}

def on_receive_terminator(payload, headers):
    return {**payload, 'terminator': headers}

def on_receive_initiator(payload, headers):
    print(headers)
";

/// Exports to this address, each span within a tenth of a second.
pub(crate) fn exporting(command: &mut Command, collector: SocketAddr) -> &mut Command {
    command
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}"))
        .env("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20secret")
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
}

/// Two web-apps with a tunnel next to each, and what is between the tunnels.
struct Pair {
    initiator: (Running, SocketAddr),
    near: Running,
    relay: Relay,
    _far: Running,
    _terminator: Running,
    _dir: tempfile::TempDir,
}

impl Pair {
    fn start(runtime: &Runtime, collector: SocketAddr) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let keys = ["near", "far"].map(|name| keygen(&at(&format!("{name}.key"))));
        fs::write(at("app.py"), HOOKS).unwrap();
        let logs = [("OTEL_LOGS_EXPORTER", "otlp"), ("FERRY_LOG", "info,ferry_tunnel=debug")];
        let started = |args: &[&str], file: &Path| role(exporting(command(args).arg(file), collector).envs(logs));
        let (terminator, ready) = started(&["terminator", "--listen", "127.0.0.1:0", "--hooks"], &at("app.py"));
        let text = format!(
            "name: far\nidentity: far.key\nlisten: 127.0.0.1:0\npeers: [{{name: near, keys: [\"{}\"]}}]\n\
             ingress: [{{service: app, forward: \"{}\", allow: [near], proxy_protocol: v2}}]\n",
            keys[0],
            address(&ready, "listen"),
        );
        fs::write(at("far.yaml"), text).unwrap();
        let (far, ready) = started(&["tunnel", "--config"], &at("far.yaml"));
        let link = address(&ready, "listen");
        let relay = runtime.block_on(async { Relay::start("127.0.0.1:0".parse().unwrap(), link).unwrap() });
        let text = format!(
            "name: near\nidentity: near.key\npeers: [{{name: far, keys: [\"{}\"], addresses: [\"{}\"]}}]\n\
             egress: [{{listen: \"127.0.0.1:0\", peer: far, service: app}}]\n",
            keys[1],
            relay.addr(),
        );
        fs::write(at("near.yaml"), text).unwrap();
        let (near, ready) = started(&["tunnel", "--config"], &at("near.yaml"));
        let peer = format!("ws://{}/ws", address(&ready, "egress"));
        let args = ["initiator", "--listen", "127.0.0.1:0", "--auto-trigger", "0", "--peer", &peer, "--hooks"];
        let (initiator, ready) = started(&args, &at("app.py"));
        let initiator = (initiator, address(&ready, "listen"));
        Self { initiator, near, relay, _far: far, _terminator: terminator, _dir: dir }
    }
}

/// `POST /trigger` with these headers, and the answer.
pub(crate) fn trigger(web_app: SocketAddr, headers: &str) -> String {
    let mut socket = TcpStream::connect(web_app).unwrap();
    let body = r#"{"n":1}"#;
    write!(
        socket,
        "POST /trigger?wait=60s HTTP/1.1\r\nhost: {web_app}\r\ncontent-type: application/json\r\n{headers}\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

fn has_python() -> bool {
    let found = Command::new("python3").arg("--version").output().is_ok_and(|run| run.status.success());
    if !found {
        println!("left out: no python3 on PATH");
    }
    found
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name} in {spans:#?}"))
}

#[test]
fn one_trace_follows_a_message_to_the_far_hook_and_back_with_its_reply() {
    if !has_python() {
        return;
    }
    let collector = Collector::start();
    let runtime = Runtime::new().unwrap();
    let pair = Pair::start(&runtime, collector.address);
    let headers = format!("traceparent: 00-{TRACE}-{CALLER}-01\r\ntracestate: a=1\r\nbaggage: user=7\r\n");
    let answer = trigger(pair.initiator.1, &headers);
    let spans = collector.trace(TRACE, 8);
    let drawn = tree(&spans);
    println!("{drawn}");
    assert!(shape(MANUAL).contains(&shape(&drawn)), "docs/observability.md does not have this tree:\n{drawn}");

    let request = named(&spans, "POST /trigger");
    assert_eq!((request.parent.as_str(), &*request.attributes["http.response.status_code"]), (CALLER, "200"));
    assert!(spans.iter().all(|span| !span.failed), "{spans:#?}");
    // Where in the tunnels it was: the trace of a session has the id of the session.
    let received = named(&spans, "receive message");
    assert_eq!(received.links[0].0, received.attributes["ferry.session"]);
    // Each message's spans have its id.
    let sent = named(&spans, "send message");
    assert_eq!(sent.attributes["ferry.message.id"], received.attributes["ferry.message.id"]);
    assert!(answer.contains(&sent.attributes["ferry.message.id"]));
    assert!(sent.start <= received.start, "{sent:?} {received:?}");
    // A hook has the place of its own span, so that what it calls continues there.
    let hook = named(&spans, "on_receive_terminator");
    assert!(received.start <= hook.start && hook.end <= received.end, "{received:?} {hook:?}");
    assert!(answer.contains(&format!("00-{TRACE}-{}-01", hook.id)), "{answer}");
    assert!(answer.contains(&format!("00-{TRACE}-{}-01", named(&spans, "on_trigger").id)), "{answer}");
    assert!(answer.contains(r#""tracestate":"a=1""#) && answer.contains(r#""baggage":"user=7""#), "{answer}");
}

#[test]
fn the_trace_of_a_session_has_its_id_and_is_one_for_both_tunnels() {
    if !has_python() {
        return;
    }
    let collector = Collector::start();
    let runtime = Runtime::new().unwrap();
    let pair = Pair::start(&runtime, collector.address);
    trigger(pair.initiator.1, "");
    let received =
        eventually("a message", || collector.spans().into_iter().find(|span| span.name == "receive message"));
    let (session, first) = &received.links[0];
    // What the message's span is linked to is where both tunnels are.
    let spans = collector.trace(session, 2);
    let (open, accept) = (named(&spans, "open session"), named(&spans, "accept session"));
    assert_eq!((&open.id, open.parent.as_str(), &accept.parent), (first, "", first));
    assert_eq!((&open.attributes["ferry.session"], &*open.attributes["ferry.service"]), (session, "app"));

    // So is what both of them log of it.
    eventually("lines of both", || {
        let lines = collector.lines("ferry-tunnel");
        let is_of = |end: &str| lines.iter().any(|line| line.tunnel.as_deref() == Some(end) && line.trace == *session);
        (is_of("near") && is_of("far")).then_some(())
    });

    pair.near.signal(Signal::USR1);
    collector.trace(session, 4);
    pair.relay.cut(Cut::Rst);
    collector.trace(session, 6);
    drop(pair.initiator);
    let spans = collector.trace(session, 8);
    println!("{}", tree(&spans));
    assert!(spans.iter().all(|span| span.parent == *first || span.id == *first), "{spans:#?}");
    for tunnel in ["near", "far"] {
        let own = spans.iter().filter(|span| span.resource["ferry.name"] == tunnel);
        let mut names: Vec<_> = own.map(|span| span.name.as_str()).collect();
        names.sort_unstable();
        let begins = if tunnel == "near" { "open session" } else { "accept session" };
        let mut expected = [begins, "end session", "resume session", "rotate session"];
        expected.sort_unstable();
        assert_eq!(names, expected, "{tunnel}");
    }
    let dials: Vec<_> = collector.spans().into_iter().filter(|span| span.name == "dial" && !span.failed).collect();
    assert!(dials.iter().all(|dial| dial.parent.is_empty() && dial.attributes["ferry.peer"] == "far"), "{dials:#?}");
    assert!(!dials.is_empty());
}

#[test]
fn a_message_without_a_trace_begins_one_and_a_process_says_who_it_is() {
    let collector = Collector::start();
    let args = ["terminator", "--listen", "127.0.0.1:0", "--pod", "pod-7", "--cluster", "b"];
    let mut terminator = command(&args);
    exporting(&mut terminator, collector.address).env("OTEL_RESOURCE_ATTRIBUTES", "service.name=mine,team=blue");
    let (_terminator, ready) = role(&mut terminator);
    let mut initiator = command(&["initiator", "--listen", "127.0.0.1:0", "--auto-trigger", "0", "--peer"]);
    let peer = format!("ws://{}/ws", address(&ready, "listen"));
    let (_initiator, ready) = role(exporting(initiator.arg(peer), collector.address));
    trigger(address(&ready, "listen"), "");
    let all = eventually("all spans", || Some(collector.spans()).filter(|spans| spans.len() >= 5));
    assert!(all.iter().all(|span| span.trace == all[0].trace), "{all:#?}");
    assert_eq!(named(&all, "POST /trigger").parent, "");
    assert_eq!(named(&all, "receive message").service, "mine");
    assert_eq!(named(&all, "receive message").resource["ferry.pod"], "pod-7");
    assert_eq!(named(&all, "receive message").resource["team"], "blue");
}

/// A listener that takes connections and never answers is one, and an address that no one listens on the other.
#[test]
fn a_collector_that_is_slow_or_away_costs_one_warning_and_no_message() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for collector in [silent.local_addr().unwrap(), nobody()] {
        let mut terminator = command(&["terminator", "--listen", "127.0.0.1:0"]);
        let (_terminator, ready) = role(&mut terminator);
        let mut initiator = command(&["initiator", "--listen", "127.0.0.1:0", "--auto-trigger", "0", "--peer"]);
        let peer = format!("ws://{}/ws", address(&ready, "listen"));
        let initiator = exporting(initiator.arg(peer), collector).env("OTEL_EXPORTER_OTLP_TIMEOUT", "50");
        let initiator = initiator.env("OTEL_METRIC_EXPORT_INTERVAL", "50");
        let (mut initiator, ready) = role(initiator);
        let listen = address(&ready, "listen");
        trigger(listen, "");
        let is_warning = |line: &str| line.contains("do not reach the collector");
        let warnings = [(); 2].map(|()| initiator.line(is_warning));
        assert!(
            ["spans", "metrics"].iter().all(|what| warnings.iter().any(|line| line.contains(what))),
            "{warnings:?}"
        );
        (0..20).for_each(|_| _ = trigger(listen, ""));
        initiator.signal(Signal::TERM);
        let rest = initiator.rest();
        assert!(!rest.iter().any(|line| is_warning(line)), "{rest:#?}");
        assert_eq!(initiator.end().code(), Some(0));
    }
}

#[test]
fn a_variable_that_cannot_be_used_is_named_and_costs_what_is_exported_alone() {
    let mut terminator = command(&["terminator", "--listen", "127.0.0.1:0"]);
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
    let mut running = Running::start(terminator.envs(variables));
    running.line(|line| {
        line.contains("spans and metrics are not exported: OTEL_EXPORTER_OTLP_PROTOCOL=grpc cannot be used")
    });
    running.line(|line| line.contains("ready"));
}
