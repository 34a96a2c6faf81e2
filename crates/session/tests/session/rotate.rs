//! Rotations: make before break, nothing twice, nothing stalls, and whatever goes wrong leaves an exact session.

use std::borrow::Cow;
use std::time::Duration;

use ferry_session::{AttachError, Frame, Intent, Outcome, Reject, RejectCode, Release};

use crate::pair::{ACCEPTOR, MOMENT, OPENER, Pair};

const BOTH: [usize; 2] = [OPENER, ACCEPTOR];

/// Both ends have written 1,000 bytes which the other has, and the opener begins to rotate to link 1.
fn rotating() -> Pair {
    let mut pair = Pair::open();
    for end in BOTH {
        pair.write(end, 1_000);
    }
    pair.run(Duration::from_millis(50));
    assert!(pair.dial(true));
    pair
}

/// More is written and read; in the end everything has arrived, each byte sent once if `once`.
#[track_caller]
fn finish_exactly(mut pair: Pair, once: bool) {
    let total = BOTH.map(|end| pair.ends[end].written + 5_000);
    pair.exchange_and_close(total);
    for end in BOTH {
        let sent = pair.payload_sent(end);
        assert!(sent >= total[end] && (!once || sent == total[end]), "{sent} bytes sent for {}", total[end]);
    }
}

#[test]
fn a_rotation_moves_both_directions_and_sends_nothing_twice() {
    let mut pair = Pair::open();
    pair.delay = 10_000;
    pair.link_capacity = 5_000;
    for round in 0..50 {
        for end in BOTH {
            pair.write(end, 3_000);
        }
        pair.dial(true);
        pair.run(Duration::from_micros(700 * round));
        for end in BOTH {
            pair.read(end, usize::MAX);
        }
    }
    pair.run(Duration::from_secs(1));
    for end in BOTH {
        assert!(pair.ends[end].attached.len() > 10);
        assert!(pair.ends[end].attached[1..].iter().all(|intent| *intent == Intent::Rotate));
        // One that comes too early, while the acceptor still drains, is put off.
        let fine = |release: &Release| matches!(release, Release::Finished | Release::Rejected { .. });
        assert!(pair.ends[end].released.iter().all(fine));
    }
    finish_exactly(pair, true);
}

#[test]
fn each_end_retires_the_old_link_with_its_last_frame_and_goes_on_over_the_new_one() {
    let mut pair = rotating();
    pair.run(MOMENT);
    for end in BOTH {
        assert_eq!(pair.frames(end, 0).last(), Some(&"Retire"));
        assert_eq!(pair.ends[end].released, [Release::Finished]);
        assert_eq!(pair.ends[end].links.len(), 1);
        pair.write(end, 10);
    }
    pair.run(MOMENT);
    assert!(BOTH.iter().all(|end| pair.frames(*end, 1).contains(&"Data")));
    finish_exactly(pair, true);
}

#[test]
fn nothing_stalls_while_a_rotation_waits_for_its_answer() {
    let mut pair = rotating();
    pair.hold(1, OPENER, true);
    for end in BOTH {
        pair.write(end, 5_000);
        pair.run(MOMENT);
        assert_eq!(pair.read(1 - end, usize::MAX), 6_000);
    }
    pair.hold(1, OPENER, false);
    finish_exactly(pair, true);
}

#[test]
fn the_new_link_is_not_read_before_the_old_ones_retire() {
    for end in BOTH {
        let mut pair = rotating();
        pair.hold(0, end, true);
        pair.run(MOMENT);
        pair.write(end, 2_000);
        pair.run(MOMENT);
        assert!(pair.frames(end, 1).contains(&"Data"), "sent behind the Retire that is under way");
        assert_eq!(pair.read(1 - end, usize::MAX), 1_000);
        pair.hold(0, end, false);
        pair.run(MOMENT);
        assert_eq!(pair.read(1 - end, usize::MAX), 2_000);
        finish_exactly(pair, true);
    }
}

#[test]
fn a_retire_may_arrive_before_the_accept() {
    let mut pair = rotating();
    pair.hold(1, ACCEPTOR, true);
    pair.run(MOMENT);
    assert_eq!(pair.frames(ACCEPTOR, 0).last(), Some(&"Retire"));
    for end in BOTH {
        pair.write(end, 500);
    }
    pair.run(MOMENT);
    assert!(pair.session(OPENER).is_attached());
    pair.hold(1, ACCEPTOR, false);
    pair.run(MOMENT);
    assert_eq!(pair.ends[OPENER].attached, [Intent::Open, Intent::Rotate]);
    finish_exactly(pair, true);
}

// --- refused ---------------------------------------------------------------------------------------------------------

#[test]
fn a_rotation_that_is_rejected_leaves_the_old_link_in_use() {
    // Whatever the reason: an acceptor in a rolling update answers Unknown or Draining to what it does not hold.
    for code in [RejectCode::Limit, RejectCode::Draining, RejectCode::Unknown, RejectCode::Closed, RejectCode::Stale] {
        let mut pair = rotating();
        pair.settle();
        let (now, epoch) = (pair.now, pair.session(OPENER).epoch());
        let reject = Reject { code, received: 0, reason: Cow::Borrowed("not now") };
        pair.session(OPENER).handle_frame(now, epoch, Frame::Reject(reject));
        pair.run(MOMENT);
        assert_eq!(pair.ends[OPENER].released, [Release::Rejected { code, reason: "not now".into() }]);
        assert!(pair.session(OPENER).is_attached());
        for end in BOTH {
            pair.write(end, 500);
        }
        pair.run(MOMENT);
        assert_eq!(BOTH.map(|end| pair.read(end, usize::MAX)), [1_500, 1_500]);
        assert!(pair.dial(true), "it can be tried again");
        finish_exactly(pair, true);
    }
}

#[test]
fn an_opener_resumes_as_soon_as_a_rotation_tells_it_that_the_acceptor_has_lost_the_link() {
    let mut pair = rotating();
    let (now, lost) = (pair.now, pair.link_epoch(ACCEPTOR));
    pair.links[0].black = true;
    pair.let_go(ACCEPTOR, 0, false);
    pair.session(ACCEPTOR).detach(now, lost);
    pair.write(ACCEPTOR, 500);
    // No timer of the opener's is due by then: it has nothing under way but the rotation.
    pair.run(Duration::from_millis(500));
    assert_eq!(pair.ends[OPENER].attached, [Intent::Open, Intent::Resume]);
    assert!(matches!(
        &pair.ends[OPENER].released[..],
        [Release::Rejected { code: RejectCode::NotAttached, .. }, Release::Abandoned]
    ));
    assert_eq!(pair.read(OPENER, usize::MAX), 1_500);
    finish_exactly(pair, false);
}

#[test]
fn a_link_that_is_refused_before_the_hello_leaves_the_session_as_it_is() {
    for rotates in [true, false] {
        for code in [RejectCode::Version, RejectCode::Limit, RejectCode::Draining] {
            let mut pair = Pair::open();
            pair.resumes = false;
            if !rotates {
                pair.cut(0, 0);
                pair.settle();
            }
            assert!(pair.dial(rotates));
            let (now, epoch) = (pair.now, pair.session(OPENER).epoch());
            let reject = Reject { code, received: 0, reason: Cow::Borrowed("not now") };
            pair.session(OPENER).handle_frame(now, epoch, Frame::Reject(reject));
            pair.run(MOMENT);
            assert_eq!(pair.ends[OPENER].released, [Release::Rejected { code, reason: "not now".into() }]);
            assert_eq!((pair.session(OPENER).is_attached(), pair.frames(OPENER, 1).len()), (rotates, 0));
            assert!(pair.dial(rotates), "another link can be tried");
            pair.resumes = true;
            pair.exchange_and_close([1_000, 1_000]);
        }
    }
}

#[test]
fn a_rotation_before_the_acceptor_has_ended_the_last_one_is_rejected_and_can_be_repeated() {
    let mut pair = rotating();
    pair.hold(0, OPENER, true);
    pair.run(MOMENT);
    assert!(pair.dial(true), "the opener is through with the first rotation");
    pair.run(MOMENT);
    assert!(matches!(
        &pair.ends[OPENER].released[..],
        [Release::Finished, Release::Rejected { code: RejectCode::Limit, .. }]
    ));
    pair.hold(0, OPENER, false);
    pair.run(MOMENT);
    assert!(pair.session(OPENER).may_rotate());
    assert!(pair.dial(true));
    pair.run(MOMENT);
    assert_eq!(pair.ends[ACCEPTOR].attached, [Intent::Open, Intent::Rotate, Intent::Rotate]);
    finish_exactly(pair, true);
}

#[test]
fn an_opener_knows_while_the_acceptor_still_reads_what_went_over_the_last_link() {
    let mut pair = rotating();
    assert!(!pair.session(OPENER).may_rotate(), "attaching");
    pair.hold(0, OPENER, true);
    pair.write(OPENER, 2_000);
    pair.run(MOMENT);
    assert_eq!(pair.ends[OPENER].released, [Release::Finished], "the opener is through with it");
    assert!(!pair.session(OPENER).may_rotate());
    pair.hold(0, OPENER, false);
    pair.run(Duration::from_millis(50));
    assert!(pair.session(OPENER).may_rotate());
    finish_exactly(pair, true);
}

#[test]
fn only_an_attached_opener_rotates_and_only_once_at_a_time() {
    let mut pair = rotating();
    let now = pair.now;
    assert_eq!(pair.session(OPENER).rotate(now), Err(AttachError::InFlight));
    assert_eq!(pair.session(OPENER).attach(now), Err(AttachError::InFlight));
    pair.hold(0, ACCEPTOR, true);
    pair.run(MOMENT);
    assert_eq!(pair.session(OPENER).rotate(now), Err(AttachError::InFlight), "draining");
    assert_eq!(pair.session(ACCEPTOR).rotate(now), Err(AttachError::NotOpener));
    pair.resumes = false;
    pair.cut(0, 0);
    pair.run(MOMENT);
    assert_eq!(pair.session(OPENER).rotate(now), Err(AttachError::WrongState), "detached");
}

// --- lost links ------------------------------------------------------------------------------------------------------

#[test]
fn a_new_link_that_is_lost_before_its_hello_arrives_leaves_the_old_one_in_use() {
    let mut pair = rotating();
    pair.settle();
    pair.cut(1, 0);
    pair.run(MOMENT);
    assert_eq!(pair.session(OPENER).epoch().0, 2);
    assert!(pair.session(OPENER).is_attached() && pair.session(ACCEPTOR).is_attached());
    assert_eq!(pair.ends[ACCEPTOR].attached, [Intent::Open], "it never heard of the new one");
    finish_exactly(pair, true);
}

#[test]
fn a_new_link_that_is_lost_after_the_accept_was_sent_ends_in_a_resume() {
    let mut pair = rotating();
    pair.hold(1, ACCEPTOR, true);
    pair.run(MOMENT);
    assert_eq!(pair.ends[ACCEPTOR].attached, [Intent::Open, Intent::Rotate]);
    pair.cut(1, 0);
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.ends[OPENER].attached, [Intent::Open, Intent::Resume]);
    finish_exactly(pair, false);
}

#[test]
fn either_link_that_is_lost_while_the_old_one_drains_ends_in_a_resume() {
    for draining in BOTH {
        for lost in [0, 1] {
            let mut pair = rotating();
            pair.hold(0, 1 - draining, true);
            pair.run(MOMENT);
            assert_eq!(pair.ends[draining].links.len(), 2);
            for end in BOTH {
                pair.write(end, 2_000);
            }
            pair.run(MOMENT);
            pair.cut(lost, 0);
            pair.run(MOMENT);
            pair.hold(0, 1 - draining, false);
            pair.run(Duration::from_secs(1));
            assert_eq!(pair.ends[draining].attached.last(), Some(&Intent::Resume), "{draining} {lost}");
            assert!(lost == 1 || pair.ends[draining].released.contains(&Release::Abandoned));
            finish_exactly(pair, false);
        }
    }
}

#[test]
fn an_old_link_that_is_lost_before_the_accept_takes_the_new_one_with_it() {
    let mut pair = rotating();
    pair.hold(1, ACCEPTOR, true);
    pair.settle();
    pair.cut(0, 0);
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.ends[OPENER].released, [Release::Abandoned]);
    assert_eq!(pair.ends[OPENER].attached, [Intent::Open, Intent::Resume]);
    finish_exactly(pair, false);
}

#[test]
fn a_retire_after_the_opener_gave_the_rotation_up_ends_in_a_resume() {
    let mut pair = rotating();
    pair.hold(0, ACCEPTOR, true);
    pair.hold(1, ACCEPTOR, true);
    pair.run(MOMENT);
    let (now, given_up) = (pair.now, pair.session(OPENER).epoch());
    pair.links[1].black = true;
    pair.let_go(OPENER, 1, false);
    pair.session(OPENER).detach(now, given_up);
    assert!(pair.session(OPENER).is_attached());
    pair.hold(0, ACCEPTOR, false);
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.ends[OPENER].attached, [Intent::Open, Intent::Resume]);
    assert_eq!(pair.ends[ACCEPTOR].outcome, None::<Outcome>);
    finish_exactly(pair, false);
}

#[test]
fn a_new_link_that_is_lost_after_the_peers_retire_takes_the_old_one_with_it() {
    let mut pair = rotating();
    pair.hold(1, ACCEPTOR, true);
    pair.run(MOMENT);
    let (now, lost) = (pair.now, pair.session(OPENER).epoch());
    pair.session(OPENER).detach(now, lost);
    assert!(!pair.session(OPENER).is_attached());
    pair.cut(1, 0);
    pair.run(Duration::from_secs(1));
    finish_exactly(pair, false);
}

// --- crossings -------------------------------------------------------------------------------------------------------

#[test]
fn a_done_on_the_link_in_use_does_not_rely_on_an_ack_in_a_hello_that_may_come_later() {
    let mut pair = Pair::open();
    pair.finish(OPENER);
    pair.run(MOMENT);
    let (now, old) = (pair.now, pair.link_epoch(OPENER));
    let session = pair.session(OPENER);
    session.handle_frame(now, old, Frame::Finish { offset: 0 });
    let next = session.rotate(now).unwrap();
    assert_eq!(session.poll_transmit(now, next).unwrap().name(), "Hello");
    assert!(matches!(session.poll_transmit(now, old), Some(Frame::Ack { received: 1, .. })));
    assert_eq!(session.poll_transmit(now, old), Some(Frame::Done));
}

#[test]
fn a_grant_in_a_hello_that_gets_stuck_is_told_on_the_link_in_use_too() {
    let mut pair = Pair::open();
    pair.write(ACCEPTOR, 64 * 1024);
    pair.run(MOMENT);
    pair.write(ACCEPTOR, 1_000);
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.payload_sent(ACCEPTOR), 64 * 1024, "the window is full");
    // The application takes everything just before the Hello is sent, which is never read.
    pair.read(OPENER, usize::MAX);
    pair.dial(true);
    let (now, next) = (pair.now, pair.session(OPENER).epoch());
    pair.black_hole(1);
    assert_eq!(pair.session(OPENER).poll_transmit(now, next).unwrap().name(), "Hello");
    pair.run(MOMENT);
    assert_eq!(pair.read(OPENER, usize::MAX), 1_000);
}
