//! Requests to replace a key at a tunnel that runs: who may ask for what, and over what carries them.

use std::path::Path;

use ferry_config::{Identity, Peer, PublicKey, Roll, RolledPeer, Route};
use ferry_tunnel::{ProbeError, RollError, RollRequest, RollResponse, Tunnel, ask_to_roll, probe};

use crate::watch::failures;

/// A tunnel `b` that follows its files, which are in `dir`, with the peers `a` and `c`; and `b` as they list it.
async fn started(dir: &Path, [a, c]: [&Identity; 2]) -> (Tunnel, Peer) {
    let identity = Identity::generate().unwrap();
    identity.write_new(&dir.join("b.key")).unwrap();
    let path = dir.join("b.yaml");
    let peers = [("a", a), ("c", c)].map(|(name, key)| format!("{{name: {name}, keys: [\"{}\"]}}", key.public_key()));
    let text = format!(
        "name: b\nidentity: b.key\nstate: b.state\nadmin: 127.0.0.1:0\nlisten: 127.0.0.1:0\n\
         listen_quic: 127.0.0.1:0\nlisten_ws: 127.0.0.1:0\npeers: [{}]\n",
        peers.join(", ")
    );
    std::fs::write(&path, text).unwrap();
    let tunnel = Tunnel::start(ferry_config::load(&path).unwrap().tunnel).await.unwrap();
    tunnel.follow(path);
    let at = tunnel.addresses();
    let addresses = [
        at.listen.unwrap().to_string(),
        format!("quic://{}", at.listen_quic.unwrap()),
        format!("ws://{}/ferry", at.listen_ws.unwrap()),
    ];
    let peer = Peer {
        name: "b".parse().unwrap(),
        keys: [identity.public_key()].into(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        route: Route::default(),
        limits: ferry_config::EntryLimits::default(),
    };
    (tunnel, peer)
}

async fn asked(identity: &Identity, peer: &Peer, request: RollRequest) -> RollResponse {
    ask_to_roll(identity, peer, request).await.unwrap().1
}

fn made() -> Identity {
    Identity::generate().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_rolls_its_key_over_whatever_carries_links_and_parts_with_the_old_one_by_the_new_one_alone() {
    let (dir, first, c) = (tempfile::tempdir().unwrap(), made(), made());
    let (tunnel, b) = started(dir.path(), [&first, &c]).await;
    let mut current = first;
    for address in &b.addresses {
        let b = Peer { addresses: vec![address.clone()], ..b.clone() };
        let next = made();
        assert_eq!(asked(&current, &b, RollRequest::Announce(next.public_key())).await, RollResponse::Accepted);
        // From the moment of the answer on, both.
        for key in [&current, &next] {
            probe(key, &b, address.clone()).await.unwrap();
        }
        assert_eq!(asked(&next, &b, RollRequest::Part).await, RollResponse::Parted);
        let refused = loop {
            // It is in force within a second or two.
            match ask_to_roll(&current, &b, RollRequest::Ask).await {
                Ok(_) => tokio::task::yield_now().await,
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, RollError::Unreachable(ProbeError::KeyRefused)), "{address}: {refused:?}");
        current = next;
    }
    tunnel.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_proves_no_listed_key_is_refused_as_for_a_link() {
    let (dir, a, c) = (tempfile::tempdir().unwrap(), made(), made());
    let (tunnel, b) = started(dir.path(), [&a, &c]).await;
    let stranger = made();
    let request = RollRequest::Announce(stranger.public_key());
    let refused = ask_to_roll(&stranger, &b, request).await;
    assert!(matches!(refused, Err(RollError::Unreachable(ProbeError::KeyRefused))), "{refused:?}");
    failures(tunnel.addresses().admin.unwrap(), &[("listener", "key", 1)]).await;
    tunnel.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_announces_the_key_of_another_or_parts_with_what_was_listed_by_hand() {
    let (dir, a, c) = (tempfile::tempdir().unwrap(), made(), made());
    let (tunnel, b) = started(dir.path(), [&a, &c]).await;
    let own: PublicKey = *b.keys.first().unwrap();
    for (key, why) in [(c.public_key(), "another peer has that key"), (own, "that is the key of this end")] {
        let refused = asked(&a, &b, RollRequest::Announce(key)).await;
        assert_eq!(refused, RollResponse::Refused(why.to_owned()));
    }
    assert_eq!(asked(&a, &b, RollRequest::Announce(a.public_key())).await, RollResponse::Accepted, "it is listed");
    assert_eq!(asked(&a, &b, RollRequest::Part).await, RollResponse::ByHand);
    assert!(!RolledPeer::path(&dir.path().join("b.state"), &"a".parse().unwrap()).exists());
    tunnel.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_is_told_of_the_next_key_here_and_says_that_it_lists_it() {
    let (dir, a, c) = (tempfile::tempdir().unwrap(), made(), made());
    let (tunnel, b) = started(dir.path(), [&a, &c]).await;
    assert_eq!(asked(&a, &b, RollRequest::Ask).await, RollResponse::Next(None));
    let roll = Roll::of(&dir.path().join("b.key"), &dir.path().join("b.state"));
    let next = roll.make_next().unwrap().public_key();
    assert_eq!(asked(&a, &b, RollRequest::Ask).await, RollResponse::Next(Some(next)));
    let other = RollResponse::Refused(format!("the next key here is another one than {}", a.public_key()));
    assert_eq!(asked(&a, &b, RollRequest::Listed(a.public_key())).await, other);
    assert_eq!(asked(&a, &b, RollRequest::Listed(next)).await, RollResponse::Noted);
    let [a, c] = ["a", "c"].map(|name| roll.notes.is_listed(&name.parse().unwrap(), next));
    assert!(a && !c, "each for itself");
    tunnel.drain().await;
}
