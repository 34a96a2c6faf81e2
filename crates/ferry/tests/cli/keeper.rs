//! `ferry keeper` as a process: small, and the tunnel's starter.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{DEADLINE, Family, address, command, fresh_dir, keygen, role};
use ferry_keeper::{Client, Event, Tag};

const SESSIONS: u64 = 1000;
/// What a keeper may hold in memory, in KiB, beyond the pages of the program, which it shares with the tunnel.
const MAX_RESIDENT: u64 = 4 * 1024;
const PATIENCE: Duration = Duration::from_secs(60);

fn status_kib(child: &Child, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    value.trim_matches([':', ' ', '\t']).trim_end_matches(" kB").parse().unwrap()
}

fn threads(child: &Child) -> usize {
    fs::read_dir(format!("/proc/{}/task", child.id())).unwrap().count()
}

fn connect(path: &Path, child: &mut Child) -> Client {
    loop {
        assert_eq!(child.try_wait().unwrap(), None, "the keeper has ended");
        if let Ok((client, _)) = Client::connect(path, PATIENCE) {
            return client;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_keeper_of_a_thousand_sessions_is_small() {
    let path = fresh_dir().with_extension("keeper").join("keeper.sock");
    fs::create_dir_all(path.parent().unwrap().parent().unwrap()).unwrap();
    let mut family = Family::start(&mut command(&["keeper", "--socket", path.to_str().unwrap()]), &path);
    let keeper = &mut family.parent;
    let mut client = connect(&path, keeper);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sockets: Vec<OwnedFd> = Vec::new();
    for number in 0..SESSIONS {
        let (ours, theirs) =
            (TcpStream::connect(listener.local_addr().unwrap()).unwrap(), listener.accept().unwrap().0);
        let mut tag = [0; 32];
        tag[..8].copy_from_slice(&number.to_be_bytes());
        // The keeper's copy is the only one, and this process needs few.
        let seq = client.store(&Tag(tag), ours.as_fd()).unwrap();
        while client.poll_event().unwrap() != Some(Event::Confirmed { through: seq }) {
            std::thread::yield_now();
        }
        if number == 0 {
            sockets.extend([ours.into(), theirs.into()]);
        }
    }
    let [resident, own, of_file] = ["VmRSS", "RssAnon", "RssFile"].map(|field| status_kib(keeper, field));
    let threads = threads(keeper);
    println!(
        "keeper with {SESSIONS} sockets: resident {resident} KiB, own {own} KiB, pages of the program {of_file} KiB"
    );
    kill_process(Pid::from_child(keeper), Signal::TERM).unwrap();
    assert_eq!(keeper.wait().unwrap().code(), Some(0));
    assert!(!path.exists(), "its socket is left");
    assert_eq!(threads, 1);
    assert!(own <= MAX_RESIDENT, "the keeper holds {own} KiB");
}

/// The tunnel does not talk to its keeper yet, and is supervised all the same.
#[test]
fn a_tunnel_under_a_keeper_is_started_again_and_ends_it_in_good_order() {
    let dir = fresh_dir();
    fs::create_dir_all(&dir).unwrap();
    let (key, config, path) = (dir.join("own.key"), dir.join("tunnel.yaml"), dir.join("run").join("keeper.sock"));
    assert!(command(&["keygen", "--out", key.to_str().unwrap()]).output().unwrap().status.success());
    fs::write(&config, "name: here\nidentity: own.key\nlisten: 127.0.0.1:0\n").unwrap();
    let (ferry, config) = (env!("CARGO_BIN_EXE_ferry"), config.to_str().unwrap());
    let args = ["keeper", "--socket", path.to_str().unwrap(), "--", ferry, "tunnel", "--config", config];
    let mut family = Family::start(command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()), &path);
    let keeper = &mut family.parent;
    let mut said = BufReader::new(keeper.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut log = BufReader::new(keeper.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut started = || {
        let pid = said.find_map(|line| line.strip_prefix("ferry keeper: started engine ")?.parse().ok());
        assert!(log.any(|line| line.contains("ready")), "the tunnel has ended");
        Pid::from_raw(pid.unwrap()).unwrap()
    };
    kill_process(started(), Signal::KILL).unwrap();
    started();
    kill_process(Pid::from_child(keeper), Signal::TERM).unwrap();
    assert_eq!(keeper.wait().unwrap().code(), Some(0));
}

#[test]
fn a_tunnel_that_cannot_start_ends_its_keeper_with_its_code() {
    let path = fresh_dir().join("keeper.sock");
    fs::create_dir_all(path.parent().unwrap().parent().unwrap()).unwrap();
    let ferry = env!("CARGO_BIN_EXE_ferry");
    let args = ["keeper", "--socket", path.to_str().unwrap(), "--", ferry, "tunnel", "--config", "/nowhere.yaml"];
    let mut family = Family::start(command(&args).stderr(Stdio::piped()), &path);
    let keeper = &mut family.parent;
    let mut said = String::new();
    keeper.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(keeper.wait().unwrap().code(), Some(78), "{said}");
    assert!(said.contains("/nowhere.yaml"), "{said}");
}

/// The kernel counts the header with the bytes of the session, and the process that takes over has to tell them apart.
#[test]
fn a_connection_that_began_with_a_proxy_header_outlives_its_tunnel_and_gets_no_other() {
    let dir = fresh_dir();
    fs::create_dir_all(&dir).unwrap();
    let [near_key, far_key] = ["near", "far"].map(|name| keygen(&dir.join(format!("{name}.key"))));
    let app = TcpListener::bind("127.0.0.1:0").unwrap();
    let (config, path, ferry) =
        (dir.join("far.yaml"), dir.join("run").join("keeper.sock"), env!("CARGO_BIN_EXE_ferry"));
    let text = format!(
        "name: far\nidentity: far.key\nlisten: 127.0.0.1:0\npeers: [{{name: near, keys: [\"{near_key}\"]}}]\n\
         ingress: [{{service: app, forward: \"{}\", allow: [near], proxy_protocol: v2}}]\n",
        app.local_addr().unwrap()
    );
    fs::write(&config, text).unwrap();
    let args =
        ["keeper", "--socket", path.to_str().unwrap(), "--", ferry, "tunnel", "--config", config.to_str().unwrap()];
    let mut keeper = command(&args);
    let keeper = keeper.env("FERRY_LOG_FORMAT", "json").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut family = Family::start(keeper, &path);
    let keeper = &mut family.parent;
    let mut said = BufReader::new(keeper.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut log = BufReader::new(keeper.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut started = || {
        let pid = said.find_map(|line| line.strip_prefix("ferry keeper: started engine ")?.parse().ok());
        let ready = log.find(|line| line.contains("\"ready\"")).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
        (Pid::from_raw(pid.unwrap()).unwrap(), address(&ready, "listen"))
    };
    let (engine, listen) = started();
    let (file, addresses) = (dir.join("near.yaml"), dir.join("addresses"));
    fs::write(&addresses, listen.to_string()).unwrap();
    let text = format!(
        "name: near\nidentity: near.key\npeers: [{{name: far, keys: [\"{far_key}\"], addresses: [\"file:addresses\"]}}]\n\
         egress: [{{listen: \"127.0.0.1:0\", peer: far, service: app}}]\n"
    );
    fs::write(&file, text).unwrap();
    let (_near, ready) = role(command(&["tunnel", "--config"]).arg(&file));
    let mut client = TcpStream::connect(address(&ready, "egress")).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.write_all(b"one").unwrap();
    let (mut served, _) = app.accept().unwrap();
    served.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut head = [0; 16];
    served.read_exact(&mut head).unwrap();
    assert_eq!(&head[..14], b"\r\n\r\n\0\r\nQUIT\n\x21\x11");
    let mut header = vec![0; u16::from_be_bytes([head[14], head[15]]).into()];
    served.read_exact(&mut header).unwrap();
    let mut exchange = |text: &[u8; 3]| {
        client.write_all(text).unwrap();
        let mut bytes = [0; 3];
        served.read_exact(&mut bytes).unwrap();
        served.write_all(&bytes).unwrap();
        client.read_exact(&mut bytes).unwrap();
        bytes
    };
    assert_eq!(&exchange(b"two"), b"one");
    kill_process(engine, Signal::KILL).unwrap();
    // A port that the system chose is another one next time.
    let (_, listen) = started();
    fs::write(&addresses, listen.to_string()).unwrap();
    assert_eq!((&exchange(b"six"), &exchange(b"ten")), (b"two", b"six"));
    kill_process(Pid::from_child(keeper), Signal::TERM).unwrap();
    keeper.wait().unwrap();
}
