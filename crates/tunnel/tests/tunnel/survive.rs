//! The application's connection survives what happens between the tunnels.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ferry_relay::{Cut, Heal, Relay};
use ferry_tunnel::Tunnel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::datagrams::Path;
use crate::pair::{Site, far_config, get, near_config, status};
use crate::stream::{check, write_until};

/// A far tunnel behind a relay, an application at each end, and a checked stream each way.
pub struct Checked {
    pub near: Tunnel,
    pub far: Tunnel,
    pub near_site: Site,
    pub far_site: Site,
    pub relay: Relay,
    stop: Arc<AtomicBool>,
    streams: Vec<JoinHandle<u64>>,
}

const UP: u64 = 0x0a;
const DOWN: u64 = 0x0b;

impl Checked {
    pub async fn start(extra: &str) -> Self {
        Self::start_over(extra, "", |relay| relay.to_string()).await
    }

    /// As [`start`](Self::start), with every link a WebSocket.
    pub async fn start_over_websockets(extra: &str) -> Self {
        Self::start_over(extra, "listen_ws: 127.0.0.1:0\n", |relay| format!("ws://{relay}")).await
    }

    /// As [`start`](Self::start), over QUIC and a path for its datagrams.
    pub async fn start_over_quic(extra: &str) -> (Self, Path) {
        Self::start_first_over_quic(extra, |_| String::new()).await
    }

    /// As [`start_over_quic`](Self::start_over_quic), and over TCP where that is not let through.
    pub async fn start_over_quic_or_tcp(extra: &str) -> (Self, Path) {
        Self::start_first_over_quic(extra, |relay| format!("\", \"{relay}")).await
    }

    async fn start_first_over_quic(extra: &str, more: impl Fn(SocketAddr) -> String) -> (Self, Path) {
        let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = format!("listen_quic: 127.0.0.1:0\n{extra}");
        let far = far_site.start(&far_config(&near_site, listener.local_addr().unwrap(), &listen)).await;
        let path = Path::start(far.addresses().listen_quic.unwrap()).await;
        let relay = Relay::start("127.0.0.1:0".parse().unwrap(), far.addresses().listen.unwrap()).unwrap();
        let dialled = format!("quic://{}{}", path.addr(), more(relay.addr()));
        let near = near_site.start(&near_config(&far_site, dialled, extra)).await;
        (Self::begin((near, near_site), (far, far_site), relay, listener).await, path)
    }

    async fn start_over(extra: &str, listen: &str, dialled: impl Fn(SocketAddr) -> String) -> Self {
        let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let forward = listener.local_addr().unwrap();
        let far = far_site.start(&far_config(&near_site, forward, &format!("{listen}{extra}"))).await;
        let target = far.addresses().listen_ws.or(far.addresses().listen).unwrap();
        let relay = Relay::start("127.0.0.1:0".parse().unwrap(), target).unwrap();
        let near = near_site.start(&near_config(&far_site, dialled(relay.addr()), extra)).await;
        Self::begin((near, near_site), (far, far_site), relay, listener).await
    }

    async fn begin(near: (Tunnel, Site), far: (Tunnel, Site), relay: Relay, listener: TcpListener) -> Self {
        let ((near, near_site), (far, far_site)) = (near, far);
        let app = TcpStream::connect(near.addresses().egress[0]).await.unwrap();
        let (service, _) = listener.accept().await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let streams = [(app, UP, DOWN), (service, DOWN, UP)].into_iter().flat_map(|(socket, writes, reads)| {
            let (read, write) = socket.into_split();
            let stop = stop.clone();
            let writer =
                tokio::spawn(async move { write_until(write, writes, |_| stop.load(Ordering::Relaxed)).await });
            [writer, tokio::spawn(check(read, reads))]
        });
        let streams = streams.collect();
        Self { near, far, near_site, far_site, relay, stop, streams }
    }

    fn admin(&self) -> SocketAddr {
        self.near.addresses().admin.unwrap()
    }

    /// How often the near tunnel has dialled in vain.
    async fn refused(&self) -> u64 {
        let (_, metrics) = get(self.admin(), "/metrics").await;
        let failures = metrics.lines().filter(|line| line.starts_with("ferry_link_failures_total{"));
        let in_vain = failures.filter(|line| line.contains("\"dialler\"") && line.contains("\"unreachable\""));
        in_vain.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// The session as the near tunnel sees it.
    pub async fn session(&self) -> serde_json::Value {
        status(self.admin()).await["sessions"][0].clone()
    }

    /// Waits until the session is attached with an epoch of at least `epoch`, and moving.
    pub async fn reaches(&self, epoch: u64) -> u64 {
        loop {
            let session = self.session().await;
            let now = session["epoch"].as_u64().expect("the session is alive");
            if session["attached"] == true && now >= epoch {
                return now;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Waits until `bytes` more have arrived at the near application.
    pub async fn moves(&self, bytes: u64) {
        let received = |session: serde_json::Value| session["received"].as_u64().expect("the session is alive");
        let before = received(self.session().await);
        while received(self.session().await) < before + bytes {
            tokio::task::yield_now().await;
        }
    }

    /// Ends both streams; every byte of each must have arrived.
    pub async fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        let mut counts = Vec::new();
        for stream in self.streams {
            counts.push(stream.await.unwrap());
        }
        let [up, down_checked, down, up_checked] = counts[..] else { panic!("four streams") };
        assert_eq!((up, down), (up_checked, down_checked), "bytes written and bytes checked");
    }
}

/// `FERRY_CUTS=100` for many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_with_rotations_between_them_lose_no_byte() {
    let cuts = std::env::var("FERRY_CUTS").map_or(20, |cuts| cuts.parse().expect("a number"));
    let checked = Checked::start("rotation: {max_per_second: 1000}\n").await;
    let mut epoch = checked.reaches(1).await;
    for round in 0..cuts {
        for _ in 0..3 {
            checked.moves(20_000).await;
            checked.near.rotate_all();
            epoch = checked.reaches(epoch + 1).await;
        }
        checked.moves(20_000).await;
        checked.relay.cut(if round % 2 == 0 { Cut::Rst } else { Cut::Fin });
        epoch = checked.reaches(epoch + 1).await;
    }
    let session = checked.session().await;
    println!("{cuts} cuts, {} rotations, epoch {epoch}: {session}", 3 * cuts);
    checked.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotations_lose_no_byte() {
    let checked = Checked::start("rotation: {max_per_second: 1000}\n").await;
    let mut epoch = checked.reaches(1).await;
    for _ in 0..60 {
        checked.moves(100_000).await;
        checked.near.rotate_all();
        epoch = checked.reaches(epoch + 1).await;
    }
    let (_, metrics) = get(checked.admin(), "/metrics").await;
    assert!(metrics.contains("ferry_resumes_total 0"), "a rotation is no resume:\n{metrics}");
    checked.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_is_noticed_and_left_behind() {
    let checked = Checked::start("liveness: 2s\n").await;
    let epoch = checked.reaches(1).await;
    checked.moves(100_000).await;
    checked.relay.black_hole();
    checked.relay.heal(Heal::Silent);
    checked.reaches(epoch + 1).await;
    checked.moves(100_000).await;
    checked.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_path_is_tried_until_it_is_back() {
    let checked = Checked::start("").await;
    let epoch = checked.reaches(1).await;
    checked.relay.refuse(true).unwrap();
    checked.relay.cut(Cut::Rst);
    let before = checked.refused().await;
    while checked.refused().await < before + 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(checked.session().await["attached"], false);
    checked.relay.refuse(false).unwrap();
    checked.reaches(epoch + 1).await;
    checked.moves(100_000).await;
    checked.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_tunnel_tells_the_far_one_that_its_sessions_are_gone() {
    let (near, far) = (Site::new("a/near"), Site::new("b/far"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let far_tunnel = far.start(&far_config(&near, listener.local_addr().unwrap(), "")).await;
    let relay = Relay::start("127.0.0.1:0".parse().unwrap(), far_tunnel.addresses().listen.unwrap()).unwrap();
    let config = near_config(&far, relay.addr(), "state: run\ndrain: 0s\n");
    let first = near.start(&config).await;
    let mut app = TcpStream::connect(first.addresses().egress[0]).await.unwrap();
    app.write_all(b"x").await.unwrap();
    let (mut service, _) = listener.accept().await.unwrap();
    service.read_exact(&mut [0; 1]).await.unwrap();
    // It dies without a word: nothing of its end reaches the far tunnel.
    relay.black_hole();
    first.drain().await;
    relay.heal(Heal::Silent);
    let _second = near.start(&config).await;
    let error = service.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_that_finds_the_last_one_unfinished_waits_for_it() {
    let checked = Checked::start("").await;
    checked.moves(5_000_000).await;
    // What is on the way on the old link takes seconds now.
    checked.relay.throttle(Some(500_000));
    checked.near.rotate_all();
    let epoch = checked.reaches(2).await;
    checked.near.rotate_all();
    checked.moves(500_000).await;
    assert_eq!(checked.session().await["epoch"], epoch, "nothing could take its place yet");
    checked.relay.throttle(None);
    checked.reaches(epoch + 1).await;
    let (_, metrics) = get(checked.admin(), "/metrics").await;
    assert!(metrics.contains("ferry_rotations_total{result=\"failed\"} 0"), "it was none that failed:\n{metrics}");
    checked.finish().await;
}
