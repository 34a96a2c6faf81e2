//! Several tunnels of one identity, behind one address that gives each connection to any of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ferry_config::Identity;
use ferry_session::{Intent, LinkKind, RejectCode};
use ferry_tunnel::Tunnel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::datagrams::Path;
use crate::manners::Manners;
use crate::pair::{Pair, Site, echo};
use crate::replica_set::{Replica, Set, Streams, sample};
use crate::rogue::{End, Rogue};
use crate::scene::{ID, exchange, hello, is_reset};
use crate::spread::Spread;
use crate::watch::{PATIENCE, assert_logged, failures, log, reaches, samples, shows};

/// A few bytes each way.
async fn exchange_through(app: &mut TcpStream, mut service: TcpStream) {
    tokio::spawn(async move {
        let (mut read, mut write) = service.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    exchange(app).await;
}

/// `FERRY_MOVES=1000` for many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rotation_and_every_resume_comes_back_to_the_replica_that_has_the_session() {
    let moves: usize = std::env::var("FERRY_MOVES").map_or(200, |moves| moves.parse().expect("a number"));
    let set = Set::start(3, "rotation: {max_per_second: 1000}\n", "").await;
    let mut sessions = Vec::new();
    for index in 0..3 {
        sessions.push(set.session_at(index).await);
    }
    let streams = Streams::start(sessions);
    let (mut done, mut cuts) = (0, 0);
    while done < moves {
        let (before, _) = set.epochs().await;
        if done % 2 == 0 {
            set.near.rotate_all();
        } else {
            set.spread.cut();
            cuts += 3;
        }
        set.all_move_on(&before).await;
        done += 3;
    }
    let bytes = streams.finish().await;
    let mut spliced = Vec::new();
    for replica in &set.replicas {
        spliced.push(replica.spliced().await);
    }
    let rotations = samples(set.admin(), "ferry_rotations{").await;
    println!("{cuts} resumes of three sessions, {bytes} bytes; spliced {spliced:?}; rotations {rotations:?}");
    // One that reaches another replica fails.
    assert_eq!(rotations, BTreeMap::from([("result=\"done\"}".to_owned(), (done - cuts) as i64)]));
    assert!(spliced.iter().all(|spliced| *spliced > 0), "each has led some to the others: {spliced:?}");
}

#[tokio::test]
async fn websockets_are_led_to_the_replica_that_has_the_session() {
    let (near, far) = (Site::new("a/near"), Site::new("b/far"));
    let replicas = Set::replicas(2, &near, &far, "listen_ws: 127.0.0.1:0\n").await;
    let spread = Spread::start(vec![replicas[0].tunnel.addresses().listen_ws.unwrap()]).await;
    let address = format!("ws://{}", spread.addr());
    let set = Set::dialled_at(address, near, &far, spread, replicas, FREQUENT).await;
    set.introduce("listen_ws: 127.0.0.1:0\n").await;
    comes_back_to_the_first(&set, |index| {
        set.spread.set_targets(vec![set.replicas[index].tunnel.addresses().listen_ws.unwrap()]);
    })
    .await;
}

#[tokio::test]
async fn links_over_quic_are_led_to_the_replica_that_has_the_session() {
    let (near, far) = (Site::new("a/near"), Site::new("b/far"));
    let replicas = Set::replicas(2, &near, &far, "listen_quic: 127.0.0.1:0\n").await;
    let path = Path::start(replicas[0].tunnel.addresses().listen_quic.unwrap()).await;
    let spread = Spread::start(Vec::new()).await;
    let set = Set::dialled_at(format!("quic://{}", path.addr()), near, &far, spread, replicas, FREQUENT).await;
    set.introduce("listen_quic: 127.0.0.1:0\n").await;
    comes_back_to_the_first(&set, |index| {
        path.lead_to(set.replicas[index].tunnel.addresses().listen_quic.unwrap());
    })
    .await;
}

/// A near tunnel that may rotate as often as a test asks for, and soon notices that a path is another one.
const FREQUENT: &str = "rotation: {max_per_second: 1000}\nliveness: 1s\n";

/// Rotates the session of the first of two replicas, while links land at either of them by turns.
async fn comes_back_to_the_first(set: &Set, lead_to: impl Fn(usize)) {
    let streams = Streams::start([set.session_at(0).await]);
    for round in 0..6 {
        lead_to((round + 1) % 2);
        let (before, _) = set.epochs().await;
        set.near.rotate_all();
        set.all_move_on(&before).await;
    }
    assert!(streams.finish().await > 0);
    assert!(set.replicas[1].spliced().await > 0);
}

/// One listed peer's manners, with a process that it wants.
fn wanting(identity: &Identity, hint: &[u8]) -> Manners {
    let mut manners = Manners::honest(identity);
    manners.alpn.push(hint.to_vec());
    manners
}

/// The first flight of a dialler with these manners.
fn client_hello(manners: &Manners) -> Vec<u8> {
    let name = "ferry".try_into().unwrap();
    let mut tls = rustls::ClientConnection::new(Arc::new(manners.client()), name).unwrap();
    let mut bytes = Vec::new();
    tls.write_tls(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn sessions_that_are_opened_at_a_replica_come_back_to_it_over_links_that_are_offered_there() {
    let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ingress = format!(
        "ingress: [{{service: back, forward: \"{}\", allow: [b/far]}}]\nrotation: {{max_per_second: 1000}}\n",
        app.local_addr().unwrap()
    );
    let egress = "egress: [{listen: \"127.0.0.1:0\", peer: a/near, service: back}]\nrotation: {max_per_second: 1000}\n";
    let replicas = Set::replicas(2, &near_site, &far_site, egress).await;
    let spread = Spread::start(replicas.iter().map(Replica::listen).collect()).await;
    let address = spread.addr().to_string();
    let set = Set::dialled_at(address, near_site, &far_site, spread, replicas, &ingress).await;
    set.introduce(egress).await;
    let mut sessions = Vec::new();
    for replica in &set.replicas {
        let mut near_end = TcpStream::connect(replica.tunnel.addresses().egress[0]).await.unwrap();
        let (mut far_end, _) =
            tokio::time::timeout(PATIENCE, app.accept()).await.expect("a link is offered there").unwrap();
        far_end.write_all(b"x").await.unwrap();
        near_end.read_exact(&mut [0; 1]).await.unwrap();
        sessions.push((near_end, far_end));
    }
    let streams = Streams::start(sessions);
    for round in 0..10 {
        let (before, _) = set.epochs().await;
        if round % 2 == 0 {
            set.replicas.iter().for_each(|replica| replica.tunnel.rotate_all());
        } else {
            set.spread.cut();
        }
        set.all_move_on(&before).await;
    }
    streams.finish().await;
}

#[tokio::test]
async fn a_process_that_nobody_is_gets_the_handshake_and_the_answer_unknown() {
    let set = Set::start(2, "", "").await;
    let identity = set.near_site.identity();
    let [first, second] = &set.replicas[..] else { panic!("two") };
    let before = samples(first.admin(), "ferry_splices{").await;
    let nobody = b"ferry-to/0123456789abcdef";
    for (hint, counted) in [
        (&nobody[..], 1),
        // None of these is a hint.
        (b"ferry-to/", 1),
        (b"ferry-to/0123456789ABCDEF", 1),
        (&[&nobody[..], b"0"].concat(), 1),
        // Its own.
        (&first.hint(&set.near_site).await, 1),
    ] {
        let mut link = Rogue::dial(first.listen(), &wanting(&identity, hint)).await.unwrap();
        link.preface(LinkKind::Own).await;
        link.say(&hello(ID, 2, Intent::Resume, "echo")).await;
        assert_eq!(link.rejected().await.0, RejectCode::Unknown);
        let mut expected = before.clone();
        *expected.entry("result=\"unknown\"}".to_owned()).or_default() += counted;
        assert_eq!(samples(first.admin(), "ferry_splices{").await, expected, "{hint:?}");
    }
    assert_eq!(second.spliced().await, 0);
}

#[tokio::test]
async fn who_is_not_one_of_several_looks_at_no_hint_and_takes_no_mark() {
    let pair = Pair::start(echo().await).await;
    let (listen, admin) = (pair.far.addresses().listen.unwrap(), pair.far.addresses().admin.unwrap());
    let manners = wanting(&pair.near_site.identity(), b"ferry-to/0123456789abcdef");
    let mut link = Rogue::dial(listen, &manners).await.unwrap();
    link.preface(LinkKind::Own).await;
    shows(admin, "ferry_splices{", &[]).await;
    let mut stream = TcpStream::connect(listen).await.unwrap();
    stream.write_all(&forged_mark()).await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
    failures(admin, &[("listener", "tls", 1)]).await;
}

/// A PROXY header like a replica's, whose MAC is none.
fn forged_mark() -> Vec<u8> {
    let mut mark = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x40".to_vec();
    mark.extend_from_slice(&[192, 0, 2, 7, 127, 0, 0, 1, 1, 1, 2, 2]);
    mark.extend_from_slice(&[0xe3, 0, 49, 1]);
    mark.extend_from_slice(&[0x5a; 48]);
    mark
}

#[tokio::test]
async fn a_mark_is_taken_from_who_has_the_identity_alone() {
    let set = Set::start(2, "", "").await;
    let replica = &set.replicas[0];
    let hello = client_hello(&Manners::honest(&set.near_site.identity()));
    let mut question = forged_mark();
    // Of nobody, who asks.
    (question[12], question[31]) = (0x20, 2);
    for bytes in [&[&forged_mark(), &hello[..]].concat(), &question, &forged_mark()[..20].to_vec()] {
        let mut stream = TcpStream::connect(replica.listen()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // Closed with bytes unread, it may be reset.
        let _ = stream.read_to_end(&mut answer).await;
        assert_eq!(answer, b"", "nothing is told");
    }
    reaches(replica.admin(), "ferry_link_failures{role=\"listener\",reason=\"tls\"}", 2).await;
    // A replica of another identity gets no answer to its question.
    let (near, other) = (Site::new("a/near"), Site::new("c/other"));
    let other = Replica::start(&near, &other, "").await;
    other.tell(&near, &[replica.listen()], "").await;
    reaches(replica.admin(), "ferry_link_failures{role=\"listener\",reason=\"tls\"}", 3).await;
    assert_eq!(sample(other.admin(), "ferry_replicas").await, 0);
}

#[tokio::test]
async fn the_replica_that_answers_sees_where_the_dialler_is() {
    log();
    let set = Set::start(2, "", "").await;
    let [first, second] = &set.replicas[..] else { panic!("two") };
    let manners = wanting(&Identity::generate().unwrap(), &second.hint(&set.near_site).await);
    set.spread.set_targets(vec![first.listen()]);
    let mut stranger = Rogue::dial(set.spread.addr(), &manners).await.unwrap();
    assert!(matches!(stranger.end().await, End::Alert(_)));
    // As the first one sees it, and not where that is.
    assert_logged(&["refused a tunnel from 127.0.0.3 whose key is not listed here"]);
    assert_eq!(first.spliced().await, 1);
    reaches(second.admin(), "ferry_link_failures{role=\"listener\",reason=\"key\"}", 1).await;
}

/// Leads questions to the first of these, and while it is `astray` everything else to the second one.
async fn detour([first, second]: [SocketAddr; 2], astray: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let astray = astray.clone();
            tokio::spawn(async move {
                let mut header = [0; 13];
                while near.peek(&mut header).await.unwrap() < header.len() {}
                let is_question = header[12] == 0x20;
                let target = if !is_question && astray.load(Ordering::Relaxed) { second } else { first };
                let mut far = TcpStream::connect(target).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    addr
}

#[tokio::test]
async fn what_a_replica_has_led_somewhere_is_led_no_further() {
    let set = Set::of_strangers(3, "rotation: {max_per_second: 1000}\n", "").await;
    let [first, owner, third] = &set.replicas[..] else { panic!("three") };
    // For the first one, the owner is at a place that leads to the third one in a moment, which knows better.
    let astray = Arc::new(AtomicBool::new(false));
    let detour = detour([owner.listen(), third.listen()], astray.clone()).await;
    first.tell(&set.near_site, &[detour], "").await;
    third.tell(&set.near_site, &[owner.listen()], "").await;
    owner.tell(&set.near_site, &[], "").await;
    reaches(first.admin(), "ferry_replicas", 1).await;
    reaches(third.admin(), "ferry_replicas", 1).await;
    set.spread.set_targets(vec![owner.listen()]);
    let (mut app, mut service) = set.session_at(1).await;
    set.spread.set_targets(vec![first.listen()]);
    astray.store(true, Ordering::Relaxed);
    set.near.rotate_all();
    reaches(set.admin(), "ferry_rotations{result=\"failed\"}", 1).await;
    assert_eq!((first.spliced().await, third.spliced().await), (1, 0), "it had come from a replica");
    assert_eq!(sample(third.admin(), "ferry_attaches_refused{reason=\"unknown\"}").await, 1);
    astray.store(false, Ordering::Relaxed);
    let (epochs, _) = set.epochs().await;
    set.near.rotate_all();
    set.all_move_on(&epochs).await;
    assert_eq!(first.spliced().await, 2);
    app.write_all(b"x").await.unwrap();
    service.read_exact(&mut [0; 1]).await.unwrap();
}

/// Silent strangers that have seen a hint on the wire.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_flood_a_replica_by_way_of_another_hold_up_no_peer() {
    // As many may be led elsewhere as there may be sessions.
    let limited = "limits: {sessions: 20}\n";
    let set = Set::start(2, "rotation: {max_per_second: 1000}\n", limited).await;
    let [first, owner] = &set.replicas[..] else { panic!("two") };
    let session = set.session_at(1).await;
    let streams = Streams::start([session]);
    let hello = client_hello(&wanting(&Identity::generate().unwrap(), &owner.hint(&set.near_site).await));
    set.spread.set_targets(vec![first.listen()]);
    let mut flood = Vec::new();
    for _ in 0..200 {
        let mut stranger = TcpStream::connect(first.listen()).await.unwrap();
        stranger.write_all(&hello).await.unwrap();
        flood.push(stranger);
    }
    reaches(first.admin(), "ferry_splices{result=\"limit\"}", 100).await;
    assert!(sample(first.admin(), "ferry_splices_open").await <= 20);
    drop(flood);
    shows(first.admin(), "ferry_splices_open", &[]).await;
    for round in 0..6 {
        let (before, _) = set.epochs().await;
        if round % 2 == 0 {
            set.near.rotate_all();
        } else {
            set.spread.cut();
        }
        set.all_move_on(&before).await;
    }
    streams.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_whose_replica_was_restarted_without_a_keeper_is_told_by_way_of_any_other() {
    let extra = "state: run\ndrain: 0s\n";
    let mut set = Set::start(2, "", extra).await;
    let (mut app, service) = set.session_at(1).await;
    exchange_through(&mut app, service).await;
    let [first, owner] = [set.replicas[0].listen(), set.replicas[1].listen()];
    // It dies without a word: nothing reaches it, and nothing comes from it.
    set.spread.set_targets(vec![ferry_processes::nobody()]);
    set.spread.cut();
    let Replica { tunnel, site, app: service } = set.replicas.remove(1);
    tunnel.drain().await;
    let config = site.configure(&Replica::config(&set.near_site, &service, &[first], extra));
    let next = Replica { tunnel: Tunnel::start(config).await.unwrap(), site, app: service };
    assert_ne!(next.listen(), owner);
    set.replicas[0].tell(&set.near_site, &[next.listen()], extra).await;
    reaches(next.admin(), "ferry_replicas", 1).await;
    let before = set.replicas[0].spliced().await;
    set.spread.set_targets(vec![first]);
    is_reset(&mut app).await;
    assert!(set.replicas[0].spliced().await > before);
}
