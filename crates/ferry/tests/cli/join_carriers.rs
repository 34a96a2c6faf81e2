//! Invitations to a tunnel that accepts links of several kinds, each over a socket of its own.

use std::net::{SocketAddr, UdpSocket};

use crate::join::{Host, Inviter};
use crate::support::{address, code, stderr, stdout};

/// An inviting tunnel that listens for TCP, QUIC and WebSockets, and the address of each.
fn inviter() -> (Inviter, [String; 3]) {
    let b = Inviter::listening(&["--listen-quic", "127.0.0.1:0", "--listen-ws", "127.0.0.1:0"]);
    let [tcp, quic, websocket] = ["listen", "listen_quic", "listen_ws"].map(|key| address(&b.ready, key));
    (b, [tcp.to_string(), format!("quic://{quic}"), format!("ws://{websocket}/ferry")])
}

/// What a host that has joined has written down.
fn listed(a: &Host) -> Vec<String> {
    let tunnel = ferry_config::load(&a.path("tunnel.yaml")).unwrap().tunnel;
    tunnel.peers[0].addresses.iter().map(ToString::to_string).collect()
}

fn joined(token: &str) -> Host {
    let a = Host::new();
    let output = a.join(token, &["--listen", "app=127.0.0.1:0"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    a
}

#[test]
fn a_token_is_redeemed_and_a_connection_carried_over_each_kind_of_link() {
    let (b, addresses) = inviter();
    // A name of its own for each, as b lists them all.
    for (i, address) in addresses.into_iter().enumerate() {
        let a = Host::new();
        let token = b.invite_to(std::slice::from_ref(&address));
        let (name, listen) = (format!("a{i}"), "app=127.0.0.1:0");
        let output = a.run(&["join", "--name", &name, "--wait", "60s", "--listen", listen], &token);
        assert_eq!(code(&output), 0, "{address}: {}", stderr(&output));
        assert_eq!(listed(&a), [address]);
        b.is_reached_from(&a);
    }
}

#[test]
fn what_is_blocked_is_passed_over_and_all_addresses_are_listed_in_their_order() {
    let (b, [tcp, quic, _]) = inviter();
    // Takes what comes, and says nothing: as behind a firewall that drops UDP.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let blocked = format!("quic://{}", silent.local_addr().unwrap());
    let addresses = [blocked, tcp, quic];
    let a = joined(&b.invite_to(&addresses));
    assert_eq!(listed(&a), addresses);
    b.is_reached_from(&a);
}

#[test]
fn an_invitation_to_what_nothing_listens_at_is_not_made() {
    let host = Host::new();
    let invite = ["invite", "--name", "b", "--service", "s=h:1", "--listen", "127.0.0.1:0"];
    let quic = ["--address", "quic://127.0.0.1:1"];
    let output = host.run(&[&invite[..], &quic].concat(), "");
    let said = stderr(&output);
    assert!(said.contains("quic://127.0.0.1:1 is for QUIC, and the tunnel.yaml has no `listen_quic`"), "{said}");
    assert_eq!((stdout(&output), host.path("tunnel.yaml").exists()), (String::new(), false));

    let made = host.run(&[&invite[..], &["--address", "127.0.0.1:1"]].concat(), "");
    assert_eq!(code(&made), 0, "{}", stderr(&made));
    let later: SocketAddr = "127.0.0.1:18443".parse().unwrap();
    let said = stderr(&host.run(&[&invite[..], &["--listen-ws", &later.to_string()]].concat(), ""));
    assert!(said.contains("is there already, and is without `listen_ws: 127.0.0.1:18443`"), "{said}");
}
