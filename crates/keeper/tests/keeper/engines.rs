//! Engines as processes: killed at any instant, hanging, two at once.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use crate::support::*;
use ferry_keeper::{Client, Options, Tag};

/// Longer than an engine is without a turn on a loaded machine, and short enough to be waited for.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(4);
/// Crashes that are longer ago than this are not counted.
const CRASH_LOOP_WINDOW: Duration = Duration::from_secs(10);
const SIGN_INTERVAL: Duration = Duration::from_millis(20);

/// Not a test: what the other tests start as their engine.
///
/// It connects, says how much it inherited, and then does what each line of its input says.
#[test]
fn engine_process() {
    let Some(socket) = std::env::var_os("ENGINE_OF") else { return };
    let (mut client, inherited) = match Client::connect(Path::new(&socket), PATIENCE) {
        Ok(connected) => connected,
        Err(error) => return say(&format!("error {error}")),
    };
    say(&format!("inherited {} {} {}", inherited.descriptors.len(), inherited.crashes, inherited.crash_loop));
    let numbers = numbers(&inherited);
    let numbers = numbers.iter().map(|(tag, number)| format!("{} {number} ", at(tag))).collect::<String>();
    let told = told();
    let mut gives_signs = true;
    loop {
        let line = match told.recv_timeout(SIGN_INTERVAL) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                if gives_signs {
                    _ = client.alive();
                }
                continue;
            }
        };
        let words: Vec<_> = line.split(' ').collect();
        match words[0] {
            "store" => {
                let (at, number) = (words[1].parse().unwrap(), words[2].parse().unwrap());
                let seq = store(&mut client, &tag(at), &descriptor(number));
                confirmed(&mut client, seq);
                say("stored");
            }
            "list" => say(&numbers),
            "forget" => gives_signs = false,
            "serve" => serve(&mut client),
            "churn" => churn(&mut client, words[1].parse().unwrap(), Path::new(words[2])),
            "babble" => {
                rustix::net::send(&client, b"what is this", rustix::net::SendFlags::empty()).unwrap();
                next_event(&mut client).unwrap_err();
                say("ended");
            }
            _ => panic!("{line}"),
        }
    }
}

/// The lines of its input, as they come.
fn told() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || io::stdin().lock().lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    lines
}

fn say(text: &str) {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, ">{text}").unwrap();
    stdout.flush().unwrap();
}

/// Takes one application's connection, and stores it.
fn serve(client: &mut Client) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    say(&listener.local_addr().unwrap().to_string());
    let (connection, _) = listener.accept().unwrap();
    let seq = store(client, &tag(1), &connection.into());
    confirmed(client, seq);
    say("stored");
}

/// Stores and removes at random. What it is about to do, and how much of it was confirmed, it writes down first.
fn churn(client: &mut Client, seed: u64, log: &Path) {
    let mut random = Random(seed);
    let mut log = fs::File::create(log).unwrap();
    for done in 1.. {
        let (at, number) = (random.below(40), random.next());
        let seq = if random.below(3) > 0 {
            writeln!(log, "store {at} {number}").unwrap();
            store(client, &tag(at), &descriptor(number))
        } else {
            writeln!(log, "remove {at}").unwrap();
            client.remove(&tag(at)).unwrap()
        };
        if random.below(4) == 0 {
            confirmed(client, seq);
            writeln!(log, "confirmed").unwrap();
        }
        if done % 16 == 0 {
            say("went on");
        }
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn at(tag: &Tag) -> u64 {
    u64::from_be_bytes(tag.0[..8].try_into().unwrap())
}

/// All that could be in the store after what the log says: nothing confirmed undone, and nothing out of order.
fn possible_stores(mut store: BTreeMap<u64, u64>, log: &str) -> Vec<BTreeMap<u64, u64>> {
    let mut possible = vec![store.clone()];
    // A last line that was cut off by the kill was not acted on.
    for line in log.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["store", at, number] => _ = store.insert(at.parse().unwrap(), number.parse().unwrap()),
            ["remove", at] => _ = store.remove(&at.parse().unwrap()),
            _ => possible.clear(),
        }
        possible.push(store.clone());
    }
    possible
}

#[test]
fn after_kills_at_any_instant_exactly_what_was_confirmed_is_inherited() {
    let seed = std::env::var("FERRY_SEED").map_or(1, |seed| seed.parse().unwrap());
    println!("FERRY_SEED={seed}");
    let mut random = Random(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15) | 1);
    let dir = tempfile::tempdir().unwrap();
    let keeper = Running::start(Options::default());
    let log = dir.path().join("log");
    let (mut possible, mut operations, mut kills) = (vec![BTreeMap::new()], 0, 0);
    while operations < 10_000 {
        let mut engine = EngineProcess::start(keeper.path());
        // Some are killed before they have inherited everything.
        if random.below(6) > 0 {
            assert!(engine.hear().starts_with("inherited "));
            engine.tell("list");
            let found = engine.hear();
            let found: Vec<u64> = found.split_whitespace().map(|number| number.parse().unwrap()).collect();
            let found: BTreeMap<_, _> = found.chunks(2).map(|pair| (pair[0], pair[1])).collect();
            assert!(possible.contains(&found), "after {kills} kills: {found:?} is none of {possible:?}");
            engine.tell(&format!("churn {} {}", random.next(), log.display()));
            // From here on the log is this engine's.
            engine.hear();
            for _ in 0..random.below(50) {
                engine.hear();
            }
            engine.kill();
            let log = fs::read_to_string(&log).unwrap();
            operations += log.lines().filter(|line| *line != "confirmed").count();
            possible = possible_stores(found, &log);
        } else {
            for _ in 0..random.below(3_000) {
                thread::yield_now();
            }
            engine.kill();
        }
        kills += 1;
    }
    println!("{kills} kills, {operations} operations");
}

#[test]
fn a_second_engine_gets_nothing_before_the_first_is_gone() {
    let keeper = Running::start(Options::default());
    let mut first = EngineProcess::start(keeper.path());
    first.hear();
    first.tell("store 1 11");
    first.hear();
    let refused = Client::connect(keeper.path(), Duration::from_millis(50)).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
    let mut second = EngineProcess::start(keeper.path());
    first.tell("store 2 22");
    assert_eq!(first.hear(), "stored");
    first.kill();
    assert_eq!(second.hear(), "inherited 2 1 false");
    second.tell("list");
    assert_eq!(second.hear(), "1 11 2 22");
}

#[test]
fn an_engine_whose_connection_was_ended_keeps_the_others_out_while_it_lives() {
    let keeper = Running::start(Options::default());
    let mut first = EngineProcess::start(keeper.path());
    first.hear();
    first.tell("store 1 11");
    first.hear();
    first.tell("babble");
    assert_eq!(first.hear(), "ended");
    // It still has its descriptors, and may use them.
    let refused = Client::connect(keeper.path(), Duration::from_millis(50)).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
    first.kill();
    assert_eq!(keeper.connect().1.descriptors.len(), 1);
}

#[test]
fn an_engine_that_gives_no_sign_of_life_is_killed_and_its_descriptors_are_kept() {
    let keeper = Running::start(Options { alive_timeout: ALIVE_TIMEOUT, ..Options::default() });
    let mut engine = EngineProcess::start(keeper.path());
    engine.hear();
    engine.tell("store 1 11");
    assert_eq!(engine.hear(), "stored");
    engine.tell("forget");
    assert_eq!(engine.wait().signal(), Some(Signal::KILL.as_raw()));
    let (_next, inherited) = keeper.connect();
    assert_eq!(numbers(&inherited), [(tag(1), 11)]);
}

#[test]
fn an_engine_that_somebody_stopped_is_not_killed() {
    let keeper = Running::start(Options { alive_timeout: ALIVE_TIMEOUT, ..Options::default() });
    let mut engine = EngineProcess::start(keeper.path());
    engine.hear();
    kill_process(engine.pid(), Signal::STOP).unwrap();
    let refused = Client::connect(keeper.path(), ALIVE_TIMEOUT + Duration::from_millis(900)).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::TimedOut, "the stopped engine was killed");
    kill_process(engine.pid(), Signal::CONT).unwrap();
    engine.tell("store 1 11");
    assert_eq!(engine.hear(), "stored", "it is as it was");
}

#[test]
fn the_third_crash_in_a_row_is_told_to_the_next_engine() {
    let keeper = Running::start(Options::default());
    let mut kills = Vec::new();
    for crashes in 0..4 {
        let mut engine = EngineProcess::start(keeper.path());
        let said = engine.hear();
        // A machine may be so busy that the first of them is too long ago by now.
        let recent = kills.iter().filter(|kill: &&Instant| kill.elapsed() < CRASH_LOOP_WINDOW).count();
        let possible: Vec<_> =
            (recent..=crashes).map(|counted| format!("inherited 0 {counted} {}", counted >= 3)).collect();
        assert!(possible.contains(&said), "{said} is none of {possible:?}");
        kills.push(Instant::now());
        engine.kill();
    }
}

#[test]
fn connections_that_no_engine_comes_for_are_reset_and_not_closed() {
    let keeper = Running::start(Options { grace: Duration::from_millis(1), ..Options::default() });
    let mut engine = EngineProcess::start(keeper.path());
    engine.hear();
    engine.tell("serve");
    let mut application = TcpStream::connect(engine.hear()).unwrap();
    assert_eq!(engine.hear(), "stored");
    engine.kill();
    let end = application.read(&mut [0]).unwrap_err();
    assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
    assert!(keeper.connect().1.descriptors.is_empty());
}
