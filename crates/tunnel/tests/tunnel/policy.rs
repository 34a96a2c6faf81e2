//! Who is let in, and how: everything else is refused in the handshake, counted by its reason, and costs nobody else
//! anything.

use std::fmt::Write as _;

use ferry_config::Identity;
use ferry_processes::Port;
use rustls::AlertDescription;
use rustls::crypto::aws_lc_rs::kx_group::{X25519, X25519MLKEM768};
use rustls::version::TLS12;
use tokio::net::{TcpListener, TcpStream};

use crate::manners::{Credential, Manners};
use crate::pair::{Pair, Site, echo, far_config, near_config, status};
use crate::rogue::{End, Rogue};
use crate::scene::{Scene, exchange, is_refused};
use crate::watch::{answers, assert_logged, failures, log, logged, reaches, shows};

/// A client of these manners is refused by the far tunnel.
async fn refused(change: impl FnOnce(&mut Manners), reason: &str, alert: Option<AlertDescription>) {
    let mut scene = Scene::start().await;
    let mut manners = Manners::honest(&scene.rogue);
    change(&mut manners);
    let end = match Rogue::dial(scene.port(), &manners).await {
        Ok(mut rogue) => rogue.end().await,
        Err(rustls::Error::AlertReceived(alert)) => End::Alert(alert),
        Err(error) => panic!("{error}"),
    };
    match alert {
        Some(alert) => assert_eq!(end, End::Alert(alert)),
        None => assert!(matches!(end, End::Closed | End::Reset), "{end:?}"),
    }
    failures(scene.admin(), &[("listener", reason, 1)]).await;
    scene.honest_peers_go_on().await;
}

#[tokio::test]
async fn an_unknown_key_is_refused_and_named_in_the_log() {
    let stranger = Identity::generate().unwrap();
    let credential = Credential::RawKey(stranger.clone());
    refused(|it| it.credential = credential, "key", Some(AlertDescription::CertificateUnknown)).await;
    assert_logged(&["link not made", "is not listed here", &stranger.public_key().to_string()]);
}

#[tokio::test]
async fn a_client_without_a_key_is_refused() {
    refused(|it| it.credential = Credential::Nothing, "policy", Some(AlertDescription::HandshakeFailure)).await;
}

#[tokio::test]
async fn a_client_that_keeps_its_key_to_itself_is_refused() {
    refused(|it| it.credential = Credential::NoKey, "key", Some(AlertDescription::CertificateRequired)).await;
}

#[tokio::test]
async fn bytes_that_are_no_ed25519_key_are_refused() {
    let change = |it: &mut Manners| {
        let Credential::RawKey(identity) = &it.credential else { unreachable!() };
        it.credential = Credential::NotAKey(identity.clone(), b"\x30\x82\x01\x00 a certificate".to_vec());
    };
    refused(change, "key", Some(AlertDescription::CertificateUnknown)).await;
}

#[tokio::test]
async fn a_client_with_an_x509_certificate_is_refused() {
    let change = |it: &mut Manners| {
        let Credential::RawKey(identity) = &it.credential else { unreachable!() };
        it.credential = Credential::X509(identity.clone());
    };
    refused(change, "policy", Some(AlertDescription::HandshakeFailure)).await;
}

#[tokio::test]
async fn a_client_that_wants_an_x509_certificate_is_refused() {
    refused(|it| it.wants_x509 = true, "policy", Some(AlertDescription::HandshakeFailure)).await;
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let change = |it: &mut Manners| {
        it.versions = vec![&TLS12];
        it.groups = vec![X25519];
        it.credential = Credential::Nothing;
        it.wants_x509 = true;
    };
    refused(change, "policy", Some(AlertDescription::ProtocolVersion)).await;
}

#[tokio::test]
async fn x25519_without_ml_kem_is_refused() {
    refused(|it| it.groups = vec![X25519], "policy", Some(AlertDescription::HandshakeFailure)).await;
}

#[tokio::test]
async fn a_client_without_alpn_is_refused() {
    refused(|it| it.alpn.clear(), "policy", None).await;
}

#[tokio::test]
async fn a_client_with_another_alpn_is_refused() {
    let alert = AlertDescription::NoApplicationProtocol;
    refused(|it| it.alpn = vec![b"h2".to_vec(), b"ferry/2".to_vec()], "policy", Some(alert)).await;
}

#[tokio::test]
async fn a_client_that_prefers_x25519_gets_the_hybrid_group() {
    let scene = Scene::start().await;
    let mut manners = Manners::honest(&scene.rogue);
    manners.groups = vec![X25519, X25519MLKEM768];
    let rogue = Rogue::dial(scene.port(), &manners).await.unwrap();
    let group = rogue.tls.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
}

#[tokio::test]
async fn no_ticket_is_sent_and_no_early_data_offered() {
    let scene = Scene::start().await;
    // rustls asks for tickets and remembers them by itself.
    let mut link = scene.link().await;
    let rustls::Connection::Client(client) = &mut link.tls else { unreachable!() };
    assert_eq!(client.tls13_tickets_received(), 0, "everything behind the handshake up to the Preface was read");
    assert!(client.early_data().is_none());
}

#[tokio::test]
async fn the_negotiated_key_exchange_and_cipher_are_shown() {
    let pair = Pair::start(echo().await).await;
    let mut app = pair.connect().await;
    exchange(&mut app).await;
    for tunnel in [&pair.near, &pair.far] {
        let session = &status(tunnel.addresses().admin.unwrap()).await["sessions"][0];
        assert_eq!(session["key_exchange"], "X25519MLKEM768");
        assert_eq!(session["cipher"], "TLS13_AES_256_GCM_SHA384");
    }
    let near = &status(pair.near.addresses().admin.unwrap()).await["sessions"][0];
    assert_eq!(near["peer_key"], pair.far_site.key.to_string());
}

// --- as the end that dials -------------------------------------------------------------------------------------------

/// A server of these manners is refused by the tunnel that dials it.
async fn server_refused(change: impl FnOnce(&mut Manners), reason: &str) {
    let listed = Site::new("b/listed");
    let identity = listed.identity();
    let port = Port::reserve();
    let addr = port.address();
    let listener = TcpListener::bind(addr).await.unwrap();
    let near_site = Site::new("a/near");
    let near = near_site.start(&near_config(&listed, addr, "open_timeout: 60s\n")).await;
    let mut manners = Manners::honest(&identity);
    change(&mut manners);
    let admin = near.addresses().admin.unwrap();
    let mut app = TcpStream::connect(near.addresses().egress[0]).await.unwrap();
    // At least one dial of each burst is judged before the next look.
    let judged = async {
        reaches(admin, &format!("ferry_link_failures{{role=\"dialler\",reason=\"{reason}\"}}"), 1).await;
    };
    tokio::pin!(judged);
    loop {
        tokio::select! {
            () = &mut judged => break,
            accepted = Rogue::accept(&listener, &manners) => if let Ok(mut rogue) = accepted {
                let end = rogue.end().await;
                assert!(matches!(end, End::Closed | End::Reset | End::Alert(_)), "{end:?}");
            }
        }
    }
    let problem = answers(admin, "/readyz?peers=1", 503).await;
    assert!(problem.starts_with("peer b/listed is not reachable: "), "{problem}");
    // At the same address an honest one takes over, and the waiting application gets through.
    drop(listener);
    let forward = echo().await;
    let text = far_config(&near_site, forward, "").replace("127.0.0.1:0", &addr.to_string());
    let _far = listed.start(&text).await;
    exchange(&mut app).await;
}

#[tokio::test]
async fn a_server_with_x25519_only_is_refused() {
    server_refused(|it| it.groups = vec![X25519], "policy").await;
}

#[tokio::test]
async fn a_server_with_tls_1_2_only_is_refused() {
    server_refused(
        |it| {
            it.versions = vec![&TLS12];
            it.groups = vec![X25519];
        },
        "policy",
    )
    .await;
}

#[tokio::test]
async fn a_server_without_alpn_is_refused() {
    server_refused(|it| it.alpn.clear(), "policy").await;
}

#[tokio::test]
async fn a_server_with_an_x509_certificate_is_refused() {
    let change = |it: &mut Manners| {
        let Credential::RawKey(identity) = &it.credential else { unreachable!() };
        it.credential = Credential::X509(identity.clone());
    };
    server_refused(change, "policy").await;
}

#[tokio::test]
async fn a_server_that_hands_out_tickets_is_refused() {
    server_refused(|it| it.tickets = 1, "tls").await;
}

#[tokio::test]
async fn a_server_with_an_unknown_key_is_refused() {
    let stranger = Identity::generate().unwrap();
    server_refused(|it| it.credential = Credential::RawKey(stranger), "key").await;
}

#[tokio::test]
async fn the_right_key_under_the_wrong_name_is_refused() {
    log();
    let (near_site, far_site, other) = (Site::new("a/near"), Site::new("b/far"), Site::new("c/other"));
    let far = far_site.start(&far_config(&near_site, echo().await, "")).await;
    let addr = far.addresses().listen.unwrap();
    // Where `c/other` should be, `b/far` answers.
    let mut text = "open_timeout: 1s\npeers:\n".to_owned();
    for site in [&far_site, &other] {
        writeln!(text, "- {{name: {}, keys: [\"{}\"], addresses: [\"{addr}\"]}}", site.name, site.key).unwrap();
    }
    text += "egress:\n";
    for site in [&far_site, &other] {
        writeln!(text, "- {{listen: \"127.0.0.1:0\", peer: {}, service: echo}}", site.name).unwrap();
    }
    let near = near_site.start(&text).await;
    let admin = near.addresses().admin.unwrap();
    reaches(admin, "ferry_link_failures{role=\"dialler\",reason=\"key\"}", 1).await;
    reaches(far.addresses().admin.unwrap(), "ferry_link_failures{role=\"listener\",reason=\"key\"}", 1).await;
    let problem = answers(admin, "/readyz?peers=1", 503).await;
    assert!(problem.starts_with("peer c/other is not reachable: "), "{problem}");
    assert!(problem.contains(&far_site.key.to_string()), "{problem}");
    let [egress_far, egress_other] = near.addresses().egress[..] else { unreachable!() };
    is_refused(egress_other).await;
    shows(admin, "ferry_connections_refused", &[("{reason=\"no_link\"}", 1)]).await;
    assert_logged(&["application's connection reset", "no link within 1s", "is not listed here"]);
    exchange(&mut TcpStream::connect(egress_far).await.unwrap()).await;
}

#[tokio::test]
async fn a_tunnel_that_its_peer_does_not_list_is_told_so() {
    log();
    let (near_site, far_site, other) = (Site::new("a/near"), Site::new("b/far"), Site::new("c/other"));
    let far = far_site.start(&far_config(&other, echo().await, "")).await;
    let addr = far.addresses().listen.unwrap();
    let near = near_site.start(&near_config(&far_site, addr, "")).await;
    let admin = near.addresses().admin.unwrap();
    reaches(admin, "ferry_link_failures{role=\"dialler\",reason=\"key\"}", 1).await;
    let problem = answers(admin, "/readyz?peers=1", 503).await;
    assert!(problem.contains("b/far") && problem.contains("refused this end's key"), "{problem}");
    assert_logged(&["link not made", &near_site.key.to_string()]);
    // The one that is listed comes through.
    let third = other.start(&near_config(&far_site, addr, "")).await;
    exchange(&mut TcpStream::connect(third.addresses().egress[0]).await.unwrap()).await;
}

/// Which of the two it is, the peer is not told; its application is reset and the log says as much.
#[tokio::test]
async fn forbidden_and_missing_services_look_the_same_to_applications() {
    log();
    let (near_site, far_site, other) = (Site::new("a/near"), Site::new("b/far"), Site::new("c/other"));
    let mut text = "listen: 127.0.0.1:0\npeers:\n".to_owned();
    for site in [&near_site, &other] {
        writeln!(text, "- {{name: {}, keys: [\"{}\"]}}", site.name, site.key).unwrap();
    }
    text += "ingress:\n";
    for (service, site) in [("echo", &near_site), ("secret", &other)] {
        let forward = echo().await;
        writeln!(text, "- {{service: {service}, forward: \"{forward}\", allow: [{}]}}", site.name).unwrap();
    }
    let far = far_site.start(&text).await;
    let mut text = near_config(&far_site, far.addresses().listen.unwrap(), "");
    for service in ["secret", "nowhere"] {
        writeln!(text, "- {{listen: \"127.0.0.1:0\", peer: {}, service: {service}}}", far_site.name).unwrap();
    }
    let text = text.replace("egress: [{", "egress:\n- {").replace("service: echo}]", "service: echo}");
    let near = near_site.start(&text).await;
    let [echo, secret, nowhere] = near.addresses().egress[..] else { unreachable!() };
    for egress in [secret, nowhere] {
        is_refused(egress).await;
    }
    let refused = [("{side=\"opener\",ending=\"refused\"}", 2)];
    shows(near.addresses().admin.unwrap(), "ferry_sessions_ended", &refused).await;
    shows(far.addresses().admin.unwrap(), "ferry_connections_refused", &[("{reason=\"service\"}", 2)]).await;
    let told = "session refused by the peer: no such service, or this peer may not reach it";
    assert_eq!(logged(&["WARN", "b/far", told]).len(), 2);
    assert_logged(&["session refused: no such service", "a/near", "service=secret"]);
    assert_logged(&["session refused: no such service", "a/near", "service=nowhere"]);
    exchange(&mut TcpStream::connect(echo).await.unwrap()).await;
}

/// The key of a listed peer in the hands of somebody who cannot sign with it.
#[tokio::test]
async fn a_listed_key_that_is_not_proved_is_refused_as_one_that_is_not_listed() {
    for listed in [true, false] {
        let (thief, unlisted) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let change = |it: &mut Manners| {
            let Credential::RawKey(own) = &it.credential else { unreachable!() };
            let key = if listed { own.public_key() } else { unlisted.public_key() };
            it.credential = Credential::NotAKey(thief.clone(), key.spki_der().to_vec());
        };
        refused(change, "key", Some(AlertDescription::CertificateUnknown)).await;
        assert_logged(&["link not made", "did not prove that it holds it"]);
    }
}
