//! A tunnel that was started as any other, and is its own keeper: what its user sees of that.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

use crate::support::{DEADLINE, Running, address, command, eventually, http_get, keygen, role};
use crate::tunnels::pair;

/// The processes that this one has started.
pub(crate) fn children(pid: Pid) -> Vec<Pid> {
    let pid = pid.as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().map(|child| Pid::from_raw(child.parse().unwrap()).unwrap()).collect()
}

pub(crate) fn engine(tunnel: &Running) -> Pid {
    let [engine] = children(tunnel.pid())[..] else { panic!("{:?}", children(tunnel.pid())) };
    engine
}

/// A connection through both tunnels, from one end to the other.
struct Ends([TcpStream; 2]);

impl Ends {
    fn open(entrance: SocketAddr, app: &TcpListener) -> Self {
        let near = TcpStream::connect(entrance).unwrap();
        let (far, _) = app.accept().unwrap();
        let ends = Self([near, far]);
        ends.0.iter().for_each(|end| end.set_read_timeout(Some(DEADLINE)).unwrap());
        ends.exchange(b"first");
        ends
    }

    fn exchange(&self, bytes: &[u8; 5]) {
        let [near, far] = &self.0;
        for (mut from, mut to) in [(near, far), (far, near)] {
            let mut read = [0; 5];
            from.write_all(bytes).unwrap();
            to.read_exact(&mut read).unwrap();
            assert_eq!(&read, bytes);
        }
    }
}

/// A tunnel.yaml of a tunnel that needs no other.
fn write_config(dir: &Path, more: &str) -> PathBuf {
    keygen(&dir.join("identity.key"));
    let file = dir.join("tunnel.yaml");
    fs::write(&file, format!("name: a\nidentity: identity.key\n{more}")).unwrap();
    file
}

fn start(file: &Path) -> (Running, Value) {
    role(command(&["tunnel", "--config"]).arg(file))
}

#[test]
fn a_session_outlives_the_process_of_a_tunnel_that_asks_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let app = TcpListener::bind("127.0.0.1:0").unwrap();
    let [(mut near, ready), _far] = pair(dir.path(), &app);
    let ends = Ends::open(address(&ready, "egress"), &app);
    kill_process(engine(&near), Signal::KILL).unwrap();
    near.line(|line| line.contains("taking over from the process before"));
    ends.exchange(b"after");
    near.line(|line| line.contains("\"ready\""));
    near.signal(Signal::USR2);
    near.line(|line| line.contains("taking over from the process before"));
    ends.exchange(b"again");
}

/// Puts a program where a tunnel is started from, as package managers do.
fn install(program: &OsStr, at: &Path) {
    fs::copy(program, at.with_extension("new")).unwrap();
    fs::rename(at.with_extension("new"), at).unwrap();
}

/// `FERRY_OTHER_BIN` names the other build; without it, it is another file of this one.
#[test]
fn a_session_outlives_upgrades_to_another_build_and_back_at_either_end() {
    let dir = tempfile::tempdir().unwrap();
    let app = TcpListener::bind("127.0.0.1:0").unwrap();
    let this = OsString::from(env!("CARGO_BIN_EXE_ferry"));
    let other = std::env::var_os("FERRY_OTHER_BIN").unwrap_or_else(|| this.clone());
    let tunnels = pair(dir.path(), &app);
    drop(tunnels);
    let program = |name: &str| dir.path().join(name);
    let start = |name: &str| {
        install(&this, &program(name));
        let file = dir.path().join(format!("{name}.yaml"));
        role(ferry_processes::command(program(name).to_str().unwrap(), &["tunnel", "--config"]).arg(file))
    };
    let (far, ready) = start("far");
    let near = dir.path().join("near.yaml");
    let text = fs::read_to_string(&near).unwrap();
    let (before, rest) = text.split_once("addresses: [\"").unwrap();
    let (_, after) = rest.split_once('"').unwrap();
    // A port that the system chose is another one with each process.
    let addresses = dir.path().join("addresses");
    fs::write(&addresses, address(&ready, "listen").to_string()).unwrap();
    fs::write(&near, format!("{before}addresses: [\"file:addresses\"{after}")).unwrap();
    let (near, ready) = start("near");
    let ends = Ends::open(address(&ready, "egress"), &app);
    let mut ends_of_tunnel = [("near", near), ("far", far)];
    for to in [&other, &this] {
        for (name, tunnel) in &mut ends_of_tunnel {
            install(to, &program(name));
            tunnel.signal(Signal::USR2);
            tunnel.line(|line| line.contains("taking over from the process before"));
            let ready: Value = serde_json::from_str(&tunnel.line(|line| line.contains("\"ready\""))).unwrap();
            let listen = ready["listen"].as_str().map(str::to_owned);
            listen.into_iter().for_each(|listen| fs::write(&addresses, listen).unwrap());
            ends.exchange(b"after");
        }
    }
}

/// What the engine of a build with another format of the arena would have left: its records are not guessed at.
#[test]
fn sessions_of_a_build_with_another_format_are_reset_at_both_ends_and_that_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let app = TcpListener::bind("127.0.0.1:0").unwrap();
    let [(near, _), _far] = pair(dir.path(), &app);
    drop(near);
    let file = dir.path().join("near.yaml");
    let config = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{config}state: state\nadmin: 127.0.0.1:0\n")).unwrap();
    let (mut near, ready) = start(&file);
    let ends = Ends::open(address(&ready, "egress"), &app);
    let engine = engine(&near);
    let arena = fs::read_dir(format!("/proc/{}/fd", engine.as_raw_nonzero())).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        fs::read_link(&path).ok().filter(|file| file.to_string_lossy().contains("ferry-arena")).map(|_| path)
    });
    let arena = OpenOptions::new().read(true).write(true).open(arena.unwrap()).unwrap();
    let (mut format, at) = ([0; 8], 16);
    arena.read_exact_at(&mut format, at).unwrap();
    arena.write_all_at(&(u64::from_ne_bytes(format) + 1).to_ne_bytes(), at).unwrap();
    kill_process(engine, Signal::KILL).unwrap();
    near.line(|line| {
        line.contains("the sessions of the process before are lost: its memory: it is in a format that this version")
    });
    let ready: Value = serde_json::from_str(&near.line(|line| line.contains("\"ready\""))).unwrap();
    for mut end in &ends.0 {
        assert_eq!(end.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    let metrics = http_get(address(&ready, "admin"), "/metrics");
    assert!(metrics.contains("\nferry_sessions_dropped_total 1\n"), "{metrics}");
    Ends::open(address(&ready, "egress"), &app);
}

#[test]
fn no_process_is_left_when_the_one_that_was_started_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    // An address that no other test takes a port of.
    let [high, low] = std::process::id().to_be_bytes()[2..] else { unreachable!() };
    let file = write_config(dir.path(), &format!("listen: 127.{}.{low}.9:0\n", high | 1));
    let (mut tunnel, ready) = start(&file);
    tunnel.signal(Signal::KILL);
    // The log ends with the last process that could write to it.
    tunnel.rest();
    // Where it was, it can be started again at once.
    let listen = address(&ready, "listen");
    fs::write(&file, format!("name: a\nidentity: identity.key\nlisten: {listen}\n")).unwrap();
    for _ in 0..3 {
        let (mut tunnel, ready) = start(&file);
        assert_eq!(address(&ready, "listen"), listen);
        tunnel.signal(Signal::KILL);
        tunnel.end();
    }
}

#[test]
fn a_tunnel_is_one_process_without_a_keeper() {
    let dir = tempfile::tempdir().unwrap();
    let file = write_config(dir.path(), "keeper: off\n");
    let (tunnel, _) = start(&file);
    assert_eq!(children(tunnel.pid()), []);
    let file = write_config(&fresh(dir.path()), "");
    let (tunnel, _) = role(command(&["tunnel", "--config"]).arg(file).env("FERRY_KEEPER", "off"));
    assert_eq!(children(tunnel.pid()), []);
}

fn fresh(dir: &Path) -> PathBuf {
    let dir = dir.join("fresh");
    fs::create_dir(&dir).unwrap();
    dir
}

#[test]
fn what_asks_a_whole_group_to_stop_asks_a_tunnel_once() {
    let dir = tempfile::tempdir().unwrap();
    let app = TcpListener::bind("127.0.0.1:0").unwrap();
    let file = |name: &str| dir.path().join(name);
    let [(near, ready), _far] = pair(dir.path(), &app);
    let listen = fs::read_to_string(file("near.yaml")).unwrap();
    drop(near);
    // As a terminal and a unit of systemd do, to all at once.
    fs::write(file("near.yaml"), listen + "drain: 10m\n").unwrap();
    let mut started = command(&["tunnel", "--config"]);
    std::os::unix::process::CommandExt::process_group(&mut started, 0);
    let (mut near, ready) = {
        drop(ready);
        role(started.arg(file("near.yaml")))
    };
    let ends = Ends::open(address(&ready, "egress"), &app);
    kill_process_group(near.pid(), Signal::TERM).unwrap();
    near.line(|line| line.contains("asked to stop"));
    ends.exchange(b"drain");
    drop(ends);
    assert_eq!(near.end().code(), Some(0));
}

#[test]
fn a_second_signal_cuts_a_tunnel_off() {
    let dir = tempfile::tempdir().unwrap();
    let app = TcpListener::bind("127.0.0.1:0").unwrap();
    let [(near, _), _far] = pair(dir.path(), &app);
    drop(near);
    let near = dir.path().join("near.yaml");
    let (mut near, ready) = role(command(&["tunnel", "--config"]).arg(near).stderr(Stdio::null()));
    let _ends = Ends::open(address(&ready, "egress"), &app);
    near.signal(Signal::TERM);
    near.line(|line| line.contains("asked to stop"));
    near.signal(Signal::TERM);
    assert_eq!(near.end().code(), Some(1));
    near.rest();
}

#[test]
fn a_tunnel_that_can_have_no_keeper_says_so_once_and_runs_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let file = write_config(dir.path(), "");
    let mut limited = Command::new("/bin/sh");
    // No file may be as large as what is to outlive the process.
    limited.args(["-c", "ulimit -f 1; exec \"$0\" tunnel --config \"$1\"", env!("CARGO_BIN_EXE_ferry")]).arg(file);
    limited.env_remove("FERRY_KEEPER").env_remove("FERRY_LOG");
    let mut tunnel = Running::start(&mut limited);
    tunnel.line(|line| line.contains("sessions end with this process: no memory that outlives the process"));
    tunnel.line(|line| line.contains("INFO ready "));
    assert_eq!(children(tunnel.pid()), []);
    tunnel.signal(Signal::TERM);
    assert_eq!(tunnel.end().code(), Some(0));
}

#[test]
fn a_tunnel_that_crashes_twice_is_started_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (mut tunnel, _) = start(&write_config(dir.path(), ""));
    let mut before = Vec::new();
    for _ in 0..2 {
        let engine = engine(&tunnel);
        kill_process(engine, Signal::KILL).unwrap();
        before.push(engine);
        tunnel.line(|line| line.contains("\"ready\""));
    }
    eventually("another process", || (!before.contains(&engine(&tunnel))).then_some(()));
    tunnel.signal(Signal::INT);
    assert_eq!(tunnel.end().code(), Some(0));
}

#[test]
fn a_tunnel_that_leaves_has_the_next_process_continue_its_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let app = TcpListener::bind("127.0.0.1:0").unwrap();
    let [(near, _), _far] = pair(dir.path(), &app);
    drop(near);
    let file = dir.path().join("near.yaml");
    let socket = dir.path().join("keeper").join("socket");
    let config = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{config}keeper: {}\ndrain: 1s\n", socket.display())).unwrap();
    // The tunnel starts first: as in a pod, it waits for its keeper.
    let leaving = || Running::start(command(&["tunnel", "--leave-sessions", "--config"]).arg(&file));
    let mut near = leaving();
    let _keeper = Running::start(command(&["keeper", "--socket"]).arg(&socket));
    let ready = near.line(|line| line.contains(" INFO ready "));
    let entrance = ready.split(" egress=").nth(1).unwrap().split(' ').next().unwrap();
    let ends = Ends::open(entrance.parse().unwrap(), &app);
    near.signal(Signal::TERM);
    assert_eq!(near.end().code(), Some(0));
    assert!(near.rest().iter().any(|line| line.contains("left to the keeper sessions=1")));
    let mut near = leaving();
    near.line(|line| line.contains("taking over from the process before sessions=1"));
    ends.exchange(b"after");
}
