//! Links over QUIC.

use std::net::SocketAddr;
use std::sync::Arc;

use ferry_relay::Relay;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint};
use serde_json::json;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::datagrams::Path;
use crate::manners::Anybody;
use crate::pair::{Site, echo, far_config, get, near_config, status};
use crate::scene::exchange;
use crate::survive::Checked;
use crate::watch::{PATIENCE, failures, reaches, samples};

const LISTEN: &str = "listen_quic: 127.0.0.1:0\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotations_over_quic_lose_no_byte_and_take_no_new_port() {
    let (checked, path) = Checked::start_over_quic("rotation: {max_per_second: 1000}\n").await;
    let mut epoch = checked.reaches(1).await;
    for _ in 0..8 {
        // The last rotation is hardly over: what went over its old link is still on its way.
        checked.moves(20_000).await;
        checked.near.rotate_all();
        epoch = checked.reaches(epoch + 1).await;
    }
    let (_, metrics) = get(checked.near.addresses().admin.unwrap(), "/metrics").await;
    assert!(metrics.contains("ferry_resumes_total 0"), "a rotation is no resume:\n{metrics}");
    assert!(
        metrics.contains("ferry_rotations_total{result=\"failed\"} 0"),
        "each waits for the one before:\n{metrics}"
    );
    assert_eq!(path.seen(), 1, "one port for all links");
    assert_eq!(checked.session().await["carrier"], "quic");
    checked.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_for_datagrams_is_noticed_and_left_behind() {
    let (checked, path) = Checked::start_over_quic("liveness: 1s\n").await;
    let epoch = checked.reaches(1).await;
    checked.moves(100_000).await;
    path.black_hole(true);
    while checked.session().await["attached"] == true {
        tokio::task::yield_now().await;
    }
    path.black_hole(false);
    checked.reaches(epoch + 1).await;
    checked.moves(100_000).await;
    checked.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_goes_on_over_tcp_where_datagrams_are_dropped_and_returns_by_rotation() {
    let (checked, path) = Checked::start_over_quic_or_tcp("").await;
    checked.moves(100_000).await;
    for round in 0..3 {
        assert_eq!(checked.session().await["carrier"], "quic");
        path.black_hole(true);
        let begun = std::time::Instant::now();
        while checked.session().await["carrier"] != "tcp" {
            tokio::task::yield_now().await;
        }
        println!("round {round}: over TCP after {:?}", begun.elapsed());
        checked.moves(100_000).await;
        path.black_hole(false);
        while checked.session().await["carrier"] != "quic" {
            // The first dial may still be one from before.
            checked.near.rotate_all();
            tokio::task::yield_now().await;
        }
        checked.moves(100_000).await;
    }
    checked.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_source_port_costs_a_link_nothing() {
    let (checked, path) = Checked::start_over_quic("").await;
    let epoch = checked.reaches(1).await;
    for _ in 0..5 {
        checked.moves(100_000).await;
        path.rebind();
    }
    checked.moves(1_000_000).await;
    assert_eq!(checked.session().await["epoch"], epoch);
    checked.finish().await;
}

/// Both tunnels, with what the near one dials.
async fn pair(addresses: impl FnOnce(&ferry_tunnel::Addresses) -> String) -> (ferry_tunnel::Tunnel, [Site; 2]) {
    let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
    let far = far_site.start(&far_config(&near_site, echo().await, LISTEN)).await;
    let near = near_site.start(&near_config(&far_site, addresses(far.addresses()), "")).await;
    exchange(&mut TcpStream::connect(near.addresses().egress[0]).await.unwrap()).await;
    drop(near);
    (far, [near_site, far_site])
}

#[tokio::test]
async fn where_datagrams_are_dropped_in_silence_tcp_has_its_turn() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let dead = silent.local_addr().unwrap();
    pair(|far| format!("quic://{dead}\", \"{}", far.listen.unwrap())).await;
}

#[tokio::test]
async fn a_dial_over_quic_that_has_lost_its_race_is_no_failure_at_the_far_end() {
    let relay = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let relayed = relay.local_addr().unwrap();
    let (far, _sites) = pair(|far| {
        let to = far.listen_quic.unwrap();
        // Nothing comes back.
        tokio::spawn(async move {
            let mut datagram = [0; 1500];
            while let Ok((length, from)) = relay.recv_from(&mut datagram).await {
                if from != to {
                    relay.send_to(&datagram[..length], to).await.unwrap();
                }
            }
        });
        format!("quic://{relayed}\", \"{}", far.listen.unwrap())
    })
    .await;
    let admin = far.addresses().admin.unwrap();
    reaches(admin, "ferry_link_failures{role=\"listener\",reason=\"closed\"}", 1).await;
    let told = samples(admin, "ferry_link_failures{").await;
    assert!(told.keys().all(|labels| labels.contains("closed")), "{told:?}");
}

#[tokio::test]
async fn an_end_that_listens_for_datagrams_alone_is_reached() {
    pair(|far| format!("quic://{}", far.listen_quic.unwrap())).await;
}

#[tokio::test]
async fn what_carries_links_is_chosen_and_told_and_what_is_not_let_through_is_left() {
    let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
    let far = far_site.start(&far_config(&near_site, echo().await, LISTEN)).await;
    let relay = Relay::start("127.0.0.1:0".parse().unwrap(), far.addresses().listen.unwrap()).unwrap();
    let addresses = format!("quic://{}\", \"{}", far.addresses().listen_quic.unwrap(), relay.addr());
    let config = near_config(&far_site, addresses, "").replace("addresses:", "prefer: auto, addresses:");

    // A path that shows no fault: TCP, wherever it stands.
    let near = near_site.start(&config).await;
    let mut app = TcpStream::connect(near.addresses().egress[0]).await.unwrap();
    exchange(&mut app).await;
    let told = status(near.addresses().admin.unwrap()).await;
    assert_eq!(
        (&told["sessions"][0]["carrier"], &told["peers"][0]["choice"]["carrier"]),
        (&json!("tcp"), &json!("tcp"))
    );
    drop((app, near));

    relay.refuse(true).unwrap();
    let near = near_site.start(&config).await;
    let admin = near.addresses().admin.unwrap();
    let mut app = TcpStream::connect(near.addresses().egress[0]).await.unwrap();
    exchange(&mut app).await;
    let choice = async || status(admin).await["peers"][0]["choice"].clone();
    while choice().await["blocked"] != "tcp" {
        tokio::task::yield_now().await;
    }
    let (choice, told) = (choice().await, status(admin).await);
    assert_eq!((&choice["carrier"], &told["sessions"][0]["carrier"]), (&json!("quic"), &json!("quic")));
    let reason = choice["reason"].as_str().unwrap();
    assert!(reason.starts_with("TCP is not let through"), "{reason}");
}

#[tokio::test]
async fn a_key_that_is_not_listed_is_refused_over_quic_too() {
    let (near_site, far_site, stranger) = (Site::new("a/near"), Site::new("b/far"), Site::new("a/near"));
    let far = far_site.start(&far_config(&near_site, echo().await, LISTEN)).await;
    let address = format!("quic://{}", far.addresses().listen_quic.unwrap());
    let near = stranger.start(&near_config(&far_site, address, "")).await;
    reaches(near.addresses().admin.unwrap(), "ferry_link_failures{role=\"dialler\",reason=\"key\"}", 1).await;
    reaches(far.addresses().admin.unwrap(), "ferry_link_failures{role=\"listener\",reason=\"key\"}", 1).await;
}

// --- strangers ---------------------------------------------------------------------------------------------------------

/// A client of quinn's own that asks for this protocol.
fn stranger(alpn: &[u8]) -> Endpoint {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config =
        config.dangerous().with_custom_certificate_verifier(Arc::new(Anybody { raw: true })).with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let mut endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.set_default_client_config(ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap())));
    endpoint
}

async fn far() -> (ferry_tunnel::Tunnel, Site, Site, SocketAddr) {
    let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
    let far = far_site.start(&far_config(&near_site, echo().await, LISTEN)).await;
    let quic = far.addresses().listen_quic.unwrap();
    (far, near_site, far_site, quic)
}

async fn honest_peers_get_in(near_site: &Site, far_site: &Site, quic: SocketAddr) {
    let near = near_site.start(&near_config(far_site, format!("quic://{quic}"), "")).await;
    exchange(&mut TcpStream::connect(near.addresses().egress[0]).await.unwrap()).await;
}

/// Their sources may be forged: the tunnel computes for a few, and asks all others to prove theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_first_datagrams_without_a_proof_of_their_source_hold_no_more_than_a_few_places() {
    let (far, near_site, far_site, quic) = far().await;
    let path = Path::start(quic).await;
    path.cut_answers(true);
    let client = stranger(b"ferry-quic/1");
    let connecting: Vec<_> = (0..1000).map(|_| client.connect(path.addr(), "ferry").unwrap()).collect();
    while path.passed_up() < 1000 {
        tokio::task::yield_now().await;
    }
    let admin = far.addresses().admin.unwrap();
    reaches(admin, "ferry_links_unauthenticated", 1).await;
    honest_peers_get_in(&near_site, &far_site, quic).await;
    let held = samples(admin, "ferry_links_unauthenticated").await.get("").copied().unwrap_or_default();
    // A link of the honest peer's may be among them.
    assert!(held <= 32 + 16, "{held} places");
    drop(connecting);
}

async fn connections(client: &Endpoint, to: SocketAddr, count: usize) -> Vec<Connection> {
    let connecting = (0..count).map(|_| client.connect(to, "ferry").unwrap());
    let connected = futures_util::future::join_all(connecting).await;
    connected.into_iter().map(|connection| connection.expect("a connection")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_over_quic_keep_nobody_out_and_are_closed() {
    let (far, near_site, far_site, quic) = far().await;
    let client = stranger(b"ferry-quic/1");
    let silent = connections(&client, quic, 300).await;
    honest_peers_get_in(&near_site, &far_site, quic).await;
    for connection in silent {
        timeout(PATIENCE, connection.closed()).await.expect("it is closed, although it has said nothing");
    }
    reaches(far.addresses().admin.unwrap(), "ferry_link_failures{role=\"listener\",reason=\"timeout\"}", 300).await;
}

/// What a stranger may have the tunnel hold before it has proved anything.
#[tokio::test]
async fn a_stranger_may_send_no_more_than_a_handshake() {
    let (_far, _, _, quic) = far().await;
    let client = stranger(b"ferry-quic/1");
    let connection = connections(&client, quic, 1).await.remove(0);
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    // The beginning of a record that never ends, and what would be the rest of it.
    send.write_all(b"\x16\x03\x01\x40\x00").await.unwrap();
    let mut sent = 0;
    while let Ok(count) = send.write(&[0; 4096]).await {
        sent += count;
        assert!(sent <= 1024 * 1024, "{sent} bytes were taken");
    }
}

#[tokio::test]
async fn whoever_speaks_another_protocol_over_quic_is_turned_away() {
    let (far, near_site, far_site, quic) = far().await;
    let refused = stranger(b"h3").connect(quic, "ferry").unwrap().await.expect_err("not spoken there");
    let ConnectionError::ConnectionClosed(close) = refused else { panic!("{refused}") };
    // The alert no_application_protocol (RFC 9001 §4.8).
    assert_eq!(u64::from(close.error_code), 0x178);
    failures(far.addresses().admin.unwrap(), &[("listener", "carrier", 1)]).await;
    honest_peers_get_in(&near_site, &far_site, quic).await;
}

#[tokio::test]
async fn datagrams_of_garbage_do_nothing() {
    let (far, near_site, far_site, quic) = far().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..2000_usize {
        let mut datagram = vec![0; round % 1400];
        for byte in &mut datagram {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (noise >> 56) as u8;
        }
        // The first byte of an Initial, of another long header, of a short one; and the version, where there is one.
        if let [first, one, two, three, four, ..] = &mut datagram[..] {
            *first = [0xc3, 0xf0, 0x43, *first][round % 4];
            if round % 3 > 0 {
                [*one, *two, *three, *four] = [0, 0, 0, (round % 3 == 1).into()];
            }
        }
        socket.send_to(&datagram, quic).await.unwrap();
    }
    honest_peers_get_in(&near_site, &far_site, quic).await;
    failures(far.addresses().admin.unwrap(), &[]).await;
}

/// An end that goes says so, and the dialler does not wait for what is not there any more.
#[tokio::test]
async fn a_tunnel_that_ends_closes_its_links() {
    let (far, _, _, quic) = far().await;
    let client = stranger(b"ferry-quic/1");
    let connection = connections(&client, quic, 1).await.remove(0);
    let (_, closed) = tokio::join!(far.drain(), connection.closed());
    // The latter where the listener has not seen the end of the handshake yet.
    assert!(matches!(closed, ConnectionError::ApplicationClosed(_) | ConnectionError::ConnectionClosed(_)), "{closed}");
}
