//! The files and commands of the README, as they stand there; only keys, addresses and ports are this test's.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{DEADLINE, address, code, command, ferry, ferry_with_input, keygen, role, stderr, stdout};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The block of the README that begins with `# NAME,`.
fn file(name: &str) -> String {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let blocks: Vec<_> = readme.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let found = blocks.into_iter().find(|block| block.starts_with(&format!("# {name},")));
    found.unwrap_or_else(|| panic!("no {name} in the README")).to_owned()
}

#[test]
fn the_readme_s_two_hosts_carry_a_connection_and_messages() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let [a_key, b_key] = ["a.key", "b.key"].map(|name| keygen(&path(name)));
    let hooks = root().join("examples/app.py");
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut terminator = command(&["terminator", "--listen", "127.0.0.1:0", "--hooks"]);
    let (_terminator, ready) = role(terminator.arg(&hooks));
    let app = address(&ready, "listen").to_string();

    let swap = |text: String, changes: &[(&str, &str)]| {
        changes.iter().fold(text, |text, (from, to)| {
            assert!(text.contains(from), "no {from} in {text}");
            text.replace(from, to)
        })
    };
    let server_at = server.local_addr().unwrap().to_string();
    let b = [
        ("ferry:pub:KEY-OF-A", a_key.as_str()),
        ("0.0.0.0:18000", "127.0.0.1:0"),
        ("127.0.0.1:9900", "127.0.0.1:0"),
        ("127.0.0.1:22", &server_at),
        ("127.0.0.1:8000", &app),
    ];
    fs::write(path("b.yaml"), swap(file("b.yaml"), &b)).unwrap();
    let (_b, ready) = role(command(&["tunnel", "--config", "b.yaml"]).current_dir(&dir));
    let listen = address(&ready, "listen").to_string();
    let a = [
        ("ferry:pub:KEY-OF-B", b_key.as_str()),
        ("b.example.com:18000", &listen),
        ("127.0.0.1:9900", "127.0.0.1:0"),
        ("127.0.0.1:2222", "127.0.0.1:0"),
        ("127.0.0.1:18001", "127.0.0.1:0"),
    ];
    fs::write(path("a.yaml"), swap(file("a.yaml"), &a)).unwrap();
    let check = command(&["tunnel", "--config", "a.yaml", "--check"]).current_dir(&dir).output().unwrap();
    assert_eq!(code(&check), 0, "{}", stderr(&check));
    let (_a, ready) = role(command(&["tunnel", "--config", "a.yaml"]).current_dir(&dir));
    let egress: Vec<_> = ready["egress"].as_str().unwrap().split(',').map(str::to_owned).collect();

    let mut client = TcpStream::connect(&egress[0]).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.write_all(b"?").unwrap();
    let (mut served, _) = server.accept().unwrap();
    served.read_exact(&mut [0]).unwrap();
    served.write_all(b"!").unwrap();
    client.read_exact(&mut [0]).unwrap();

    let peer = format!("ws://{}/ws", egress[1]);
    let mut initiator = command(&["initiator", "--listen", "127.0.0.1:0", "--peer", &peer, "--hooks"]);
    let (_initiator, ready) = role(initiator.arg(&hooks));
    let url = format!("http://{}", address(&ready, "listen"));
    let sent = ferry(&["send", &url, "--message", "{\"n\": 1}"]);
    assert_eq!(code(&sent), 0, "{}", stderr(&sent));
    let answer: Value = serde_json::from_str(&stdout(&sent)).unwrap();
    assert_eq!((&answer["delivered"], &answer["reply"]["n"]), (&true.into(), &2.into()), "{answer}");
    assert!(path("b.state").exists(), "a restart would not be told");

    // The other way, to the site by the name of its peer.
    let back = |site: &str| ferry(&["send", &format!("http://{app}"), "--to", site, "--message", "{\"n\": 1}"]);
    let sent = back("a");
    assert_eq!(code(&sent), 0, "{}", stderr(&sent));
    let lines = ferry_with_input(&["send", &format!("http://{app}"), "--to", "a"], "{\"n\": 3}\n");
    assert_eq!(code(&lines), 0, "{}", stderr(&lines));
    let sent = back("c");
    assert_eq!(code(&sent), 1);
    assert!(stderr(&sent).contains("404") && stderr(&sent).contains('c'), "{}", stderr(&sent));
}
