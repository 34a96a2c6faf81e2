//! A listed peer that breaks the protocol: it is told what it did, its sessions end, and nobody else's do.

use std::borrow::Cow;
use std::time::Duration;

use ferry_session::{Accept, Frame, Instance, Intent, LinkKind, RejectCode, ResetCode, SessionId, VERSION};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::manners::Manners;
use crate::rogue::{End, INSTANCE, Rogue, encode, preface};
use crate::scene::{ID, ID_LOGGED, Scene, hello, is_reset};
use crate::watch::{assert_logged, failures, reaches, shows};

pub const UNKNOWN_TYPE: &[u8] = &[0x7f, 0, 0];
const TOO_LONG: &[u8] = &[0x10, 0xff, 0xff, 1, 2, 3];
/// A Data frame that says 16 bytes and has 9.
const CUT: &[u8] = &[0x10, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 1];

// --- before the link is made -----------------------------------------------------------------------------------------

/// What the rogue sends first is answered by a Reject, and counted.
async fn no_link(first: &[u8], code: RejectCode, reason: &str, counted: &str) {
    let mut scene = Scene::start().await;
    let mut rogue = scene.rogue().await;
    rogue.send(first).await;
    assert_eq!(rogue.rejected().await, (code, reason.to_owned()));
    failures(scene.admin(), &[("listener", counted, 1)]).await;
    assert_logged(&["link not made", reason]);
    scene.honest_peers_go_on().await;
}

#[tokio::test]
async fn another_version_is_refused_with_both_versions() {
    let reason = "version 7 of the protocol is not spoken here, only 1";
    no_link(&encode(&preface(7, LinkKind::Own)), RejectCode::Version, reason, "version").await;
    // Whatever that version has made of the rest.
    no_link(&[1, 0, 3, 0, 7, 9], RejectCode::Version, reason, "version").await;
}

#[tokio::test]
async fn a_missing_preface_is_refused() {
    let first = encode(&hello(ID, 1, Intent::Open, "trap"));
    no_link(&first, RejectCode::Protocol, "protocol violated: Hello frame out of place", "protocol").await;
}

#[tokio::test]
async fn an_unknown_frame_instead_of_the_preface_is_refused() {
    no_link(UNKNOWN_TYPE, RejectCode::Protocol, "protocol violated: unknown frame type 0x7f", "protocol").await;
}

#[tokio::test]
async fn a_preface_of_an_unknown_kind_is_refused() {
    let mut first = encode(&preface(VERSION, LinkKind::Own));
    *first.last_mut().unwrap() = 9;
    no_link(&first, RejectCode::Protocol, "protocol violated: Preface frame with an impossible kind", "protocol").await;
}

#[tokio::test]
async fn a_peer_that_leaves_after_its_handshake_is_counted_as_closed() {
    let mut scene = Scene::start().await;
    drop(scene.rogue().await);
    failures(scene.admin(), &[("listener", "closed", 1)]).await;
    scene.honest_peers_go_on().await;
}

// --- on a link that waits for its Hello ------------------------------------------------------------------------------

/// Instead of a Hello the rogue sends this.
async fn no_hello(bytes: &[u8], reason: &str) {
    let mut scene = Scene::start().await;
    let mut link = scene.link().await;
    link.send(bytes).await;
    assert_eq!(link.rejected().await, (RejectCode::Protocol, reason.to_owned()));
    failures(scene.admin(), &[("listener", "protocol", 1)]).await;
    assert_logged(&["WARN", "x/rogue", "link refused", reason]);
    scene.honest_peers_go_on().await;
}

#[tokio::test]
async fn an_unknown_frame_on_a_warm_link_is_refused() {
    no_hello(UNKNOWN_TYPE, "protocol violated: unknown frame type 0x7f").await;
}

#[tokio::test]
async fn a_frame_that_is_too_long_on_a_warm_link_is_refused() {
    no_hello(TOO_LONG, "protocol violated: Data frame of 65535 bytes, allowed are 9 to 16381").await;
}

#[tokio::test]
async fn a_cut_frame_on_a_warm_link_is_refused() {
    no_hello(CUT, "protocol violated: a frame that its record cuts off").await;
}

#[tokio::test]
async fn data_before_the_hello_is_refused() {
    let data = encode(&Frame::Data { offset: 0, payload: b"early".into() });
    no_hello(&data, "protocol violated: Data frame out of place").await;
}

/// All rogues say that they are the same instance: one peer's word about it is nothing to another's sessions.
#[tokio::test]
async fn gone_for_anybody_elses_instance_ends_nobody() {
    let mut scene = Scene::start().await;
    let (mut others_link, mut others_app) = scene.session_of(&scene.other).await;
    let mut link = scene.link().await;
    for instance in [[0x5a; 16], INSTANCE.0] {
        link.say(&Frame::Gone { instance: Instance(instance) }).await;
    }
    // They were read: the link is answered.
    link.say(&hello(ID, 1, Intent::Resume, "trap")).await;
    assert_eq!(link.rejected().await.0, RejectCode::Unknown);
    others_link.say(&Frame::Data { offset: 0, payload: b"untouched".into() }).await;
    others_app.read_exact(&mut [0; 9]).await.unwrap();
    scene.honest_peers_go_on().await;
}

#[tokio::test]
async fn gone_without_end_is_refused() {
    let gone = encode(&Frame::Gone { instance: Instance([0x5a; 16]) });
    no_hello(&gone.repeat(17), "protocol violated: Gone frame out of place").await;
}

#[tokio::test]
async fn a_service_name_that_is_none_is_refused() {
    let mut bytes = encode(&hello(ID, 1, Intent::Open, "trap"));
    *bytes.last_mut().unwrap() = 0xff;
    no_hello(&bytes, "protocol violated: Hello frame with an impossible service").await;
}

#[tokio::test]
async fn epoch_zero_is_refused() {
    no_hello(&encode(&hello(ID, 0, Intent::Open, "trap")), "protocol violated: Hello frame with an impossible epoch")
        .await;
}

// --- Hellos that are refused -----------------------------------------------------------------------------------------

/// The Hello is refused with `code`, and counted so.
async fn refused(scene: &mut Scene, hello: &Frame<'_>, code: RejectCode, counted: &str) -> String {
    let mut link = scene.link().await;
    link.say(hello).await;
    let (told, reason) = link.rejected().await;
    assert_eq!(told, code, "{reason}");
    reaches(scene.admin(), &format!("ferry_attaches_refused{{reason=\"{counted}\"}}"), 1).await;
    scene.honest_peers_go_on().await;
    reason
}

#[tokio::test]
async fn a_forbidden_service_and_one_that_is_not_there_get_the_same_answer() {
    let mut scene = Scene::start().await;
    let forbidden = hello(ID, 1, Intent::Open, "echo");
    let forbidden = refused(&mut scene, &forbidden, RejectCode::Service, "service").await;
    let missing = hello(SessionId([2; 16]), 1, Intent::Open, "nowhere");
    let missing = refused(&mut scene, &missing, RejectCode::Service, "service").await;
    assert_eq!((forbidden.as_str(), &forbidden), ("no such service, or this peer may not reach it", &missing));
    shows(scene.admin(), "ferry_connections_refused", &[("{reason=\"service\"}", 2)]).await;
    assert_logged(&["session refused", "x/rogue", "service=echo", &forbidden]);
    assert_logged(&["session refused", "x/rogue", "service=nowhere", &missing]);
}

#[tokio::test]
async fn a_service_whose_application_refuses_is_told_and_logged() {
    let mut scene = Scene::start().await;
    let reason = refused(&mut scene, &hello(ID, 1, Intent::Open, "dead"), RejectCode::Unreachable, "unreachable").await;
    assert!(reason.starts_with("the application at 127.0.0.1:"), "{reason}");
    shows(scene.admin(), "ferry_connections_refused", &[("{reason=\"unreachable\"}", 1)]).await;
    assert_logged(&["WARN", "session refused", ID_LOGGED, &reason]);
}

#[tokio::test]
async fn a_resume_of_an_unknown_session_is_refused() {
    let mut scene = Scene::start().await;
    let reason = refused(&mut scene, &hello(ID, 2, Intent::Resume, "trap"), RejectCode::Unknown, "unknown").await;
    assert_eq!(reason, "this process of the tunnel does not have the session");
    let rotate = hello(ID, 2, Intent::Rotate, "trap");
    refused(&mut scene, &rotate, RejectCode::Unknown, "unknown").await;
}

#[tokio::test]
async fn a_stale_epoch_is_refused_and_the_session_goes_on() {
    let mut scene = Scene::start().await;
    let (mut link, mut app) = scene.session().await;
    refused(&mut scene, &hello(ID, 1, Intent::Resume, "trap"), RejectCode::Stale, "stale").await;
    link.say(&Frame::Data { offset: 0, payload: b"still here".into() }).await;
    app.read_exact(&mut [0; 10]).await.unwrap();
}

#[tokio::test]
async fn a_resume_that_claims_what_was_not_sent_ends_the_session() {
    let mut scene = Scene::start().await;
    let (_link, mut app) = scene.session().await;
    let Frame::Hello(mut resume) = hello(ID, 2, Intent::Resume, "trap") else { unreachable!() };
    resume.received = 1000;
    let reason = refused(&mut scene, &Frame::Hello(resume), RejectCode::Protocol, "protocol").await;
    assert_eq!(reason, "ack of 1000, beyond the 0 that were sent");
    is_reset(&mut app).await;
}

/// Two listed peers use the same session id: each has its own session, and neither can touch the other's.
#[tokio::test]
async fn the_session_id_of_another_peer_never_hits_its_session() {
    let mut scene = Scene::start().await;
    let (mut others_link, mut others_app) = scene.session_of(&scene.other).await;
    for intent in [Intent::Resume, Intent::Rotate] {
        refused(&mut scene, &hello(ID, 2, intent, "trap"), RejectCode::Unknown, "unknown").await;
    }
    let (mut link, mut app) = scene.session().await;
    link.say(&Frame::Reset(ferry_session::Reset { code: ResetCode::Application, reason: Cow::Borrowed("") })).await;
    is_reset(&mut app).await;
    others_link.say(&Frame::Data { offset: 0, payload: b"untouched".into() }).await;
    let mut bytes = [0; 9];
    others_app.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"untouched");
}

// --- in a session ----------------------------------------------------------------------------------------------------

/// In a session of the rogue's, these bytes end it: the rogue gets a Reset, the application a RST, the log the reason.
async fn violates(bytes: &[u8], reason: &str) {
    let mut scene = Scene::start().await;
    let (mut link, mut app) = scene.session().await;
    link.send(bytes).await;
    assert_eq!(link.reset().await.0, ResetCode::Protocol);
    is_reset(&mut app).await;
    shows(scene.admin(), "ferry_sessions_ended", &[("{side=\"acceptor\",ending=\"violated\"}", 1)]).await;
    assert_logged(&["WARN", "session reset", ID_LOGGED, "x/rogue", reason]);
    scene.honest_peers_go_on().await;
}

macro_rules! violations {
    ($($claim:ident: $bytes:expr, $reason:literal;)+) => {$(
        #[tokio::test]
        async fn $claim() {
            violates(&$bytes, $reason).await;
        }
    )+};
}

violations! {
    an_unknown_frame_ends_the_session: UNKNOWN_TYPE, "unknown frame type 0x7f";
    a_frame_that_is_too_long_ends_the_session: TOO_LONG, "Data frame of 65535 bytes, allowed are 9 to 16381";
    a_cut_frame_ends_the_session: CUT, "a frame that its record cuts off";
    a_gap_ends_the_session: encode(&Frame::Data { offset: 5, payload: b"x".into() }), "gap in offsets: 5 came after 0";
    a_finish_beyond_a_gap_ends_the_session: encode(&Frame::Finish { offset: 9 }), "gap in offsets: 9 came after 0";
    an_ack_beyond_what_was_sent_ends_the_session:
        encode(&Frame::Ack { received: 7, window: 1 << 20 }), "ack of 7, beyond the 0 that were sent";
    data_after_the_finish_in_one_record_shows_no_end_of_file:
        [encode(&Frame::Finish { offset: 0 }), encode(&Frame::Data { offset: 0, payload: b"x".into() })].concat(),
        "data up to 1, beyond the finish at 0";
    a_second_hello_ends_the_session: encode(&hello(ID, 2, Intent::Open, "trap")), "Hello frame out of place";
    a_second_preface_ends_the_session: encode(&preface(VERSION, LinkKind::Own)), "Preface frame out of place";
    an_accept_of_the_opener_ends_the_session:
        encode(&Frame::Accept(Accept { received: 0, window: 0, resume_window: Duration::ZERO })),
        "Accept frame out of place";
    a_done_before_the_end_ends_the_session: encode(&Frame::Done), "Done frame out of place";
    a_retire_without_rotation_ends_the_session: encode(&Frame::Retire { end: 0 }), "Retire frame out of place";
    gone_in_a_session_ends_it: encode(&Frame::Gone { instance: Instance([1; 16]) }), "Gone frame out of place";
}

#[tokio::test]
async fn data_after_the_finish_ends_the_session() {
    let mut scene = Scene::start().await;
    let (mut link, mut app) = scene.session().await;
    link.say(&Frame::Finish { offset: 0 }).await;
    // The application has its end of file: what follows is no data of its connection.
    assert_eq!(app.read(&mut [0]).await.unwrap(), 0);
    link.say(&Frame::Data { offset: 0, payload: b"x".into() }).await;
    assert_eq!(link.reset().await.0, ResetCode::Protocol);
    while app.write_all(b"into the void").await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert_logged(&["session reset", ID_LOGGED, "data up to 1, beyond the finish at 0"]);
    scene.honest_peers_go_on().await;
}

/// The application does not read, and the rogue does not wait for room.
#[tokio::test]
async fn data_beyond_the_window_ends_the_session() {
    let mut scene = Scene::start().await;
    let (mut link, mut app) = scene.session().await;
    let payload = [0x55; 16_000];
    let mut offset = 0;
    while !link.is_told_to_stop() {
        link.say(&Frame::Data { offset, payload: (&payload).into() }).await;
        offset += payload.len() as u64;
        tokio::task::yield_now().await;
        assert!(offset < 256 << 20, "the tunnel takes without end");
    }
    assert_eq!(link.reset().await.0, ResetCode::Protocol);
    is_reset(&mut app).await;
    shows(scene.admin(), "ferry_sessions_ended", &[("{side=\"acceptor\",ending=\"violated\"}", 1)]).await;
    assert_logged(&["session reset", ID_LOGGED, "beyond the window of"]);
    scene.honest_peers_go_on().await;
}

/// A TLS message that has no place is not a word of the peer's protocol: the link is dropped as if it were lost.
#[tokio::test]
async fn a_key_update_ends_the_link() {
    let mut scene = Scene::start().await;
    let mut link = scene.link().await;
    link.tls.refresh_traffic_keys().unwrap();
    link.flush().await;
    assert!(matches!(link.end().await, End::Closed | End::Reset));
    failures(scene.admin(), &[("listener", "tls", 1)]).await;
    scene.honest_peers_go_on().await;
}

// --- too much of it --------------------------------------------------------------------------------------------------

#[tokio::test]
async fn links_without_a_session_are_bounded_per_peer() {
    let mut scene = Scene::start().await;
    let manners = Manners::honest(&scene.rogue);
    let mut links = Vec::new();
    for (kind, most) in [(LinkKind::Own, 512), (LinkKind::Offered, 256)] {
        for _ in 0..most {
            let mut link = Rogue::dial(scene.port(), &manners).await.unwrap();
            link.preface(kind).await;
            links.push(link);
        }
        let mut one_more = Rogue::dial(scene.port(), &manners).await.unwrap();
        one_more.preface(kind).await;
        let reason = "too many links that carry no session".to_owned();
        assert_eq!(one_more.rejected().await, (RejectCode::Limit, reason));
    }
    failures(scene.admin(), &[("listener", "limit", 2)]).await;
    assert_logged(&["x/rogue", "link refused", "too many links"]);
    // Another peer has a bound of its own; and those that are closed make room.
    scene.session_of(&scene.other).await;
    scene.honest_peers_go_on().await;
    links.clear();
    let mut again = scene.link().await;
    again.say(&hello(ID, 1, Intent::Resume, "trap")).await;
    assert_eq!(again.rejected().await.0, RejectCode::Unknown);
}
