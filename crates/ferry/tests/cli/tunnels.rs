//! Two real tunnels, and what they say.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{DEADLINE, Running, address, command, keygen, role};

/// A tunnel `near` whose applications reach the service `app` behind a tunnel `far`, which listens at an address of its own.
pub(crate) fn pair(dir: &Path, app: &TcpListener) -> [(Running, Value); 2] {
    pair_with(dir, app, ["", ""])
}

/// The same, with more lines in each one's tunnel.yaml.
pub(crate) fn pair_with(dir: &Path, app: &TcpListener, more: [&str; 2]) -> [(Running, Value); 2] {
    let [near_key, far_key] = ["near", "far"].map(|name| keygen(&dir.join(format!("{name}.key"))));
    let app = app.local_addr().unwrap();
    let far = format!(
        "name: far\nidentity: far.key\nlisten: 127.0.0.1:0\npeers: [{{name: near, keys: [\"{near_key}\"]}}]\n\
         ingress: [{{service: app, forward: \"{app}\", allow: [near]}}]\n{}",
        more[1]
    );
    let start = |name: &str, text: &str| {
        let file = dir.join(format!("{name}.yaml"));
        fs::write(&file, text).unwrap();
        role(command(&["tunnel", "--config"]).arg(file))
    };
    let far = start("far", &far);
    let listen = address(&far.1, "listen");
    let near = format!(
        "name: near\nidentity: near.key\nresume: {{window: 7m}}\n\
         peers: [{{name: far, keys: [\"{far_key}\"], addresses: [\"{listen}\"]}}]\n\
         egress: [{{listen: \"127.0.0.1:0\", peer: far, service: app}}]\n{}",
        more[0]
    );
    [start("near", &near), far]
}

#[test]
fn a_session_without_a_link_says_why_and_how_long_it_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let app = TcpListener::bind("127.0.0.1:0").unwrap();
    let [(mut near, ready), (far, _)] = pair(dir.path(), &app);
    let mut client = TcpStream::connect(address(&ready, "egress")).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    let (mut served, _) = app.accept().unwrap();
    served.write_all(b"!").unwrap();
    client.read_exact(&mut [0]).unwrap();
    far.signal(Signal::KILL);
    let line: Value = serde_json::from_str(&near.line(|line| line.contains("\"session detached\""))).unwrap();
    assert_eq!((&line["span"]["peer"], &line["kept_for"]), (&"far".into(), &"7m".into()), "{line}");
    let reason = line["reason"].as_str().unwrap();
    assert!(reason.contains("lost") || reason.contains("closed"), "{line}");
}

#[test]
fn a_healthy_start_warns_of_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let key = keygen(&dir.path().join("peer.key"));
    keygen(&dir.path().join("identity.key"));
    let file = dir.path().join("tunnel.yaml");
    fs::write(
        &file,
        format!(
            "name: a\nidentity: identity.key\nlisten: 127.0.0.1:0\npeers: [{{name: b, keys: [\"{key}\"]}}]\n\
             ingress: [{{service: app, forward: \"127.0.0.1:1\", allow: [b]}}]\n"
        ),
    )
    .unwrap();
    let mut tunnel = Running::start(command(&["tunnel", "--config"]).arg(&file).env("FERRY_LOG_FORMAT", "json"));
    let seen = std::cell::RefCell::new(Vec::new());
    tunnel.line(|line| {
        seen.borrow_mut().push(line.to_owned());
        line.contains("\"ready\"")
    });
    // Whatever the limits of files and buffers are here: nobody has asked for more than there is.
    let warned: Vec<_> = seen.into_inner().into_iter().filter(|line| !line.contains("\"level\":\"INFO\"")).collect();
    assert_eq!(warned, [] as [String; 0]);
    tunnel.signal(Signal::TERM);
    assert_eq!(tunnel.end().code(), Some(0));
}
