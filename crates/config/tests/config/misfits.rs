//! Values that are fine one by one but do not go together, and addresses.

use crate::mistakes::{added, mistake};
use crate::support::{KEY_1, KEY_2, KEY_3, accepted, problem, refused, with};

/// Adds a peer behind the last one, and expects one problem.
#[track_caller]
fn third_peer(name: &str, key: &str, path: &str, message: &str, hint: &str) {
    let peer = format!("  - {{name: {name}, keys: [\"{key}\"], addresses: [\"a:1\"]}}\negress:");
    mistake("egress:", &peer, path, message, hint);
}

#[test]
fn a_key_belongs_to_one_peer() {
    third_peer("north", KEY_2, "peers[2].keys[0]", "both peer `west` and peer `north`", "its own");
}

#[test]
fn a_peer_may_have_several_keys_and_repeat_one() {
    let keys = format!("[\"{KEY_1}\", \"{KEY_3}\", \"{KEY_1}\"]");
    let tunnel = accepted(&with(&format!("[\"{KEY_1}\"]"), &keys)).tunnel;
    assert_eq!(tunnel.peers[0].keys.len(), 2);
}

#[test]
fn a_key_that_everybody_could_sign_for_is_refused() {
    let zeros = format!("ferry:pub:{}", "A".repeat(43));
    mistake(KEY_1, &zeros, "peers[0].keys[0]", "everybody could sign for", "ferry pubkey");
}

#[test]
fn names_are_unique_and_not_ours() {
    third_peer("us", KEY_3, "peers[2].name", "`us` is our own name", "a name of its own");
    third_peer("east", KEY_3, "peers[2].name", "already the name at `peers[0].name`", "one entry");
    let service = "service: db";
    mistake(service, "service: web", "ingress[1].service", "at `ingress[0].service`", "its own");
}

#[test]
fn only_listed_peers_are_referred_to() {
    let hint = "where there is east, west";
    mistake("peer: east", "peer: eats", "egress[0].peer", "`eats` is not a listed peer", hint);
    mistake("[east, west]", "[east, north]", "ingress[0].allow[1]", "`north` is not", hint);
    mistake("[east, west]", "[east, us]", "ingress[0].allow[1]", "`us` is not", hint);
    let alone = "{name: us, identity: key, egress: [{listen: '127.0.0.1:1', peer: east, service: a}]}";
    assert_eq!(problem(alone).hint, "list it under `peers`");
}

#[test]
fn sockets_do_not_get_in_each_other_s_way() {
    let port = "choose another port";
    mistake(":18002", ":18001", "egress[1].listen", "in use by `egress[0].listen`", port);
    mistake("0.0.0.0:18000", "127.0.0.1:9900", "listen", "in use by `admin`", port);
    mistake("0.0.0.0:18000", "0.0.0.0:9900", "listen", "in use by `admin`", port);
    mistake("127.0.0.1:18001", "127.0.0.1:18000", "egress[0].listen", "in use by `listen`", port);
    mistake("0.0.0.0:18000", "'[::]:9900'", "listen", "in use by `admin`", port);
    mistake("127.0.0.1:18002", "[::ffff:127.0.0.1]:9900", "egress[1].listen", "`admin`", port);
}

#[test]
fn where_to_listen_is_an_ip_address_and_a_port() {
    let not = "not an address to listen on";
    mistake("0.0.0.0:18000", "localhost:18000", "listen", not, "`127.0.0.1:18000` for this host alone");
    mistake("0.0.0.0:18000", ":18000", "listen", not, "`0.0.0.0:18000` for all");
    mistake("0.0.0.0:18000", "18000", "listen", not, "`0.0.0.0:18000` for all");
    mistake("0.0.0.0:18000", "0.0.0.0", "listen", not, "an IP address and a port");
    mistake("0.0.0.0:18000", "0.0.0.0:65536", "listen", not, "an IP address and a port");
    mistake("0.0.0.0:18000", "'::1:18000'", "listen", not, "in brackets: `[::1]:18000`");
    mistake("0.0.0.0:18000", "'fe80::1'", "listen", not, "in brackets: `[fe80::1]:PORT`");
}

#[test]
fn an_address_is_a_host_and_a_port() {
    let refused = |to: &str, hint: &str| {
        let at = "peers[0].addresses[0]";
        mistake("east.example.com:30200", to, at, "is not an address", hint);
    };
    refused("east.example.com", "write host:port");
    refused("east.example.com:0", "port 0 cannot be connected to");
    refused("east.example.com:65536", "from 1 to 65535");
    refused("east.example.com:+80", "from 1 to 65535");
    refused("https://east.example.com:443", "`tcp://`, `quic://`, `ws://` or `wss://`");
    refused("quic://east.example.com", "write host:port");
    refused("wss://", "a DNS name or an IP address");
    refused(":30200", "a DNS name or an IP address");
    refused("east..example:1", "a DNS name or an IP address");
    refused("ea st:1", "a DNS name or an IP address");
    refused("10.0.0.256:1", "a DNS name or an IP address");
    refused("[east]:1", "only an IPv6 address goes in brackets");
    refused("[::1]", "write host:port");
    refused("2001:db8::1:443", "in brackets: `[2001:db8::1]:443`");
    refused("2001:db8::1", "in brackets");
    let from = "east.example.com:30200";
    let (at, not) = ("peers[0].addresses[0]", "not a WebSocket's URL");
    mistake(from, "wss://user@east.example.com", at, not, "leave user and password out");
    mistake(from, "ws://east.example.com/a b", at, not, "printable ASCII");
    mistake(from, "wss://east.example.com/#life=30s", at, not, "`max_life=` and a duration from 10s to 24h");
    mistake(from, "wss://east.example.com#max_life=1s", at, not, "from 10s to 24h");
    mistake(from, "file:", "peers[0].addresses[0]", "without a path", "behind it");
    mistake("127.0.0.1:8000", "8000", "ingress[0].forward", "not an address", "host:port");
}

#[test]
fn the_way_to_a_peer_is_checked_word_by_word() {
    let added_to_peer = |text: &str, key: &str, message: &str, hint: &str| {
        let path = format!("peers[0].{key}");
        mistake("addresses: [", &format!("{text}\n    addresses: ["), &path, message, hint);
    };
    added_to_peer("proxy: 'socks5://proxy:1080'", "proxy", "not a proxy", "http://host:port");
    added_to_peer("proxy: 'https://proxy:3128'", "proxy", "not a proxy", "plain HTTP");
    added_to_peer("proxy: 'http://me:pw@proxy:3128'", "proxy", "not a proxy", "`proxy_credentials`");
    added_to_peer("proxy: proxy", "proxy", "not a proxy", "or `off`");
    added_to_peer("server_name: 10.0.0.1", "server_name", "not a server name", "a DNS name");
    added_to_peer("limits: {sessions: 0}", "limits.sessions", "`0`", "from 1 to");
    added_to_peer("limits: {bytes_per_second: 1023}", "limits.bytes_per_second", "too small", "at least 1KiB");
    added_to_peer("limits: {bytes_per_second: 1Mbit}", "limits.bytes_per_second", "not a size", "`GB` (1000s)");
    added_to_peer("limits: {memory: 1MiB}", "limits.memory", "unknown key", "");
    added_to_peer("prefer: quic", "prefer", "no way to choose", "`auto`");
    added("congestion: BBR", "congestion", "not a congestion control", "tcp_available_congestion_control");
    added("ws_path: ferry", "ws_path", "not the path of a URL", "from the slash on");
    added("ws_max_life: 1s", "ws_max_life", "out of range", "from 10s to 24h");
    added("listen_quic: localhost:80", "listen_quic", "not an address to listen on", "0.0.0.0:80");
    added("listen_ws: localhost:80", "listen_ws", "not an address to listen on", "0.0.0.0:80");
}

#[test]
fn replicas_are_places_that_can_be_dialled_and_need_a_place_of_ones_own() {
    added("replicas: [gateway]", "replicas[0]", "not an address", "host:port");
    added("replicas: [':18000']", "replicas[0]", "not an address", "a DNS name or an IP address");
    added("replicas: ['wss://gateway']", "replicas[0]", "not an address", "host:port");
    let replicas = "replicas: ['gateway-replicas:18000']\nlisten_ws: 0.0.0.0:8080\n";
    mistake(
        "listen: 0.0.0.0:18000\n",
        replicas,
        "replicas[0]",
        "`replicas` without `listen`",
        "`listen: 0.0.0.0:18000`",
    );
}

#[test]
fn a_mistake_does_not_drag_others_along() {
    // Neither the service that is not there nor the buffer that cannot be read is held against anything else.
    let report = refused(&with("service: web", "service: WEB"));
    assert_eq!(report.problems().len(), 1, "{report}");
    added("resume: {buffer: lots}", "resume.buffer", "not a size", "KiB");
}
