//! The demo as its users meet it.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::support::{Running, code, command, eventually, stderr, stdout};

/// The demo, with its temporary directories under `dir`.
fn demo(dir: &Path, more: &[&str]) -> Command {
    let mut command = command(&["demo"]);
    command.args(more).env("TMPDIR", dir);
    command
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().next().is_none()
}

#[test]
fn the_demo_holds_what_it_claims_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let output = demo(dir.path(), &["--seconds", "1"]).output().unwrap();
    let shown = stdout(&output);
    assert_eq!(code(&output), 0, "{shown}\n{}", stderr(&output));
    assert!(shown.contains("🔁 Auto-trigger starting — sending 5 messages\n"), "{shown}");
    assert!(shown.contains("🔁 Auto-trigger complete — 5/5 messages sent.\n"), "{shown}");
    let trails = [("initiator-", "@cluster-a → terminator-"), ("terminator-", "@cluster-b → initiator-")];
    for (from, to) in trails {
        assert!(shown.lines().any(|line| line.contains(from) && line.contains(to)), "{from} {to}: {shown}");
    }
    assert!(shown.contains("X25519MLKEM768"), "{shown}");
    for event in ["link cut", "black hole", "terminator moved", "keys rotated"] {
        let line = shown.lines().find(|line| line.contains(event) && line.contains("  pause "));
        let line = line.unwrap_or_else(|| panic!("{event} is not on the timeline: {shown}"));
        assert!(line.contains(" → ") && line.ends_with("checked, 0 lost, 0 doubled"), "{line}");
    }
    assert!(shown.contains("✔ through all of that it stayed the same TCP connection at both ends"), "{shown}");
    assert_eq!(shown.matches("0 lost, 0 doubled, 0 reordered").count(), 2, "{shown}");
    assert!(shown.contains("✔ every process ended in good order") && !shown.contains('✘'), "{shown}");
    // The last word is the verdict, and before it there is no drain to read through.
    assert_eq!(shown.lines().last(), Some(&*format!("✔ all {} checks held", shown.matches("  ✔ ").count())), "{shown}");
    let (_, end) = shown.split_once("── The end\n").unwrap();
    assert!(!end.contains("web-app │") && !end.contains("tunnel  │"), "{end}");
    // Every loss is seen to be over, also the one after the address has moved.
    let (_, moved) = shown.split_once("➜ terminator moved").unwrap();
    let (moved, rotated) = moved.split_once("⟳ keys rotated").unwrap();
    assert!(moved.contains("  ↻ session resumed: epoch "), "{moved}");
    assert!(rotated.contains("  ↻ session has fresh keys: epoch "), "{rotated}");
    let bars = shown.lines().find(|line| line.contains('▁') || line.contains('▅') || line.contains('█'));
    assert!(bars.is_some_and(|bars| bars.trim().chars().all(|c| "·▁▂▃▄▅▆▇█".contains(c))), "{shown}");
    // In a pipe, neither colours nor a bar.
    assert!(!shown.contains('\u{1b}') && !shown.contains('\r'), "{shown:?}");
    assert_eq!(stderr(&output), "");
    assert!(is_empty(dir.path()));
}

#[test]
fn an_interrupted_demo_fails_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Running::start(&mut demo(dir.path(), &["--seconds", "60"]));
    demo.line(|line| line.contains("Auto-trigger complete"));
    demo.signal(Signal::INT);
    assert_eq!(demo.end().code(), Some(1));
    assert!(is_empty(dir.path()));
}

#[cfg(target_os = "linux")]
#[test]
fn a_process_that_dies_ends_the_demo_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let scratch = tempfile::tempdir().unwrap();
    let mut command = demo(scratch.path(), &["--seconds", "60"]);
    let mut demo = Running::start(command.stderr(fs::File::create(&log).unwrap()));
    demo.line(|line| line.contains("Auto-trigger complete"));
    // Its working directory tells the tunnel of cluster-b from the others.
    let tunnel = eventually("cluster-b's tunnel", || process_in(scratch.path(), "cluster-b/tunnel"));
    rustix::process::kill_process(rustix::process::Pid::from_raw(tunnel).unwrap(), Signal::KILL).unwrap();
    assert_eq!(demo.end().code(), Some(1));
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("cluster-b's tunnel ended early"), "{said}");
    assert!(is_empty(scratch.path()));
}

#[test]
fn keep_stays_up_until_it_is_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Running::start(&mut demo(dir.path(), &["--seconds", "1", "--keep"]));
    demo.line(|line| line.contains("Everything stays up until Ctrl-C"));
    let curl = demo.line(|line| line.contains("/trigger?wait=5s"));
    assert!(curl.contains("curl -H 'content-type: application/json'"), "{curl}");
    demo.signal(Signal::INT);
    assert_eq!(demo.end().code(), Some(0));
    assert!(demo.rest().iter().any(|line| line.contains("✔ every process ended in good order")));
    assert!(is_empty(dir.path()));
}

#[test]
fn whoever_keeps_the_demo_up_can_let_something_happen() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = demo(dir.path(), &["--seconds", "1", "--keep"]);
    let (input, mut ours) = std::io::pipe().unwrap();
    let mut demo = Running::start(command.stdin(input));
    demo.line(|line| line.contains("r: keys rotated by SIGUSR1"));
    ours.write_all(b"?\nc\n").unwrap();
    demo.line(|line| line.contains("nothing happens on '?'; what there is: c, b, m, r"));
    demo.line(|line| line.contains("✂ link cut"));
    demo.line(|line| line.contains("session resumed"));
    demo.signal(Signal::INT);
    assert_eq!(demo.end().code(), Some(0));
}

#[test]
fn not_even_a_killed_demo_leaves_a_process_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Running::start(&mut demo(dir.path(), &["--seconds", "1", "--keep"]));
    let curls: Vec<_> = (0..4).map(|_| demo.line(|line| line.contains("curl ") && line.contains("http://"))).collect();
    let address = |line: &String| -> SocketAddr {
        let (_, rest) = line.split_once("http://").unwrap();
        rest.split(['/', '\'']).next().unwrap().parse().unwrap()
    };
    demo.signal(Signal::KILL);
    demo.end();
    for address in curls.iter().map(address) {
        eventually("the end of the process that listens there", || TcpStream::connect(address).is_err().then_some(()));
    }
}

#[test]
fn a_demo_without_room_for_its_files_says_so() {
    let output = demo(Path::new("/nowhere"), &[]).output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("cannot make a directory"), "{}", stderr(&output));
}

#[cfg(target_os = "linux")]
/// The process whose working directory is `part` of a demo under `dir`.
fn process_in(dir: &Path, part: &str) -> Option<i32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse().ok()?, fs::read_link(entry.path().join("cwd")).ok()?))
        })
        .filter(|(_, cwd): &(i32, _)| cwd.starts_with(dir) && cwd.ends_with(part))
        .map(|(pid, _)| pid)
        // Its child is the tunnel's engine, which would be started again.
        .find(|pid| {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            !children.trim().is_empty()
        })
}

#[test]
fn misuse_is_exit_code_2() {
    for args in [&["--seconds", "0"][..], &["--nonsense"]] {
        let output = demo(Path::new("/nowhere"), args).output().unwrap();
        assert_eq!((code(&output), stdout(&output).as_str()), (2, ""), "{args:?}: {}", stderr(&output));
    }
}
