//! The audit trail of two real tunnels, held to its manual.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;

use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::kept::engine;
use crate::support::{DEADLINE, Running, address, command, keygen, role};

const MANUAL: &str = include_str!("../../../../docs/audit.md");

/// What of a line comes from the log and not from its kind.
const OF_EVERY_LINE: [&str; 6] = ["timestamp", "level", "message", "target", "span", "kind"];

fn start(file: &Path, filter: &str) -> (Running, Value) {
    role(command(&["tunnel", "--config"]).arg(file).env("FERRY_LOG", filter))
}

fn audited(tunnel: &mut Running, kind: &str) -> Value {
    let wanted = format!("\"kind\":\"{kind}\"");
    let line = tunnel.line(|line| line.contains("\"target\":\"audit\"") && line.contains(&wanted));
    let line: Value = serde_json::from_str(&line).unwrap();
    check(&line);
    line
}

/// The fields of a kind, by the manual.
fn documented(kind: &str) -> BTreeSet<String> {
    let row = MANUAL.lines().find(|line| line.starts_with(&format!("| `{kind}` |")));
    let row = row.unwrap_or_else(|| panic!("{kind} is not in the manual"));
    row.split('`').skip(3).step_by(2).map(str::to_owned).collect()
}

/// A line has no field that its manual does not know, and each of them is explained.
fn check(line: &Value) {
    let documented = documented(line["kind"].as_str().unwrap());
    let (_, explained) = MANUAL.split_once("| field |").unwrap();
    for field in line.as_object().unwrap().keys().filter(|field| !OF_EVERY_LINE.contains(&field.as_str())) {
        assert!(documented.contains(field), "{field} of {line}");
        let rows = || explained.lines().filter_map(|row| row.strip_prefix("| ")?.split(" |").next());
        assert!(field == "ferry" || rows().any(|names| names.contains(&format!("`{field}`"))), "{field}");
    }
}

struct Pair {
    dir: tempfile::TempDir,
    app: TcpListener,
    keys: [String; 2],
    near: (Running, Value),
    far: (Running, Value),
}

impl Pair {
    fn start(filter: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keys = ["near", "far"].map(|name| keygen(&dir.path().join(format!("{name}.key"))));
        let app = TcpListener::bind("127.0.0.1:0").unwrap();
        let (far, near) = (dir.path().join("far.yaml"), dir.path().join("near.yaml"));
        fs::write(&far, far_config(&keys[0], &app, "")).unwrap();
        let far = start(&far, filter);
        let text = format!(
            "name: near\nidentity: near.key\npeers: [{{name: far, keys: [\"{}\"], addresses: [\"file:addresses\"]}}]\n\
             egress: [{{listen: \"127.0.0.1:0\", peer: far, service: app}},\
             {{listen: \"127.0.0.1:0\", peer: far, service: other}}]\n",
            keys[1],
        );
        fs::write(&near, text).unwrap();
        write_addresses(&dir, &far.1);
        let near = start(&near, filter);
        Self { dir, app, keys, near, far }
    }

    fn egress(&self, index: usize) -> &str {
        self.near.1["egress"].as_str().unwrap().split(',').nth(index).unwrap()
    }

    /// Carries five bytes there and two back. Where the application was.
    fn carry(&self) -> String {
        let (client, served) = self.connect();
        finish(client, served)
    }

    fn connect(&self) -> (TcpStream, TcpStream) {
        let mut client = TcpStream::connect(self.egress(0)).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        let (mut served, _) = self.app.accept().unwrap();
        served.set_read_timeout(Some(DEADLINE)).unwrap();
        client.write_all(b"hello").unwrap();
        served.read_exact(&mut [0; 5]).unwrap();
        (client, served)
    }
}

/// Where the near tunnel finds the far one.
fn write_addresses(dir: &tempfile::TempDir, far: &Value) {
    fs::write(dir.path().join("addresses"), address(far, "listen").to_string()).unwrap();
}

/// The other way, and to its end. Where the application was.
fn finish(mut client: TcpStream, mut served: TcpStream) -> String {
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(served.read(&mut [0]).unwrap(), 0);
    served.write_all(b"ok").unwrap();
    drop(served);
    client.read_to_string(&mut String::new()).unwrap();
    client.local_addr().unwrap().to_string()
}

fn far_config(near: &str, app: &TcpListener, more: &str) -> String {
    let app = app.local_addr().unwrap();
    format!(
        "name: far\nidentity: far.key\nlisten: 127.0.0.1:0\npeers: [{{name: near, keys: [\"{near}\"]}}]\n\
         ingress: [{{service: app, forward: \"{app}\", allow: [near]}}]\n{more}"
    )
}

#[test]
fn sessions_refusals_and_changes_each_have_a_line_with_the_documented_fields() {
    let mut pair = Pair::start("off,audit=info,ferry=info");
    let source = pair.carry();
    let here = audited(&mut pair.near.0, "session_ended");
    let there = audited(&mut pair.far.0, "session_ended");
    assert_eq!((&here["side"], &here["peer"], &here["service"]), (&"opener".into(), &"far".into(), &"app".into()));
    assert_eq!((&here["sent"], &here["received"], &here["ending"]), (&5.into(), &2.into(), &"finished".into()));
    assert_eq!((&here["source"], &here["peer_keys"]), (&source.into(), &pair.keys[1].clone().into()));
    assert_eq!((&here["rotations"], &here["resumes"], &here["adopted"]), (&0.into(), &0.into(), &false.into()));
    assert_eq!((&there["session"], &there["side"]), (&here["session"], &"acceptor".into()));
    assert_eq!((&there["sent"], &there["received"]), (&2.into(), &5.into()));
    assert_eq!((&there["link_from"], &there["peer_keys"]), (&"127.0.0.1".into(), &pair.keys[0].clone().into()));

    let _refused = TcpStream::connect(pair.egress(1));
    let refused = audited(&mut pair.far.0, "session_refused");
    assert_eq!((&refused["peer"], &refused["reason"]), (&"near".into(), &"service".into()));

    let stranger = pair.dir.path().join("stranger.yaml");
    let text = fs::read_to_string(pair.dir.path().join("near.yaml")).unwrap();
    keygen(&pair.dir.path().join("stranger.key"));
    let text = text.replace("identity: near.key", "open_timeout: 1s\nidentity: stranger.key");
    fs::write(&stranger, text).unwrap();
    let (mut stranger, ready) = start(&stranger, "off,audit=info,ferry=info");
    let refused = audited(&mut pair.far.0, "link_refused");
    assert_eq!((&refused["from"], &refused["reason"]), (&"127.0.0.1".into(), &"key".into()));
    assert_eq!(audited(&mut stranger, "link_refused")["peer"], "far");
    let _refused = TcpStream::connect(ready["egress"].as_str().unwrap().split(',').next().unwrap());
    assert_eq!(audited(&mut stranger, "connection_refused")["reason"], "no_link");

    let config = pair.dir.path().join("far.yaml");
    fs::write(&config, "name: [").unwrap();
    assert!(audited(&mut pair.far.0, "config_refused")["problem"].as_str().unwrap().contains("far.yaml"));
    fs::write(&config, far_config(&pair.keys[0], &pair.app, "rotation: {every: 9s}\n")).unwrap();
    assert_eq!(audited(&mut pair.far.0, "config_reloaded")["changes"], "rotation.every");
    pair.far.0.signal(Signal::TERM);
    audited(&mut pair.far.0, "draining");
}

#[test]
fn a_session_that_was_adopted_still_tells_where_its_application_was() {
    let mut pair = Pair::start("info,audit=info");
    let (client, served) = pair.connect();
    for tunnel in [&pair.near.0, &pair.far.0] {
        kill_process(engine(tunnel), Signal::KILL).unwrap();
    }
    // A port that the system chose is another one with each process.
    let ready = pair.far.0.line(|line| line.contains("\"ready\""));
    write_addresses(&pair.dir, &serde_json::from_str(&ready).unwrap());
    let source = finish(client, served);
    for tunnel in [&mut pair.near.0, &mut pair.far.0] {
        let line = audited(tunnel, "session_ended");
        assert_eq!((&line["adopted"], &line["source"]), (&true.into(), &source.clone().into()), "{line}");
    }
}

#[test]
fn there_is_no_audit_trail_unless_it_is_asked_for() {
    let mut pair = Pair::start("debug");
    pair.carry();
    pair.far.0.line(|line| {
        assert!(!line.contains("\"target\":\"audit\""), "{line}");
        line.contains("session finished")
    });
}
