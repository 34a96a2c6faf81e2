//! What arrives on a port that the world can reach: whatever it is, it is closed, counted, and in nobody's way.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ferry_relay::{Cut, Relay};
use ferry_session::LinkKind;
use ferry_tunnel::Tunnel;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::manners::Manners;
use crate::pair::{Site, echo, far_config, near_config};
use crate::rogue::Rogue;
use crate::scene::{Scene, exchange};
use crate::watch::{PATIENCE, assert_logged, failures, log, logged, reaches};

/// The far tunnel closes a connection that begins with `bytes`, and answers nothing or an alert.
async fn closed_after(bytes: &[u8], reason: &str) {
    let mut scene = Scene::start().await;
    let mut stranger = TcpStream::connect(scene.port()).await.unwrap();
    stranger.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A FIN or, where bytes were left unread, a RST.
    let _ = stranger.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with(&[21, 3]), "{answer:?}");
    failures(scene.admin(), &[("listener", reason, 1)]).await;
    scene.honest_peers_go_on().await;
}

#[tokio::test]
async fn random_bytes_are_refused() {
    closed_after(b"\x9c\x07\xd1\x55\x20\xfe\x00\x41\x8a\x33\xbc\x10", "tls").await;
}

#[tokio::test]
async fn random_bytes_in_a_record_are_refused() {
    closed_after(b"\x16\x03\x01\x00\x08\x9c\x07\xd1\x55\x20\xfe\x00\x41", "tls").await;
}

#[tokio::test]
async fn an_http_request_is_refused() {
    closed_after(b"GET / HTTP/1.1\r\nHost: ferry\r\n\r\n", "tls").await;
}

#[tokio::test]
async fn a_record_longer_than_records_are_is_refused_before_it_is_read() {
    closed_after(b"\x16\x03\x01\xff\xff", "tls").await;
}

#[tokio::test]
async fn an_empty_connection_that_closes_is_counted_as_closed() {
    let mut scene = Scene::start().await;
    drop(TcpStream::connect(scene.port()).await.unwrap());
    failures(scene.admin(), &[("listener", "closed", 1)]).await;
    scene.honest_peers_go_on().await;
}

/// A handshake message of 16 MiB, in records as long as they may be.
#[tokio::test]
async fn a_handshake_without_end_is_cut_off() {
    let mut scene = Scene::start().await;
    let mut stranger = TcpStream::connect(scene.port()).await.unwrap();
    let mut record = vec![0; 5 + (1 << 14)];
    record[..9].copy_from_slice(&[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff]);
    let mut sent = 0;
    while stranger.write_all(&record).await.is_ok() {
        sent += record.len();
        record[5..9].fill(0);
        tokio::task::yield_now().await;
        assert!(sent < 64 << 20, "the tunnel reads without end");
    }
    failures(scene.admin(), &[("listener", "tls", 1)]).await;
    scene.honest_peers_go_on().await;
}

/// Records that TLS 1.3 has to ignore, after a good ClientHello.
#[tokio::test]
async fn compatibility_records_without_end_are_cut_off() {
    let mut scene = Scene::start().await;
    let mut stranger = TcpStream::connect(scene.port()).await.unwrap();
    stranger.write_all(&client_hello(&Manners::honest(&scene.rogue))).await.unwrap();
    let mut sent = 0;
    while stranger.write_all(&[20, 3, 3, 0, 1, 1]).await.is_ok() {
        sent += 1;
        tokio::task::yield_now().await;
        assert!(sent < 1_000_000, "the tunnel reads without end");
    }
    failures(scene.admin(), &[("listener", "tls", 1)]).await;
    scene.honest_peers_go_on().await;
}

/// Six bytes that look like the beginning of a ClientHello, from each of two hundred connections, where two handshakes may
/// be under way: whoever speaks has their turn at once.
#[tokio::test]
async fn half_client_hellos_that_hold_on_take_nobodys_turn() {
    log();
    let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
    let far = far_site.start(&far_config(&near_site, echo().await, "limits: {handshakes: 2}\n")).await;
    let addr = far.addresses().listen.unwrap();
    let holding: Vec<_> = (0..200)
        .map(|_| {
            tokio::spawn(async move {
                // Each comes again when it is closed.
                while let Ok(mut stream) = TcpStream::connect(addr).await {
                    let _ = stream.write_all(b"\x16\x03\x01\x00\x01\x01").await;
                    let _ = stream.read(&mut [0]).await;
                }
            })
        })
        .collect();
    reaches(far.addresses().admin.unwrap(), "ferry_links_unauthenticated", 200).await;
    let relay = Relay::start("127.0.0.1:0".parse().unwrap(), addr).unwrap();
    let near = near_site.start(&near_config(&far_site, relay.addr(), "")).await;
    let mut live = TcpStream::connect(near.addresses().egress[0]).await.unwrap();
    exchange(&mut live).await;
    for _ in 0..3 {
        relay.cut(Cut::Rst);
        exchange(&mut live).await;
        exchange(&mut TcpStream::connect(near.addresses().egress[0]).await.unwrap()).await;
    }
    assert!(logged(&["no handshake within"]).is_empty());
    holding.iter().for_each(tokio::task::JoinHandle::abort);
}

/// From an address of another network than all others', a new peer gets in while strangers hold all places.
#[tokio::test]
async fn strangers_beyond_their_places_make_way_for_each_other() {
    log();
    let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
    let far = far_site.start(&far_config(&near_site, echo().await, "")).await;
    let (addr, admin) = (far.addresses().listen.unwrap(), far.addresses().admin.unwrap());
    // However long it takes until all are there: none of them leaves for being silent.
    let standstill = Standstill::begin();
    let mut holding = Vec::new();
    for number in 0..1500u32 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((std::net::Ipv4Addr::from_bits(0x7f01_0000 + number), 0).into()).unwrap();
        holding.push(socket.connect(addr).await.unwrap());
    }
    failures(admin, &[("listener", "limit", 1500 - 1024)]).await;
    drop(standstill);
    let near = near_site.start(&near_config(&far_site, addr, "")).await;
    exchange(&mut TcpStream::connect(near.addresses().egress[0]).await.unwrap()).await;
    assert_logged(&["WARN", "closed: too many connections have not authenticated"]);
    assert!(logged(&["WARN", "have not authenticated"]).len() < 3, "a line for each is none");
}

/// The runtime's clock stands still until this is dropped, or until whatever is waited for is not going to come.
struct Standstill(#[expect(dead_code, reason = "what is blocked ends with it")] std::sync::mpsc::Sender<()>);

impl Standstill {
    fn begin() -> Self {
        let (end, ended) = std::sync::mpsc::channel();
        tokio::time::pause();
        // A paused clock does not move on by itself while something runs that the runtime cannot look into.
        tokio::task::spawn_blocking(move || ended.recv_timeout(PATIENCE));
        Self(end)
    }
}

impl Drop for Standstill {
    fn drop(&mut self) {
        tokio::time::resume();
    }
}

fn client_hello(manners: &Manners) -> Vec<u8> {
    let name = ServerName::try_from("ferry").unwrap();
    let mut tls = ClientConnection::new(Arc::new(manners.client()), name).unwrap();
    let mut bytes = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut bytes).unwrap();
    }
    bytes
}

#[tokio::test]
async fn three_hundred_silent_connections_keep_nobody_out() {
    let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
    let far = far_site.start(&far_config(&near_site, echo().await, "")).await;
    let addr = far.addresses().listen.unwrap();
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(addr).await.unwrap());
    }
    let near = near_site.start(&near_config(&far_site, addr, "")).await;
    exchange(&mut TcpStream::connect(near.addresses().egress[0]).await.unwrap()).await;
    // Each of them is closed, although it has said nothing.
    for mut stream in silent {
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }
    failures(far.addresses().admin.unwrap(), &[("listener", "timeout", 300)]).await;
    exchange(&mut TcpStream::connect(near.addresses().egress[0]).await.unwrap()).await;
}

// --- deadlines, on the runtime's clock: it jumps to the next one when nothing else is left to be done -----------------

/// A far tunnel alone: nothing in it waits for anything but what a test connects to it. And an identity that it lists.
async fn lone_far() -> (Tunnel, Site) {
    log();
    let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
    (far_site.start(&far_config(&near_site, echo().await, "")).await, near_site)
}

/// Nothing comes any more from the tunnel; then it counts one time-out, and still takes a peer that speaks.
async fn given_up(far: &Tunnel, listed: &Site, mut silent: TcpStream, within: RangeInclusive<Duration>) {
    let begun = Instant::now();
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).await.unwrap();
    let elapsed = begun.elapsed();
    assert!(within.contains(&elapsed), "given up after {elapsed:?}");
    tokio::time::resume();
    failures(far.addresses().admin.unwrap(), &[("listener", "timeout", 1)]).await;
    Rogue::dial(far.addresses().listen.unwrap(), &Manners::honest(&listed.identity()))
        .await
        .unwrap()
        .preface(LinkKind::Own)
        .await;
}

/// Where there is room, a path that loses large packets has time to carry a ClientHello.
const HELLO: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_millis(10_100);
const HANDSHAKE: RangeInclusive<Duration> = Duration::from_secs(8)..=Duration::from_millis(10_100);

#[tokio::test(start_paused = true)]
async fn a_silent_connection_has_ten_seconds_where_there_is_room() {
    let (far, listed) = lone_far().await;
    let silent = TcpStream::connect(far.addresses().listen.unwrap()).await.unwrap();
    given_up(&far, &listed, silent, HELLO).await;
    assert_logged(&["link not made", "no ClientHello in time"]);
}

/// Of three hundred, so many are given up after two seconds that those who stay take no more than a quarter of the places.
#[tokio::test]
async fn of_many_silent_connections_most_have_two_seconds() {
    let (far, _listed) = lone_far().await;
    let addr = far.addresses().listen.unwrap();
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(addr).await.unwrap());
    }
    reaches(far.addresses().admin.unwrap(), "ferry_links_unauthenticated", 300).await;
    tokio::time::pause();
    let begun = Instant::now();
    let ends = silent.into_iter().map(|mut stream| async move {
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        begun.elapsed().as_secs()
    });
    let mut ended: Vec<_> = futures_util::future::join_all(ends).await;
    ended.sort_unstable();
    let early = ended.iter().filter(|seconds| **seconds < 8).count();
    assert_eq!(early, 300 - 256, "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn half_a_client_hello_has_ten_seconds_where_there_is_room() {
    let (far, listed) = lone_far().await;
    let mut silent = TcpStream::connect(far.addresses().listen.unwrap()).await.unwrap();
    let hello = client_hello(&Manners::honest(&listed.identity()));
    silent.write_all(&hello[..hello.len() / 2]).await.unwrap();
    given_up(&far, &listed, silent, HELLO).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_hello_in_drops_has_ten_seconds_in_all() {
    let (far, listed) = lone_far().await;
    let silent = TcpStream::connect(far.addresses().listen.unwrap()).await.unwrap().into_std().unwrap();
    let mut drips = TcpStream::from_std(silent.try_clone().unwrap()).unwrap();
    let hello = client_hello(&Manners::honest(&listed.identity()));
    let dripping = tokio::spawn(async move {
        for byte in hello {
            if drips.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    given_up(&far, &listed, TcpStream::from_std(silent).unwrap(), HELLO).await;
    dripping.abort();
}

#[tokio::test]
async fn a_handshake_that_stops_has_ten_seconds() {
    let (far, listed) = lone_far().await;
    let mut silent = TcpStream::connect(far.addresses().listen.unwrap()).await.unwrap();
    silent.write_all(&client_hello(&Manners::honest(&listed.identity()))).await.unwrap();
    // The ServerHello is here: what runs is the deadline of the whole handshake.
    silent.read_exact(&mut [0]).await.unwrap();
    tokio::time::pause();
    given_up(&far, &listed, silent, HANDSHAKE).await;
    assert_logged(&["link not made", "no handshake in time"]);
}

#[tokio::test]
async fn a_peer_that_says_nothing_after_its_handshake_has_ten_seconds() {
    let (far, listed) = lone_far().await;
    let rogue = Rogue::dial(far.addresses().listen.unwrap(), &Manners::honest(&listed.identity())).await.unwrap();
    tokio::time::pause();
    given_up(&far, &listed, rogue.into_stream(), HANDSHAKE).await;
}
