//! Logs that nobody reads: standard output and standard error are pipes that stay full.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{DEADLINE, Running, address, command, eventually, http_get, keygen, role};

const CONNECTIONS: usize = 2000;

/// A role whose output is read up to the line that says that it is up, and then no more.
struct Unread {
    child: Child,
    stdout: BufReader<ChildStdout>,
    ready: Value,
}

impl Unread {
    fn start(command: &mut Command) -> Self {
        let command = command.env("FERRY_LOG_FORMAT", "json").env("FERRY_LOG", "debug");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let ready = loop {
            let mut line = String::new();
            assert!(stdout.read_line(&mut line).unwrap() > 0, "it ended before it was up");
            if line.contains("\"ready\"") {
                break serde_json::from_str(&line).unwrap();
            }
        };
        Self { child, stdout, ready }
    }

    fn lost(&self, endpoint: &str) -> u64 {
        let metrics = http_get(address(&self.ready, endpoint), "/metrics");
        let value = metrics.lines().find_map(|line| line.strip_prefix("ferry_log_lines_lost_total "));
        value.unwrap_or_else(|| panic!("not in {metrics}")).parse().unwrap()
    }

    /// Reads on, up to the line that tells of the gap. Returns how many lines it says were lost.
    fn read_to_gap(&mut self) -> u64 {
        loop {
            let mut line = String::new();
            assert!(self.stdout.read_line(&mut line).unwrap() > 0, "it ended");
            let line: Value = serde_json::from_str(&line).unwrap();
            if let Some(lost) = line["lost"].as_u64() {
                assert_eq!(line["level"], "WARN", "{line}");
                return lost;
            }
        }
    }

    fn ends_with_success(&mut self) {
        kill_process(Pid::from_raw(self.child.id().cast_signed()).unwrap(), Signal::TERM).unwrap();
        let status = eventually("the end of the process", || self.child.try_wait().unwrap());
        assert_eq!(status.code(), Some(0));
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_log_that_nobody_reads_does_not_hold_up_a_tunnel() {
    let dir = tempfile::tempdir().unwrap();
    let (mut far, mut near) = pair(dir.path(), echo());
    let entrance = address(&near.ready, "egress");
    let mut carried = 0;
    while carried < CONNECTIONS || far.lost("admin") == 0 || near.lost("admin") == 0 {
        assert!(carried < 20 * CONNECTIONS, "the log is never full");
        let clients: Vec<_> =
            (0..4).map(|_| thread::spawn(move || (0..250).for_each(|n| exchange(entrance, n)))).collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
        carried += 1000;
    }
    for tunnel in [&mut far, &mut near] {
        let health = http_get(address(&tunnel.ready, "admin"), "/livez");
        assert!(health.starts_with("HTTP/1.1 200"), "{health}");
        assert!(tunnel.read_to_gap() > 0);
    }
    // Read or not, a log does not hold up the end either.
    near.ends_with_success();
    far.ends_with_success();
}

#[test]
fn a_log_that_nobody_reads_does_not_hold_up_a_web_app_whose_hook_prints_much() {
    let dir = tempfile::tempdir().unwrap();
    let hooks = dir.path().join("app.py");
    fs::write(&hooks, "def on_trigger(payload, headers):\n    print('x' * 5000)\n    return payload\n").unwrap();
    let mut far = Unread::start(&mut command(&["terminator", "--listen", "127.0.0.1:0"]));
    let peer = format!("ws://{}/ws", address(&far.ready, "listen"));
    let mut near = Unread::start(
        command(&["initiator", "--listen", "127.0.0.1:0", "--auto-trigger", "0", "--peer", &peer, "--hooks"])
            .arg(&hooks),
    );
    let url = format!("http://{}", address(&near.ready, "listen"));
    let input = dir.path().join("input");
    fs::write(&input, (0..400).map(|n| format!("{{\"n\": {n}}}\n")).collect::<String>()).unwrap();
    // What a hook prints in a second is bounded, and how much of it is in the log by now a matter of chance.
    for sent in 1.. {
        let mut send = Running::start(command(&["send", &url]).stdin(fs::File::open(&input).unwrap()));
        assert_eq!(send.end().code(), Some(0));
        if near.lost("listen") > 0 {
            break;
        }
        assert!(sent < 20, "the log is never full");
    }
    near.ends_with_success();
    far.ends_with_success();
}

/// Two tunnels, with one service at the far one.
fn pair(dir: &Path, service: SocketAddr) -> (Unread, Unread) {
    let keys = ["near", "far"].map(|name| keygen(&dir.join(format!("{name}.key"))));
    let tunnel = |name: &str, text: String| {
        let file = dir.join(format!("{name}.yaml"));
        let common = format!("name: {name}\nidentity: {name}.key\nadmin: 127.0.0.1:0\n");
        fs::write(&file, common + &text).unwrap();
        Unread::start(command(&["tunnel", "--config"]).arg(&file))
    };
    let near_key = &keys[0];
    let far = tunnel(
        "far",
        format!(
            "listen: 127.0.0.1:0\npeers: [{{name: near, keys: [\"{near_key}\"]}}]\n\
             ingress: [{{service: echo, forward: \"{service}\", allow: [near]}}]\n"
        ),
    );
    let (far_key, listen) = (&keys[1], address(&far.ready, "listen"));
    let near = tunnel(
        "near",
        format!(
            "peers: [{{name: far, keys: [\"{far_key}\"], addresses: [\"{listen}\"]}}]\n\
             egress: [{{listen: \"127.0.0.1:0\", peer: far, service: echo}}]\n"
        ),
    );
    (far, near)
}

fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            thread::spawn(move || _ = std::io::copy(&mut &socket, &mut &socket));
        }
    });
    address
}

fn exchange(entrance: SocketAddr, byte: u8) {
    let mut socket = TcpStream::connect(entrance).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.write_all(&[byte]).unwrap();
    let mut answer = [0];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [byte]);
}

#[test]
fn send_goes_on_while_nobody_reads_what_it_complains_about() {
    let (_web_app, ready) = role(&mut command(&["terminator", "--listen", "127.0.0.1:0"]));
    let url = format!("http://{}", address(&ready, "listen"));
    let mut send = command(&["send", &url]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = send.stdin.take().unwrap();
    // Each costs a line on standard error: more than a pipe holds, and a queue.
    let feeder = thread::spawn(move || {
        (0..40_000).for_each(|_| stdin.write_all(b"no JSON object\n").unwrap());
        stdin.write_all(b"{\"n\": 1}\n").unwrap();
        stdin
    });
    eventually("the message in the outbox", || {
        let metrics = http_get(address(&ready, "listen"), "/metrics");
        metrics.lines().any(|line| line == "ferry_app_outbox_messages 1").then_some(())
    });
    drop(feeder.join().unwrap());
    kill_process(Pid::from_raw(send.id().cast_signed()).unwrap(), Signal::INT).unwrap();
    let status = eventually("the end of the process", || send.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
}
