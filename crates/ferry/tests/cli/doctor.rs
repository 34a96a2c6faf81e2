//! `ferry doctor` and `ferry status`: faults made on purpose, and what is said of each.

use std::fs::{self, Permissions};
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Running, address, code, command, eventually, keygen, nobody, role, stderr, stdout};

/// A tunnel.yaml with an identity, and a peer's key next to it.
struct Site {
    dir: TempDir,
    key: String,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = keygen(&dir.path().join("identity.key"));
        Self { dir, key }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("tunnel.yaml")
    }

    fn write(&self, rest: &str) -> PathBuf {
        fs::write(self.file(), format!("name: near\nidentity: identity.key\n{rest}")).unwrap();
        self.file()
    }

    /// With a peer at this address, which is to prove this key.
    fn peer(&self, key: &str, address: &str) -> PathBuf {
        self.write(&format!("peers: [{{name: far, keys: [\"{key}\"], addresses: [\"{address}\"]}}]\n"))
    }

    /// With a service at this address, for a peer that dials.
    fn forward(&self, forward: &str) -> PathBuf {
        let key = other_key(self.dir.path());
        self.write(&format!(
            "listen: 127.0.0.1:0\npeers: [{{name: far, keys: [\"{key}\"]}}]\n\
             ingress: [{{service: app, forward: \"{forward}\", allow: [far]}}]\n"
        ))
    }
}

fn other_key(dir: &Path) -> String {
    keygen(&dir.join("other.key"))
}

fn doctor(file: &Path) -> Output {
    let output = command(&["doctor", "--json", "--config"]).arg(file).output().unwrap();
    let said = stdout(&output) + &stderr(&output);
    assert!(!said.to_lowercase().contains("unknown error"), "{said}");
    output
}

/// The check of this name that is not fine has these words in what was found or in its advice, and fails the command.
fn finds(output: &Output, check: &str, words: &[&str]) {
    is_found(output, "failed", check, words);
    assert_ne!(code(output), 0);
}

fn is_found(output: &Output, state: &str, check: &str, words: &[&str]) {
    let report: Value = serde_json::from_str(&stdout(output)).unwrap_or_else(|_| panic!("{}", stderr(output)));
    let checks = report["checks"].as_array().unwrap();
    let found: Vec<_> = checks.iter().filter(|found| found["check"] == check && found["state"] == state).collect();
    let all = |found: &&&Value| words.iter().all(|word| found.to_string().contains(word));
    let found = found.iter().find(all).unwrap_or_else(|| panic!("no {check} has {state} with {words:?} in {report:#}"));
    assert!(!found["advice"].as_str().unwrap().is_empty(), "{found}");
}

/// A tunnel `far` that lists `key`, its own key, and where it listens.
fn far(dir: &Path, key: &str) -> (Running, Value, String) {
    let own = keygen(&dir.join("far.key"));
    let file = dir.join("far.yaml");
    let text = format!(
        "name: far\nidentity: far.key\nadmin: 127.0.0.1:0\nlisten: 127.0.0.1:0\n\
         peers: [{{name: near, keys: [\"{key}\"]}}]\n"
    );
    fs::write(&file, text).unwrap();
    let (running, ready) = role(command(&["tunnel", "--config"]).arg(file));
    (running, ready, own)
}

/// Accepts connections, and does this with each.
fn server(answer: impl Fn(std::net::TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(answer));
    at
}

// --- the configuration, and this host --------------------------------------------------------------------------------

#[test]
fn a_configuration_that_cannot_be_used_is_reported_problem_by_problem() {
    let site = Site::new();
    for (text, word) in [("peers: [", "line"), ("colour: red\npeers: []\n", "colour"), ("drain: soon\n", "drain")] {
        let output = doctor(&site.write(text));
        finds(&output, "configuration", &[word]);
        assert_eq!(code(&output), 78, "{}", stderr(&output));
    }
}

#[test]
fn an_identity_that_is_missing_or_open_to_others_is_found() {
    let site = Site::new();
    let file = site.write("listen: 127.0.0.1:0\n");
    let key = site.dir.path().join("identity.key");
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    finds(&doctor(&file), "configuration", &["identity.key", "chmod"]);
    fs::remove_file(&key).unwrap();
    finds(&doctor(&file), "configuration", &["identity.key", "keygen"]);
}

#[test]
fn an_address_that_cannot_be_listened_on_is_found() {
    let site = Site::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let output = doctor(&site.write(&format!("listen: {}\n", taken.local_addr().unwrap())));
    finds(&output, "listens", &["(listen)", "another process"]);
    let output = doctor(&site.write("listen: 192.0.2.1:18000\n"));
    finds(&output, "listens", &["192.0.2.1:18000", "does not have that address"]);
}

#[test]
fn a_state_directory_that_is_a_file_and_a_clock_that_is_wrong_are_found() {
    let site = Site::new();
    let file = site.write("listen: 127.0.0.1:0\nstate: in-the-way\n");
    fs::write(site.dir.path().join("in-the-way"), "").unwrap();
    let future = SystemTime::now() + Duration::from_secs(4000);
    fs::File::options().write(true).open(&file).unwrap().set_modified(future).unwrap();
    let output = doctor(&file);
    finds(&output, "state", &["not a directory"]);
    is_found(&output, "warning", "clock", &["in the future", "set the clock"]);
}

#[test]
fn a_limit_of_open_files_that_is_too_low_is_found() {
    let site = Site::new();
    let file = site.write("listen: 127.0.0.1:0\nlimits: {sessions: 5000}\n");
    for (limit, state) in [(1000, "warning"), (100, "failed")] {
        let script = format!("ulimit -n {limit}; exec {} doctor --json --config \"$0\"", env!("CARGO_BIN_EXE_ferry"));
        let output = Command::new("sh").args(["-c", &script]).arg(&file).output().unwrap();
        is_found(&output, state, "open files", &[&limit.to_string(), "ulimit"]);
    }
}

// --- applications ----------------------------------------------------------------------------------------------------

#[test]
fn an_application_that_does_not_listen_or_has_no_address_is_found() {
    let site = Site::new();
    finds(&doctor(&site.forward(&nobody().to_string())), "application", &["refused", "start the application"]);
    fs::remove_file(site.dir.path().join("other.key")).unwrap();
    finds(&doctor(&site.forward("nowhere.invalid:80")), "application", &["does not resolve"]);
}

// --- peers -----------------------------------------------------------------------------------------------------------

#[test]
fn a_name_a_file_or_a_port_that_leads_nowhere_is_found() {
    let site = Site::new();
    let key = other_key(site.dir.path());
    finds(&doctor(&site.peer(&key, "nowhere.invalid:30200")), "name", &["nowhere.invalid", "DNS"]);
    finds(&doctor(&site.peer(&key, "file:addresses")), "address", &["No such file", "one host:port a line"]);
    fs::write(site.dir.path().join("addresses"), "# none yet\n").unwrap();
    finds(&doctor(&site.peer(&key, "file:addresses")), "address", &["no address in it"]);
    fs::write(site.dir.path().join("addresses"), "here\n").unwrap();
    finds(&doctor(&site.peer(&key, "file:addresses")), "address", &["one host:port a line"]);
    finds(&doctor(&site.peer(&key, &nobody().to_string())), "link", &["refused", "nothing listens there"]);
}

#[test]
fn something_that_is_no_tunnel_is_found() {
    let site = Site::new();
    let key = other_key(site.dir.path());
    let web = server(|mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    finds(&doctor(&site.peer(&key, &web.to_string())), "link", &["no tunnel", "another program has that port"]);
    let closing = server(drop);
    finds(&doctor(&site.peer(&key, &closing.to_string())), "link", &["ended during the handshake", "load balancer"]);
    let silent = server(std::mem::forget);
    finds(&doctor(&site.peer(&key, &silent.to_string())), "link", &["no answer to a handshake", "says nothing"]);
}

#[test]
fn keys_that_do_not_match_are_told_with_both_of_them() {
    let (site, there) = (Site::new(), Site::new());
    let stranger = other_key(site.dir.path());
    let (_far, ready, key) = far(there.dir.path(), &stranger);
    let listen = address(&ready, "listen").to_string();
    let output = doctor(&site.peer(&stranger, &listen));
    finds(&output, "link", &[&format!("not listed here: {key}"), &format!("are {stranger}")]);
    let output = doctor(&site.peer(&key, &listen));
    finds(&output, "link", &["is not accepted there", &site.key]);
}

// --- all is well -----------------------------------------------------------------------------------------------------

#[test]
fn a_pair_that_runs_is_found_well_by_doctor_and_status() {
    let (site, there) = (Site::new(), Site::new());
    let (far, ready, key) = far(there.dir.path(), &site.key);
    let file = site.peer(&key, &address(&ready, "listen").to_string());
    fs::write(&file, fs::read_to_string(&file).unwrap() + "admin: 127.0.0.1:0\n").unwrap();
    let output = command(&["doctor", "--config"]).arg(&file).output().unwrap();
    assert_eq!(code(&output), 0, "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains(&format!("it proved the key {key}")), "{}", stdout(&output));

    let (_near, ready) = role(command(&["tunnel", "--config"]).arg(&file));
    let url = format!("http://{}", address(&ready, "admin"));
    let status = |args: &[&str]| command(args).arg(&url).output().unwrap();
    let shown = eventually("the peer is reached", || {
        let output = status(&["status"]);
        (code(&output) == 0).then(|| stdout(&output))
    });
    for part in ["near", "PEER", "far", "reachable", "nothing is wrong"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let json: Value = serde_json::from_str(&stdout(&status(&["status", "--json"]))).unwrap();
    assert_eq!(json["peers"][0]["reachable"], true);
    drop(far);
    let output = eventually("the peer is missed", || Some(status(&["status"])).filter(|output| code(output) == 1));
    assert!(stdout(&output).contains("! far is not reachable: "), "{}", stdout(&output));
    assert!(stdout(&output).contains("\n    → "), "what to do about it is not said: {}", stdout(&output));
    assert!(stderr(&output).contains("one thing is wrong at near"), "{}", stderr(&output));
}

#[test]
fn a_status_that_nobody_answers_says_what_to_look_at() {
    let url = format!("http://{}", nobody());
    let output = command(&["status", &url]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("no tunnel answers at") && stderr(&output).contains("--pod"));
    let web = server(|mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
    });
    let output = command(&["status", &format!("http://{web}")]).output().unwrap();
    assert!(stderr(&output).contains("is it a tunnel's admin endpoint?"), "{}", stderr(&output));
    assert_eq!(code(&command(&["status", "https://127.0.0.1:1"]).output().unwrap()), 2);
}

/// What is in an archive: names and contents.
fn unpacked(archive: &Path) -> String {
    let tar = |args: &[&str]| {
        let output = Command::new("tar").args(args).arg(archive).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    tar(&["--list", "--gzip", "--file"]) + &tar(&["--extract", "--to-stdout", "--gzip", "--file"])
}

#[test]
fn a_support_archive_tells_everything_but_secrets() {
    const SECRET: &str = "bm90LWEtc2VjcmV0";
    let (site, archive) = (Site::new(), tempfile::tempdir().unwrap());
    let archive = archive.path().join("support.tar.gz");
    fs::write(site.dir.path().join("credentials"), format!("me:{SECRET}")).unwrap();
    let peer = other_key(site.dir.path());
    let admin = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let file = site.write(&format!(
        "# {SECRET}\nadmin: {admin}\npeers: [{{name: far, keys: [\"{peer}\"], addresses: [\"127.0.0.1:1\"], \
         proxy: \"http://127.0.0.1:1\", proxy_credentials: credentials}}]\n"
    ));
    let (_tunnel, _) = role(command(&["tunnel", "--config"]).arg(&file).env("FERRY_TOKEN", SECRET));
    let write = |archive: &Path| {
        let mut doctor = command(&["doctor", "--bundle"]);
        doctor.arg(archive).arg("--config").arg(&file);
        doctor.env("HTTPS_PROXY", format!("http://me:{SECRET}@127.0.0.1:1")).output().unwrap()
    };
    let output = write(&archive);
    let told = unpacked(&archive);
    for part in ["doctor.json", "configuration.json", "status.json", "metrics.txt", "events.txt", "host.txt"] {
        assert!(told.contains(&format!("ferry-support/{part}\n")), "{part}: {}", stderr(&output));
    }
    for known in
        [&site.key[..], &peer, "\"kind\":\"started\"", "ferry_links_open", "proxy_credentials", "Linux version"]
    {
        assert!(told.contains(known), "{known} in {told}");
    }
    let identity = fs::read_to_string(site.dir.path().join("identity.key")).unwrap();
    let key = identity.lines().find(|line| !line.starts_with('-')).unwrap();
    for secret in [SECRET, key, &key[key.len() - 20..], "PRIVATE KEY"] {
        assert!(!told.contains(secret), "a secret is in the archive: {secret}");
    }
    assert_eq!(fs::metadata(&archive).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(code(&write(&archive)), 1, "a file that is there is not written over");

    let misplaced = archive.with_file_name("misplaced.tar.gz");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("http://127.0.0.1:1", &format!("http://me:{SECRET}@127.0.0.1:1"))).unwrap();
    assert_eq!(code(&write(&misplaced)), 78);
    let told = unpacked(&misplaced);
    assert!(told.contains("configuration.txt") && !told.contains(SECRET), "{told}");
}
