//! `ferry send` and `ferry output` against the two web-apps, without a tunnel between them.

use std::io::Write as _;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    Port, Running, address, code, command, eventually, ferry, ferry_with_input, http_get, nobody, role, stderr, stdout,
};

/// Both web-apps, connected.
struct Pair {
    initiator: String,
    terminator: String,
    _running: [Running; 2],
}

fn pair(output_max: &str) -> Pair {
    let (terminator, ready) =
        role(&mut command(&["terminator", "--listen", "127.0.0.1:0", "--output-max", output_max]));
    let url = address(&ready, "listen");
    let peer = format!("ws://{url}/ws");
    let (initiator, ready) =
        role(&mut command(&["initiator", "--listen", "127.0.0.1:0", "--auto-trigger", "0", "--peer", &peer]));
    Pair {
        initiator: format!("http://{}", address(&ready, "listen")),
        terminator: format!("http://{url}"),
        _running: [terminator, initiator],
    }
}

fn numbers(lines: &str) -> Vec<u64> {
    lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["payload"]["n"].as_u64().unwrap()).collect()
}

#[test]
fn what_is_sent_comes_out_at_the_far_side_in_order() {
    let pair = pair("10000");
    // More than a page of output.
    let input: String = (0..2500).map(|n| format!("{{\"n\": {n}}}\n")).collect();
    let sent = ferry_with_input(&["send", &pair.initiator], &input);
    assert_eq!(code(&sent), 0, "{}", stderr(&sent));
    assert_eq!(stdout(&sent), "");
    assert!(stderr(&sent).contains("2,500 sent, 2,500 delivered"), "{}", stderr(&sent));
    let output = ferry(&["output", &pair.terminator]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(numbers(&stdout(&output)), (0..2500).collect::<Vec<_>>());
    // The other way.
    let sent = ferry_with_input(&["send", &pair.terminator], "{\"n\": 7}");
    assert_eq!(code(&sent), 0, "{}", stderr(&sent));
    assert_eq!(numbers(&stdout(&ferry(&["output", &pair.initiator]))), [7]);
}

#[test]
fn a_single_message_waits_for_its_delivery_and_prints_the_answer() {
    let pair = pair("10000");
    let send = |message: &str, more: &[&str]| {
        ferry(&[&["send", &pair.initiator, "--message", message, "--wait", "60s"][..], more].concat())
    };
    let sent = send("{\"n\": 1}", &["--key", "once"]);
    assert_eq!(code(&sent), 0, "{}", stderr(&sent));
    let answer: Value = serde_json::from_str(&stdout(&sent)).unwrap();
    assert_eq!(answer["delivered"], true, "{answer}");
    assert_eq!(code(&send("{\"n\": 2}", &[])), 0);
    assert_eq!(numbers(&stdout(&ferry(&["output", &pair.terminator]))), [1, 2]);
    assert_eq!(code(&send("[1]", &[])), 2);
}

#[test]
fn a_single_message_that_nobody_takes_is_a_failure_that_says_why() {
    let sent = ferry(&["send", "http://127.0.0.1:1", "--message", "{}", "--wait", "1ms"]);
    assert_eq!(code(&sent), 1);
    assert!(stderr(&sent).contains("not delivered within 1ms: cannot reach http://127.0.0.1:1"), "{}", stderr(&sent));
    // Accepted is not delivered: the far side is not there.
    let (running, ready) = role(&mut command(&[
        "initiator",
        "--listen",
        "127.0.0.1:0",
        "--auto-trigger",
        "0",
        "--peer",
        "ws://127.0.0.1:1/ws",
    ]));
    let url = format!("http://{}", address(&ready, "listen"));
    let sent = ferry(&["send", &url, "--message", "{}", "--wait", "5s"]);
    assert_eq!(code(&sent), 1);
    assert!(stderr(&sent).contains("is accepted and still on its way"), "{}", stderr(&sent));
    drop(running);
}

#[test]
fn a_bad_line_is_reported_by_its_number_and_costs_nothing_else() {
    let pair = pair("10000");
    let sent = ferry_with_input(&["send", &pair.initiator], "{\"n\": 1}\n\n[2]\n{\"n\": 3\n{\"n\": 4}\n");
    assert_eq!(code(&sent), 1);
    let said = stderr(&sent);
    assert!(said.contains("line 3: not a JSON object") && said.contains("line 4: not a JSON object"), "{said}");
    assert!(said.contains("2 sent, 2 delivered, 2 bad") && said.contains("2 of 4 lines were not delivered"), "{said}");
    assert_eq!(numbers(&stdout(&ferry(&["output", &pair.terminator]))), [1, 4]);
}

#[test]
fn nothing_to_send_is_fine() {
    let pair = pair("10000");
    let sent = ferry_with_input(&["send", &pair.initiator], "");
    assert_eq!(code(&sent), 0, "{}", stderr(&sent));
}

#[test]
fn an_interrupted_send_says_what_is_still_on_the_way() {
    // Nobody is connected to it, so nothing is delivered.
    let (_terminator, ready) = role(&mut command(&["terminator", "--listen", "127.0.0.1:0"]));
    let base = format!("http://{}", address(&ready, "listen"));
    let dir = tempfile::tempdir().unwrap();
    let (input, log) = (dir.path().join("input"), dir.path().join("log"));
    std::fs::write(&input, "{\"n\": 1}\n").unwrap();
    let mut send = Running::start(
        command(&["send", &base])
            .stdin(std::fs::File::open(&input).unwrap())
            .stderr(std::fs::File::create(&log).unwrap()),
    );
    eventually("the message in the outbox", || {
        let metrics = http_get(address(&ready, "listen"), "/metrics");
        metrics.lines().any(|line| line == "ferry_app_outbox_messages 1").then_some(())
    });
    send.signal(Signal::INT);
    assert_eq!(send.end().code(), Some(1));
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains("1 sent, 0 delivered") && said.contains("interrupted"), "{said}");
}

#[test]
fn follow_prints_each_result_once_as_it_comes() {
    let pair = pair("3");
    let mut follow = Running::start(&mut command(&["output", &pair.terminator, "--follow"]));
    for n in 0..5 {
        let sent = ferry_with_input(&["send", &pair.initiator], &format!("{{\"n\": {n}}}\n"));
        assert_eq!(code(&sent), 0, "{}", stderr(&sent));
        assert_eq!(numbers(&follow.line(|_| true)), [n]);
    }
}

#[test]
fn follow_tells_of_results_that_were_dropped_before_it_read_them() {
    let pair = pair("3");
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut follow =
        Running::start(command(&["output", &pair.terminator, "--follow"]).stderr(std::fs::File::create(&log).unwrap()));
    let send = |input: &str| assert_eq!(code(&ferry_with_input(&["send", &pair.initiator], input)), 0);
    send("{\"n\": 0}");
    assert_eq!(numbers(&follow.line(|_| true)), [0]);
    follow.signal(Signal::STOP);
    send(&(1..=10).map(|n| format!("{{\"n\": {n}}}\n")).collect::<String>());
    follow.signal(Signal::CONT);
    let mut last = 0;
    while last < 10 {
        let n = numbers(&follow.line(|_| true))[0];
        assert!(n > last, "{n} after {last}");
        last = n;
    }
    assert!(std::fs::read_to_string(&log).unwrap().contains("were dropped"));
}

#[test]
fn a_web_app_that_is_not_there_is_said_with_its_url() {
    let base = format!("http://{}", nobody());
    for output in [ferry(&["output", &base]), ferry_with_input(&["send", &base], "{}\n")] {
        assert_eq!(code(&output), 1);
        assert!(stderr(&output).contains(&format!("cannot reach {base}")), "{}", stderr(&output));
    }
}

#[test]
fn follow_goes_on_after_a_restart_of_its_web_app_and_after_an_id_that_is_given() {
    let dir = crate::support::fresh_dir();
    let port = Port::reserve();
    let at = port.address().to_string();
    let start = || role(command(&["terminator", "--listen", &at]).env("FERRY_DATA", &dir)).0;
    let terminator = start();
    let base = format!("http://{at}");
    let peer = format!("ws://{at}/ws");
    let (_initiator, ready) =
        role(&mut command(&["initiator", "--listen", "127.0.0.1:0", "--auto-trigger", "0", "--peer", &peer]));
    let initiator = format!("http://{}", address(&ready, "listen"));
    let send = |n: u64| assert_eq!(code(&ferry_with_input(&["send", &initiator], &format!("{{\"n\": {n}}}\n"))), 0);
    let log = tempfile::tempdir().unwrap();
    let log = log.path().join("log");
    let said = || std::fs::read_to_string(&log).unwrap();
    let mut follow =
        Running::start(command(&["output", &base, "--follow"]).stderr(std::fs::File::create(&log).unwrap()));
    send(1);
    let first = follow.line(|_| true);
    drop(terminator);
    eventually("the warning", || said().contains("waiting for it").then_some(()));
    let terminator = start();
    send(2);
    assert_eq!((numbers(&first), numbers(&follow.line(|_| true))), (vec![1], vec![2]));
    eventually("the notice", || said().contains("is back").then_some(()));

    let id = serde_json::from_str::<Value>(&first).unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(numbers(&stdout(&ferry(&["output", &base, "--after", &id]))), [2]);
    drop(terminator);
    let cut = ferry(&["output", &base, "--after", &id]);
    assert!(code(&cut) == 1 && stderr(&cut).contains(&format!("continue with --after {id}")), "{}", stderr(&cut));
}

#[test]
fn send_goes_on_when_its_web_app_is_killed_and_sends_each_line_once() {
    let (_terminator, ready) = role(&mut command(&["terminator", "--listen", "127.0.0.1:0"]));
    let terminator = format!("http://{}", address(&ready, "listen"));
    let peer = format!("ws://{}/ws", address(&ready, "listen"));
    let dir = crate::support::fresh_dir();
    let port = Port::reserve();
    let at = port.address().to_string();
    let start = || {
        let mut initiator = command(&["initiator", "--listen", &at, "--auto-trigger", "0", "--peer", &peer]);
        role(initiator.env("FERRY_DATA", &dir)).0
    };
    let mut initiator = start();
    let url = format!("http://{at}");
    let log = tempfile::tempdir().unwrap();
    let log = log.path().join("log");
    let mut send =
        command(&["send", &url]).stdin(Stdio::piped()).stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
    let mut input = send.stdin.take().unwrap();
    let (lines, more) = std::sync::mpsc::channel::<std::ops::Range<u64>>();
    let feeder = std::thread::spawn(move || {
        for n in more.into_iter().flatten() {
            writeln!(input, "{{\"n\": {n}}}").unwrap();
        }
    });
    let kept = || stdout(&ferry(&["output", &terminator])).lines().count();
    for round in 0..3 {
        let before = kept();
        lines.send(round * 1000..(round + 1) * 1000).unwrap();
        // In the middle of them.
        eventually("some of the lines", || (kept() > before).then_some(()));
        // Killed, not asked to end.
        drop(initiator);
        initiator = start();
    }
    drop(lines);
    feeder.join().unwrap();
    let status = eventually("the end of send", || send.try_wait().unwrap());
    let said = std::fs::read_to_string(&log).unwrap();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("3,000 sent, 3,000 delivered") && said.contains("is back"), "{said}");
    assert_eq!(numbers(&stdout(&ferry(&["output", &terminator]))), (0..3000).collect::<Vec<_>>());
}

#[test]
fn an_input_that_is_sent_again_under_its_name_is_the_same_messages() {
    let pair = pair("10000");
    for _ in 0..2 {
        let sent = ferry_with_input(&["send", &pair.initiator, "--key", "import-7"], "{\"n\": 1}\n{\"n\": 2}\n");
        assert_eq!(code(&sent), 0, "{}", stderr(&sent));
    }
    assert_eq!(numbers(&stdout(&ferry(&["output", &pair.terminator]))), [1, 2]);
}
