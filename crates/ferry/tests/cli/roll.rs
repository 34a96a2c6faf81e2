//! `ferry roll`: keys of real tunnels are replaced under a checked stream, which never ends.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use ferry_config::{PublicKey, Roll, RolledPeer};
use tempfile::TempDir;

use crate::support::{DEADLINE, Port, Running, address, code, command, eventually, stderr, stdout};
use crate::tunnels::pair_with;

/// Numbers that go to the far application and come back, each checked, until it is ended.
pub(crate) struct Stream {
    /// How many have come back.
    count: Arc<AtomicU64>,
    client: TcpStream,
    threads: Vec<JoinHandle<()>>,
}

impl Stream {
    pub(crate) fn open(entrance: SocketAddr, app: &TcpListener) -> Self {
        let client = TcpStream::connect(entrance).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        let (mut served, _) = app.accept().unwrap();
        let echo = thread::spawn(move || {
            let mut back = served.try_clone().unwrap();
            std::io::copy(&mut served, &mut back).unwrap();
            back.shutdown(Shutdown::Write).unwrap();
        });
        let (count, mut both) = (Arc::new(AtomicU64::new(0)), client.try_clone().unwrap());
        let counted = count.clone();
        let exchange = thread::spawn(move || {
            for number in 0_u64.. {
                // Nothing can be written once it is ended.
                if both.write_all(&number.to_be_bytes()).is_err() {
                    break;
                }
                let mut read = [0; 8];
                both.read_exact(&mut read).unwrap();
                assert_eq!(u64::from_be_bytes(read), number);
                counted.store(number + 1, Ordering::Relaxed);
            }
            assert_eq!(both.read(&mut [0]).unwrap(), 0, "a proper end");
        });
        Self { count, client, threads: vec![echo, exchange] }
    }

    /// Some more come back from here on.
    pub(crate) fn moves(&self) {
        let before = self.count.load(Ordering::Relaxed);
        eventually("numbers come back", || (self.count.load(Ordering::Relaxed) > before + 100).then_some(()));
    }

    pub(crate) fn finish(self) {
        self.moves();
        self.client.shutdown(Shutdown::Write).unwrap();
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// Two tunnels that run, each with a state directory: `near` dials `far`.
struct Pair {
    dir: TempDir,
    app: TcpListener,
    _tunnels: [Running; 2],
    entrance: SocketAddr,
}

impl Pair {
    fn start() -> Self {
        Self::start_with("")
    }

    /// With more lines in the tunnel.yaml of `far`.
    fn start_with(more: &str) -> Self {
        let (dir, app) = (tempfile::tempdir().unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let far = format!("state: far.state\n{more}");
        let [(near, ready), (far, _)] = pair_with(dir.path(), &app, ["state: near.state\n", &far]);
        Self { entrance: address(&ready, "egress"), dir, app, _tunnels: [near, far] }
    }

    fn stream(&self) -> Stream {
        Stream::open(self.entrance, &self.app)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn begin(&self, of: &str, more: &[&str]) -> Child {
        let config = self.path(&format!("{of}.yaml"));
        let args = [&["roll", "--wait", "3m", "--config", config.to_str().unwrap()], more].concat();
        command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn roll(&self, of: &str, more: &[&str]) -> Output {
        self.begin(of, more).wait_with_output().unwrap()
    }

    /// The keys that one lists for the other.
    fn listed(&self, by: &str) -> BTreeSet<PublicKey> {
        ferry_config::load(&self.path(&format!("{by}.yaml"))).unwrap().tunnel.peers[0].keys.clone()
    }

    fn own(&self, of: &str) -> PublicKey {
        ferry_config::Identity::load(&self.path(&format!("{of}.key"))).unwrap().public_key()
    }

    fn files(&self, of: &str) -> Roll {
        Roll::of(&self.path(&format!("{of}.key")), &self.path(&format!("{of}.state")))
    }

    /// One has the key that was printed, the other lists it alone, and nothing is left over.
    fn has_rolled(&self, of: &str, by: &str, printed: &str) {
        assert_eq!(printed.trim_end(), self.own(of).to_string());
        assert_eq!(self.listed(by), [self.own(of)].into());
        for left in [".key.next", ".key.old", ".state/roll"] {
            assert!(!self.path(&format!("{of}{left}")).exists(), "{of}{left}");
        }
    }
}

fn fine(output: &Output) -> String {
    assert_eq!(code(output), 0, "{}", stderr(output));
    stdout(output)
}

#[test]
fn the_end_that_dials_rolls_its_key_by_one_command_under_a_stream() {
    let pair = Pair::start();
    let (stream, before) = (pair.stream(), pair.own("near"));
    stream.moves();
    let rolled = pair.roll("near", &[]);
    pair.has_rolled("near", "far", &fine(&rolled));
    assert_ne!(pair.own("near"), before);
    assert!(stderr(&rolled).contains("far accepts the new key alone"), "{}", stderr(&rolled));
    // Each file of the other end that a person wrote is as it was.
    assert!(fs::read_to_string(pair.path("far.yaml")).unwrap().contains(&before.to_string()));
    stream.finish();
}

#[test]
fn the_end_that_is_dialled_rolls_its_key_with_a_command_at_either_end_under_a_stream() {
    let pair = Pair::start();
    let stream = pair.stream();
    let early = pair.roll("near", &["--take", "far"]);
    assert_eq!(code(&early), 1);
    assert!(stderr(&early).contains("far has no next key; run `ferry roll` there first"), "{}", stderr(&early));
    let rolling = pair.begin("far", &[]);
    eventually("a next key", || pair.files("far").notes.next_key());
    stream.moves();
    let taken = pair.roll("near", &["--take", "far"]);
    let rolled = rolling.wait_with_output().unwrap();
    let hint = "waiting for near: it dials this end; on near, run: ferry roll --take far";
    assert!(stderr(&rolled).contains(hint), "{}", stderr(&rolled));
    pair.has_rolled("far", "near", &fine(&rolled));
    assert_eq!(fine(&taken), stdout(&rolled));
    stream.finish();
}

#[test]
fn a_roll_that_was_ended_after_any_step_goes_on_where_it_was() {
    let pair = Pair::start();
    let stream = pair.stream();
    let steps: [fn(&Pair); 5] = [
        |pair| drop(pair.files("near").make_next().unwrap()),
        // Killed while a peer is waited for, that has listed the next key or has not.
        |pair| {
            let mut rolling = pair.begin("near", &[]);
            eventually("a next key", || pair.path("near.key.next").exists().then_some(()));
            rolling.kill().unwrap();
            rolling.wait().unwrap();
        },
        |pair| {
            pair.files("near").make_next().unwrap();
            fs::hard_link(pair.path("near.key"), pair.path("near.key.old")).unwrap();
        },
        // All is listed, and the key is in its place.
        |pair| {
            let next = pair.files("near").make_next().unwrap().public_key();
            let far = pair.path("far.state");
            let peer = "near".parse().unwrap();
            RolledPeer::load(&far, &peer).unwrap().with_next(pair.own("near"), next).write(&far).unwrap();
            pair.files("near").switch().unwrap();
        },
        |pair| {
            // All is done but for what is left over.
            fs::copy(pair.path("near.key"), pair.path("near.key.old")).unwrap();
        },
    ];
    for step in steps {
        stream.moves();
        step(&pair);
        pair.has_rolled("near", "far", &fine(&pair.roll("near", &[])));
    }
    stream.finish();
}

#[test]
fn nothing_changes_for_anybody_while_a_peer_is_missing_and_it_is_named() {
    let pair = Pair::start();
    let (stream, before, nobody) = (pair.stream(), pair.own("near"), Port::reserve());
    let near = fs::read_to_string(pair.path("near.yaml")).unwrap();
    let (head, rest) = near.split_once("addresses: [\"").unwrap();
    let (_, tail) = rest.split_once('"').unwrap();
    fs::write(pair.path("away.yaml"), format!("{head}addresses: [\"{}\"{tail}", nobody.address())).unwrap();
    let args = ["roll", "--wait", "1s", "--config", pair.path("away.yaml").to_str().unwrap()].map(str::to_owned);
    let tried = command(&args).output().unwrap();
    assert_eq!((code(&tried), pair.own("near")), (1, before), "{}", stderr(&tried));
    assert!(stderr(&tried).contains("not every peer lists the next key: far ("), "{}", stderr(&tried));
    assert_eq!(pair.listed("far"), [before].into());
    let next = pair.files("near").notes.next_key().unwrap();
    pair.has_rolled("near", "far", &fine(&pair.roll("near", &[])));
    assert_eq!(pair.own("near"), next, "the key that was made first");
    stream.finish();
}

#[test]
fn a_peer_whose_list_is_changed_by_hand_is_waited_for_just_so() {
    let pair = Pair::start();
    let stream = pair.stream();
    // It cannot write down what it is told.
    let far = pair.path("far.yaml");
    let text = fs::read_to_string(&far).unwrap().replace("state: far.state\n", "");
    fs::write(&far, &text).unwrap();
    let rolling = pair.begin("near", &[]);
    let next = eventually("a next key", || pair.files("near").notes.next_key());
    let old = format!("\"{}\"", pair.own("near"));
    fs::write(&far, text.replace(&old, &format!("{old}, \"{next}\""))).unwrap();
    // Nor can it be told to part with the old one.
    let rolled = rolling.wait_with_output().unwrap();
    assert_eq!((fine(&rolled).trim_end(), pair.own("near")), (next.to_string().as_str(), next));
    stream.moves();
    fs::write(&far, text.replace(&old, &format!("\"{next}\""))).unwrap();
    stream.finish();
}

#[test]
fn replicas_list_keys_by_hand_as_one_of_them_would_not_know_what_another_was_told() {
    let pair = Pair::start_with("replicas: [\"127.0.0.1:1\"]\n");
    let (stream, before) = (pair.stream(), pair.own("near"));
    let own = pair.roll("far", &[]);
    assert_eq!(code(&own), 78);
    assert!(stderr(&own).contains("this tunnel is one of several `replicas`"), "{}", stderr(&own));
    let rolling = pair.begin("near", &[]);
    let next = eventually("a next key", || pair.files("near").notes.next_key());
    stream.moves();
    assert_eq!(pair.listed("far"), [before].into());
    let (far, old) = (pair.path("far.yaml"), format!("\"{before}\""));
    let text = fs::read_to_string(&far).unwrap();
    fs::write(&far, text.replace(&old, &format!("{old}, \"{next}\""))).unwrap();
    let rolled = rolling.wait_with_output().unwrap();
    assert_eq!((fine(&rolled).trim_end(), pair.own("near")), (next.to_string().as_str(), next));
    let said = stderr(&rolled);
    assert!(said.contains(&format!("it refuses: it is one of several replicas: list {next}")), "{said}");
    assert!(said.contains("by hand: remove"), "{said}");
    fs::write(&far, text.replace(&old, &format!("\"{next}\""))).unwrap();
    stream.finish();
}

#[test]
fn a_roll_needs_a_place_to_remember_and_a_peer_that_is_known() {
    let pair = Pair::start();
    let unknown = pair.roll("near", &["--without", "x"]);
    assert_eq!(code(&unknown), 2);
    let dialled = pair.roll("far", &["--take", "near"]);
    assert!(
        stderr(&dialled).contains("near dials this end, so it announces its next key itself"),
        "{}",
        stderr(&dialled)
    );
    let near = pair.path("near.yaml");
    fs::write(&near, fs::read_to_string(&near).unwrap().replace("state: near.state\n", "")).unwrap();
    let homeless = pair.roll("near", &[]);
    assert_eq!(code(&homeless), 78);
    assert!(stderr(&homeless).contains("without `state`"), "{}", stderr(&homeless));
}
