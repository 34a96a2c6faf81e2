//! Faults made on purpose, what `ferry doctor` says of each, and the page that shows it.
//!
//! `UPDATE=1` writes the page again: review what has changed in it.

mod table;

use std::any::Any;
use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Port, Running, address, code, command, keygen, role, stderr, stdout};
use table::FAULTS;

const PAGE: &str = "../../docs/doctor.md";

const HEAD: &str = "\
# What doctor says

Faults made on purpose, and what `ferry doctor --config tunnel.yaml` said of each. This page is written by a test, which
makes all of them (`cargo test -p ferry --test cli faults`): do not edit it. `…` stands for what varies.

The exit code is 0 where nothing failed, 1 where something did, and 78 where the configuration cannot be used.

";

/// One fault, and what has to be said of it.
struct Fault {
    what: &'static str,
    check: &'static str,
    state: &'static str,
    exit: i32,
    /// In what was found, or in the advice.
    words: &'static [&'static str],
    make: fn(&Site) -> Made,
}

/// Where a fault is: a configuration, and what stands around it for as long as doctor looks.
struct Site {
    dir: TempDir,
    key: String,
    other: String,
}

/// What doctor is run on.
struct Made {
    file: PathBuf,
    doctor: Option<Command>,
    _around: Vec<Box<dyn Any>>,
}

impl From<PathBuf> for Made {
    fn from(file: PathBuf) -> Self {
        Self { file, doctor: None, _around: Vec::new() }
    }
}

impl Made {
    fn with(mut self, around: impl Any) -> Self {
        self._around.push(Box::new(around));
        self
    }
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [key, other] = ["identity.key", "other.key"].map(|name| keygen(&dir.path().join(name)));
        Self { dir, key, other }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, rest: &str) -> PathBuf {
        let file = self.path("tunnel.yaml");
        fs::write(&file, format!("name: near\nidentity: identity.key\n{rest}")).unwrap();
        file
    }

    /// A peer at this address, with `more` in its entry.
    fn peer(&self, address: impl std::fmt::Display, more: &str) -> PathBuf {
        let key = &self.other;
        self.write(&format!("peers: [{{name: far, keys: [\"{key}\"], addresses: [\"{address}\"]{more}}}]\n"))
    }

    fn forward(&self, forward: &str) -> PathBuf {
        let key = &self.other;
        self.write(&format!(
            "listen: 127.0.0.1:0\npeers: [{{name: far, keys: [\"{key}\"]}}]\n\
             ingress: [{{service: app, forward: \"{forward}\", allow: [far]}}]\n"
        ))
    }

    /// A tunnel `far` that lists `key`, and where it listens. Its own key is the other one of this site.
    fn far(&self, key: &str, rest: &str) -> (Running, SocketAddr) {
        let text = format!(
            "name: far\nidentity: other.key\nlisten: 127.0.0.1:0\npeers: [{{name: near, keys: [\"{key}\"]}}]\n{rest}"
        );
        fs::write(self.path("far.yaml"), text).unwrap();
        let (running, ready) = role(command(&["tunnel", "--config"]).arg(self.path("far.yaml")));
        let listen = address(&ready, "listen");
        (running, listen)
    }

    /// A tunnel that runs on what is written, with an application that wants a service of a peer that has `rest`; doctor
    /// looks at it once the application was refused.
    fn refused(&self, rest: &str) -> Made {
        let (far, at) = self.far(&self.key, rest);
        let (admin, egress) = (Port::reserve(), Port::reserve());
        let file = self.write(&format!(
            "admin: {}\npeers: [{{name: far, keys: [\"{}\"], addresses: [\"{at}\"]}}]\n\
             egress: [{{listen: \"{}\", peer: far, service: app}}]\n",
            admin.address(),
            self.other,
            egress.address()
        ));
        let (near, _) = role(command(&["tunnel", "--config"]).arg(&file));
        let mut app = TcpStream::connect(egress.address()).unwrap();
        assert!(app.read(&mut [0]).is_err(), "the application is reset");
        Made::from(file).with((far, near, admin, egress))
    }
}

/// What doctor said of one fault.
struct Said {
    found: Value,
    exit: i32,
}

impl Fault {
    fn try_out(&self) -> (Said, String) {
        let site = Site::new();
        let mut made = (self.make)(&site);
        let output = match &mut made.doctor {
            Some(doctor) => doctor.output(),
            None => command(&["doctor", "--json", "--config"]).arg(&made.file).output(),
        };
        let said = self.judge(&output.unwrap());
        let row = self.row(&said, &site);
        (said, row)
    }

    fn judge(&self, output: &Output) -> Said {
        let Self { what, check, state, .. } = self;
        let all = stdout(output) + &stderr(output);
        let lower = all.to_lowercase();
        assert!(!lower.contains("unknown error"), "{what}: {all}");
        assert!(!stdout(output).contains("os error"), "{what}: {all}");
        let report: Value = serde_json::from_str(&stdout(output)).unwrap_or_else(|_| panic!("{what}: {all}"));
        let checks = report["checks"].as_array().unwrap();
        let fits = |found: &&Value| {
            let text = format!("{} {} {}", found["subject"], found["found"], found["advice"]);
            found["check"] == *check && found["state"] == *state && self.words.iter().all(|word| text.contains(word))
        };
        let found = checks.iter().find(fits);
        let found =
            found.unwrap_or_else(|| panic!("{what}: no {check} has {state} with {:?} in {report:#}", self.words));
        assert!(found["advice"].as_str().is_some_and(|advice| !advice.is_empty()), "{what}: {found}");
        assert_eq!(code(output), self.exit, "{what}: {all}");
        Said { found: found.clone(), exit: self.exit }
    }

    /// As the page has it.
    fn row(&self, said: &Said, site: &Site) -> String {
        let text = |key: &str| shown(said.found[key].as_str().unwrap_or_default(), site);
        let Said { exit, .. } = said;
        format!(
            "| {} | {} {} | {}: {} | {} | {exit} |\n",
            self.what.replace('`', "'"),
            self.check,
            self.state,
            text("subject"),
            text("found"),
            text("advice")
        )
    }
}

/// Without what is another one each time.
fn shown(text: &str, site: &Site) -> String {
    let dir = format!("{}/", site.dir.path().display());
    let text = text.replace(&dir, "").replace(&site.key, "ferry:pub:…").replace(&site.other, "ferry:pub:…");
    let mut shown = String::new();
    let mut rest = &text[..];
    // Ports of this host, and keys.
    while let Some(at) = ["127.0.0.1:", "ferry:pub:"].iter().filter_map(|mark| rest.find(mark)).min() {
        let (before, after) = rest.split_at(at);
        let mark = 10;
        let varies = |c: char| {
            if after.starts_with('1') { c.is_ascii_digit() } else { c.is_ascii_alphanumeric() || "-_…".contains(c) }
        };
        let end = after[mark..].find(|c| !varies(c)).map_or(after.len(), |end| end + mark);
        let _ = write!(shown, "{before}{}…", &after[..mark]);
        rest = &after[end..];
    }
    shown += rest;
    // What the C library says, how a connection ended, and how late it is.
    for mark in ["does not resolve: ", "ended during the handshake: ", "was written "] {
        if let Some(at) = shown.find(mark) {
            let end = shown[at..].find(" s in").map_or(shown.len(), |end| at + end);
            shown.replace_range(at + mark.len()..end, "…");
        }
    }
    shown.replace('`', "'").replace('|', "\\|").replace('\n', " ")
}

#[test]
fn each_of_fifty_faults_is_named_with_what_to_do_and_the_page_shows_what_was_said() {
    assert!(FAULTS.len() >= 30, "{}", FAULTS.len());
    let tried: Vec<_> = thread::scope(|scope| {
        let tries: Vec<_> = FAULTS.iter().map(|fault| scope.spawn(|| fault.try_out())).collect();
        tries.into_iter().zip(FAULTS).map(|(tried, fault)| tried.join().map_err(|_| fault.what)).collect()
    });
    let failed: Vec<_> = tried.iter().filter_map(|tried| tried.as_ref().err()).collect();
    assert!(failed.is_empty(), "not found, or not as it should be: {failed:?}");
    let mut page = format!("{HEAD}| fault | finding | what doctor says | what to do | exit |\n|---|---|---|---|---|\n");
    tried.into_iter().flatten().for_each(|(_, row)| page += &row);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    for (now, then) in page.lines().zip(written.lines()) {
        assert_eq!(now, then, "run again with UPDATE=1, and review what has changed");
    }
    assert_eq!(page, written, "run again with UPDATE=1, and review what has changed");
}
