//! Tokens, invitations, and the peers that come of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ferry_config::{
    Claim, EntryLimits, Identity, Invitation, InvitationId, Invitations, Joined, JoinedEgress, Offer, OfferedService,
    Peer, RedeemError, Route, Secret, Token, Watch, load, load_with, unix_time,
};

use crate::support::{KEY_1, KEY_2, KEY_3, fine};

pub(crate) const SECRET: [u8; 32] = [7; 32];

pub(crate) fn token() -> Token {
    Token {
        peer: "b".parse().unwrap(),
        key: KEY_1.parse().unwrap(),
        addresses: vec!["b.example.com:18000".parse().unwrap(), "wss://b.example.com/ferry".parse().unwrap()],
        services: vec![OfferedService { service: "ssh".parse().unwrap(), port: 22 }],
        id: id(),
        secret: Secret::new(SECRET),
        expires: 4_000_000_000,
    }
}

pub(crate) fn id() -> InvitationId {
    "00112233445566ff".parse().unwrap()
}

fn text() -> String {
    token().render().unwrap().expose().clone()
}

fn problem_of(text: &str) -> String {
    text.parse::<Token>().map(drop).unwrap_err().to_string()
}

#[test]
fn a_token_comes_back_as_it_was_also_when_a_mail_broke_its_line() {
    let (head, tail) = (text()[..60].to_owned(), text()[60..].to_owned());
    for text in [text(), format!("  {head}\r\n  {tail}\n")] {
        let (read, token) = (text.parse::<Token>().unwrap(), token());
        assert_eq!((read.peer, read.key, read.addresses), (token.peer, token.key, token.addresses));
        assert_eq!((read.services, read.id, read.expires), (token.services, token.id, token.expires));
        assert_eq!(read.secret.expose(), &SECRET);
    }
    assert!(!format!("{:?}", token()).contains("7, 7"), "the secret is not shown");
}

#[test]
fn a_token_that_is_cut_off_or_changed_anywhere_is_told_from_one_of_another_version() {
    let whole = text();
    let version = "ferry:join:1:".len();
    for end in version..whole.len() {
        let problem = problem_of(&whole[..end]);
        assert!(problem.starts_with("the token is cut off"), "up to {end}: {problem}");
    }
    for at in version..whole.len() {
        let mut bytes = whole.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let problem = problem_of(std::str::from_utf8(&bytes).unwrap());
        assert!(problem.starts_with("the token is cut off"), "at {at}: {problem}");
    }
    let problem = problem_of(&whole.replacen(":1:", ":2:", 1));
    assert!(problem.starts_with("the token is of version `2`, and this ferry knows version 1"), "{problem}");
    for other in ["", "x", KEY_1, &whole[..5]] {
        assert!(problem_of(other).starts_with("that is no token"), "{other}");
    }
}

/// A state directory with an invitation that ends at `expires`.
fn invited(expires: u64) -> (tempfile::TempDir, Invitations) {
    let dir = tempfile::tempdir().unwrap();
    let invitations = Invitations::of(dir.path());
    assert!(invitations.is_empty());
    let offer = Offer { service: "ssh".parse().unwrap(), forward: "127.0.0.1:22".parse().unwrap() };
    invitations.add(&Invitation::new(id(), &SECRET, expires, None, vec![offer])).unwrap();
    assert!(!invitations.is_empty());
    (dir, invitations)
}

fn redeem(invitations: &Invitations, secret: [u8; 32], name: &str, key: &str) -> Result<Joined, RedeemError> {
    let claim = Claim { key: key.parse().unwrap(), name: name.parse().unwrap() };
    invitations.redeem(id(), &secret, &claim, |_| Ok(()))
}

#[test]
fn an_invitation_works_once_and_once_more_only_for_the_key_that_it_was_used_with() {
    let (dir, invitations) = invited(unix_time() + 3600);
    assert!(matches!(redeem(&invitations, [8; 32], "a", KEY_2), Err(RedeemError::Unknown)));
    let joined = redeem(&invitations, SECRET, "a", KEY_2).unwrap();
    assert_eq!((joined.peer.name.as_str(), joined.services.len()), ("a", 1));
    assert_eq!(redeem(&invitations, SECRET, "a", KEY_2).unwrap(), joined, "its answer was lost");
    match redeem(&invitations, SECRET, "c", KEY_3) {
        Err(RedeemError::Used { name, key, .. }) => assert_eq!((name.as_str(), key.as_str()), ("a", KEY_2)),
        other => panic!("{other:?}"),
    }
    // Only to a bearer of the secret.
    assert!(matches!(redeem(&invitations, [8; 32], "c", KEY_3), Err(RedeemError::Unknown)));
    // A peer that was parted from does not come back by itself.
    fs::remove_file(Joined::path(dir.path(), &"a".parse().unwrap())).unwrap();
    assert!(matches!(redeem(&invitations, SECRET, "a", KEY_2), Err(RedeemError::Used { .. })));
}

#[test]
fn an_invitation_that_has_expired_says_so_and_is_forgotten_after_a_week() {
    let (dir, invitations) = invited(unix_time() - 10);
    match redeem(&invitations, SECRET, "a", KEY_2) {
        Err(RedeemError::Expired { ago, .. }) => assert!(ago >= 10, "{ago}"),
        other => panic!("{other:?}"),
    }
    assert!(!Joined::path(dir.path(), &"a".parse().unwrap()).exists());
    let another = |number: u8, expires| Invitation::new(InvitationId::new([number; 8]), &SECRET, expires, None, vec![]);
    invitations.add(&another(1, unix_time() - 8 * 24 * 3600)).unwrap();
    invitations.add(&another(2, unix_time() + 1)).unwrap();
    let kept = fs::read_dir(dir.path().join("invitations")).unwrap().count();
    assert_eq!(kept, 2, "the one that ended a week ago is gone");
}

#[test]
fn what_is_refused_or_cannot_be_written_leaves_the_invitation_unused() {
    let (dir, invitations) = invited(unix_time() + 3600);
    let claim = Claim { key: KEY_2.parse().unwrap(), name: "a".parse().unwrap() };
    let taken = invitations.redeem(id(), &SECRET, &claim, |claim| Err(RedeemError::KeyTaken(claim.key)));
    assert!(matches!(taken, Err(RedeemError::KeyTaken(_))));
    fs::write(dir.path().join("joined"), "in the way").unwrap();
    assert!(matches!(redeem(&invitations, SECRET, "a", KEY_2), Err(RedeemError::Io(..))));
    fs::remove_file(dir.path().join("joined")).unwrap();
    redeem(&invitations, SECRET, "a", KEY_2).unwrap();
}

#[test]
fn two_peers_neither_share_a_name_nor_a_key() {
    let (dir, invitations) = invited(unix_time() + 3600);
    redeem(&invitations, SECRET, "a", KEY_2).unwrap();
    let second = InvitationId::new([2; 8]);
    invitations.add(&Invitation::new(second, &SECRET, unix_time() + 3600, None, vec![])).unwrap();
    let claim = |name: &str, key: &str| Claim { key: key.parse().unwrap(), name: name.parse().unwrap() };
    let refused = |claim: Claim| invitations.redeem(second, &SECRET, &claim, |_| Ok(())).unwrap_err();
    assert!(matches!(refused(claim("a", KEY_3)), RedeemError::NameTaken(_)));
    assert!(matches!(refused(claim("c", KEY_2)), RedeemError::KeyTaken(_)));
    invitations.redeem(second, &SECRET, &claim("c/d", KEY_3), |_| Ok(())).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("joined")).unwrap().count(), 2);
}

#[test]
fn an_invitation_that_names_the_peer_decides_how_it_is_called() {
    let (_dir, invitations) = invited(unix_time());
    let second = InvitationId::new([2; 8]);
    let name = Some("edge-7".parse().unwrap());
    invitations.add(&Invitation::new(second, &SECRET, unix_time() + 3600, name, vec![])).unwrap();
    let claim = Claim { key: KEY_2.parse().unwrap(), name: "a".parse().unwrap() };
    let joined = invitations.redeem(second, &SECRET, &claim, |_| Ok(())).unwrap();
    assert_eq!(joined.peer.name.as_str(), "edge-7");
}

/// A directory with the `tunnel.yaml` of [`fine`], and a `state` below it.
fn configured() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tunnel.yaml"), format!("{}state: state\n", fine())).unwrap();
    Identity::generate().unwrap().write_new(&dir.path().join("identity.key")).unwrap();
    dir
}

pub(crate) fn joined(name: &str, key: &str, listen: Option<&str>) -> Joined {
    let egress = listen.map(|listen| JoinedEgress { listen: listen.parse().unwrap(), service: "far".parse().unwrap() });
    let offer = |service: &str| Offer { service: service.parse().unwrap(), forward: "127.0.0.1:9".parse().unwrap() };
    Joined {
        peer: Peer {
            name: name.parse().unwrap(),
            keys: BTreeSet::from([key.parse().unwrap()]),
            addresses: vec!["far.example.com:1".parse().unwrap()],
            route: Route::default(),
            limits: EntryLimits::default(),
        },
        services: vec![offer("web"), offer("new")],
        egress: egress.into_iter().collect(),
    }
}

#[test]
fn a_peer_that_joined_is_in_the_configuration_without_a_change_to_its_file() {
    let dir = configured();
    let (path, state) = (dir.path().join("tunnel.yaml"), dir.path().join("state"));
    let mut watch = Watch::new(path.clone());
    assert_eq!(watch.look().unwrap().unwrap().tunnel.peers.len(), 2);
    let third = joined("third/one", KEY_3, Some("127.0.0.1:18003"));
    let expected = load_with(&path, &third).unwrap();
    assert!(watch.look().is_none(), "to ask what it would come to changes nothing");
    third.write_new(&state).unwrap();
    let loaded = watch.look().unwrap().unwrap();
    assert_eq!(loaded, expected);
    assert!(watch.look().is_none());
    let tunnel = loaded.tunnel;
    assert_eq!(tunnel.peers.last(), Some(&third.peer));
    assert_eq!(tunnel.egress.last().unwrap().listen, third.egress[0].listen);
    let web = tunnel.ingress.iter().find(|ingress| ingress.service.as_str() == "web").unwrap();
    assert!(web.allow.contains(&third.peer.name) && web.allow.len() == 3, "{web:?}");
    assert_eq!(web.forward.to_string(), "127.0.0.1:8000", "what tunnel.yaml says comes first");
    let new = tunnel.ingress.iter().find(|ingress| ingress.service.as_str() == "new").unwrap();
    assert_eq!((new.forward.to_string(), new.allow.len()), ("127.0.0.1:9".to_owned(), 1));
    assert_eq!(third.write_new(&state).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    fs::remove_file(Joined::path(&state, &third.peer.name)).unwrap();
    assert_eq!(watch.look().unwrap().unwrap().tunnel.peers.len(), 2);
}

#[test]
fn a_problem_in_a_joined_peer_s_file_names_the_file() {
    let dir = configured();
    let path = dir.path().join("tunnel.yaml");
    let write = |text: &str| {
        fs::create_dir_all(dir.path().join("state/joined")).unwrap();
        fs::write(dir.path().join("state/joined/x.yaml"), text).unwrap();
        load(&path).unwrap_err().to_string()
    };
    for (text, expected) in [
        (format!("peer: {{name: east, keys: [\"{KEY_3}\"]}}\n"), "x.yaml: peer.name: `east` is already the name"),
        (format!("peer: {{name: x, keys: [\"{KEY_1}\"]}}\n"), "x.yaml: peer.keys[0]: the key of both"),
        ("peer: {name: x, keys: [nonsense]}\n".to_owned(), "x.yaml: peer.keys[0]: `nonsense` is not a public key"),
        ("nonsense: 1\n".to_owned(), "x.yaml: peer: missing"),
        ("[".to_owned(), "x.yaml: "),
    ] {
        let report = write(&text);
        assert!(report.contains(expected) && !report.contains(": :"), "{text}: {report}");
    }
    assert!(load_with(Path::new("/nonexistent"), &joined("z", KEY_3, None)).is_err());
}
