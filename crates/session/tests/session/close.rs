//! Half-close, the exchange of Dones, and resets: the far application sees what the near one did, and nothing is kept.

use std::time::Duration;

use ferry_session::{Epoch, Frame, Intent, Outcome, RejectCode, Release, Reset, ResetCode};

use crate::faults::hello;
use crate::pair::{ACCEPTOR, MOMENT, OPENER, Pair};

const BOTH: [usize; 2] = [OPENER, ACCEPTOR];

fn assert_finished(pair: &mut Pair) {
    for end in BOTH {
        assert_eq!(pair.ends[end].outcome, Some(Outcome::Finished), "end {end}");
        assert!(pair.ends[end].saw_finish, "end {end}");
        assert_eq!(pair.allocated(end), 0, "end {end}");
    }
}

// --- half-close ------------------------------------------------------------------------------------------------------

#[test]
fn a_half_close_arrives_after_the_last_byte_and_the_other_direction_goes_on() {
    for end in BOTH {
        let mut pair = Pair::open();
        pair.write(end, 30_000);
        pair.finish(end);
        pair.run(MOMENT);
        assert!(!pair.session(1 - end).is_drained(), "the end comes after the bytes");
        assert_eq!(pair.read(1 - end, usize::MAX), 30_000);
        assert!(pair.ends[1 - end].saw_finish);

        assert_eq!(pair.write(1 - end, 20_000), 20_000);
        pair.run(MOMENT);
        assert_eq!(pair.read(end, usize::MAX), 20_000);
        assert!(!pair.ends[end].saw_finish);
        assert_eq!(pair.ends[end].outcome, None);
        pair.finish(1 - end);
        pair.run(MOMENT);
        pair.read(end, 0);
        assert_finished(&mut pair);
    }
}

#[test]
fn nothing_can_be_written_after_the_finish() {
    let mut pair = Pair::open();
    pair.finish(OPENER);
    assert_eq!((pair.session(OPENER).writable(), pair.write(OPENER, 10)), (0, 0));
}

#[test]
fn a_finish_survives_a_link_that_is_lost_between_the_last_byte_and_it() {
    for end in BOTH {
        let mut pair = Pair::open();
        pair.write(end, 100);
        pair.run(MOMENT);
        pair.finish(end);
        pair.settle();
        assert_eq!(pair.frames(end, 0).last(), Some(&"Finish"));
        pair.cut(0, 0);
        pair.run(Duration::from_secs(1));
        assert_eq!(pair.frames(end, 1).last(), Some(&"Finish"), "sent again");
        pair.read(1 - end, usize::MAX);
        assert!(pair.ends[1 - end].saw_finish);
    }
}

#[test]
fn a_finish_whose_ack_is_lost_is_sent_again_only_by_who_cannot_know() {
    for end in BOTH {
        let mut pair = Pair::open();
        pair.write(end, 100);
        pair.finish(end);
        pair.hold(0, 1 - end, true);
        pair.run(MOMENT);
        pair.cut(0, 0);
        pair.run(Duration::from_secs(1));
        assert!(pair.session(end).is_attached());
        // The Hello has told the acceptor.
        let again = ["Data", "Finish"].map(|name| pair.frames(end, 1).contains(&name));
        assert_eq!(again, [end == OPENER; 2]);
        assert_eq!(pair.session(end).acked(), 101);
    }
}

// --- Done ------------------------------------------------------------------------------------------------------------

#[test]
fn a_session_ends_when_both_are_done_and_holds_nothing() {
    let mut pair = Pair::open();
    pair.exchange_and_close([50_000, 70_000]);
    assert_finished(&mut pair);
    for end in BOTH {
        assert_eq!(pair.frames(end, 0).iter().filter(|name| **name == "Done").count(), 1);
        assert_eq!(pair.ends[end].released, [Release::Finished]);
        assert_eq!(pair.session(end).poll_timeout(), None);
    }
}

/// Ends everything but for the Done of `end`, which is lost with its link.
fn lose_the_done_of(end: usize) -> Pair {
    let mut pair = Pair::open();
    pair.write(end, 10);
    pair.write(1 - end, 10);
    pair.run(MOMENT);
    pair.finish(1 - end);
    pair.run(MOMENT);
    pair.finish(end);
    pair.settle();
    // The Finish is there; what it is answered with is still on its way.
    pair.run(Duration::from_micros(1));
    assert_eq!(pair.session(1 - end).received(), 11);
    pair.hold(0, end, true);
    pair.run(MOMENT);
    assert_eq!(pair.ends[end].outcome, Some(Outcome::Finished));
    assert_eq!(pair.ends[1 - end].outcome, None);
    pair.cut(0, 0);
    pair
}

#[test]
fn an_opener_that_lost_the_acceptors_done_is_told_by_a_reject() {
    let mut pair = lose_the_done_of(ACCEPTOR);
    pair.run(Duration::from_secs(1));
    for end in BOTH {
        pair.read(end, usize::MAX);
    }
    assert_finished(&mut pair);
    assert_eq!(pair.frames(OPENER, 1), ["Hello", "Done"]);
}

#[test]
fn an_acceptor_that_lost_the_openers_done_finishes_when_its_resume_window_is_over() {
    let mut pair = lose_the_done_of(OPENER);
    pair.run(Duration::from_secs(599));
    assert_eq!(pair.ends[ACCEPTOR].outcome, None);
    pair.run(Duration::from_secs(2));
    for end in BOTH {
        pair.read(end, usize::MAX);
    }
    assert_finished(&mut pair);
}

#[test]
fn an_opener_whose_last_acks_are_lost_learns_from_the_reject_that_everything_arrived() {
    let mut pair = Pair::open();
    pair.finish(ACCEPTOR);
    pair.run(MOMENT);
    pair.hold(0, ACCEPTOR, true);
    pair.write(OPENER, 100);
    pair.finish(OPENER);
    pair.run(MOMENT);
    pair.resumes = false;
    pair.cut(0, 0);
    pair.run(MOMENT);
    let later = pair.now + Duration::from_secs(601);
    pair.session(ACCEPTOR).handle_timeout(later);
    pair.dial(false);
    pair.run(MOMENT);
    for end in BOTH {
        pair.read(end, usize::MAX);
    }
    assert_finished(&mut pair);
}

// --- reset -----------------------------------------------------------------------------------------------------------

fn reset(pair: &mut Pair, end: usize) {
    pair.session(end).reset(ResetCode::Application, "broken pipe");
}

#[track_caller]
fn assert_reset_by(pair: &mut Pair, end: usize) {
    let (code, reason) = (ResetCode::Application, "broken pipe".to_owned());
    assert_eq!(pair.ends[end].outcome, Some(Outcome::ResetHere { code, reason: reason.clone() }));
    assert_eq!(pair.ends[1 - end].outcome, Some(Outcome::ResetByPeer { code, reason }));
    for end in BOTH {
        assert_eq!(pair.session(end).replay_buffered(), 0);
        assert_eq!(pair.session(end).poll_timeout(), None, "end {end} waits for nothing");
    }
}

#[test]
fn a_reset_reaches_the_other_end_at_once_when_attached() {
    for end in BOTH {
        let mut pair = Pair::open();
        pair.write(end, 10_000);
        pair.write(1 - end, 10_000);
        reset(&mut pair, end);
        assert_eq!((pair.session(end).writable(), pair.allocated(end)), (0, 0));
        pair.run(MOMENT);
        assert_reset_by(&mut pair, end);
    }
}

#[test]
fn a_reset_while_detached_waits_for_the_next_attach() {
    for end in BOTH {
        let mut pair = Pair::open();
        pair.resumes = false;
        pair.write(1 - end, 10_000);
        pair.cut(0, 0);
        pair.run(MOMENT);
        reset(&mut pair, end);
        pair.run(Duration::from_secs(300));
        assert_eq!(BOTH.map(|end| pair.ends[end].outcome.clone()), [None, None]);
        pair.dial(false);
        pair.run(MOMENT);
        assert_reset_by(&mut pair, end);
    }
}

#[test]
fn a_reset_that_is_lost_with_its_link_is_sent_on_the_next_one() {
    for end in BOTH {
        let mut pair = Pair::open();
        reset(&mut pair, end);
        pair.settle();
        assert_eq!(pair.frames(end, 0).last(), Some(&"Reset"));
        pair.cut(0, 0);
        pair.run(Duration::from_secs(1));
        assert_reset_by(&mut pair, end);
    }
}

#[test]
fn a_reset_goes_behind_the_hello() {
    let mut opening = Pair::new(1);
    opening.dial(false);
    let mut resuming = Pair::open();
    resuming.cut(0, 0);
    resuming.settle();
    for (mut pair, link) in [(opening, 0), (resuming, 1)] {
        reset(&mut pair, OPENER);
        pair.run(Duration::from_secs(1));
        assert_eq!(pair.frames(OPENER, link)[..2], ["Hello", "Reset"]);
        assert_reset_by(&mut pair, OPENER);
    }
}

#[test]
fn a_reset_during_a_resume_reaches_the_other_end() {
    for end in BOTH {
        let mut pair = Pair::open();
        pair.cut(0, 0);
        pair.resumes = false;
        pair.run(MOMENT);
        pair.dial(false);
        pair.hold(1, ACCEPTOR, true);
        pair.run(MOMENT);
        reset(&mut pair, end);
        pair.run(MOMENT);
        pair.hold(1, ACCEPTOR, false);
        pair.run(MOMENT);
        assert_reset_by(&mut pair, end);
    }
}

/// A rotation that goes on at one end only, as far as it can while `held` sends nothing over link `index`.
fn half_rotated(index: usize, held: usize) -> Pair {
    let mut pair = Pair::open();
    pair.dial(true);
    pair.hold(index, held, true);
    pair.run(MOMENT);
    pair
}

#[test]
fn a_reset_during_a_rotation_reaches_the_other_end() {
    for (index, held) in [(0, OPENER), (0, ACCEPTOR), (1, OPENER), (1, ACCEPTOR)] {
        for end in BOTH {
            let mut pair = half_rotated(index, held);
            reset(&mut pair, end);
            pair.run(MOMENT);
            pair.hold(index, held, false);
            // An acceptor whose answer got lost knows of no better end than that of the resume window.
            pair.run(Duration::from_secs(601));
            assert_eq!(pair.ends[end].outcome.as_ref().map(kind), Some("reset here"), "{index} {held} {end}");
            assert_eq!(pair.ends[1 - end].outcome.as_ref().map(kind), Some("reset"), "{index} {held} {end}");
        }
    }
}

fn kind(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::ResetHere { .. } => "reset here",
        Outcome::ResetByPeer { .. } | Outcome::Refused { code: RejectCode::Closed, .. } => "reset",
        _ => "other",
    }
}

#[test]
fn the_answer_to_a_reset_goes_where_the_peer_reads_it() {
    let reset = Frame::Reset(Reset { code: ResetCode::Application, reason: "".into() });
    for retired in [false, true] {
        let mut pair = Pair::open();
        let (now, old, new) = (pair.now, Epoch(1), Epoch(2));
        let session = pair.session(ACCEPTOR);
        session.accept(now, &hello(2, Intent::Rotate, 0)).unwrap();
        if retired {
            assert_eq!(session.poll_transmit(now, old), Some(Frame::Retire { end: 0 }));
        }
        session.handle_frame(now, old, reset.clone());
        let (read, unread) = if retired { (new, old) } else { (old, new) };
        assert_eq!(session.poll_transmit(now, unread), None);
        let sent: Vec<_> = std::iter::from_fn(|| session.poll_transmit(now, read).map(|frame| frame.name())).collect();
        assert_eq!(sent, if retired { vec!["Accept", "Done"] } else { vec!["Done"] });
    }
}

#[test]
fn a_session_that_never_had_a_link_is_reset_without_a_word() {
    let mut pair = Pair::new(1);
    reset(&mut pair, OPENER);
    pair.settle();
    assert_eq!(pair.ends[OPENER].outcome.as_ref().map(kind), Some("reset here"));
    assert!(!pair.dial(false) && pair.sent.is_empty());
}

#[test]
fn resets_that_cross_end_both_ends() {
    let mut pair = Pair::open();
    for end in BOTH {
        reset(&mut pair, end);
    }
    pair.run(MOMENT);
    for end in BOTH {
        assert_eq!(pair.ends[end].outcome.as_ref().map(kind), Some("reset here"));
        assert_eq!(pair.session(end).poll_timeout(), None);
    }
}

#[test]
fn a_second_reset_changes_nothing() {
    let mut pair = Pair::open();
    reset(&mut pair, OPENER);
    pair.session(OPENER).reset(ResetCode::Draining, "too late");
    pair.run(MOMENT);
    pair.session(OPENER).reset(ResetCode::Draining, "much too late");
    assert_reset_by(&mut pair, OPENER);
}

#[test]
fn bytes_that_came_before_the_peers_reset_may_still_be_read() {
    let mut pair = Pair::open();
    pair.write(OPENER, 1_000);
    pair.run(MOMENT);
    reset(&mut pair, OPENER);
    pair.run(MOMENT);
    assert_eq!(pair.read(ACCEPTOR, usize::MAX), 1_000);
    assert!(!pair.ends[ACCEPTOR].saw_finish);
    assert_eq!(pair.allocated(ACCEPTOR), 0);
}

#[test]
fn a_reset_outranks_everything_that_is_waiting_to_be_sent() {
    let mut pair = Pair::open();
    pair.link_capacity = 1;
    pair.write(OPENER, 60_000);
    pair.settle();
    reset(&mut pair, OPENER);
    pair.run(MOMENT);
    assert_reset_by(&mut pair, OPENER);
    assert!(pair.payload_sent(OPENER) < 60_000);
    assert_eq!(pair.ends[ACCEPTOR].attached, [Intent::Open]);
}
