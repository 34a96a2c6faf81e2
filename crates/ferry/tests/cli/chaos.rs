//! Messages in both directions while every one of the four processes is killed and the link between the tunnels is cut,
//! again and again.
//!
//! The short form runs with all tests. The long form, 20,000 messages of 1 kB and five rounds of every fault:
//! `FERRY_CHAOS=long cargo test --release -p ferry --test cli chaos -- --nocapture`. `FERRY_CHAOS_SEED=n` repeats a run.

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ferry_relay::{Cut, Heal, Relay, Stats};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{self, Port, Running, command, eventually, keygen, role};

/// Ids that one client is owed at a time.
const OWED_MAX: usize = 200;

/// Bytes that the link carries between faults of its own: more than its handshakes, less than the messages meanwhile.
const CARRIED_MIN: u64 = 20_000;

/// How much of it.
struct Form {
    messages: usize,
    bytes: usize,
    rounds: usize,
}

/// One of the four processes.
struct Process {
    name: &'static str,
    args: Vec<String>,
    running: Option<Running>,
}

impl Process {
    fn new(name: &'static str, args: &[&str]) -> Self {
        Self { name, args: args.iter().map(|arg| (*arg).to_owned()).collect(), running: None }
    }

    fn start(&mut self, dir: &Path) {
        let mut command = command(&self.args);
        command.env_remove("FERRY_DATA").env("FERRY_LOG", "warn,ferry=info").env("PYTHONDONTWRITEBYTECODE", "1");
        self.running = Some(role(command.current_dir(dir)).0);
    }
}

/// The four processes, and where their web-apps are.
struct Ferry {
    dir: tempfile::TempDir,
    processes: [Process; 4],
    /// Theirs, also while they are away.
    _ports: [Port; 4],
    initiator: SocketAddr,
    terminator: SocketAddr,
    /// Between the two tunnels.
    relay: Relay,
    black_hole: bool,
    /// What the relay had carried after the last fault.
    carried: u64,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// This process is killed.
    Kill(usize),
    /// Every connection between the tunnels is reset.
    Reset,
    /// Nothing passes between the tunnels until the next fault; what was open before stays silent for ever.
    BlackHole,
}

/// One round of everything.
const ROUND: [Fault; 6] =
    [Fault::Kill(0), Fault::Kill(1), Fault::Kill(2), Fault::Kill(3), Fault::Reset, Fault::BlackHole];

impl Ferry {
    fn start(runtime: &Runtime) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        let (a, b) = (keygen(&at.join("a.key")), keygen(&at.join("b.key")));
        let ports = [(); 4].map(|()| Port::reserve());
        let [initiator, local, link, terminator] = ports.each_ref().map(Port::address);
        let relay = runtime.block_on(async { Relay::start("127.0.0.1:0".parse().unwrap(), link).unwrap() });
        let between = relay.addr();
        let write = |name: &str, rest: &str| {
            let own = format!("name: {name}\nidentity: {name}.key\nlimits: {{sessions: 50}}\nliveness: 2s\n{rest}");
            fs::write(at.join(format!("{name}.yaml")), own).unwrap();
        };
        let far_tunnel = format!(
            "listen: \"{link}\"\npeers: [{{name: a, keys: [\"{a}\"]}}]\n\
             ingress: [{{service: t, forward: \"{terminator}\", allow: [a]}}]\n"
        );
        write("b", &far_tunnel);
        let tunnel = format!(
            "peers: [{{name: b, keys: [\"{b}\"], addresses: [\"{between}\"]}}]\n\
             egress: [{{listen: \"{local}\", peer: b, service: t}}]\n"
        );
        write("a", &tunnel);
        let (peer, near, far) = (format!("ws://{local}/ws"), initiator.to_string(), terminator.to_string());
        let keep = ["--output-max", "100000", "--listen"];
        let app = ["initiator", "--data", "data-a", "--auto-trigger", "0", "--peer", &peer];
        let mut processes = [
            Process::new("initiator", &[&app[..], &keep, &[&near]].concat()),
            Process::new("initiator's tunnel", &["tunnel", "--config", "a.yaml"]),
            Process::new("terminator's tunnel", &["tunnel", "--config", "b.yaml"]),
            Process::new("terminator", &[&["terminator", "--data", "data-b"], &keep[..], &[&far]].concat()),
        ];
        processes.iter_mut().rev().for_each(|process| process.start(at));
        Self { dir, processes, _ports: ports, initiator, terminator, relay, black_hole: false, carried: 0 }
    }

    /// Lets this go wrong. A link fails when it has carried something since the last fault; a process may be killed while
    /// its link is a black hole.
    fn suffer(&mut self, fault: Fault, pause: Duration, runtime: &Runtime) {
        if !matches!(fault, Fault::Kill(_)) {
            self.heal();
            let enough = self.carried + CARRIED_MIN;
            let carries = self.relay.wait_for(|stats| stats.bytes_up + stats.bytes_down >= enough);
            runtime.block_on(async { tokio::time::timeout(support::DEADLINE, carries).await }).expect("messages flow");
        }
        match fault {
            Fault::Kill(index) => self.kill(index, pause),
            Fault::Reset => self.relay.cut(Cut::Rst),
            Fault::BlackHole => {
                self.relay.black_hole();
                self.black_hole = true;
                return;
            }
        }
        self.heal();
    }

    fn heal(&mut self) {
        let Stats { bytes_up, bytes_down, .. } = self.relay.stats();
        self.carried = bytes_up + bytes_down;
        if std::mem::take(&mut self.black_hole) {
            self.relay.heal(Heal::ResumeNew);
        }
    }

    fn name(&self, fault: Fault) -> String {
        match fault {
            Fault::Kill(index) => format!("kill {}", self.processes[index].name),
            Fault::Reset => "reset the link".into(),
            Fault::BlackHole => "black hole".into(),
        }
    }

    /// Kills a process as the kernel does when memory is short, waits a moment and starts it again.
    fn kill(&mut self, index: usize, pause: Duration) {
        let process = &mut self.processes[index];
        // Dropping sends SIGKILL, and waits.
        process.running = None;
        std::thread::sleep(pause);
        process.start(self.dir.path());
    }
}

/// One direction's client: it sends numbers, and remembers the ids that it was given for them.
struct Sender {
    listen: SocketAddr,
    bytes: usize,
    accepted: watch::Sender<usize>,
    /// So many may be accepted by now: sending must not be over before the last kill.
    allowed: AtomicUsize,
    enough: AtomicBool,
}

impl Sender {
    fn new(listen: SocketAddr, form: &Form) -> Arc<Self> {
        let (accepted, allowed) = (watch::Sender::new(0), AtomicUsize::new(0));
        Arc::new(Self { listen, bytes: form.bytes, accepted, allowed, enough: AtomicBool::new(false) })
    }

    /// Waits until so many have been accepted.
    async fn reached(&self, count: usize) {
        let mut accepted = self.accepted.subscribe();
        let waited = tokio::time::timeout(support::DEADLINE, accepted.wait_for(|accepted| *accepted >= count)).await;
        assert!(waited.is_ok(), "no progress beyond {} of {count}", *self.accepted.borrow());
    }

    /// Sends until it is enough; what was owed when a connection was lost is not sent again.
    async fn run(self: Arc<Self>, messages: usize) -> Vec<(u64, String)> {
        let (mut n, mut accepted) = (0, Vec::new());
        while accepted.len() < messages || !self.enough.load(Ordering::Relaxed) {
            let Ok((socket, _)) = tokio_tungstenite::connect_async(format!("ws://{}/stream", self.listen)).await else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let (mut writer, mut reader) = socket.split();
            let mut owed = VecDeque::new();
            while accepted.len() < messages || !self.enough.load(Ordering::Relaxed) {
                let allowed = self.allowed.load(Ordering::Relaxed);
                let may_send = owed.len() < OWED_MAX && accepted.len() + owed.len() < allowed;
                if may_send {
                    n += 1;
                    owed.push_back(n);
                    let text = json!({"n": n, "pad": "x".repeat(self.bytes)}).to_string();
                    if writer.feed(Message::text(text)).await.is_err() {
                        break;
                    }
                    if !owed.len().is_multiple_of(50) {
                        continue;
                    }
                }
                if writer.flush().await.is_err() {
                    break;
                }
                let frame = match tokio::time::timeout(Duration::from_millis(5), reader.next()).await {
                    Err(_) => continue,
                    Ok(Some(Ok(Message::Text(text)))) => serde_json::from_str::<Value>(&text).unwrap(),
                    Ok(Some(Ok(_))) => continue,
                    Ok(_) => break,
                };
                // An id alone is the answer to a trigger; the rest are notices and what arrives.
                if frame.as_object().unwrap().len() == 1
                    && let Some(id) = frame["id"].as_str()
                {
                    accepted.push((owed.pop_front().unwrap(), id.to_owned()));
                    self.accepted.send_replace(accepted.len());
                }
            }
        }
        accepted
    }
}

/// Everything in a web-app's output: number and id.
async fn output(listen: SocketAddr) -> Vec<(u64, String)> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let url = format!("http://{listen}/output?limit=1000{after}");
        let text = reqwest::get(url).await.unwrap().text().await.unwrap();
        let page: Value = serde_json::from_str(&text).unwrap();
        let results = page["results"].as_array().unwrap();
        let Some(last) = results.last() else { return all };
        after = format!("&after={}", last["id"].as_str().unwrap());
        all.extend(
            results
                .iter()
                .map(|result| (result["payload"]["n"].as_u64().unwrap(), result["id"].as_str().unwrap().to_owned())),
        );
    }
}

/// Each accepted id is there once and with its number, and numbers only go up.
fn check(direction: &str, accepted: &[(u64, String)], arrived: &[(u64, String)]) {
    let ids: HashSet<_> = arrived.iter().map(|(_, id)| id).collect();
    assert_eq!(ids.len(), arrived.len(), "{direction}: an id arrived twice");
    let pairs: HashSet<_> = arrived.iter().collect();
    let lost: Vec<_> = accepted.iter().filter(|pair| !pairs.contains(pair)).collect();
    assert!(lost.is_empty(), "{direction}: {} accepted and not there: {:?}", lost.len(), &lost[..lost.len().min(5)]);
    let disorder = arrived.windows(2).find(|pair| pair[0].0 >= pair[1].0);
    assert!(disorder.is_none(), "{direction}: out of order: {disorder:?}");
}

#[test]
fn every_accepted_message_arrives_once_and_in_order_whatever_is_killed_or_cut() {
    let form = match std::env::var("FERRY_CHAOS").as_deref() {
        Ok("long") => Form { messages: 20_000, bytes: 1000, rounds: 5 },
        _ => Form { messages: 4000, bytes: 200, rounds: 4 },
    };
    let seed = std::env::var("FERRY_CHAOS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut random = Random(seed);
    println!("seed {seed}: {} messages of {} bytes each way, {} rounds", form.messages, form.bytes, form.rounds);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut ferry = Ferry::start(&runtime);
    let senders = [Sender::new(ferry.initiator, &form), Sender::new(ferry.terminator, &form)];
    let clients = senders.clone().map(|sender| runtime.spawn(sender.run(form.messages)));
    let start = Instant::now();
    let mut order = Vec::new();
    for _ in 0..form.rounds {
        let mut round = ROUND.to_vec();
        while !round.is_empty() {
            order.push(round.remove(random.below(round.len())));
        }
    }
    for (i, fault) in order.iter().enumerate() {
        // Spread over the messages, each fault at a moment of its own among those that may be sent until then.
        let (from, to) = (form.messages * i / (order.len() + 1), form.messages * (i + 1) / (order.len() + 1));
        senders.iter().for_each(|sender| sender.allowed.store(to, Ordering::Relaxed));
        runtime.block_on(senders[i % 2].reached(from + random.below(to - from)));
        let counts = senders.each_ref().map(|sender| *sender.accepted.borrow());
        println!("{:6.2} s, accepted {counts:?}: {}", start.elapsed().as_secs_f64(), ferry.name(*fault));
        ferry.suffer(*fault, Duration::from_millis(random.below(300) as u64), &runtime);
    }
    ferry.heal();
    for sender in &senders {
        sender.allowed.store(form.messages, Ordering::Relaxed);
        sender.enough.store(true, Ordering::Relaxed);
    }
    let [forward, backward] = clients.map(|client| runtime.block_on(client).unwrap());
    for (direction, accepted, listen) in
        [("forward", forward, ferry.terminator), ("backward", backward, ferry.initiator)]
    {
        let arrived = eventually(direction, || {
            let arrived = runtime.block_on(output(listen));
            let last = accepted.last().unwrap();
            arrived.contains(last).then_some(arrived)
        });
        check(direction, &accepted, &arrived);
        println!(
            "{direction}: {} accepted, all of them there once and in order, {} of unknown fate arrived too",
            accepted.len(),
            arrived.len() - accepted.len()
        );
    }
    let stats = ferry.relay.stats();
    let payload = (form.messages * form.bytes) as u64;
    assert!(stats.bytes_up > payload && stats.bytes_down > payload, "the relay was passed by: {stats:?}");
    println!("{:6.2} s in all, {} connections between the tunnels", start.elapsed().as_secs_f64(), stats.accepted);
}

/// A small generator, so that a seed repeats a run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        // xorshift64* over a seed that is spread first.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % bound as u64) as usize
    }
}
