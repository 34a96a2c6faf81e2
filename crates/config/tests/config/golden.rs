//! Tokens, and the files of invitations below `state`, as the first build with them wrote them, read by this one.
//!
//! The files have no version: all builds that know invitations share these.

use std::fs;
use std::path::Path;

use ferry_config::{Claim, Identity, Invitation, Invitations, Joined, JoinedEgress, Offer, RedeemError, Token, load};
use ferry_golden::Golden;

use crate::joining::{SECRET, id, joined, token};
use crate::support::{KEY_2, KEY_3, fine};

const EXPIRES: u64 = 4_000_000_000;

fn golden(name: &'static str, extension: &'static str) -> Golden {
    let raise = match name {
        "token" => "VERSION of crates/config/src/joining/token.rs",
        _ => "the file, which has none yet, in crates/config/src/joining",
    };
    Golden::of(env!("CARGO_MANIFEST_DIR"), name, extension, raise)
}

fn invitation() -> Invitation {
    let offer =
        |service: &str, forward: &str| Offer { service: service.parse().unwrap(), forward: forward.parse().unwrap() };
    let offers = vec![offer("ssh", "127.0.0.1:22"), offer("web", "web.example.com:80")];
    Invitation::new(id(), &SECRET, EXPIRES, Some("edge/7".parse().unwrap()), offers)
}

fn claim(key: &str) -> Claim {
    Claim { key: key.parse().unwrap(), name: "a".parse().unwrap() }
}

fn peer() -> Joined {
    let mut peer = joined("edge/7", KEY_3, Some("127.0.0.1:18003"));
    peer.peer.addresses.push("wss://far.example.com/ferry".parse().unwrap());
    peer.egress.push(JoinedEgress { listen: "[::1]:18004".parse().unwrap(), service: "far-2".parse().unwrap() });
    peer
}

fn redeem(state: &Path, key: &str) -> Result<Joined, RedeemError> {
    Invitations::of(state).redeem(id(), &SECRET, &claim(key), |_| Ok(()))
}

/// A state directory with the files of an invitation, as the first build left them.
fn laid(names: &[&'static str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("invitations");
    fs::create_dir(&files).unwrap();
    for name in names {
        let extension = if *name == "invitation" { "json" } else { name };
        fs::write(files.join(format!("{}.{extension}", id())), golden(name, "json").read(1)).unwrap();
    }
    dir
}

#[test]
fn a_token_of_the_golden_file_is_read_as_it_was_and_written_so() {
    let read: Token = golden("token", "txt").read(1).parse().unwrap();
    let token = token();
    assert_eq!((read.peer, read.key, read.addresses), (token.peer, token.key, token.addresses));
    assert_eq!((read.services, read.id, read.expires), (token.services, token.id, token.expires));
    assert_eq!(read.secret.expose(), token.secret.expose());
}

#[test]
fn what_a_token_looks_like_changes_with_its_version_alone() {
    let text = token().render().unwrap().expose().clone();
    let version = text.split(':').nth(2).unwrap().parse().unwrap();
    golden("token", "txt").hold(version, &format!("{text}\n"));
}

#[test]
fn an_invitation_of_an_earlier_build_works_and_one_that_it_saw_used_does_not() {
    let dir = laid(&["invitation"]);
    let joined = redeem(dir.path(), KEY_2).unwrap();
    assert_eq!((joined.peer.name.as_str(), joined.services.len()), ("edge/7", 2));
    assert_eq!(joined.services[1].forward.to_string(), "web.example.com:80");
    let dir = laid(&["invitation", "used"]);
    match redeem(dir.path(), KEY_3) {
        Err(RedeemError::Used { name, key, .. }) => assert_eq!((name.as_str(), key.as_str()), ("edge/7", KEY_2)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_files_of_an_invitation_stay_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    Invitations::of(dir.path()).add(&invitation()).unwrap();
    redeem(dir.path(), KEY_2).unwrap();
    let read =
        |extension: &str| fs::read_to_string(dir.path().join(format!("invitations/{}.{extension}", id()))).unwrap();
    golden("invitation", "json").hold(1, &read("json"));
    // When it was used is another time each time.
    let used = read("used");
    let at = used.split("\"at\": ").nth(1).unwrap().trim_end_matches(['\n', '}']);
    golden("used", "json").hold(1, &used.replace(at, "1767323045"));
}

#[test]
fn a_peer_that_joined_an_earlier_build_is_in_the_configuration_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (path, files) = (dir.path().join("tunnel.yaml"), dir.path().join("state/joined"));
    fs::write(&path, format!("{}state: state\n", fine())).unwrap();
    Identity::generate().unwrap().write_new(&dir.path().join("identity.key")).unwrap();
    fs::create_dir_all(&files).unwrap();
    fs::write(files.join("edge_7.yaml"), golden("joined", "yaml").read(1)).unwrap();
    let (loaded, peer) = (load(&path).unwrap().tunnel, peer());
    assert_eq!(loaded.peers.last(), Some(&peer.peer));
    let egress: Vec<_> = loaded.egress.iter().map(|egress| egress.listen).collect();
    assert_eq!(egress[2..], [peer.egress[0].listen, peer.egress[1].listen]);
    for offer in &peer.services {
        let ingress = loaded.ingress.iter().find(|ingress| ingress.service == offer.service).unwrap();
        assert!(ingress.allow.contains(&peer.peer.name), "{ingress:?}");
    }
}

#[test]
fn the_file_of_a_peer_that_joined_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let peer = peer();
    peer.write_new(dir.path()).unwrap();
    let text = fs::read_to_string(Joined::path(dir.path(), &peer.peer.name)).unwrap();
    golden("joined", "yaml").hold(1, &text);
}
