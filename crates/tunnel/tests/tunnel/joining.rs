//! Invitations at a tunnel that runs: what joiners without one cost, and that its sessions do not notice.

use std::path::Path;
use std::sync::Arc;

use ferry_config::{
    Address, HostPort, Identity, Invitation, InvitationId, Invitations, Name, Offer, Secret, Token, unix_time,
};
use ferry_tunnel::{JoinError, JoinRefusal, Tunnel, join, probe};
use tokio::task::JoinSet;

use crate::watch::{failures, shows};

const ID: [u8; 8] = [1; 8];
const SECRET: [u8; 32] = [7; 32];

/// A tunnel that follows its files, which are in `dir`; `token` is for its only invitation.
async fn inviting(dir: &Path) -> (Tunnel, Token) {
    let identity = Identity::generate().unwrap();
    identity.write_new(&dir.join("b.key")).unwrap();
    let path = dir.join("b.yaml");
    let text = "name: b\nidentity: b.key\nstate: b.state\nlisten: 127.0.0.1:0\nadmin: 127.0.0.1:0\n";
    std::fs::write(&path, text).unwrap();
    let tunnel = Tunnel::start(ferry_config::load(&path).unwrap().tunnel).await.unwrap();
    tunnel.follow(path);
    let offer = Offer { service: "app".parse().unwrap(), forward: "127.0.0.1:9".parse().unwrap() };
    let invitation = Invitation::new(InvitationId::new(ID), &SECRET, unix_time() + 3600, None, vec![offer]);
    Invitations::of(&dir.join("b.state")).add(&invitation).unwrap();
    let listen = tunnel.addresses().listen.unwrap();
    (tunnel, token(&identity, listen.port(), SECRET))
}

fn token(identity: &Identity, port: u16, secret: [u8; 32]) -> Token {
    Token {
        peer: "b".parse().unwrap(),
        key: identity.public_key(),
        addresses: vec![Address::HostPort(HostPort { host: "127.0.0.1".to_owned(), port })],
        services: Vec::new(),
        id: InvitationId::new(ID),
        secret: Secret::new(secret),
        expires: 0,
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// With more: `FERRY_JOINERS=10000`.
fn joiners() -> usize {
    std::env::var("FERRY_JOINERS").map_or(200, |number| number.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn joiners_with_wrong_secrets_are_strangers_and_the_invited_one_still_gets_in() {
    let dir = tempfile::tempdir().unwrap();
    let (tunnel, invited) = inviting(dir.path()).await;
    let admin = tunnel.addresses().admin.unwrap();
    let wrong =
        Arc::new(Token { secret: Secret::new([8; 32]), addresses: invited.addresses.clone(), ..copy(&invited) });
    let mut trying = JoinSet::new();
    let total = joiners();
    for left in (0..total).rev() {
        let wrong = wrong.clone();
        trying.spawn(async move { join(&Identity::generate().unwrap(), &wrong, &name("x")).await });
        // As many at once as one host can be expected to have.
        while trying.len() >= 64 || (left == 0 && !trying.is_empty()) {
            let refused = trying.join_next().await.unwrap().unwrap();
            assert!(matches!(refused, Err(JoinError::Refused(JoinRefusal::Unknown))), "{refused:?}");
        }
    }
    failures(admin, &[("listener", "key", total.try_into().unwrap())]).await;
    shows(admin, "ferry_links_unauthenticated", &[]).await;
    let identity = Identity::generate().unwrap();
    assert_eq!(join(&identity, &invited, &name("a")).await.unwrap(), name("a"));
    // It is let in from the moment of the answer on.
    let peer = ferry_config::Peer {
        name: name("b"),
        keys: [invited.key].into(),
        addresses: invited.addresses.clone(),
        route: ferry_config::Route::default(),
        limits: ferry_config::EntryLimits::default(),
    };
    probe(&identity, &peer, invited.addresses[0].clone()).await.unwrap();
    tunnel.drain().await;
}

fn copy(token: &Token) -> Token {
    Token {
        peer: token.peer.clone(),
        key: token.key,
        addresses: token.addresses.clone(),
        services: Vec::new(),
        id: token.id,
        secret: Secret::new(*token.secret.expose()),
        expires: token.expires,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_have_the_same_token_one_joins() {
    let dir = tempfile::tempdir().unwrap();
    let (tunnel, invited) = inviting(dir.path()).await;
    let mut trying = JoinSet::new();
    for number in 0..8 {
        let token = copy(&invited);
        trying.spawn(async move { join(&Identity::generate().unwrap(), &token, &name(&format!("n{number}"))).await });
    }
    let outcomes = trying.join_all().await;
    let joined = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let used = |outcome: &&Result<_, _>| matches!(outcome, Err(JoinError::Refused(JoinRefusal::Used { .. })));
    assert_eq!((joined, outcomes.iter().filter(used).count()), (1, 7), "{outcomes:?}");
    assert_eq!(std::fs::read_dir(dir.path().join("b.state/joined")).unwrap().count(), 1);
    tunnel.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_invitation_a_joiner_is_refused_as_whoever_speaks_another_protocol() {
    let dir = tempfile::tempdir().unwrap();
    let (tunnel, invited) = inviting(dir.path()).await;
    std::fs::remove_dir_all(dir.path().join("b.state/invitations")).unwrap();
    let refused = join(&Identity::generate().unwrap(), &invited, &name("a")).await;
    assert!(matches!(refused, Err(JoinError::NoInvitations)), "{refused:?}");
    failures(tunnel.addresses().admin.unwrap(), &[("listener", "policy", 1)]).await;
    tunnel.drain().await;
}
