//! `ferry invite` and `ferry join`: two hosts, each a directory, whose tunnels are real processes.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Output, Stdio};

use ferry_config::{Address, Secret, Token};
use tempfile::TempDir;

use crate::support::{DEADLINE, Running, address, code, command, role, stderr, stdout};

/// A host: where its files are.
pub(crate) struct Host(TempDir);

impl Host {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs a command here, with `input`.
    pub(crate) fn run(&self, args: &[&str], input: &str) -> Output {
        let mut command = command(args);
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.current_dir(&self.0).spawn().unwrap();
        // One that ends without reading it says why.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    pub(crate) fn join(&self, token: &str, more: &[&str]) -> Output {
        // A loaded machine takes its time.
        let wait = if more.contains(&"--wait") { &[][..] } else { &["--wait", "60s"] };
        self.run(&[&["join", "--name", "a"], wait, more].concat(), token)
    }

    /// Joins, and fails: what it says.
    fn cannot_join(&self, token: &str, more: &[&str]) -> String {
        let output = self.join(token, more);
        assert_ne!(code(&output), 0, "{}", stdout(&output));
        assert_eq!(stdout(&output), "");
        stderr(&output)
    }

    pub(crate) fn tunnel(&self) -> (Running, serde_json::Value) {
        role(command(&["tunnel", "--config", "tunnel.yaml"]).current_dir(&self.0))
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

/// The host b, whose tunnel offers the service `app`, and where it listens.
pub(crate) struct Inviter {
    pub(crate) host: Host,
    _tunnel: Running,
    listen: SocketAddr,
    /// What its tunnel said when it was ready.
    pub(crate) ready: serde_json::Value,
    app: TcpListener,
}

impl Inviter {
    /// Its tunnel.yaml comes of a first invitation, which nobody uses.
    fn start() -> Self {
        Self::listening(&[])
    }

    /// One that listens by these options, too.
    pub(crate) fn listening(more: &[&str]) -> Self {
        let (host, app) = (Host::new(), TcpListener::bind("127.0.0.1:0").unwrap());
        let unused = ["--name", "b", "--listen", "127.0.0.1:0", "--address", "127.0.0.1:1"];
        let made = host.run(&[&["invite", "--service", &service(&app)], &unused[..], more].concat(), "");
        assert_eq!(code(&made), 0, "{}", stderr(&made));
        let (tunnel, ready) = host.tunnel();
        Self { host, _tunnel: tunnel, listen: address(&ready, "listen"), ready, app }
    }

    fn invite(&self) -> String {
        self.invite_to(&[self.listen.to_string()])
    }

    /// A token with these addresses.
    pub(crate) fn invite_to(&self, addresses: &[String]) -> String {
        let service = service(&self.app);
        let options = addresses.iter().flat_map(|address| ["--address", address.as_str()]);
        let args: Vec<_> = ["invite", "--service", &service].into_iter().chain(options).collect();
        let output = self.host.run(&args, "");
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        stdout(&output)
    }

    /// Lets the tunnel of a host that has joined carry a byte there and one back.
    pub(crate) fn is_reached_from(&self, a: &Host) {
        let (_tunnel, ready) = a.tunnel();
        let mut client = TcpStream::connect(address(&ready, "egress")).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client.write_all(b"?").unwrap();
        let (mut served, _) = self.app.accept().unwrap();
        served.read_exact(&mut [0]).unwrap();
        served.write_all(b"!").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
}

fn service(app: &TcpListener) -> String {
    format!("app={}", app.local_addr().unwrap())
}

/// `token` after a change.
fn changed(token: &str, change: impl FnOnce(&mut Token)) -> String {
    let mut token: Token = token.parse().unwrap();
    change(&mut token);
    token.render().unwrap().expose().clone()
}

#[test]
fn two_hosts_carry_a_connection_after_a_token_and_without_a_line_of_yaml_by_hand() {
    let (b, a) = (Inviter::start(), Host::new());
    let joined = a.join(&b.invite(), &["--listen", "app=127.0.0.1:0"]);
    assert_eq!(code(&joined), 0, "{}", stderr(&joined));
    assert_eq!(stdout(&joined), "127.0.0.1:0 app\n");
    b.is_reached_from(&a);
    // Each end has made its own key, and the other one has only the public half.
    let keys = [&a, &b.host].map(|host| fs::read_to_string(host.path("tunnel.key")).unwrap());
    for (host, other) in [(&a, &keys[1]), (&b.host, &keys[0])] {
        for file in walk(host.0.path().to_owned()) {
            let text = fs::read(&file).unwrap();
            assert!(!text.windows(64).any(|part| other.as_bytes().windows(64).any(|key| key == part)), "{file:?}");
        }
    }
}

fn walk(dir: PathBuf) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(path) } else { vec![path] }).collect()
}

#[test]
fn two_hosts_of_the_same_name_need_no_further_word() {
    let (b, a) = (Host::new(), Host::new());
    let app = TcpListener::bind("127.0.0.1:0").unwrap();
    let listening = ["--listen", "127.0.0.1:0", "--address", "127.0.0.1:1"];
    let made = b.run(&[&["invite", "--service", &service(&app)], &listening[..]].concat(), "");
    assert_eq!(code(&made), 0, "{}", stderr(&made));
    let (_tunnel, ready) = b.tunnel();
    let listen = address(&ready, "listen").to_string();
    let invited = b.run(&["invite", "--service", &service(&app), "--address", &listen], "");
    let joined = a.run(&["join", "--wait", "60s"], &stdout(&invited));
    assert_eq!(code(&joined), 0, "{}", stderr(&joined));
    let name = ready["name"].as_str().unwrap();
    assert!(stderr(&joined).contains(&format!("joined {name} as {name}-2")), "{}", stderr(&joined));
}

#[test]
fn a_used_token_says_by_whom_and_a_host_that_lost_the_answer_may_ask_again() {
    let (b, a) = (Inviter::start(), Host::new());
    let token = b.invite();
    assert_eq!(code(&a.join(&token, &[])), 0);
    let key = stdout(&a.run(&["pubkey", "tunnel.key"], ""));
    let thief = Host::new();
    let said = thief.cannot_join(&token, &["--config", "thief.yaml"]);
    assert!(
        said.contains("the token was used") && said.contains(&format!("by a with the key {}", key.trim())),
        "{said}"
    );
    assert_eq!(thief.files(), [] as [PathBuf; 0], "what it made is gone again");
    // The answer was lost: nothing is known of it at a, and b lists it.
    fs::remove_file(a.path("tunnel.state/joined/b.yaml")).unwrap();
    let again = a.join(&token, &[]);
    assert_eq!(code(&again), 0, "{}", stderr(&again));
    // Another state of affairs: it has been written down.
    assert!(a.cannot_join(&token, &[]).contains("this tunnel has joined b"));
}

#[test]
fn tokens_that_do_not_work_are_told_apart_and_leave_nothing_behind() {
    let (b, other, a) = (Inviter::start(), Inviter::start(), Host::new());
    let token = b.invite();
    // Only what cannot be reached is waited for.
    let now = ["--wait", "0s"];
    let expired = b.invite();
    let id = expired.parse::<Token>().unwrap().id;
    let file = b.host.path(&format!("tunnel.state/invitations/{id}.json"));
    let text = fs::read_to_string(&file).unwrap();
    let expires = expired.parse::<Token>().unwrap().expires;
    fs::write(&file, text.replace(&expires.to_string(), &(expires - 4000).to_string())).unwrap();
    let withdrawn = b.invite();
    let id = withdrawn.parse::<Token>().unwrap().id;
    fs::remove_file(b.host.path(&format!("tunnel.state/invitations/{id}.json"))).unwrap();
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let at = |address: SocketAddr| {
        changed(&token, |token| token.addresses = vec![address.to_string().parse::<Address>().unwrap()])
    };
    for (token, expected) in [
        (token[..token.len() - 9].to_owned(), "the token is cut off"),
        (token.replacen(":1:", ":2:", 1), "the token is of version `2`"),
        ("hunter2".to_owned(), "that is no token"),
        (String::new(), "no token"),
        (changed(&token, |token| token.secret = Secret::new([0; 32])), "b knows no such invitation, or the secret"),
        (withdrawn, "b knows no such invitation, or the secret"),
        (expired, "the token expired"),
        (at(nowhere), "cannot reach b at"),
        (at(other.listen), "another tunnel than b answers at"),
    ] {
        let said = a.cannot_join(&token, if expected.starts_with("cannot reach") { &now } else { &[] });
        assert!(said.contains(expected), "{expected}: {said}");
        assert_eq!(a.files(), [] as [PathBuf; 0], "{expected}");
    }
    let own = stderr(&b.host.run(&["join"], &token));
    assert!(own.contains("the token is this tunnel's own"), "{own}");
    fs::remove_dir_all(b.host.path("tunnel.state/invitations")).unwrap();
    assert!(a.cannot_join(&token, &[]).contains("has no invitation open"));
}

#[test]
fn what_is_in_the_way_at_either_end_is_said_and_the_token_still_works() {
    let (b, a) = (Inviter::start(), Host::new());
    let token = b.invite();
    let busy = service(&b.app);
    assert!(a.cannot_join(&token, &["--listen", &busy]).contains("cannot listen on"));
    assert!(
        a.cannot_join(&token, &["--listen", "other=127.0.0.1:0"]).contains("the token is not for the service other")
    );
    fs::write(a.path("tunnel.state"), "").unwrap();
    let said = a.cannot_join(&token, &[]);
    assert!(said.contains("cannot write to tunnel.state: Not a directory"), "{said}");
    fs::remove_file(a.path("tunnel.state")).unwrap();
    fs::write(a.path("tunnel.yaml"), "name: a\nidentity: tunnel.key\n").unwrap();
    assert!(a.cannot_join(&token, &[]).contains("tunnel.key"), "the identity that it names is not there");
    a.run(&["keygen", "--out", "tunnel.key"], "");
    assert!(a.cannot_join(&token, &[]).contains("without `state`"));
    fs::remove_file(a.path("tunnel.yaml")).unwrap();
    fs::write(b.host.path("tunnel.state/joined"), "in the way").unwrap();
    assert!(a.cannot_join(&token, &[]).contains("b cannot write down who has joined"));
    fs::remove_file(b.host.path("tunnel.state/joined")).unwrap();
    assert_eq!(a.files(), [a.path("tunnel.key")], "the identity was not made by it");
    let joined = a.join(&token, &[]);
    assert_eq!(code(&joined), 0, "{}", stderr(&joined));
    // A second host of the same name, with a token of its own.
    let said = Host::new().cannot_join(&b.invite(), &[]);
    assert!(said.contains("b has a peer with the name a already"), "{said}");
}

#[test]
fn invitations_that_could_not_work_are_not_made() {
    let host = Host::new();
    let address = ["--address", "127.0.0.1:1"];
    for (args, expected) in [
        (&["--valid", "1s", "--service", "s=h:1"][..], "`--valid` is from 10s to 7d"),
        (&[], "there is no service to invite to"),
        (&["--service", "s"], "there is no service s yet"),
        (&["--service", "s=nowhere"], "is not an address"),
        (&["--service", "s=h:1", "--peer", "b"], "there is a tunnel with the name b already"),
    ] {
        let output = host.run(&[&["invite", "--name", "b"], args, &address].concat(), "");
        assert_ne!(code(&output), 0, "{args:?}");
        assert!(stderr(&output).contains(expected), "{args:?}: {}", stderr(&output));
        assert_eq!((stdout(&output), host.files()), (String::new(), vec![]), "{args:?}");
    }
    let first = host.run(&[&["invite", "--name", "b", "--service", "s=h:1"], &address[..]].concat(), "");
    assert_eq!(code(&first), 0, "{}", stderr(&first));
    let renamed = host.run(&[&["invite", "--name", "c", "--service", "s=h:1"], &address[..]].concat(), "");
    assert!(stderr(&renamed).contains("a tunnel with the name b"), "{}", stderr(&renamed));
}
