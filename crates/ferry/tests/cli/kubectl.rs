//! A tunnel in a cluster is asked through kubectl, whose part a script plays.

use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::{Running, address, code, command, eventually, keygen, role, stderr, stdout};

/// As kubectl does, it says a line for each connection before it forwards that, and ends if no one reads them.
const FORWARD: &str = r#"#!/usr/bin/env python3
import os, signal, socket, sys, threading
open("DIR/pid", "w").write(str(os.getpid()))
open("DIR/args", "w").write(" ".join(sys.argv[1:]))
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
listener = socket.create_server(("127.0.0.1", 0))
port = listener.getsockname()[1]
print(f"Forwarding from 127.0.0.1:{port} -> 9900", flush=True)
open("DIR/port", "w").write(str(port))
def pump(source, sink):
    while data := source.recv(65536):
        sink.sendall(data)
    sink.shutdown(socket.SHUT_WR)
while True:
    near, _ = listener.accept()
    print(f"Handling connection for {port}", flush=True)
    far = socket.create_connection(("127.0.0.1", TARGET))
    for ends in (near, far), (far, near):
        threading.Thread(target=pump, args=ends, daemon=True).start()
"#;

/// A kubectl in this directory that forwards to this address.
pub(crate) fn forward_to(dir: &Path, target: SocketAddr) {
    let script = FORWARD.replace("DIR", dir.to_str().unwrap()).replace("TARGET", &target.port().to_string());
    install(dir, &script);
}

fn install(dir: &Path, script: &str) {
    let kubectl = dir.join("kubectl");
    fs::write(&kubectl, script).unwrap();
    fs::set_permissions(kubectl, Permissions::from_mode(0o755)).unwrap();
}

/// A command that finds kubectl in this directory first.
pub(crate) fn with_kubectl(dir: &Path, args: &[&str]) -> Command {
    let mut command = command(args);
    command.env("PATH", format!("{}:{}", dir.display(), std::env::var("PATH").unwrap()));
    command
}

/// A tunnel without peers.
fn tunnel(dir: &Path) -> (Running, SocketAddr) {
    keygen(&dir.join("identity.key"));
    fs::write(dir.join("tunnel.yaml"), "name: far\nidentity: identity.key\nadmin: 127.0.0.1:0\n").unwrap();
    let (running, ready) = role(command(&["tunnel", "--config"]).arg(dir.join("tunnel.yaml")));
    (running, address(&ready, "admin"))
}

const POD: [&str; 7] = ["status", "--context", "k3d-b", "--namespace", "ns", "--pod", "deploy/terminator"];

#[test]
fn a_status_in_a_cluster_is_asked_through_kubectl() {
    let dir = tempfile::tempdir().unwrap();
    let (_tunnel, admin) = tunnel(dir.path());
    forward_to(dir.path(), admin);
    let output = with_kubectl(dir.path(), &POD).output().unwrap();
    assert!(stdout(&output).starts_with("far  ferry"), "{}{}", stdout(&output), stderr(&output));
    let args = fs::read_to_string(dir.path().join("args")).unwrap();
    assert_eq!(args, "--context k3d-b --namespace ns port-forward --address 127.0.0.1 -- deploy/terminator :9900");
}

#[test]
fn what_kubectl_says_is_passed_on_and_a_missing_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    install(dir.path(), "#!/bin/sh\necho 'error: pods \"terminator\" not found' >&2\nexit 1\n");
    let output = with_kubectl(dir.path(), &POD).output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("cannot forward to deploy/terminator: error: pods"), "{}", stderr(&output));
    fs::remove_file(dir.path().join("kubectl")).unwrap();
    let output = command(&POD).env("PATH", dir.path()).output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("cannot run kubectl; is it installed, and in PATH?"), "{}", stderr(&output));
}

#[test]
fn kubectl_ends_with_a_command_that_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    // It takes connections, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    forward_to(dir.path(), silent.local_addr().unwrap());
    let mut status = Running::start(with_kubectl(dir.path(), &POD).stderr(Stdio::null()));
    silent.set_nonblocking(true).unwrap();
    let _asked = eventually("it is asked", || silent.accept().ok());
    let port: u16 = fs::read_to_string(dir.path().join("port")).unwrap().parse().unwrap();
    status.signal(Signal::TERM);
    assert_eq!(status.end().code(), Some(1));
    eventually("kubectl has ended", || TcpStream::connect(("127.0.0.1", port)).is_err().then_some(()));
}
