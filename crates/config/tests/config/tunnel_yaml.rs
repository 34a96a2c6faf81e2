//! What a good `tunnel.yaml` comes to.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use crate::support::{KEY_1, KEY_2, accepted, fine, refused, with};
use ferry_config::{Address, EntryLimits, Keeper, Limits, Parsed, Prefer, Resume, Rotation, Route, WarmLinks};

#[test]
fn every_key_is_read() {
    let text = format!(
        r#"
name: cluster-a/initiator
identity: identity.key
admin: 127.0.0.1:9901
listen: "[::]:18005"
peers:
  - name: cluster-b/terminator
    keys: ["{KEY_1}", "{KEY_2}"]
    addresses: ["b.example.com:30200", "[2001:db8::1]:30201", "file:addresses/b"]
egress:
  - {{listen: "127.0.0.1:18001", peer: cluster-b/terminator, service: terminator}}
ingress:
  - {{service: back, forward: "localhost:8000", allow: [cluster-b/terminator]}}
rotation: {{every: 1m30s, bytes: 1GiB, max_per_second: 7}}
resume: {{window: 20m, buffer: 1MiB}}
liveness: 20s
open_timeout: 1500ms
drain: 0s
limits: {{sessions: 10, memory: 64MB, handshakes: 5}}
warm_links: {{own: 0, offered: 256}}
state: run
keeper: /run/ferry/keeper.sock
"#
    );
    let Parsed { tunnel, warnings } = accepted(&text);
    assert_eq!(warnings, []);
    assert_eq!(tunnel.name.as_str(), "cluster-a/initiator");
    assert_eq!(tunnel.identity, Path::new("/etc/ferry/identity.key"));
    assert_eq!(tunnel.keeper, Some(Keeper::At("/run/ferry/keeper.sock".into())));
    assert_eq!(tunnel.admin, Some("127.0.0.1:9901".parse().unwrap()));
    assert_eq!(tunnel.listen, Some("[::]:18005".parse().unwrap()));
    let [peer] = &tunnel.peers[..] else { panic!() };
    assert_eq!(peer.name.as_str(), "cluster-b/terminator");
    let keys = BTreeSet::from([KEY_1, KEY_2].map(|key| key.parse().unwrap()));
    assert_eq!(peer.keys, keys);
    let addresses =
        ["b.example.com:30200", "[2001:db8::1]:30201"].map(|address| Address::HostPort(address.parse().unwrap()));
    assert_eq!(peer.addresses[..2], addresses);
    let file = Address::File("/etc/ferry/addresses/b".into());
    assert_eq!(peer.addresses[2..], [file]);
    let [egress] = &tunnel.egress[..] else { panic!() };
    assert_eq!(egress.listen, "127.0.0.1:18001".parse().unwrap());
    assert_eq!(egress.peer, peer.name);
    assert_eq!(egress.service.as_str(), "terminator");
    let [ingress] = &tunnel.ingress[..] else { panic!() };
    assert_eq!(ingress.service.as_str(), "back");
    assert_eq!(ingress.forward, "localhost:8000".parse().unwrap());
    assert_eq!(ingress.allow, BTreeSet::from([peer.name.clone()]));
    let rotation = Rotation { every: Duration::from_secs(90), bytes: 1 << 30, max_per_second: 7 };
    assert_eq!(tunnel.settings.rotation, rotation);
    let resume = Resume { window: Duration::from_secs(1200), buffer: Some(1 << 20) };
    assert_eq!(tunnel.settings.resume, resume);
    assert_eq!(tunnel.settings.liveness, Duration::from_secs(20));
    assert_eq!(tunnel.settings.open_timeout, Duration::from_millis(1500));
    assert_eq!(tunnel.settings.drain, Duration::ZERO);
    let limits = Limits { sessions: 10, memory: 64_000_000, handshakes: 5 };
    assert_eq!(tunnel.settings.limits, limits);
    let warm_links = WarmLinks { own: 0, offered: 256 };
    assert_eq!(tunnel.settings.warm_links, warm_links);
    assert!(tunnel.state.is_some_and(|state| state.is_absolute() && state.ends_with("run")), "relative to the file");
}

#[test]
fn defaults_are_those_of_the_contract() {
    let tunnel = accepted("{name: us, identity: key}").tunnel;
    assert_eq!((tunnel.admin, tunnel.listen), (None, None));
    assert!(tunnel.peers.is_empty() && tunnel.egress.is_empty() && tunnel.ingress.is_empty());
    let rotation = Rotation { every: Duration::from_secs(30), bytes: 64 << 30, max_per_second: 200 };
    assert_eq!(tunnel.settings.rotation, rotation);
    let resume = Resume { window: Duration::from_secs(600), buffer: None };
    assert_eq!(tunnel.settings.resume, resume);
    assert_eq!(tunnel.settings.liveness, Duration::from_secs(15));
    assert_eq!(tunnel.settings.open_timeout, Duration::from_secs(10));
    assert_eq!(tunnel.settings.drain, Duration::from_secs(15));
    let limits = Limits { sessions: 20_000, memory: 512 << 20, handshakes: 256 };
    assert_eq!(tunnel.settings.limits, limits);
    assert_eq!(tunnel.settings.warm_links, WarmLinks { own: 4, offered: 2 });
    assert_eq!(tunnel.state, None);
}

#[test]
fn a_configuration_that_is_written_reads_back() {
    let everything = fine()
        + "state: run\ndrain: 1\nrotation: {every: 1h 30m, bytes: 3MB}\nlimits: {memory: 100000}\nresume: {buffer: 100000}\n";
    for text in ["{name: us, identity: key}", &fine(), &everything] {
        let tunnel = accepted(text).tunnel;
        let written = serde_saphyr::to_string(&tunnel).unwrap();
        assert_eq!(accepted(&written).tunnel, tunnel, "{written}");
    }
}

#[test]
fn a_buffer_that_follows_the_path_may_be_asked_for_and_need_not_fit_into_little_memory() {
    let tunnel = accepted("{name: us, identity: key, resume: {buffer: auto}, limits: {memory: 1MiB}}").tunnel;
    assert_eq!(tunnel.settings.resume.buffer, None);
    let written = serde_saphyr::to_string(&tunnel).unwrap();
    assert!(!written.contains("buffer"), "a build of before reads it: {written}");
}

#[test]
fn a_part_of_a_section_leaves_the_rest_at_its_defaults() {
    let tunnel = accepted(&(fine() + "rotation: {every: 1s}\nlimits: {sessions: 1}\n")).tunnel;
    assert_eq!(tunnel.settings.rotation.bytes, Rotation::default().bytes);
    assert_eq!(tunnel.settings.limits.memory, Limits::default().memory);
}

#[test]
fn a_key_with_nothing_behind_it_counts_as_left_out() {
    let text = fine() + "rotation:\nliveness:\n";
    assert_eq!(accepted(&text), accepted(&fine()));
}

#[test]
fn an_absolute_path_stays_as_it_is() {
    let text = with("identity: identity.key", "identity: /run/secrets/key");
    assert_eq!(accepted(&text).tunnel.identity, Path::new("/run/secrets/key"));
}

#[test]
fn listening_sockets_may_use_port_0_more_than_once() {
    let text = fine().replace(":18001", ":0").replace(":18002", ":0").replace(":18000", ":0").replace(":9900", ":0");
    assert_eq!(accepted(&text).tunnel.egress[1].listen.port(), 0);
}

#[test]
fn the_same_port_on_two_addresses_is_fine() {
    accepted(&with("127.0.0.1:18002", "127.0.0.2:18001"));
}

#[test]
fn anchors_and_byte_order_marks_are_understood() {
    let aliased = format!(
        "name: us\nidentity: &key key\npeers:\n  - {{name: east, keys: &keys [\"{KEY_1}\"]}}\nlisten: 0.0.0.0:1\n"
    );
    assert_eq!(accepted(&format!("\u{feff}{aliased}")), accepted(&aliased));
    // The same list of keys under another name: the alias is read, and judged like what it stands for.
    let report = refused(&aliased.replace("listen:", "  - {name: west, keys: *keys}\nlisten:"));
    assert_eq!(report.problems()[0].path, "peers[1].keys[0]");
}

#[test]
fn a_peer_may_be_reached_by_quic_by_websocket_and_through_a_proxy_and_reads_back_as_it_was_written() {
    let route =
        "proxy: 'http://proxy:3128'\n    proxy_credentials: proxy\n    server_name: b.example.com\n    prefer: auto";
    let addresses = "addresses: [tcp://b.example.com:1, 'quic://b.example.com:1', 'wss://b.example.com#max_life=30s', 'ws://[2001:db8::1]:81/a/b', ";
    let text = with("addresses: [", &format!("{route}\n    {addresses}"))
        + "listen_quic: 0.0.0.0:18000\nlisten_ws: '[::]:81'\nws_path: /a/b\nws_max_life: 1m\n";
    let tunnel = accepted(&text).tunnel;
    let peer = &tunnel.peers[0];
    let shown: Vec<_> = peer.addresses.iter().map(ToString::to_string).take(4).collect();
    let expected = [
        "b.example.com:1",
        "quic://b.example.com:1",
        "wss://b.example.com:443/ferry#max_life=30s",
        "ws://[2001:db8::1]:81/a/b",
    ];
    assert_eq!(shown, expected);
    assert_eq!(peer.route.proxy.as_ref().unwrap().to_string(), "http://proxy:3128");
    assert_eq!(peer.route.proxy_credentials.as_deref(), Some(Path::new("/etc/ferry/proxy")));
    assert_eq!((peer.route.prefer, Route::default().prefer), (Prefer::Auto, Prefer::Order));
    assert_eq!(tunnel.ws_path, "/a/b");
    let written = serde_saphyr::to_string(&tunnel).unwrap();
    assert_eq!(accepted(&written).tunnel, tunnel, "{written}");
}

#[test]
fn replicas_are_names_and_addresses_and_read_back_as_they_were_written() {
    let tunnel = accepted(&(fine() + "replicas: [gateway-replicas.shop.svc:18000, '[2001:db8::1]:18000']\n")).tunnel;
    let shown: Vec<_> = tunnel.replicas.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["gateway-replicas.shop.svc:18000", "[2001:db8::1]:18000"]);
    let written = serde_saphyr::to_string(&tunnel).unwrap();
    assert_eq!(accepted(&written).tunnel, tunnel, "{written}");
}

#[test]
fn a_keeper_is_a_socket_or_off() {
    let keeper = |line: &str| accepted(&(fine() + line)).tunnel.keeper;
    assert_eq!(keeper("keeper: off\n"), Some(Keeper::Off));
    assert_eq!(keeper("keeper: run/keeper\n"), Some(Keeper::At("/etc/ferry/run/keeper".into())));
    assert_eq!(keeper(""), None);
}

#[test]
fn an_entry_may_have_limits_has_none_by_default_and_reads_back_as_it_was_written() {
    let text = with("name: west", "name: west\n    limits: {sessions: 9}")
        .replacen("service: orders}", "service: orders, limits: {bytes_per_second: 5MB}}", 1)
        .replacen("[east]}", "[east], limits: {sessions: 2, bytes_per_second: 1KiB}}", 1);
    let tunnel = accepted(&text).tunnel;
    let limits = |sessions, bytes_per_second| EntryLimits { sessions, bytes_per_second };
    let none = EntryLimits::default();
    let entries = (&tunnel.peers, &tunnel.egress, &tunnel.ingress);
    assert_eq!([&entries.0[0].limits, &entries.0[1].limits], [&none, &limits(Some(9), None)]);
    assert_eq!([&entries.1[0].limits, &entries.1[1].limits], [&limits(None, Some(5_000_000)), &none]);
    assert_eq!([&entries.2[0].limits, &entries.2[1].limits], [&none, &limits(Some(2), Some(1024))]);
    let written = serde_saphyr::to_string(&tunnel).unwrap();
    assert_eq!(written.matches("limits:").count(), 4, "those of the tunnel and of three entries: {written}");
    assert_eq!(accepted(&written).tunnel, tunnel);
}
