//! What each fault does to real connections. Every wait is for something that happens; nothing sleeps.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use ferry_relay::{Cut, Heal, Relay};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A relay and the listener that it leads to.
async fn relay() -> (Relay, TcpListener) {
    let target = TcpListener::bind(ANY).await.unwrap();
    let relay = Relay::start(ANY, target.local_addr().unwrap()).unwrap();
    (relay, target)
}

/// The runtime's clock stands still for as long as what this returns lives, or until a minute shows that it is in vain.
fn standstill() -> mpsc::Sender<()> {
    let (end, ended) = mpsc::channel();
    tokio::time::pause();
    // A paused clock does not move on by itself while something runs that the runtime cannot look into.
    tokio::task::spawn_blocking(move || ended.recv_timeout(Duration::from_secs(60)));
    end
}

/// Both ends of a connection through the relay.
async fn connect(relay: &Relay, target: &TcpListener) -> (TcpStream, TcpStream) {
    let (near, far) = tokio::join!(TcpStream::connect(relay.addr()), target.accept());
    (near.unwrap(), far.unwrap().0)
}

/// One byte there and one back.
async fn exchange(near: &mut TcpStream, far: &mut TcpStream) {
    near.write_all(b"?").await.unwrap();
    assert_eq!(far.read_u8().await.unwrap(), b'?');
    far.write_all(b"!").await.unwrap();
    assert_eq!(near.read_u8().await.unwrap(), b'!');
}

async fn read_error(stream: &mut TcpStream) -> ErrorKind {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap_err().kind()
}

fn nothing_to_read(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

#[tokio::test]
async fn bytes_pass_both_ways_and_are_counted() {
    let (relay, target) = relay().await;
    let (mut near, mut far) = connect(&relay, &target).await;
    let sent = pattern(3_000_000);
    let mut received = vec![0; sent.len()];
    let (written, read) = tokio::join!(near.write_all(&sent), far.read_exact(&mut received));
    assert_eq!((written.unwrap(), read.unwrap()), ((), sent.len()));
    assert!(received == sent);
    exchange(&mut near, &mut far).await;
    let stats = relay.stats();
    assert_eq!((stats.open, stats.accepted), (1, 1));
    assert_eq!((stats.bytes_up, stats.bytes_down), (3_000_001, 1));
    drop((near, far));
    relay.wait_for(|stats| stats.open == 0).await;
}

#[tokio::test]
async fn a_half_close_stays_half_a_close() {
    let (relay, target) = relay().await;
    let (mut near, mut far) = connect(&relay, &target).await;
    near.write_all(b"last").await.unwrap();
    near.shutdown().await.unwrap();
    let mut request = Vec::new();
    far.read_to_end(&mut request).await.unwrap();
    assert_eq!(request, b"last");
    far.write_all(b"answer").await.unwrap();
    far.shutdown().await.unwrap();
    let mut answer = Vec::new();
    near.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"answer");
    relay.wait_for(|stats| stats.open == 0).await;
}

#[tokio::test]
async fn a_reset_passes_as_a_reset_in_either_direction() {
    let (relay, target) = relay().await;
    let (mut near, far) = connect(&relay, &target).await;
    far.set_zero_linger().unwrap();
    drop(far);
    assert_eq!(read_error(&mut near).await, ErrorKind::ConnectionReset);

    let (near, mut far) = connect(&relay, &target).await;
    near.set_zero_linger().unwrap();
    drop(near);
    assert_eq!(read_error(&mut far).await, ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reset_after_a_half_close_still_passes() {
    let (relay, target) = relay().await;
    let (mut near, mut far) = connect(&relay, &target).await;
    near.shutdown().await.unwrap();
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
    near.set_zero_linger().unwrap();
    drop(near);
    // A FIN had been read before, so only writing tells.
    let mut written = Ok(());
    while written.is_ok() {
        written = far.write_all(&[0; 1024]).await;
    }
    relay.wait_for(|stats| stats.open == 0).await;
}

#[tokio::test]
async fn bytes_sent_before_a_reset_arrive_before_it() {
    let (relay, target) = relay().await;
    let (near, mut far) = connect(&relay, &target).await;
    near.try_write(b"farewell").unwrap();
    relay.wait_for(|stats| stats.bytes_up == 8).await;
    near.set_zero_linger().unwrap();
    drop(near);
    let mut received = [0; 8];
    far.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"farewell");
    assert_eq!(read_error(&mut far).await, ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reset_passes_although_the_relay_is_not_reading() {
    let (relay, target) = relay().await;
    let (mut near, mut far) = connect(&relay, &target).await;
    relay.throttle(Some(1));
    near.write_all(&pattern(1000)).await.unwrap();
    relay.wait_for(|stats| stats.bytes_up > 0).await;
    near.set_zero_linger().unwrap();
    drop(near);
    assert_eq!(read_error(&mut far).await, ErrorKind::ConnectionReset);
    assert!(relay.stats().bytes_up < 1000);
}

#[tokio::test]
async fn a_target_that_refuses_resets_the_connection() {
    let (relay, target) = relay().await;
    drop(target);
    let mut near = TcpStream::connect(relay.addr()).await.unwrap();
    assert_eq!(read_error(&mut near).await, ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_cut_by_fin_ends_both_sides_of_every_connection_with_end_of_file() {
    let (relay, target) = relay().await;
    let (mut near, mut far) = connect(&relay, &target).await;
    let (mut other, _other_far) = connect(&relay, &target).await;
    exchange(&mut near, &mut far).await;
    relay.cut(Cut::Fin);
    assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(other.read(&mut [0]).await.unwrap(), 0);
    let (mut near, mut far) = connect(&relay, &target).await;
    exchange(&mut near, &mut far).await;
}

#[tokio::test]
async fn a_cut_by_fin_reaches_full_streams_as_end_of_file_too() {
    let (relay, target) = relay().await;
    let (near, far) = connect(&relay, &target).await;
    // However long the ends take to read what is on its way: the relay waits for them.
    let _standstill = standstill();
    let end = |stream: TcpStream| async move {
        let (mut reads, mut writes) = stream.into_split();
        let flood = async {
            while writes.write_all(&[7; 4096]).await.is_ok() {}
            std::future::pending().await
        };
        let mut received = Vec::new();
        tokio::select! {
            ended = reads.read_to_end(&mut received) => ended,
            () = flood => unreachable!(),
        }
    };
    let cut = async {
        relay.wait_for(|stats| stats.bytes_up.min(stats.bytes_down) > 1 << 20).await;
        relay.cut(Cut::Fin);
    };
    let (near, far, ()) = tokio::join!(end(near), end(far), cut);
    assert!(near.unwrap().min(far.unwrap()) > 1 << 20);
}

#[tokio::test]
async fn a_cut_by_rst_resets_both_sides_of_every_connection() {
    let (relay, target) = relay().await;
    let (mut near, mut far) = connect(&relay, &target).await;
    let (mut other, _other_far) = connect(&relay, &target).await;
    exchange(&mut near, &mut far).await;
    relay.cut(Cut::Rst);
    assert_eq!(read_error(&mut near).await, ErrorKind::ConnectionReset);
    assert_eq!(read_error(&mut far).await, ErrorKind::ConnectionReset);
    assert_eq!(read_error(&mut other).await, ErrorKind::ConnectionReset);
    let (mut near, mut far) = connect(&relay, &target).await;
    exchange(&mut near, &mut far).await;
}

#[tokio::test]
async fn a_cut_reaches_a_connection_that_the_relay_has_not_accepted_yet_and_not_the_next() {
    let (relay, target) = relay().await;
    // Blocking connects on this one thread: the relay's tasks have not run in between.
    let before = std::net::TcpStream::connect(relay.addr()).unwrap();
    relay.cut(Cut::Rst);
    let after = std::net::TcpStream::connect(relay.addr()).unwrap();
    before.set_nonblocking(true).unwrap();
    after.set_nonblocking(true).unwrap();
    let mut before = TcpStream::from_std(before).unwrap();
    let mut after = TcpStream::from_std(after).unwrap();
    assert_eq!(read_error(&mut before).await, ErrorKind::ConnectionReset);
    let (mut far, _) = target.accept().await.unwrap();
    exchange(&mut after, &mut far).await;
}

#[tokio::test]
async fn refusing_spares_what_is_open_and_the_same_address_serves_again() {
    let (relay, target) = relay().await;
    let (mut near, mut far) = connect(&relay, &target).await;
    relay.refuse(true).unwrap();
    let refused = TcpStream::connect(relay.addr()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    exchange(&mut near, &mut far).await;
    relay.refuse(false).unwrap();
    let (mut near, mut far) = connect(&relay, &target).await;
    exchange(&mut near, &mut far).await;
}

#[tokio::test]
async fn a_resumed_black_hole_delivers_everything_late_and_in_order() {
    let (relay, target) = relay().await;
    let (mut near, mut far) = connect(&relay, &target).await;
    exchange(&mut near, &mut far).await;
    let before = relay.stats();
    relay.black_hole();
    let sent = pattern(100_000);
    near.write_all(&sent).await.unwrap();
    near.shutdown().await.unwrap();
    let during = TcpStream::connect(relay.addr()).await.unwrap();
    relay.wait_for(|stats| stats.accepted == 2).await;
    assert_eq!(relay.stats().bytes_up, before.bytes_up);
    assert!(nothing_to_read(&far));
    relay.heal(Heal::Resume);
    let mut received = Vec::new();
    far.read_to_end(&mut received).await.unwrap();
    assert!(received == sent);
    let (mut during, (mut during_far, _)) = (during, target.accept().await.unwrap());
    exchange(&mut during, &mut during_far).await;
}

#[tokio::test]
async fn what_a_silent_black_hole_swallowed_never_flows_again_and_the_next_connection_does() {
    let (relay, target) = relay().await;
    let (mut old, mut old_far) = connect(&relay, &target).await;
    exchange(&mut old, &mut old_far).await;
    relay.black_hole();
    let during = std::net::TcpStream::connect(relay.addr()).unwrap();
    old.write_all(b"lost").await.unwrap();
    relay.heal(Heal::Silent);
    let (mut near, mut far) = connect(&relay, &target).await;
    exchange(&mut near, &mut far).await;
    assert_eq!(relay.stats().bytes_up, 2);
    assert!(nothing_to_read(&old) && nothing_to_read(&old_far));
    relay.cut(Cut::Rst);
    assert_eq!(read_error(&mut old_far).await, ErrorKind::ConnectionReset);
    relay.wait_for(|stats| stats.open == 0).await;
    drop(during);
}

#[tokio::test]
async fn what_was_dialled_into_a_black_hole_may_flow_although_what_was_there_before_does_not() {
    let (relay, target) = relay().await;
    let (mut old, mut old_far) = connect(&relay, &target).await;
    exchange(&mut old, &mut old_far).await;
    relay.black_hole();
    let mut during = TcpStream::connect(relay.addr()).await.unwrap();
    old.write_all(b"lost").await.unwrap();
    relay.heal(Heal::ResumeNew);
    let (mut far, _) = target.accept().await.unwrap();
    exchange(&mut during, &mut far).await;
    assert_eq!(relay.stats().bytes_up, 2);
    assert!(nothing_to_read(&old_far));
}

#[tokio::test]
async fn a_black_hole_may_heal_by_resetting_what_it_swallowed() {
    let (relay, target) = relay().await;
    let (mut old, mut old_far) = connect(&relay, &target).await;
    relay.black_hole();
    relay.heal(Heal::Reset);
    assert_eq!(read_error(&mut old).await, ErrorKind::ConnectionReset);
    assert_eq!(read_error(&mut old_far).await, ErrorKind::ConnectionReset);
    let (mut near, mut far) = connect(&relay, &target).await;
    exchange(&mut near, &mut far).await;
}

#[tokio::test]
async fn a_delay_holds_each_direction_and_a_shorter_one_frees_what_is_on_its_way() {
    let (relay, target) = relay().await;
    let one_way = Duration::from_millis(30);
    relay.delay(one_way);
    let start = Instant::now();
    let (mut near, mut far) = connect(&relay, &target).await;
    assert!(start.elapsed() >= 2 * one_way, "a handshake takes a round trip");
    let start = Instant::now();
    exchange(&mut near, &mut far).await;
    assert!(start.elapsed() >= 2 * one_way);
    relay.delay(Duration::from_secs(3600));
    near.write_all(b"late").await.unwrap();
    relay.delay(Duration::ZERO);
    let mut late = [0; 4];
    far.read_exact(&mut late).await.unwrap();
}

#[tokio::test]
async fn a_throttle_bounds_the_rate_until_it_is_lifted() {
    let (relay, target) = relay().await;
    let (mut near, mut far) = connect(&relay, &target).await;
    relay.throttle(Some(1_000_000));
    let sent = pattern(4_000_000);
    let mut received = vec![0; sent.len()];
    let start = Instant::now();
    let throttled = async {
        far.read_exact(&mut received[..200_000]).await.unwrap();
        assert!(start.elapsed() >= Duration::from_millis(160));
        relay.throttle(None);
        far.read_exact(&mut received[200_000..]).await.unwrap();
    };
    let (written, ()) = tokio::join!(near.write_all(&sent), throttled);
    written.unwrap();
    assert!(received == sent);
}

#[tokio::test]
async fn a_move_resets_what_is_open_and_serves_at_the_new_address_only() {
    let (relay, target) = relay().await;
    let (mut old, _old_far) = connect(&relay, &target).await;
    let before = relay.addr();
    let after = relay.move_to(ANY).unwrap();
    assert_ne!(before, after);
    assert_eq!(relay.addr(), after);
    assert_eq!(read_error(&mut old).await, ErrorKind::ConnectionReset);
    let refused = TcpStream::connect(before).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let (mut near, mut far) = connect(&relay, &target).await;
    exchange(&mut near, &mut far).await;
}

#[tokio::test]
async fn a_new_target_takes_new_connections_only() {
    let (relay, first) = relay().await;
    let second = TcpListener::bind(ANY).await.unwrap();
    let (mut near, mut far) = connect(&relay, &first).await;
    relay.set_target(second.local_addr().unwrap());
    exchange(&mut near, &mut far).await;
    let (mut near, mut far) = connect(&relay, &second).await;
    exchange(&mut near, &mut far).await;
}

#[tokio::test]
async fn dropping_the_relay_ends_its_listener_and_its_connections() {
    let (relay, target) = relay().await;
    let (mut near, mut far) = connect(&relay, &target).await;
    exchange(&mut near, &mut far).await;
    let address = relay.addr();
    drop(relay);
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_are_cut_at_once_and_come_back() {
    let (relay, target) = relay().await;
    for round in 1..=2 {
        let mut ends = Vec::new();
        for _ in 0..1000 {
            ends.push(connect(&relay, &target).await);
        }
        for (near, far) in &mut ends {
            exchange(near, far).await;
        }
        relay.cut(if round == 1 { Cut::Rst } else { Cut::Fin });
        relay.wait_for(|stats| stats.open == 0).await;
        assert_eq!(relay.stats().accepted, round * 1000);
    }
}
