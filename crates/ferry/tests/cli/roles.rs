//! The long-running commands: how they start, what they say and how they end.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;

use crate::kept::children;
use crate::support::{Running, address, code, command, ferry, keygen, role, stderr};

#[test]
fn sigterm_and_sigint_end_every_role_with_exit_0() {
    let dir = tempfile::tempdir().unwrap();
    let config = write_config(dir.path()) + "admin: 127.0.0.1:0\n";
    fs::write(dir.path().join("tunnel.yaml"), config).unwrap();
    let roles: [&[&str]; 3] = [
        &["tunnel", "--config", "tunnel.yaml"],
        &["terminator", "--listen", "127.0.0.1:0"],
        // Nobody listens on the discard port: it drains while it dials.
        &["initiator", "--listen", "127.0.0.1:0", "--peer", "ws://127.0.0.1:9/ws"],
    ];
    for args in roles {
        for signal in [Signal::TERM, Signal::INT] {
            let (mut role, _) = role(command(args).current_dir(&dir));
            role.signal(signal);
            assert_eq!(role.end().code(), Some(0), "{args:?} after {signal:?}");
        }
    }
}

#[test]
fn a_second_signal_cuts_the_drain_short() {
    let mut running = undelivered();
    running.signal(Signal::TERM);
    running.line(|line| line.contains("asked to stop"));
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), Some(1));
}

/// A web-app that holds a message for a far side that is not there, so that it drains for as long as it may.
fn undelivered() -> Running {
    let (running, ready) = role(command(&["terminator", "--listen", "127.0.0.1:0"]).stderr(Stdio::null()));
    let listen = address(&ready, "listen");
    let body = "{}";
    let mut socket = TcpStream::connect(listen).unwrap();
    write!(
        socket,
        "POST /trigger HTTP/1.1\r\nhost: {listen}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    running
}

#[test]
fn sigusr1_rotates_and_sighup_reads_the_file_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = write_config(dir.path());
    let (mut tunnel, _) = role(command(&["tunnel", "--config", "tunnel.yaml"]).current_dir(&dir));
    tunnel.signal(Signal::USR1);
    tunnel.line(|line| line.contains("rotating all sessions"));
    fs::write(dir.path().join("tunnel.yaml"), config + "liveness: 7s\n").unwrap();
    tunnel.signal(Signal::HUP);
    tunnel.line(|line| line.contains("configuration read again"));
    tunnel.signal(Signal::TERM);
    assert_eq!(tunnel.end().code(), Some(0));
}

#[test]
fn the_tunnel_never_waits_for_a_huge_page() {
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path());
    let (tunnel, _) = role(command(&["tunnel", "--config", "tunnel.yaml"]).current_dir(&dir));
    // The one that was started is its keeper; sessions are in its child.
    let engines = children(tunnel.pid());
    assert_eq!(engines.len(), 1);
    for pid in engines.into_iter().chain([tunnel.pid()]) {
        let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
        assert!(status.contains("\nTHP_enabled:\t0\n"), "{status}");
    }
}

/// Writes a tunnel.yaml with what belongs to it, and returns its text.
fn write_config(dir: &Path) -> String {
    keygen(&dir.join("identity.key"));
    let key = keygen(&dir.join("other.key"));
    let config =
        format!("name: a\nidentity: identity.key\nlisten: 127.0.0.1:0\npeers: [{{name: b, keys: [\"{key}\"]}}]\n");
    fs::write(dir.join("tunnel.yaml"), &config).unwrap();
    config
}

#[test]
fn every_flag_of_a_web_app_is_also_an_environment_variable() {
    let (_terminator, ready) = role(
        command(&["terminator"])
            .env("FERRY_LISTEN", "127.0.0.1:0")
            .env("POD_NAME", "terminator-0")
            .env("CLUSTER_NAME", "cluster-b")
            .env("FERRY_OUTPUT_MAX", "10"),
    );
    assert_eq!((ready["pod"].as_str(), ready["cluster"].as_str()), (Some("terminator-0"), Some("cluster-b")));
    let (mut initiator, _) = role(
        command(&["initiator"])
            .env("FERRY_LISTEN", "127.0.0.1:0")
            .env("FERRY_PEER", format!("ws://{}/ws", address(&ready, "listen")))
            .env("FERRY_AUTO_TRIGGER", "2"),
    );
    initiator.line(|line| line.contains("🔁 Auto-trigger complete — 2/2 messages sent."));
}

#[test]
fn logs_for_people_have_no_colour_in_a_pipe() {
    let mut terminator = Running::start(&mut command(&["terminator", "--listen", "127.0.0.1:0"]));
    let line = terminator.line(|line| line.contains("ready"));
    assert!(!line.contains('\u{1b}'), "{line:?}");
    assert!(line.contains("INFO ready pod="), "{line:?}");
}

#[test]
fn a_port_that_is_taken_is_said_with_its_address() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = ferry(&["terminator", "--listen", &address]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains(&address), "{}", stderr(&output));
}

#[test]
fn hooks_are_checked_without_starting_a_web_app() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("app.py");
    let check = |role: &str, text: &str| {
        fs::write(&file, text).unwrap();
        ferry(&[role, "--check", "--hooks", file.to_str().unwrap()])
    };
    for role in ["initiator", "terminator"] {
        let fine = check(role, "def on_trigger(payload, headers):\n    return payload\n");
        assert_eq!(code(&fine), 0, "{}", stderr(&fine));
        let broken = check(role, "import nothing_of_this_name\n");
        assert_eq!(code(&broken), 78);
        let said = stderr(&broken);
        assert!(said.contains("app.py") && said.contains("nothing_of_this_name"), "{said}");
    }
}

#[test]
fn a_web_app_that_others_reach_without_a_token_says_so_once() {
    let started = |args: &[&str]| {
        let mut role = Running::start(command(&["terminator", "--listen"]).args(args));
        let mut warnings = 0;
        role.line(|line| {
            warnings += usize::from(line.contains("WARN") && line.contains("--token-file"));
            line.contains(" ready ")
        });
        warnings
    };
    assert_eq!(started(&["0.0.0.0:0"]), 1);
    assert_eq!(started(&["0.0.0.0:0", "--no-token"]), 0);
    assert_eq!(started(&["127.0.0.1:0"]), 0);
}
