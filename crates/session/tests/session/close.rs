//! Half-close and the exchange of Dones: the far application sees what the near one did, and nothing is kept.

use std::time::Duration;

use ferry_session::{Outcome, Release};

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
    pair.dial_after_the_acceptor_expired();
    for end in BOTH {
        pair.read(end, usize::MAX);
    }
    assert_finished(&mut pair);
}
