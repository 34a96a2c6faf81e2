//! Peers that break the protocol: each frame that has no place ends the session with its exact violation, and the peer
//! is told. What is merely late is refused or ignored.

use std::borrow::Cow;
use std::time::Duration;

use ferry_session::{
    Accept, Epoch, Event, Frame, INITIAL_WINDOW, Instance, Intent, LinkKind, Outcome, Preface, Reject, RejectCode,
    Rejection, Release, ResetCode, Session, Time, VERSION, Violation, decode,
};

use crate::faults::hello;
use crate::pair::{ACCEPTOR, MOMENT, OPENER, Pair, settings};

const BOTH: [usize; 2] = [OPENER, ACCEPTOR];
const WINDOW: u64 = 64 * 1024;

/// Each end has sent 100 bytes, which the other has acknowledged.
fn talking() -> Pair {
    let mut pair = Pair::open();
    for end in BOTH {
        pair.write(end, 100);
    }
    pair.run(Duration::from_millis(50));
    pair
}

fn accept(received: u64) -> Frame<'static> {
    Frame::Accept(Accept { received, window: WINDOW, resume_window: Duration::from_secs(600) })
}

fn reject(code: RejectCode, received: u64) -> Frame<'static> {
    Frame::Reject(Reject { code, received, reason: Cow::Borrowed("") })
}

/// The session at `end` has ended with `violation`, and the peer was told.
#[track_caller]
fn assert_violated(pair: &mut Pair, end: usize, violation: Violation) {
    pair.run(MOMENT);
    assert_eq!(pair.ends[end].outcome, Some(Outcome::Violated(violation)), "end {end}");
    let told = matches!(pair.ends[1 - end].outcome, Some(Outcome::ResetByPeer { code: ResetCode::Protocol, .. }));
    assert!(told, "{:?}", pair.ends[1 - end].outcome);
    assert_eq!(pair.session(end).poll_timeout(), None);
    assert_eq!(pair.session(end).replay_buffered(), 0);
}

/// The same in the middle of a rotation: the loss of one link may reach the peer before the word on the other one, and
/// ends what is left of the session with the resume window.
#[track_caller]
fn assert_violated_rotating(pair: &mut Pair, violation: Violation) {
    pair.run(Duration::from_secs(601));
    assert_eq!(pair.ends[OPENER].outcome, Some(Outcome::Violated(violation)));
    let ended = &pair.ends[ACCEPTOR].outcome;
    assert!(matches!(ended, Some(Outcome::ResetByPeer { .. } | Outcome::Expired)), "{ended:?}");
}

/// The frame has no place at either end of a session that goes its way.
#[track_caller]
fn violates(frame: &Frame<'_>, violation: &Violation) {
    for end in BOTH {
        let mut pair = talking();
        pair.inject(end, frame);
        assert_violated(&mut pair, end, violation.clone());
    }
}

// --- frames out of place ---------------------------------------------------------------------------------------------

#[test]
fn frames_that_have_no_place_on_an_attached_link_end_the_session() {
    let preface = Preface { version: VERSION, instance: Instance([1; 16]), kind: LinkKind::Own };
    let frames = [
        Frame::Preface(preface),
        Frame::Hello(hello(2, Intent::Resume, 0)),
        accept(0),
        reject(RejectCode::Limit, 0),
        Frame::Gone { instance: Instance([1; 16]) },
    ];
    for frame in frames {
        violates(&frame, &Violation::OutOfPlace(frame.name()));
    }
}

#[test]
fn what_is_not_a_frame_ends_the_session() {
    for end in BOTH {
        let mut pair = talking();
        let (epoch, error) = (pair.link_epoch(end), decode(b"GET /").unwrap_err());
        pair.session(end).handle_violation(epoch, error.into());
        assert_violated(&mut pair, end, Violation::Malformed(error));
    }
}

#[test]
fn a_done_before_everything_was_sent_and_received_ends_the_session() {
    violates(&Frame::Done, &Violation::OutOfPlace("Done"));
    for end in BOTH {
        let mut pair = talking();
        pair.finish(end);
        pair.run(MOMENT);
        pair.inject(end, &Frame::Done);
        assert_violated(&mut pair, end, Violation::OutOfPlace("Done"));
    }
}

#[test]
fn a_retire_without_a_rotation_ends_the_session() {
    violates(&Frame::Retire { end: 100 }, &Violation::OutOfPlace("Retire"));
    for end in BOTH {
        let mut pair = talking();
        pair.dial(true);
        pair.run(MOMENT);
        pair.inject(end, &Frame::Retire { end: 100 });
        assert_violated(&mut pair, end, Violation::OutOfPlace("Retire"));
    }
}

#[test]
fn a_retire_beyond_what_came_ends_the_session() {
    for end in BOTH {
        let mut pair = talking();
        pair.dial(true);
        pair.hold(0, 1 - end, true);
        pair.run(MOMENT);
        pair.inject(end, &Frame::Retire { end: 101 });
        pair.hold(0, 1 - end, false);
        assert_violated(&mut pair, end, Violation::Gap { offset: 101, received: 100 });
    }
}

#[test]
fn nothing_follows_a_retire() {
    for frame in
        [Frame::Retire { end: 100 }, Frame::Ping { token: 1 }, Frame::Data { offset: 100, payload: b"x".into() }]
    {
        let mut pair = talking();
        pair.dial(true);
        pair.hold(1, ACCEPTOR, true);
        pair.run(MOMENT);
        pair.inject(OPENER, &frame);
        assert_violated(&mut pair, OPENER, Violation::OutOfPlace(frame.name()));
    }
}

#[test]
fn only_an_accept_or_a_reject_answers_a_hello() {
    for intent in [Intent::Open, Intent::Resume, Intent::Rotate] {
        for frame in [Frame::Ping { token: 1 }, Frame::Data { offset: 0, payload: b"x".into() }, Frame::Done] {
            let mut pair = answering(intent);
            let (now, epoch) = (pair.now, pair.session(OPENER).epoch());
            pair.session(OPENER).handle_frame(now, epoch, frame.clone());
            let violation = Violation::OutOfPlace(frame.name());
            match intent {
                Intent::Rotate => assert_violated_rotating(&mut pair, violation),
                _ => assert_violated(&mut pair, OPENER, violation),
            }
        }
    }
}

#[test]
fn an_answer_before_the_hello_ends_the_session_without_a_word() {
    for frame in [accept(0), reject(RejectCode::Service, 0)] {
        let mut pair = Pair::new(1);
        pair.dial(false);
        let now = pair.now;
        pair.session(OPENER).handle_frame(now, Epoch(1), frame.clone());
        pair.run(MOMENT);
        assert_eq!(pair.ends[OPENER].outcome, Some(Outcome::Violated(Violation::OutOfPlace(frame.name()))));
        assert!(pair.sent.is_empty() && pair.session(OPENER).poll_timeout().is_none());
    }
}

/// The acceptor's answer to a Hello is on its way.
fn answering(intent: Intent) -> Pair {
    let mut pair = if intent == Intent::Open { Pair::new(1) } else { talking() };
    pair.delay = 1;
    if pair.dial(intent == Intent::Rotate) {
        let index = pair.current_link();
        // The opener does not see what becomes of the link that it comes from.
        pair.hold(0, ACCEPTOR, true);
        pair.hold(index, ACCEPTOR, true);
        pair.run(MOMENT);
        pair.links[index].flight[ACCEPTOR].clear();
        pair.hold(index, ACCEPTOR, false);
    }
    pair
}

// --- offsets ---------------------------------------------------------------------------------------------------------

#[test]
fn an_ack_beyond_what_was_sent_ends_the_session() {
    let ack = Frame::Ack { received: 101, window: WINDOW };
    let violation = Violation::AckBeyondSent { received: 101, sent: 100 };
    violates(&ack, &violation);
    // Also when it counts a Finish that was not sent yet.
    for end in BOTH {
        let mut pair = talking();
        pair.finish(end);
        pair.inject(end, &ack);
        assert_violated(&mut pair, end, violation.clone());
    }
}

#[test]
fn an_accept_beyond_what_was_sent_ends_the_session_and_the_peer_is_told() {
    for intent in [Intent::Open, Intent::Resume, Intent::Rotate] {
        let mut pair = answering(intent);
        let sent = pair.payload_sent(OPENER);
        let (now, epoch) = (pair.now, pair.session(OPENER).epoch());
        pair.session(OPENER).handle_frame(now, epoch, accept(sent + 1));
        let violation = Violation::AckBeyondSent { received: sent + 1, sent };
        match intent {
            Intent::Rotate => assert_violated_rotating(&mut pair, violation),
            _ => assert_violated(&mut pair, OPENER, violation),
        }
    }
}

#[test]
fn a_reject_beyond_what_was_sent_ends_the_session() {
    let mut pair = answering(Intent::Resume);
    let (now, epoch) = (pair.now, pair.session(OPENER).epoch());
    pair.session(OPENER).handle_frame(now, epoch, reject(RejectCode::Closed, 101));
    assert_violated(&mut pair, OPENER, Violation::AckBeyondSent { received: 101, sent: 100 });
}

#[test]
fn a_hello_beyond_what_was_sent_ends_the_session() {
    for intent in [Intent::Open, Intent::Resume, Intent::Rotate] {
        let mut pair = talking();
        let now = pair.now;
        let violation = Violation::AckBeyondSent { received: 101, sent: 100 };
        let rejection = pair.session(ACCEPTOR).accept(now, &hello(2, intent, 101)).unwrap_err();
        assert_eq!(rejection, Rejection::Violation(violation.clone()));
        assert_eq!(rejection.to_reject().code, RejectCode::Protocol);
        assert_violated(&mut pair, ACCEPTOR, violation);
    }
}

#[test]
fn a_gap_ends_the_session() {
    for offset in [101, u64::MAX] {
        let gap = Violation::Gap { offset, received: 100 };
        violates(&Frame::Data { offset, payload: b"x".into() }, &gap);
        violates(&Frame::Finish { offset }, &gap);
    }
}

#[test]
fn data_beyond_the_window_ends_the_session() {
    for end in BOTH {
        let mut pair = talking();
        // The last byte that was granted is fine, the next one is not.
        let bytes = vec![0; 10_000];
        let mut offset = 100;
        while offset < WINDOW {
            let payload = &bytes[..(WINDOW - offset).min(10_000) as usize];
            pair.inject(end, &Frame::Data { offset, payload: payload.into() });
            offset += payload.len() as u64;
        }
        assert_eq!(pair.ends[end].outcome, None);
        // The peer, which sent none of this, is not to see the acks for it.
        pair.links[0].flight[end].clear();
        pair.inject(end, &Frame::Data { offset, payload: b"x".into() });
        assert_violated(&mut pair, end, Violation::BeyondWindow { end: WINDOW + 1, window: WINDOW });
    }
}

#[test]
fn early_data_beyond_the_initial_window_ends_the_session() {
    let (now, open) = (Time::ZERO, hello(1, Intent::Open, 0));
    let mut session = Session::acceptor(now, &open, settings(WINDOW, WINDOW));
    session.accept(now, &open).unwrap();
    let half = vec![0; INITIAL_WINDOW as usize / 2];
    session.handle_frame(now, Epoch(1), Frame::Data { offset: 0, payload: half[..].into() });
    session.handle_frame(now, Epoch(1), Frame::Data { offset: INITIAL_WINDOW / 2, payload: half[..].into() });
    assert!(!session.is_closed());
    session.handle_frame(now, Epoch(1), Frame::Data { offset: INITIAL_WINDOW, payload: b"x".into() });
    let closed = std::iter::from_fn(|| session.poll_event()).last();
    let violation = Violation::BeyondWindow { end: INITIAL_WINDOW + 1, window: INITIAL_WINDOW };
    assert_eq!(closed, Some(Event::Closed(Outcome::Violated(violation))));
}

#[test]
fn nothing_follows_a_finish() {
    for end in BOTH {
        let finished = || {
            let mut pair = talking();
            pair.finish(1 - end);
            pair.run(MOMENT);
            pair
        };
        let cases: [(Frame<'_>, Violation); 4] = [
            (Frame::Data { offset: 100, payload: b"x".into() }, Violation::BeyondFinish { end: 101, finish: 100 }),
            (Frame::Data { offset: 99, payload: b"xy".into() }, Violation::BeyondFinish { end: 101, finish: 100 }),
            (Frame::Data { offset: 101, payload: b"x".into() }, Violation::Gap { offset: 101, received: 100 }),
            (Frame::Finish { offset: 101 }, Violation::Gap { offset: 101, received: 100 }),
        ];
        for (frame, violation) in cases {
            let mut pair = finished();
            pair.inject(end, &frame);
            assert_violated(&mut pair, end, violation);
        }
        // The same Finish again is a repetition, as after a resume.
        let mut pair = finished();
        pair.inject(end, &Frame::Finish { offset: 100 });
        pair.inject(end, &Frame::Data { offset: 0, payload: b"twice".into() });
        assert_eq!(pair.ends[end].outcome, None);
    }
}

#[test]
fn a_finish_before_what_came_ends_the_session() {
    violates(&Frame::Finish { offset: 99 }, &Violation::BeyondFinish { end: 100, finish: 99 });
}

// --- late, not wrong -------------------------------------------------------------------------------------------------

#[test]
fn a_hello_whose_epoch_is_not_above_all_others_is_refused_as_stale() {
    let mut pair = talking();
    pair.dial(true);
    pair.run(MOMENT);
    for epoch in [1, 2] {
        for intent in [Intent::Open, Intent::Resume, Intent::Rotate] {
            let now = pair.now;
            let rejection = pair.session(ACCEPTOR).accept(now, &hello(epoch, intent, 0)).unwrap_err();
            assert_eq!(rejection, Rejection::Stale { offered: Epoch(epoch), seen: Epoch(2) });
            assert_eq!(rejection.to_reject().code, RejectCode::Stale);
        }
    }
    assert!(pair.session(ACCEPTOR).is_attached());
    pair.exchange_and_close([200, 200]);
}

#[test]
fn a_rotate_of_a_detached_session_is_refused() {
    let mut pair = talking();
    pair.resumes = false;
    pair.cut(0, 0);
    pair.run(MOMENT);
    let now = pair.now;
    let rejection = pair.session(ACCEPTOR).accept(now, &hello(2, Intent::Rotate, 0)).unwrap_err();
    assert_eq!((rejection.clone(), rejection.to_reject().code), (Rejection::NotAttached, RejectCode::NotAttached));
    assert!(pair.dial(false), "its epoch was not used up");
    pair.exchange_and_close([200, 200]);
}

#[test]
fn a_hello_for_a_session_that_has_ended_is_told_what_had_arrived() {
    let mut pair = talking();
    pair.session(OPENER).reset(ResetCode::Application, "");
    pair.run(MOMENT);
    let now = pair.now;
    let rejection = pair.session(ACCEPTOR).accept(now, &hello(2, Intent::Resume, 100)).unwrap_err();
    assert_eq!(rejection, Rejection::Closed { received: 100 });
    assert_eq!((rejection.to_reject().code, rejection.to_reject().received), (RejectCode::Closed, 100));
}

#[test]
fn frames_on_links_that_were_let_go_of_are_ignored() {
    for end in BOTH {
        let mut pair = talking();
        pair.cut(0, 0);
        pair.run(Duration::from_secs(1));
        assert!(pair.session(end).is_attached());
        let frames =
            [Frame::Done, Frame::Data { offset: 9_999, payload: b"x".into() }, Frame::Retire { end: 0 }, accept(9)];
        for (epoch, frame) in [0, 1, 3].into_iter().flat_map(|epoch| frames.iter().map(move |frame| (epoch, frame))) {
            let now = pair.now;
            pair.session(end).handle_frame(now, Epoch(epoch), frame.clone());
            assert!(!pair.session(end).may_read(Epoch(epoch)));
            assert_eq!(pair.session(end).poll_transmit(now, Epoch(epoch)), None);
        }
        pair.exchange_and_close([200, 200]);
    }
}

#[test]
fn nothing_is_taken_after_a_violation_and_the_peer_cannot_keep_the_link() {
    for end in BOTH {
        let mut pair = talking();
        let (now, epoch) = (pair.now, pair.link_epoch(end));
        let session = pair.session(end);
        // The link takes nothing, so that the Reset waits to be sent.
        session.handle_frame(now, epoch, Frame::Done);
        session.handle_frame(now, epoch, Frame::Data { offset: 100, payload: b"more".into() });
        assert_eq!(session.receive_buffered(), 100);
        for seconds in 1..=15 {
            let later = now + Duration::from_secs(seconds);
            session.handle_frame(later, epoch, Frame::Ping { token: 1 });
            session.handle_bytes(later, epoch);
            session.handle_timeout(later, |_| None);
        }
        assert_eq!(session.poll_timeout(), None);
        let released = std::iter::from_fn(|| session.poll_event()).last();
        assert_eq!(released, Some(Event::Released { epoch, release: Release::Unheeded }));
    }
}

#[test]
fn only_a_peer_from_which_nothing_comes_is_called_silent() {
    for end in BOTH {
        let mut pair = talking();
        let (now, epoch) = (pair.now, pair.link_epoch(end));
        let session = pair.session(end);
        session.handle_frame(now, epoch, Frame::Done);
        session.handle_timeout(now + Duration::from_secs(15), |_| None);
        let released = std::iter::from_fn(|| session.poll_event()).last();
        assert_eq!(released, Some(Event::Released { epoch, release: Release::Silent }));
    }
}
