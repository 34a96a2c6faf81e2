//! What the tests share: running the binary to its end, and roles that run beside the test.

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

pub(crate) use ferry_processes::{DEADLINE, Family, Port, Running, code, eventually, nobody, stderr, stdout};
use serde_json::Value;

/// The binary, in an environment that nothing of ours is set in.
pub(crate) fn command<S: AsRef<OsStr>>(args: &[S]) -> Command {
    let mut command = ferry_processes::command(env!("CARGO_BIN_EXE_ferry"), args);
    command.env("FERRY_DATA", fresh_dir());
    command
}

/// A directory for a store, under the target directory, empty.
pub(crate) fn fresh_dir() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stores").join(name);
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

pub(crate) fn ferry<S: AsRef<OsStr>>(args: &[S]) -> Output {
    command(args).output().unwrap()
}

/// Runs the binary with this on its standard input.
pub(crate) fn ferry_with_input(args: &[&str], input: &str) -> Output {
    let mut child = command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = thread::spawn(move || _ = stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// Starts a role, and returns it with the fields of the line that says that it is up.
pub(crate) fn role(command: &mut Command) -> (Running, Value) {
    let mut running = Running::start(command.env("FERRY_LOG_FORMAT", "json"));
    let line = running.line(|line| line.contains("\"ready\""));
    (running, serde_json::from_str(&line).unwrap())
}

/// An address in a field of a ready line.
pub(crate) fn address(ready: &Value, field: &str) -> SocketAddr {
    ready[field].as_str().unwrap_or_else(|| panic!("no {field} in {ready}")).parse().unwrap()
}

/// Makes an identity, and returns its public key.
pub(crate) fn keygen(path: &Path) -> String {
    let output = ferry(&["keygen".as_ref(), "--out".as_ref(), path.as_os_str()]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    stdout(&output).trim_end().to_owned()
}

/// The whole answer to a request.
pub(crate) fn http_get(address: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}
