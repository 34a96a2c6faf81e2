//! Where sessions end: at limits, at half-closes and resets, and when the tunnel goes.

use std::io::ErrorKind;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::pair::{Pair, Site, echo, far_config, near_config, status};
use crate::scene::{exchange, is_refused, is_reset};
use crate::watch::{answers, assert_logged, log, logged, shows};

/// A session with both ends of it in hand: the pair, the application that connected, the one that was connected to.
async fn session(extra: &str) -> (Pair, TcpStream, TcpStream) {
    log();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pair = Pair::start_with(listener.local_addr().unwrap(), extra).await;
    let app = pair.connect().await;
    let (service, _) = listener.accept().await.unwrap();
    (pair, app, service)
}

async fn ended(pair: &Pair, near: &str, far: &str) {
    for (tunnel, side, ending) in [(&pair.near, "opener", near), (&pair.far, "acceptor", far)] {
        let sample = format!("{{side=\"{side}\",ending=\"{ending}\"}}");
        shows(tunnel.addresses().admin.unwrap(), "ferry_sessions_ended", &[(&sample, 1)]).await;
    }
}

/// The bytes come before the end, all of them and nothing else.
async fn passes(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) {
    from.write_all(bytes).await.unwrap();
    from.shutdown().await.unwrap();
    let mut received = Vec::new();
    to.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, bytes);
}

// --- half-close and reset --------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_half_close_of_the_near_application_passes_and_the_other_way_goes_on() {
    let (pair, mut app, mut service) = session("").await;
    passes(&mut app, &mut service, b"question").await;
    passes(&mut service, &mut app, b"answer").await;
    ended(&pair, "finished", "finished").await;
}

#[tokio::test]
async fn a_half_close_of_the_far_application_passes_and_the_other_way_goes_on() {
    let (pair, mut app, mut service) = session("").await;
    passes(&mut service, &mut app, b"greeting").await;
    passes(&mut app, &mut service, b"farewell").await;
    ended(&pair, "finished", "finished").await;
}

#[tokio::test]
async fn an_end_without_a_byte_passes() {
    let (pair, mut app, mut service) = session("").await;
    passes(&mut app, &mut service, b"").await;
    passes(&mut service, &mut app, b"").await;
    ended(&pair, "finished", "finished").await;
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

#[tokio::test]
async fn a_reset_of_the_near_application_passes_as_a_reset() {
    let (pair, mut app, mut service) = session("").await;
    app.write_all(b"hello").await.unwrap();
    service.read_exact(&mut [0; 5]).await.unwrap();
    reset(app);
    is_reset(&mut service).await;
    ended(&pair, "reset_here", "reset_by_peer").await;
    assert_logged(&["session reset here: the application's connection failed"]);
    assert_logged(&["session reset by the peer: the application's connection failed"]);
}

#[tokio::test]
async fn a_reset_of_the_far_application_passes_as_a_reset() {
    let (pair, mut app, mut service) = session("").await;
    app.write_all(b"hello").await.unwrap();
    service.read_exact(&mut [0; 5]).await.unwrap();
    reset(service);
    is_reset(&mut app).await;
    ended(&pair, "reset_by_peer", "reset_here").await;
}

#[tokio::test]
async fn a_reset_after_a_half_close_passes_as_a_reset() {
    let (pair, mut app, mut service) = session("").await;
    passes(&mut app, &mut service, b"question").await;
    reset(app);
    // The far application has its end of file and reads no more: it finds out when it answers.
    while service.write_all(b"answer").await.is_ok() {
        tokio::task::yield_now().await;
    }
    ended(&pair, "reset_here", "reset_by_peer").await;
}

// --- the session limit -----------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_connection_beyond_the_near_limit_is_reset_and_the_others_go_on() {
    log();
    let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
    let far = far_site.start(&far_config(&near_site, echo().await, "")).await;
    let limit = "limits: {sessions: 1}\n";
    let near = near_site.start(&near_config(&far_site, far.addresses().listen.unwrap(), limit)).await;
    let egress = near.addresses().egress[0];
    let mut first = TcpStream::connect(egress).await.unwrap();
    exchange(&mut first).await;
    is_refused(egress).await;
    let admin = near.addresses().admin.unwrap();
    shows(admin, "ferry_connections_refused", &[("{reason=\"limit\"}", 1)]).await;
    assert_logged(&["WARN", "application's connection reset", "the limit of 1 sessions is reached"]);
    exchange(&mut first).await;
    // Its end makes room.
    first.shutdown().await.unwrap();
    assert_eq!(first.read(&mut [0]).await.unwrap(), 0);
    shows(admin, "ferry_sessions_open", &[]).await;
    exchange(&mut TcpStream::connect(egress).await.unwrap()).await;
}

#[tokio::test]
async fn a_connection_beyond_the_far_limit_is_reset_and_both_logs_say_why() {
    log();
    let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
    let far = far_site.start(&far_config(&near_site, echo().await, "limits: {sessions: 1}\n")).await;
    let near = near_site.start(&near_config(&far_site, far.addresses().listen.unwrap(), "")).await;
    let egress = near.addresses().egress[0];
    let mut first = TcpStream::connect(egress).await.unwrap();
    exchange(&mut first).await;
    is_refused(egress).await;
    let refused = [("{side=\"opener\",ending=\"refused\"}", 1)];
    shows(near.addresses().admin.unwrap(), "ferry_sessions_ended", &refused).await;
    let admin = far.addresses().admin.unwrap();
    shows(admin, "ferry_connections_refused", &[("{reason=\"limit\"}", 1)]).await;
    shows(admin, "ferry_attaches_refused", &[("{reason=\"limit\"}", 1)]).await;
    assert_logged(&["session refused by the peer: the session limit is reached", "b/far"]);
    assert_logged(&["session refused: the session limit is reached", "a/near"]);
    exchange(&mut first).await;
}

// --- drain -----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_drain_of_the_near_tunnel_lets_live_sessions_finish() {
    let (pair, mut app, mut service) = session("").await;
    let Pair { near, far, near_site: _near_site, far_site: _far_site } = pair;
    let (admin, egress) = (near.addresses().admin.unwrap(), near.addresses().egress[0]);
    let draining = tokio::spawn(near.drain());
    answers(admin, "/readyz", 503).await;
    let refused = TcpStream::connect(egress).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "new connections, while it drains");
    passes(&mut app, &mut service, b"all of it").await;
    passes(&mut service, &mut app, b"and the answer").await;
    draining.await.unwrap();
    assert!(logged(&["drain time over"]).is_empty());
    let ended = [("{side=\"acceptor\",ending=\"finished\"}", 1)];
    shows(far.addresses().admin.unwrap(), "ferry_sessions_ended", &ended).await;
}

#[tokio::test]
async fn a_draining_far_tunnel_refuses_new_sessions_and_finishes_live_ones() {
    let (pair, mut app, mut service) = session("").await;
    let egress = pair.app();
    let Pair { near, far, near_site: _near_site, far_site: _far_site } = pair;
    let admin = far.addresses().admin.unwrap();
    let draining = tokio::spawn(far.drain());
    answers(admin, "/readyz", 503).await;
    is_refused(egress).await;
    assert_logged(&["session refused by the peer: the tunnel is shutting down"]);
    shows(admin, "ferry_connections_refused", &[("{reason=\"draining\"}", 1)]).await;
    passes(&mut app, &mut service, b"all of it").await;
    passes(&mut service, &mut app, b"and the answer").await;
    draining.await.unwrap();
    shows(near.addresses().admin.unwrap(), "ferry_sessions_open", &[]).await;
}

#[tokio::test]
async fn sessions_that_do_not_finish_in_the_drain_time_are_reset() {
    for drains_near in [true, false] {
        let (pair, mut app, mut service) = session("drain: 100ms\n").await;
        app.write_all(b"hello").await.unwrap();
        service.read_exact(&mut [0; 5]).await.unwrap();
        let Pair { near, far, near_site: _near_site, far_site: _far_site } = pair;
        let (drained, other) = if drains_near { (near, far) } else { (far, near) };
        drained.drain().await;
        is_reset(&mut app).await;
        is_reset(&mut service).await;
        assert_logged(&["WARN", "drain time over: sessions are reset", "sessions=1"]);
        assert_logged(&["session reset here: the tunnel is shutting down"]);
        assert_logged(&["session reset by the peer: the tunnel is shutting down"]);
        assert_eq!(status(other.addresses().admin.unwrap()).await["sessions"], serde_json::json!([]));
    }
}

// --- lines of the log ------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_client_that_retries_against_a_dead_application_is_two_lines_at_each_end() {
    log();
    let pair = Pair::start(ferry_processes::nobody()).await;
    for _ in 0..50 {
        is_refused(pair.app()).await;
    }
    let refused = [("{side=\"opener\",ending=\"refused\"}", 50)];
    shows(pair.near.addresses().admin.unwrap(), "ferry_sessions_ended", &refused).await;
    for text in ["WARN", "INFO"] {
        let lines = logged(&[text, "session refused"]);
        let ends = [("by the peer", "b/far"), ("the application at", "a/near")];
        for (end, peer) in ends {
            let count = lines.iter().filter(|line| line.contains(end) && line.contains(peer)).count();
            assert!(count <= 2, "{count} lines: {lines:#?}");
        }
    }
    pair.near.drain().await;
    assert_logged(&["WARN", "session refused by the peer", "more in the last"]);
}
