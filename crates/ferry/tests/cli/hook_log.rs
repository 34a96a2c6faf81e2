//! What the log says about hooks: their own lines, and their failures.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use rustix::process::{Signal, kill_process_group};
use serde_json::Value;

use crate::support::{Running, address, command, ferry_with_input, role, stderr};

const HOOKS: &str = r#"
import asyncio

def inner(payload):
    return 1 / payload["n"]

async def on_trigger(payload, headers):
    print("I print", payload["n"])
    await asyncio.sleep(0)
    if payload["n"] == 7: raise ValueError("not seven")
    return {"n": inner(payload)}
"#;

#[test]
fn a_hooks_output_is_told_apart_and_its_failure_leaves_one_warning_and_a_short_traceback() {
    if !std::process::Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_ok_and(|s| s.success())
    {
        println!("left out: no python3 on PATH");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("app.py");
    fs::write(&file, HOOKS).unwrap();
    let mut web_app = command(&["terminator", "--listen", "127.0.0.1:0", "--hooks"]);
    let (mut web_app, ready) = role(web_app.arg(&file));
    let url = format!("http://{}", address(&ready, "listen"));
    let sent = ferry_with_input(&["send", &url], "{\"n\": 0}\n{\"n\": 7}\n");
    assert!(!sent.status.success(), "{}", stderr(&sent));
    let mut lines: Vec<Value> = Vec::new();
    while lines.iter().filter(|line| line["level"] == "WARN").count() < 2 {
        lines.push(serde_json::from_str(&web_app.line(|_| true)).unwrap());
    }
    let warnings: Vec<_> = lines.iter().filter(|line| line["level"] == "WARN").collect();
    for (warning, error) in warnings.iter().zip(["ZeroDivisionError: division by zero", "not seven"]) {
        assert!(warning["message"].as_str().unwrap().contains("on_trigger failed"), "{warning}");
        assert_eq!(warning["error"], error, "{warning}");
    }
    // The output of the second call may come after its warning.
    while !lines.iter().any(|line| line["message"] == "I print 7") {
        lines.push(serde_json::from_str(&web_app.line(|_| true)).unwrap());
    }
    let printed: Vec<_> = lines.iter().filter(|line| line["target"] == "hook").collect();
    let texts: Vec<_> = printed.iter().map(|line| line["message"].as_str().unwrap().trim().to_owned()).collect();
    let traceback = texts.iter().position(|text| text == "Traceback (most recent call last):").unwrap();
    assert!(texts[traceback + 1].contains("app.py") && texts[traceback + 1].contains("in on_trigger"), "{texts:#?}");
    for (text, wanted) in [("I print 0", 1), ("I print 7", 1), ("Traceback (most recent call last):", 1)] {
        assert_eq!(texts.iter().filter(|line| *line == text).count(), wanted, "{text}: {texts:#?}");
    }
    assert!(!texts.iter().any(|text| text.contains("<string>") || text.contains("asyncio/")), "{texts:#?}");
}

#[test]
fn in_text_a_hooks_lines_have_a_mark() {
    if !std::process::Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_ok_and(|s| s.success())
    {
        println!("left out: no python3 on PATH");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("app.py");
    fs::write(&file, "print('INFO ready pod=\\x1b[31mmine')\n").unwrap();
    let mut web_app = command(&["terminator", "--listen", "127.0.0.1:0", "--pod", "p", "--hooks"]);
    let mut web_app = Running::start(web_app.arg(&file));
    let line = web_app.line(|line| line.contains("ready pod="));
    assert!(line.ends_with(" INFO hook: INFO ready pod=\\u{1b}[31mmine"), "{line}");
    let line = web_app.line(|line| line.contains("ready pod="));
    assert!(line.contains(" INFO ready pod=p cluster=local listen=127.0.0.1:"), "{line}");
}

#[test]
fn ctrl_c_ends_the_web_app_in_good_order_and_not_its_hooks_under_it() {
    if !std::process::Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_ok_and(|s| s.success())
    {
        println!("left out: no python3 on PATH");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("app.py");
    fs::write(&file, "def on_trigger(payload, headers):\n    return payload\n").unwrap();
    let mut web_app = command(&["terminator", "--listen", "127.0.0.1:0", "--hooks"]);
    // A terminal signals the whole group of the process that it runs.
    let (mut web_app, _) = role(web_app.arg(&file).process_group(0));
    kill_process_group(web_app.pid(), Signal::INT).unwrap();
    let rest = web_app.rest();
    assert_eq!(web_app.end().code(), Some(0));
    assert!(rest.iter().any(|line| line.contains("asked to stop")), "{rest:#?}");
    assert!(!rest.iter().any(|line| line.contains("WARN") || line.contains("Traceback")), "{rest:#?}");
}
