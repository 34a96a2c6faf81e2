//! What the web-apps take of memory at the worst: less than the pod of a bundle has.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{address, command, eventually, fresh_dir, http_get, role};

/// What a bundle gives a web-app, in KiB.
const POD_KIB: u64 = 256 * 1024;
const LARGE: usize = 12;
const HELD: usize = 300;

fn hooks() -> PathBuf {
    let dir = fresh_dir();
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("app.py");
    let code = "def on_trigger(payload, headers):\n    return payload\n\ndef on_receive_terminator(payload):\n    return payload\n";
    std::fs::write(&file, code).unwrap();
    file
}

/// The sum of what a process and its children hold, in KiB.
fn resident(pid: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let own = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let own: u64 = own.map_or(0, |text| text.trim().trim_end_matches(" kB").parse().unwrap());
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children: Vec<String> = tasks
        .map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default())
        .flat_map(|children| children.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    own + children.iter().map(|child| resident(child)).sum::<u64>()
}

/// Begins a `POST /trigger` with this body.
fn begin(address: SocketAddr, length: usize, body: &[u8]) -> TcpStream {
    let mut connection = TcpStream::connect(address).unwrap();
    let head = "POST /trigger HTTP/1.1\r\ncontent-type: application/json\r\nconnection: close";
    connection.write_all(format!("{head}\r\nhost: {address}\r\ncontent-length: {length}\r\n\r\n").as_bytes()).unwrap();
    connection.set_nonblocking(body.len() < length).unwrap();
    // What is not read stays with the kernel, which may not have room for it.
    let _ = connection.write_all(body);
    connection
}

#[test]
fn a_web_app_with_hooks_stays_within_its_pod_whatever_clients_hold_and_send_at_once() {
    let hooks = hooks();
    let hooks = hooks.to_str().unwrap();
    let (terminator, ready) = role(&mut command(&["terminator", "--listen", "127.0.0.1:0", "--hooks", hooks]));
    let far = address(&ready, "listen");
    let peer = format!("ws://{far}/ws");
    let args = ["initiator", "--listen", "127.0.0.1:0", "--auto-trigger", "0", "--peer", &peer, "--hooks", hooks];
    let (initiator, ready) = role(&mut command(&args));
    let near = address(&ready, "listen");

    let (done, peaks) = (Arc::new(AtomicBool::new(false)), [AtomicU64::new(0), AtomicU64::new(0)]);
    let peaks = Arc::new(peaks);
    let watcher = {
        let (done, peaks) = (done.clone(), peaks.clone());
        let pids = [initiator.status("Pid"), terminator.status("Pid")];
        thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                for (pid, peak) in pids.iter().zip(peaks.iter()) {
                    peak.fetch_max(resident(pid), Ordering::Relaxed);
                }
                thread::sleep(Duration::from_millis(5));
            }
        })
    };

    let size = 1 << 20;
    let held: Vec<_> = (0..HELD).map(|_| begin(near, size, &vec![b' '; size - 1])).collect();
    // Once there are as many as may be in progress, nothing more of the others is read.
    eventually("the held ones read", || (peaks[0].load(Ordering::Relaxed) > 40 * 1024).then_some(()));
    let zeros = format!("{{\"a\":[0{}]}}", ",0".repeat(size / 2 - 8));
    let sending: Vec<_> = (0..LARGE)
        .map(|_| {
            let zeros = zeros.clone();
            thread::spawn(move || {
                loop {
                    let mut answer = String::new();
                    begin(near, zeros.len(), zeros.as_bytes()).read_to_string(&mut answer).unwrap();
                    // While the held ones have all shares, or on a busy machine, a client offers it again.
                    if answer.starts_with("HTTP/1.1 202 ") {
                        break;
                    }
                    let is_later = ["HTTP/1.1 408 ", "HTTP/1.1 503 "].iter().any(|status| answer.starts_with(status));
                    assert!(is_later, "{answer:.200}");
                }
            })
        })
        .collect();
    sending.into_iter().for_each(|thread| thread.join().unwrap());
    drop(held);
    for url in [far, near] {
        eventually("all of them there", || http_get(url, "/output?limit=1").contains("\"count\":12").then_some(()));
        assert!(http_get(url, "/output?limit=1000").len() > size);
    }
    done.store(true, Ordering::Relaxed);
    watcher.join().unwrap();
    for (name, peak) in ["initiator", "terminator"].iter().zip(peaks.iter()) {
        let peak = peak.load(Ordering::Relaxed);
        println!("{name}: {} MiB at most", peak / 1024);
        assert!(peak > 10 * 1024 && peak < POD_KIB, "{name}: {} MiB", peak / 1024);
    }
}
