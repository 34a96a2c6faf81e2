//! What is pointed out but can be worked with.

use ferry_config::Problem;

use crate::support::{KEY_3, accepted, fine, with};

fn warnings(text: &str) -> Vec<Problem> {
    accepted(text).warnings
}

#[track_caller]
fn assert_one(warnings: &[Problem], path: &str, message: &str) {
    let [warning] = warnings else { panic!("{warnings:#?}") };
    assert_eq!(warning.path, path);
    assert!(warning.message.contains(message), "{warning}");
    assert!(!warning.hint.is_empty());
}

#[test]
fn a_fine_document_has_none() {
    assert_eq!(warnings(&fine()), []);
}

#[test]
fn nothing_to_carry_is_pointed_out() {
    let warnings = warnings("{name: us, identity: key}");
    assert_one(&warnings, "", "neither `egress` nor `ingress`");
}

#[test]
fn a_tunnel_that_waits_to_be_joined_is_not_told_that_it_has_nothing_to_carry() {
    assert_eq!(warnings("{name: us, identity: key, state: state, listen: \"0.0.0.0:18000\"}"), []);
}

#[test]
fn an_egress_peer_that_can_neither_dial_nor_be_dialled_is_pointed_out() {
    let text = with("listen: 0.0.0.0:18000\n", "");
    assert_one(&warnings(&text), "egress[1].peer", "`west` has no address yet");
}

#[test]
fn an_address_file_counts_as_an_address() {
    let text = with("listen: 0.0.0.0:18000\n", "");
    let text = text.replace("egress:", "    addresses: [\"file:west\"]\negress:");
    assert_eq!(warnings(&text), []);
}

#[test]
fn an_ingress_that_nobody_can_reach_is_pointed_out() {
    let text = with("listen: 0.0.0.0:18000\n", "")
        .replace("    addresses: [\"east.example.com:30200\"]\n", "")
        .replace("peer: east", "peer: west")
        .replace("egress:", "    addresses: [\"west.example.com:1\"]\negress:");
    // Of the peers that may reach `web`, west can be dialled; `db` allows east alone.
    assert_one(&warnings(&text), "ingress[1].service", "no peer can reach service `db`");
}

#[test]
fn a_peer_listed_for_nothing_is_pointed_out() {
    let idle = format!("  - {{name: idle, keys: [\"{}\"]}}\negress:", KEY_3);
    let text = with("egress:", &idle);
    assert_one(&warnings(&text), "peers[2].name", "peer `idle` is not used");
    let dialled = text.replace("name: idle,", "name: idle, addresses: [\"idle.example.com:1\"],");
    assert_eq!(warnings(&dialled), [], "its links are what an address is for");
}
