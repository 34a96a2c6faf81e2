//! Hooks in Python that behave and misbehave, run by the real interpreter.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ferry_app::{HookError, Hooks, Payload, PythonConfig, PythonError, PythonHooks, Webapp};
use serde_json::json;

use crate::pair::*;

/// Whether there is a Python; a test without one says that it is left out.
pub(crate) fn python() -> bool {
    let found = std::process::Command::new("python3").arg("--version").output().is_ok_and(|run| run.status.success());
    if !found {
        println!("left out: no python3 on PATH");
    }
    found
}

fn write(code: &str) -> PathBuf {
    let dir = fresh_dir();
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("app.py");
    std::fs::write(&file, code).unwrap();
    file
}

/// For hooks that hang: longer than any other call takes on a loaded machine, and short enough to be waited for.
const HANG_TIMEOUT: Duration = Duration::from_secs(5);

async fn load_from(file: PathBuf, workers: usize, timeout: Duration) -> Result<Arc<dyn Hooks>, PythonError> {
    let config = PythonConfig { file, workers: NonZeroUsize::new(workers).unwrap(), timeout };
    Ok(Arc::new(PythonHooks::start(config).await?))
}

pub(crate) async fn load(code: &str) -> Arc<dyn Hooks> {
    load_from(write(code), 1, TEST_TIMEOUT).await.unwrap()
}

async fn error_of(code: &str) -> String {
    load_from(write(code), 1, TEST_TIMEOUT).await.err().unwrap().to_string()
}

/// Waits until a file is there.
async fn written(file: &Path) {
    eventually(&format!("{}", file.display()), async || file.exists().then_some(())).await;
}

const MISBEHAVING: &str = r#"
import asyncio, os, sys, time

async def on_trigger(payload, headers):
    do = payload.get("do")
    if "begun" in payload: open(payload["begun"], "w").close()
    if do == "invalid": raise ValueError("no such sensor")
    if do == "deny": raise PermissionError("not yours")
    if do == "raise": return {"x": 1 / 0}
    if do == "exit": sys.exit(3)
    if do == "crash": os._exit(7)
    if do == "abort": os.abort()
    if do == "sleep": await asyncio.sleep(60)
    if do == "block": time.sleep(60)
    if do == "spin":
        while True: pass
    if do == "list": return [1]
    if do == "none": return None
    if do == "set": return {"s": {1, 2}}
    if do == "nan": return {"n": float("nan")}
    if do == "surrogate": return {"s": "\ud800"}
    if do == "loop":
        payload["self"] = payload
        return payload
    if do == "print":
        print("x" * 100000)
        os.write(1, b"not an answer\n")
        sys.stdin.read()
    payload["tag"] = headers.get("x-tag")
    return payload
"#;

#[tokio::test]
async fn every_misbehaviour_of_a_trigger_hook_costs_that_message_a_clear_error_only() {
    if !python() {
        return;
    }
    let terminator = terminator();
    let initiator =
        initiator_with(terminator.local_addr(), load_from(write(MISBEHAVING), 1, HANG_TIMEOUT).await.unwrap());
    let mut sent = 0;
    for (what, status, says) in [
        ("invalid", 400, "no such sensor"),
        ("deny", 403, "not yours"),
        ("raise", 500, "ZeroDivisionError"),
        ("exit", 500, "SystemExit"),
        ("crash", 500, "ended its Python process"),
        ("abort", 500, "ended its Python process"),
        ("sleep", 500, "longer than 5s"),
        ("block", 500, "longer than 5s"),
        ("spin", 500, "longer than 5s"),
        ("list", 500, "must return a dict, not list"),
        ("none", 500, "must return a dict, not NoneType"),
        ("set", 500, "not JSON"),
        ("nan", 500, "not JSON"),
        ("surrogate", 500, "answer"),
        ("loop", 500, "not JSON"),
    ] {
        let (code, body) = trigger(&initiator, "", &json!({"do": what})).await;
        assert_eq!(code, status, "{what}: {body}");
        assert!(body["error"].as_str().unwrap().contains(says), "{what}: {body}");
        sent += 1;
        let (code, body) = trigger(&initiator, "", &json!({"n": sent, "do": "print"})).await;
        assert_eq!(code, 202, "after {what}: {body}");
    }
    assert_eq!(numbers(&results(&terminator, sent).await), (1..=sent as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_hang_stalls_no_other_worker() {
    if !python() {
        return;
    }
    let file = write(MISBEHAVING);
    let begun = file.with_file_name("begun");
    let initiator = initiator_with(nobody(), load_from(file, 2, TEST_TIMEOUT).await.unwrap());
    let payload = json!({"do": "block", "begun": begun});
    let hanging = tokio::spawn(reqwest::Client::new().post(url(&initiator, "/trigger")).json(&payload).send());
    written(&begun).await;
    // Turns are taken, so one of two calls gets the worker that is free.
    let (first, second) = (json!({"n": 1}), json!({"n": 2}));
    let answered = tokio::select! {
        (code, _) = trigger(&initiator, "", &first) => code,
        (code, _) = trigger(&initiator, "", &second) => code,
    };
    assert_eq!(answered, 202);
    assert_eq!(get_text(&initiator, "/readyz").await.0, 200);
    assert!(!hanging.is_finished());
    hanging.abort();
}

const RECEIVING: &str = r#"
import os, time
tries = {}

def on_receive_terminator(payload):
    n = payload["n"]
    tries[n] = tries.get(n, 0) + 1
    do = payload.get("do")
    if do == "raise": raise RuntimeError("try %d" % tries[n])
    if do == "crash": os._exit(1)
    if do == "block": time.sleep(60)
    if do == "set": return {1}
    if do == "twice" and tries[n] < 3: raise RuntimeError("not yet")
    return {"n": n, "tries": tries[n]}
"#;

#[tokio::test]
async fn a_receiving_hook_is_tried_three_times_and_costs_one_message() {
    if !python() {
        return;
    }
    let hooks = load_from(write(RECEIVING), 1, HANG_TIMEOUT).await.unwrap();
    let terminator = terminator_with(hooks);
    let initiator = initiator(terminator.local_addr());
    let (_, body) = trigger(&initiator, "?wait=60s", &json!({"n": 0, "do": "twice"})).await;
    assert_eq!(body["reply"], json!({"n": 0, "tries": 3}), "{body}");
    for (n, what, says) in [
        (1, "raise", "try 3"),
        (2, "crash", "ended its Python process"),
        (3, "block", "longer than 5s"),
        (4, "set", "None or a dict"),
    ] {
        let (_, body) = trigger(&initiator, "?wait=60s", &json!({"n": n, "do": what})).await;
        assert_eq!(body["delivered"], false, "{what}: {body}");
        assert!(body["error"].as_str().unwrap().contains(says), "{what}: {body}");
        let (_, body) = trigger(&initiator, "?wait=60s", &json!({"n": 10 + n})).await;
        assert_eq!(body["reply"]["n"], 10 + n, "after {what}: {body}");
    }
    assert_eq!(numbers(&results(&terminator, 5).await), [0, 11, 12, 13, 14]);
    assert_eq!(get(&terminator, "/dead").await.1["count"], 4);
}

#[tokio::test]
async fn an_error_in_the_file_is_told_at_start_with_its_line() {
    if !python() {
        return;
    }
    let error = error_of("import os\n\ndef on_trigger(payload, headers)\n    return payload\n").await;
    assert!(error.contains("app.py:3: SyntaxError"), "{error}");
    let error = error_of("x = 1\ny = 1 / 0\n").await;
    assert!(error.contains("app.py:2: ZeroDivisionError"), "{error}");
    let error = error_of("import no_such_module\n").await;
    assert!(error.contains("app.py:1: ModuleNotFoundError"), "{error}");
    let error = error_of("on_trigger = 7\n").await;
    assert!(error.contains("on_trigger is not a function"), "{error}");
    let error = error_of("import os\nos._exit(3)\n").await;
    assert!(error.contains("ended Python while it was loaded"), "{error}");
    let error = load_from("/nowhere/app.py".into(), 1, TEST_TIMEOUT).await.err().unwrap().to_string();
    assert!(error.contains("/nowhere/app.py"), "{error}");
}

async fn version_of(initiator: &Webapp, terminator: &Webapp) -> i64 {
    let (_, body) = trigger(initiator, "?wait=60s", &json!({})).await;
    let page = results(terminator, get(terminator, "/output").await.1["count"].as_u64().unwrap() as usize).await;
    let last = page.iter().find(|result| result["id"] == body["id"]).unwrap();
    last["payload"]["version"].as_i64().unwrap()
}

#[tokio::test]
async fn a_changed_file_is_loaded_again_and_a_broken_one_is_not() {
    if !python() {
        return;
    }
    let code = |version: u32| {
        format!("from helper import tag\ndef on_trigger(payload, headers):\n    return tag({{'version': {version}}})\n")
    };
    let file = write(&code(1));
    std::fs::write(file.with_file_name("helper.py"), "def tag(payload):\n    return payload\n").unwrap();
    let terminator = terminator();
    let initiator = initiator_with(terminator.local_addr(), load_from(file.clone(), 2, TEST_TIMEOUT).await.unwrap());
    assert_eq!(version_of(&initiator, &terminator).await, 1);
    // They are looked at one after the other: once the second is, the first has been judged.
    for broken in ["first", "second"] {
        let mark = file.with_file_name(broken);
        std::fs::write(&file, format!("open({mark:?}, 'w').close()\nraise RuntimeError('{broken}')\n")).unwrap();
        written(&mark).await;
    }
    assert_eq!(version_of(&initiator, &terminator).await, 1);
    std::fs::write(&file, code(20)).unwrap();
    eventually("the new version", async || (version_of(&initiator, &terminator).await == 20).then_some(())).await;
}

#[tokio::test]
async fn with_several_workers_one_senders_messages_stay_in_order() {
    if !python() {
        return;
    }
    let code = "import time\ndef on_receive_terminator(payload):\n    time.sleep(0.002 * (payload['n'] % 3))\n";
    let terminator = terminator_with(load_from(write(code), 3, TEST_TIMEOUT).await.unwrap());
    let initiator = initiator(terminator.local_addr());
    let mut stream = StreamClient::connect(&initiator).await;
    for n in 1..=100 {
        stream.send(&json!({"n": n})).await;
    }
    assert_eq!(numbers(&results(&terminator, 100).await), (1..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_example_in_python_works() {
    if !python() {
        return;
    }
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/app.py");
    let terminator = terminator_with(load_from(file.clone(), 1, TEST_TIMEOUT).await.unwrap());
    let initiator = initiator_with(terminator.local_addr(), load_from(file, 1, TEST_TIMEOUT).await.unwrap());
    assert_eq!(trigger(&initiator, "", &json!({})).await, (400, json!({"error": "give n"})));
    assert_eq!(trigger(&initiator, "?wait=60s", &json!({"n": 1})).await.1["reply"], json!({"n": 2}));
}

const DIFFICULT: &str = r#"
import asyncio, os, sys

class Mute(Exception):
    def __str__(self): raise RuntimeError("I have no text")

class Odd(dict):
    def items(self): raise MemoryError("not now")
    def __iter__(self): raise MemoryError("not now")

def deeper(n):
    return deeper(n + 1)

def on_trigger(payload, headers):
    do = payload.get("do")
    if do == "recursion": deeper(0)
    if do == "memory": raise MemoryError()
    if do == "interrupt": raise KeyboardInterrupt()
    if do == "generator": raise GeneratorExit()
    if do == "mute": raise Mute()
    if do == "long": raise RuntimeError("e" * 10_000_000)
    if do == "odd": return Odd(a=1)
    if do == "key": return {("a", "b"): 1}
    if do == "much": return {"s": "x" * 8_000_000}
    if do == "nested":
        payload = {}
        for _ in range(100_000): payload = {"a": payload}
        return payload
    if do == "limit": sys.setrecursionlimit(60)
    if do == "loop": asyncio.get_event_loop().close()
    return {"pid": os.getpid(), "loop": not asyncio.get_event_loop().is_closed() or do == "loop"}
"#;

#[tokio::test]
async fn an_error_of_one_call_never_ends_its_worker() {
    if !python() {
        return;
    }
    let hooks = load(DIFFICULT).await;
    let headers = BTreeMap::new();
    let call = async |payload: serde_json::Value| {
        let payload = Payload::parse(payload.to_string()).unwrap();
        hooks.on_trigger(payload, &headers).await.map(|payload| payload.to_object().unwrap())
    };
    let first = call(json!({})).await.unwrap();
    for (what, says) in [
        ("recursion", "RecursionError"),
        ("memory", "MemoryError"),
        ("interrupt", "KeyboardInterrupt"),
        ("generator", "GeneratorExit"),
        ("mute", "Mute"),
        ("long", "RuntimeError: eee"),
        ("odd", "not JSON"),
        ("key", "not JSON"),
        ("much", "more than any message"),
        ("nested", "not JSON"),
    ] {
        let error = call(json!({"do": what})).await.unwrap_err().to_string();
        assert!(error.contains(says), "{what}: {error:.200}");
        assert!(error.len() < 3000, "{what}: {} bytes", error.len());
        assert_eq!(call(json!({})).await.unwrap(), first, "after {what}");
    }
    call(json!({"do": "loop"})).await.unwrap();
    assert_eq!(call(json!({})).await.unwrap()["pid"], first["pid"]);
    // From here on Python cannot even read a payload that is nested a little.
    call(json!({"do": "limit"})).await.unwrap();
    let nested = (0..98).fold(json!(1), |inner, _| json!([inner]));
    let error = call(json!({"nested": nested})).await.unwrap_err();
    assert!(matches!(&error, HookError::Invalid(text) if text.contains("RecursionError")), "{error}");
    assert_eq!(call(json!({})).await.unwrap()["pid"], first["pid"]);
}

const PRINTING: &str = r#"
import os, subprocess, sys

def on_trigger(payload, headers):
    do = payload.get("do")
    if do == "bytes": subprocess.run(["printf", r"\377\376 not UTF-8\n"], check=True)
    if do == "endless":
        for _ in range(4800): os.write(1, b"x" * 65536)
    if do == "leave":
        code = "import sys, time\nfor _ in range(5000): print('y' * 100)\nopen(sys.argv[1], 'w').close()"
        subprocess.Popen([sys.executable, "-c", code, payload["done"]])
        os._exit(1)
    # More than the pipe holds.
    for _ in range(3000): print("z" * 100)
    return {"pid": os.getpid()}
"#;

/// Whether this process is only for the test of this name. If not, one that is has run by now.
#[cfg(target_os = "linux")]
fn is_alone(test: &str) -> bool {
    const ALONE: &str = "FERRY_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let run = command.args([test, "--exact", "--nocapture"]).env(ALONE, "1").output().unwrap();
    assert!(run.status.success(), "{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    false
}

/// Memory of this process, in MiB.
#[cfg(target_os = "linux")]
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn whatever_a_hook_prints_is_read_and_costs_no_memory() {
    // What other tests take meanwhile is nothing of it.
    if !python() || !is_alone("python::whatever_a_hook_prints_is_read_and_costs_no_memory") {
        return;
    }
    let file = write(PRINTING);
    let done = file.with_file_name("done");
    let hooks = load_from(file, 1, TEST_TIMEOUT).await.unwrap();
    let headers = BTreeMap::new();
    let call = async |payload: serde_json::Value| {
        let payload = Payload::parse(payload.to_string()).unwrap();
        hooks.on_trigger(payload, &headers).await.map(|payload| payload.to_object().unwrap())
    };
    let first = call(json!({})).await.unwrap();
    assert_eq!(call(json!({"do": "bytes"})).await.unwrap(), first);
    assert_eq!(call(json!({})).await.unwrap(), first);
    let before = resident();
    assert_eq!(call(json!({"do": "endless"})).await.unwrap(), first);
    let grown = resident().saturating_sub(before);
    assert!(grown < 150, "{grown} MiB for 300 MB without a line's end");
    // A child that outlives its Python process is read to its end, too.
    call(json!({"do": "leave", "done": done})).await.unwrap_err();
    written(&done).await;
    call(json!({})).await.unwrap();
}
