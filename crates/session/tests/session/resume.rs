//! Attaching for the first time and after a loss: nothing is lost or doubled, and nothing waits for ever.

use std::time::Duration;

use ferry_session::{
    AttachError, Epoch, Frame, INITIAL_WINDOW, Instance, Intent, Outcome, Reject, RejectCode, Release,
};

use crate::faults::hello;
use crate::pair::{ACCEPTOR, MOMENT, OPENER, Pair, settings};

const BOTH: [usize; 2] = [OPENER, ACCEPTOR];
const SECOND: Duration = Duration::from_secs(1);

// --- open ------------------------------------------------------------------------------------------------------------

#[test]
fn an_open_sends_its_first_bytes_behind_the_hello() {
    let mut pair = Pair::new(1);
    pair.delay = 1;
    pair.dial(false);
    pair.write(OPENER, 100);
    pair.finish(OPENER);
    pair.settle();
    assert_eq!(pair.frames(OPENER, 0), ["Hello", "Data", "Finish"]);
    pair.run(Duration::from_micros(1));
    assert_eq!(pair.read(ACCEPTOR, usize::MAX), 100, "after half a round trip");
}

#[test]
fn a_resume_without_another_link_sends_its_next_bytes_behind_the_hello() {
    let mut pair = Pair::open();
    pair.resumes = false;
    pair.cut(0, 0);
    pair.settle();
    pair.write(OPENER, 40_000);
    let before = pair.payload_sent(OPENER);
    pair.dial(false);
    pair.hold(1, ACCEPTOR, true);
    pair.run(SECOND);
    assert_eq!(pair.frames(OPENER, 1)[..2], ["Hello", "Data"]);
    assert_eq!(pair.payload_sent(OPENER) - before, INITIAL_WINDOW, "as much as an Open, as long as there is no answer");
    assert_eq!(pair.read(ACCEPTOR, usize::MAX) as u64, INITIAL_WINDOW);
    pair.hold(1, ACCEPTOR, false);
    pair.exchange_and_close([40_000, 40_000]);
}

#[test]
fn a_resume_beside_a_suspect_link_waits_for_the_answer() {
    let mut pair = Pair::open();
    pair.black_hole(0);
    pair.write(OPENER, 1_000);
    pair.dial(false);
    pair.hold(1, ACCEPTOR, true);
    pair.run(MOMENT);
    assert_eq!(pair.frames(OPENER, 1), ["Hello"]);
    pair.hold(1, ACCEPTOR, false);
    pair.exchange_and_close([1_000, 0]);
}

#[test]
fn early_data_stops_at_the_initial_window() {
    let mut pair = Pair::new(1);
    pair.dial(false);
    pair.hold(0, ACCEPTOR, true);
    pair.write(OPENER, 40_000);
    pair.run(SECOND);
    assert_eq!(pair.payload_sent(OPENER), INITIAL_WINDOW);
    pair.hold(0, ACCEPTOR, false);
    pair.exchange_and_close([40_000, 40_000]);
    assert_eq!(pair.payload_sent(OPENER), 40_000);
}

#[test]
fn an_acceptor_sends_nothing_before_its_accept() {
    let mut pair = Pair::new(1);
    pair.dial(false);
    pair.run(SECOND);
    pair.write(ACCEPTOR, 100);
    pair.run(SECOND);
    assert_eq!(pair.frames(ACCEPTOR, 0)[0], "Accept");
}

#[test]
fn an_open_whose_link_is_lost_is_repeated_without_effect_on_what_arrived() {
    // The Hello is lost; or it arrives with a part of the early data, and its Accept is lost.
    for arrives in [false, true] {
        let mut pair = Pair::new(1);
        pair.delay = 1;
        pair.dial(false);
        pair.write(OPENER, 5_000);
        pair.hold(0, ACCEPTOR, true);
        pair.settle();
        if arrives {
            pair.run(MOMENT);
        }
        pair.cut(0, 0);
        pair.run(SECOND);
        assert_eq!(pair.frames(OPENER, 1)[0], "Hello");
        assert_eq!(pair.ends[OPENER].attached, [Intent::Open]);
        let opens = if arrives { vec![Intent::Open; 2] } else { vec![Intent::Open] };
        assert_eq!(pair.ends[ACCEPTOR].attached, opens);
        assert_eq!(pair.read(ACCEPTOR, usize::MAX), 5_000);
        pair.exchange_and_close([6_000, 6_000]);
    }
}

#[test]
fn a_hello_that_overtakes_that_of_an_earlier_link_wins() {
    let mut pair = Pair::new(1);
    pair.delay = 1;
    pair.dial(false);
    pair.settle();
    pair.hold(0, OPENER, true);
    // The opener gives the first link up; its Hello is still on its way when the second one arrives.
    let (now, first) = (pair.now, pair.session(OPENER).epoch());
    pair.session(OPENER).detach(now, first);
    pair.ends[OPENER].links.clear();
    pair.dial(false);
    pair.run(MOMENT);
    pair.hold(0, OPENER, false);
    pair.run(MOMENT);
    assert_eq!(pair.session(ACCEPTOR).epoch(), Epoch(2));
    assert!(pair.session(OPENER).is_attached() && pair.session(ACCEPTOR).is_attached());
    pair.exchange_and_close([1_000, 1_000]);
}

#[test]
fn an_open_that_is_rejected_ends_the_session() {
    for code in [RejectCode::Service, RejectCode::Unreachable, RejectCode::Limit, RejectCode::Draining] {
        let mut pair = Pair::new(1);
        pair.dial(false);
        pair.settle();
        let now = pair.now;
        let reject = Reject { code, received: 0, reason: "no".into() };
        pair.session(OPENER).handle_frame(now, Epoch(1), Frame::Reject(reject));
        pair.settle();
        assert_eq!(pair.ends[OPENER].outcome, Some(Outcome::Refused { code, reason: "no".into() }));
        assert!(!pair.dial(false));
    }
}

#[test]
fn an_attach_that_is_not_possible_changes_nothing() {
    let mut pair = Pair::open();
    let now = pair.now;
    assert_eq!(pair.session(ACCEPTOR).attach(now), Err(AttachError::NotOpener));
    pair.exchange_and_close([0, 0]);
    assert_eq!(pair.session(OPENER).attach(now), Err(AttachError::Closed));
    let mut pair = Pair::new(1);
    assert_eq!(pair.session(OPENER).rotate(now), Err(AttachError::WrongState));
    assert_eq!(pair.session(OPENER).epoch(), Epoch::NONE);
}

// --- resume ----------------------------------------------------------------------------------------------------------

#[test]
fn a_resume_sends_again_just_what_did_not_arrive() {
    let mut pair = Pair::open();
    for end in BOTH {
        pair.hold(0, end, true);
        pair.write(end, 30_000);
        pair.settle();
    }
    pair.cut(0, 0);
    pair.run(SECOND);
    for end in BOTH {
        assert_eq!(pair.read(end, usize::MAX), 30_000);
        assert_eq!(pair.payload_sent(end), 60_000, "all of it was lost");
    }
    for end in BOTH {
        pair.write(end, 30_000);
        pair.run(MOMENT);
        // The bytes are there, the acks for them are lost.
        assert_eq!(pair.session(end).replay_buffered(), 0);
    }
    pair.cut(1, 0);
    pair.run(SECOND);
    assert_eq!(BOTH.map(|end| pair.payload_sent(end)), [90_000, 90_000], "nothing of it was lost");
    pair.exchange_and_close([60_000, 60_000]);
}

#[test]
fn a_suspect_link_stays_in_use_until_the_new_one_answers_and_is_not_read_after() {
    let mut pair = Pair::open();
    pair.hold(0, ACCEPTOR, true);
    pair.write(ACCEPTOR, 1_000);
    pair.settle();
    pair.dial(false);
    pair.run(MOMENT);
    assert_eq!(pair.ends[OPENER].released, [Release::Fenced]);
    assert_eq!(pair.ends[ACCEPTOR].released, [Release::Fenced]);
    pair.exchange_and_close([30_000, 30_000]);
}

#[test]
fn a_resume_that_fails_leaves_the_suspect_link_in_use() {
    let mut pair = Pair::open();
    pair.dial(false);
    pair.settle();
    pair.cut(1, 0);
    pair.run(MOMENT);
    assert_eq!(pair.session(OPENER).epoch(), Epoch(2));
    assert!(pair.session(OPENER).is_attached());
    pair.write(OPENER, 1_000);
    pair.run(MOMENT);
    assert_eq!(pair.read(ACCEPTOR, usize::MAX), 1_000);
    assert_eq!(pair.frames(OPENER, 1), ["Hello"]);
    assert!(pair.dial(false));
    pair.exchange_and_close([2_000, 2_000]);
    assert_eq!(pair.ends[OPENER].attached, [Intent::Open, Intent::Resume]);
}

#[test]
fn a_suspect_link_that_is_lost_while_the_resume_is_under_way_changes_nothing() {
    let mut pair = Pair::open();
    pair.dial(false);
    pair.settle();
    pair.hold(1, OPENER, true);
    pair.cut(0, 0);
    pair.run(MOMENT);
    assert!(!pair.session(OPENER).is_attached());
    pair.hold(1, OPENER, false);
    pair.run(MOMENT);
    assert_eq!(pair.session(OPENER).epoch(), Epoch(2), "no third link was needed");
    pair.exchange_and_close([2_000, 2_000]);
}

#[test]
fn a_grant_that_is_lost_with_a_suspect_link_is_repeated_on_the_new_one() {
    let mut pair = Pair::open();
    for _ in 0..2 {
        pair.write(ACCEPTOR, 64 * 1024);
        pair.run(SECOND);
    }
    assert_eq!(pair.payload_sent(ACCEPTOR), 64 * 1024, "the window is full");
    pair.dial(false);
    pair.settle();
    pair.hold(1, OPENER, true);
    pair.hold(0, OPENER, true);
    pair.read(OPENER, usize::MAX);
    pair.settle();
    assert_eq!(pair.frames(OPENER, 0).last(), Some(&"Ack"), "it follows the Hello, on the suspect link");
    pair.cut(0, 0);
    pair.run(MOMENT);
    pair.hold(1, OPENER, false);
    pair.run(MOMENT);
    assert_eq!(pair.read(OPENER, usize::MAX), 64 * 1024);
}

#[test]
fn an_ack_for_more_than_the_hello_said_is_where_the_acceptor_goes_on() {
    let mut pair = Pair::open();
    pair.link_capacity = usize::MAX;
    pair.write(ACCEPTOR, 40_000);
    pair.settle();
    // The opener says in the Hello that it holds nothing, and reads most of it on the suspect link after that.
    let (now, epoch, window) = (pair.now, Epoch(2), 64 * 1024);
    let session = pair.session(ACCEPTOR);
    session.accept(now, &hello(2, Intent::Resume, 0)).unwrap();
    assert_eq!(session.poll_transmit(now, epoch).unwrap().name(), "Accept");
    assert!(matches!(session.poll_transmit(now, epoch), Some(Frame::Data { offset: 0, .. })));
    session.handle_frame(now, epoch, Frame::Ack { received: 39_000, window });
    let next = session.poll_transmit(now, epoch);
    assert!(matches!(next, Some(Frame::Data { offset: 39_000, payload }) if payload.len() == 1_000));
}

#[test]
fn a_resume_that_is_rejected_for_now_is_tried_again() {
    for code in [RejectCode::Limit, RejectCode::Draining, RejectCode::Stale, RejectCode::NotAttached] {
        let mut pair = Pair::open();
        pair.write(OPENER, 1_000);
        pair.resumes = false;
        pair.cut(0, 0);
        pair.run(MOMENT);
        pair.dial(false);
        pair.settle();
        let (now, epoch) = (pair.now, pair.session(OPENER).epoch());
        let reject = Reject { code, received: 0, reason: "later".into() };
        pair.session(OPENER).handle_frame(now, epoch, Frame::Reject(reject));
        pair.settle();
        assert_eq!(pair.ends[OPENER].outcome, None);
        pair.resumes = true;
        pair.exchange_and_close([2_000, 2_000]);
        assert!(matches!(pair.ends[OPENER].released[..], [Release::Rejected { .. }, ..]));
    }
}

// --- processes that restart ------------------------------------------------------------------------------------------

#[test]
fn an_acceptor_that_restarted_refuses_the_resume_as_unknown() {
    let mut pair = Pair::open();
    pair.write(OPENER, 1_000);
    pair.kill(ACCEPTOR);
    pair.run(SECOND);
    let Some(Outcome::Refused { code, .. }) = &pair.ends[OPENER].outcome else { panic!("refused") };
    assert_eq!(*code, RejectCode::Unknown);
    assert_eq!(pair.allocated(OPENER), 0);
}

/// A session that one instance has accepted and whose link is lost, and a resume that another link brings to `instance`.
fn resuming_at(instance: Instance) -> (Pair, Epoch) {
    let mut pair = Pair::with_settings(1, [settings(64 * 1024, 64 * 1024); 2]);
    pair.resumes = false;
    pair.dial(false);
    pair.session(OPENER).meet(Epoch(1), ACCEPTED_BY);
    pair.run(SECOND);
    pair.write(OPENER, 1_000);
    pair.cut(0, 0);
    pair.run(MOMENT);
    pair.dial(false);
    pair.session(OPENER).meet(Epoch(2), instance);
    pair.settle();
    (pair, Epoch(2))
}

const ACCEPTED_BY: Instance = Instance([1; 16]);
const ANOTHER: Instance = Instance([2; 16]);

fn unknown() -> Frame<'static> {
    Frame::Reject(Reject { code: RejectCode::Unknown, received: 0, reason: "no such session here".into() })
}

#[test]
fn a_session_that_another_process_does_not_know_is_looked_for_until_its_resume_window_is_over() {
    let (mut pair, epoch) = resuming_at(ANOTHER);
    let now = pair.now;
    pair.session(OPENER).handle_frame(now, epoch, unknown());
    pair.settle();
    assert_eq!(pair.ends[OPENER].outcome, None, "another replica may have it");
    pair.resumes = true;
    pair.exchange_and_close([2_000, 2_000]);
}

#[test]
fn a_session_that_its_own_process_does_not_know_has_ended() {
    let (mut pair, epoch) = resuming_at(ACCEPTED_BY);
    let now = pair.now;
    pair.session(OPENER).handle_frame(now, epoch, unknown());
    pair.settle();
    assert!(matches!(pair.ends[OPENER].outcome, Some(Outcome::Refused { code: RejectCode::Unknown, .. })));
}

#[test]
fn a_process_that_knows_the_sessions_former_one_to_be_gone_ends_it_at_once() {
    for (gone, ends) in [(ACCEPTED_BY, true), (Instance([3; 16]), false)] {
        let (mut pair, epoch) = resuming_at(ANOTHER);
        let now = pair.now;
        pair.session(OPENER).handle_frame(now, epoch, Frame::Gone { instance: gone });
        pair.session(OPENER).handle_frame(now, epoch, unknown());
        pair.settle();
        assert_eq!(pair.ends[OPENER].outcome.is_some(), ends);
    }
}
