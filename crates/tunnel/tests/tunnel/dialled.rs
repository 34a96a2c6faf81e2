//! A listed peer that breaks the protocol where it is dialled: it is told, the application's connection is reset if it
//! was carried, and an honest one that takes its place is found.

use std::borrow::Cow;
use std::time::Duration;

use ferry_processes::Port;
use ferry_session::{Accept, Frame, LinkKind, Reject, RejectCode, VERSION};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::hostile::UNKNOWN_TYPE;
use crate::manners::Manners;
use crate::pair::{Site, echo, far_config, near_config};
use crate::rogue::{End, Rogue, encode, preface};
use crate::scene::{exchange, is_reset};
use crate::watch::{answers, assert_logged, log, reaches, shows};

// --- before the link is made -----------------------------------------------------------------------------------------

/// The rogue is dialled, and answers the Preface with this: it is told why that is no link, and the dials go on.
async fn no_link_to_a_dialled(answer: &Frame<'_>, told: Option<(RejectCode, &str)>, counted: &str, problem: &str) {
    let (near_site, listed) = (Site::new("a/near"), Site::new("b/listed"));
    let port = Port::reserve();
    let addr = port.address();
    let listener = TcpListener::bind(addr).await.unwrap();
    // One link at a time: what a dial gets told is not mixed with another's. And the application waits for the honest one.
    let extra = "warm_links: {own: 0, offered: 0}\nopen_timeout: 60s\n";
    let near = near_site.start(&near_config(&listed, addr, extra)).await;
    let admin = near.addresses().admin.unwrap();
    let mut app = TcpStream::connect(near.addresses().egress[0]).await.unwrap();
    let mut rogue = Rogue::accept(&listener, &Manners::honest(&listed.identity())).await.unwrap();
    rogue.until(|frame| matches!(frame, Frame::Preface(_)).then_some(())).await;
    rogue.say(answer).await;
    match told {
        Some((code, reason)) => assert_eq!(rogue.rejected().await, (code, reason.to_owned())),
        None => assert_eq!(rogue.end().await, End::Closed),
    }
    reaches(admin, &format!("ferry_link_failures{{role=\"dialler\",reason=\"{counted}\"}}"), 1).await;
    let shown = answers(admin, "/readyz?peers=1", 503).await;
    assert_eq!(shown, format!("peer b/listed is not reachable: {problem}\n"));
    drop((listener, rogue));
    let text = far_config(&near_site, echo().await, "").replace("127.0.0.1:0", &addr.to_string());
    let _far = listed.start(&text).await;
    exchange(&mut app).await;
}

#[tokio::test]
async fn an_acceptor_of_another_version_is_told_and_shown() {
    let reason = "version 2 of the protocol is not spoken here, only 1";
    let told = Some((RejectCode::Version, reason));
    no_link_to_a_dialled(&preface(2, LinkKind::Own), told, "version", reason).await;
}

#[tokio::test]
async fn an_acceptor_that_repeats_the_wrong_kind_is_told() {
    let reason = "protocol violated: Preface frame out of place";
    let told = Some((RejectCode::Protocol, reason));
    no_link_to_a_dialled(&preface(VERSION, LinkKind::Offered), told, "protocol", reason).await;
}

#[tokio::test]
async fn the_reason_of_an_acceptor_that_refuses_the_version_is_shown() {
    let reject = Reject { code: RejectCode::Version, received: 0, reason: Cow::Borrowed("only 9 here") };
    no_link_to_a_dialled(&Frame::Reject(reject), None, "version", "refused by the peer: only 9 here").await;
}

/// A session that resumes has said its Hello by the time that it meets an acceptor of another version: it does without
/// that link and goes on over the next one.
#[tokio::test]
async fn a_session_that_resumes_at_an_acceptor_of_another_version_waits_for_another() {
    let (near_site, listed) = (Site::new("a/near"), Site::new("b/listed"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let near = near_site.start(&near_config(&listed, addr, "warm_links: {own: 0, offered: 0}\n")).await;
    let admin = near.addresses().admin.unwrap();
    let mut app = TcpStream::connect(near.addresses().egress[0]).await.unwrap();
    app.write_all(b"hello").await.unwrap();
    let manners = Manners::honest(&listed.identity());
    let mut rogue = Rogue::accept(&listener, &manners).await.unwrap();
    rogue.preface(LinkKind::Own).await;
    rogue.until(|frame| matches!(frame, Frame::Data { .. }).then_some(())).await;
    rogue.send(&accept(0)).await;
    rogue.say(&Frame::Data { offset: 0, payload: b"1".into() }).await;
    assert_eq!(app.read_u8().await.unwrap(), b'1', "it is established");
    drop(rogue);

    let early = |frame: &Frame<'_>| match frame {
        Frame::Data { payload, .. } => Some(payload.to_vec()),
        _ => None,
    };
    let mut rogue = Rogue::accept(&listener, &manners).await.unwrap();
    assert_eq!(rogue.until(early).await, b"hello", "before the Preface");
    rogue.say(&preface(2, LinkKind::Own)).await;
    rogue.end().await;
    reaches(admin, "ferry_link_failures{role=\"dialler\",reason=\"version\"}", 1).await;

    let mut rogue = Rogue::accept(&listener, &manners).await.unwrap();
    assert_eq!(rogue.until(early).await, b"hello");
    rogue.say(&preface(VERSION, LinkKind::Own)).await;
    rogue.send(&accept(5)).await;
    rogue.say(&Frame::Data { offset: 1, payload: b"2".into() }).await;
    assert_eq!(app.read_u8().await.unwrap(), b'2');
}

// --- in a session ----------------------------------------------------------------------------------------------------

/// The rogue is dialled, gets the Hello of an application that has sent 5 bytes, and answers with `frames`: the
/// application's connection is reset, and the next one is carried by whoever is honest.
async fn acceptor_violates(frames: &[&[u8]], reason: &str) {
    log();
    let (near_site, listed) = (Site::new("a/near"), Site::new("b/listed"));
    let port = Port::reserve();
    let addr = port.address();
    let listener = TcpListener::bind(addr).await.unwrap();
    let near = near_site.start(&near_config(&listed, addr, "warm_links: {own: 0, offered: 0}\n")).await;
    let mut app = TcpStream::connect(near.addresses().egress[0]).await.unwrap();
    app.write_all(b"hello").await.unwrap();
    let mut rogue = Rogue::accept(&listener, &Manners::honest(&listed.identity())).await.unwrap();
    rogue.preface(LinkKind::Own).await;
    rogue.until(|frame| matches!(frame, Frame::Data { .. }).then_some(())).await;
    for frame in frames {
        rogue.send(frame).await;
    }
    is_reset(&mut app).await;
    let admin = near.addresses().admin.unwrap();
    shows(admin, "ferry_sessions_ended", &[("{side=\"opener\",ending=\"violated\"}", 1)]).await;
    assert_logged(&["WARN", "session reset", "b/listed", reason]);
    drop((listener, rogue));
    let text = far_config(&near_site, echo().await, "").replace("127.0.0.1:0", &addr.to_string());
    let _far = listed.start(&text).await;
    exchange(&mut TcpStream::connect(near.addresses().egress[0]).await.unwrap()).await;
}

fn accept(received: u64) -> Vec<u8> {
    encode(&Frame::Accept(Accept { received, window: 1 << 20, resume_window: Duration::from_secs(600) }))
}

#[tokio::test]
async fn an_accept_of_more_than_was_sent_ends_the_session() {
    acceptor_violates(&[&accept(6)], "ack of 6, beyond the 5 that were sent").await;
}

#[tokio::test]
async fn data_before_the_accept_ends_the_session() {
    acceptor_violates(&[&encode(&Frame::Data { offset: 0, payload: b"x".into() })], "Data frame out of place").await;
}

#[tokio::test]
async fn a_gap_of_the_acceptor_ends_the_session() {
    let gap = encode(&Frame::Data { offset: 1, payload: b"x".into() });
    acceptor_violates(&[&accept(5), &gap], "gap in offsets: 1 came after 0").await;
}

#[tokio::test]
async fn an_unknown_frame_of_the_acceptor_ends_the_session() {
    acceptor_violates(&[&accept(5), UNKNOWN_TYPE], "unknown frame type 0x7f").await;
}
