//! Resets: what was written before one arrives before it, the far application is reset, and nothing is kept.

use std::time::Duration;

use ferry_session::{Epoch, Frame, Intent, Outcome, RejectCode, Release, Reset, ResetCode};

use crate::faults::hello;
use crate::pair::{ACCEPTOR, MOMENT, OPENER, Pair, settings};

const BOTH: [usize; 2] = [OPENER, ACCEPTOR];

const SECOND: Duration = Duration::from_secs(1);

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

// --- what was written before it ----------------------------------------------------------------------------------------

/// The application's connection was reset, after everything that it had written was taken.
fn break_off(pair: &mut Pair, end: usize) {
    let now = pair.now;
    pair.session(end).reset_after_sent(now, ResetCode::Application, "broken pipe");
}

#[test]
fn what_was_written_before_a_reset_arrives_before_it() {
    for end in BOTH {
        let mut pair = Pair::open();
        pair.write(end, 30_000);
        break_off(&mut pair, end);
        assert_eq!(pair.write(end, 1), 0, "nothing is taken after it");
        pair.run(MOMENT);
        assert_eq!(pair.read(1 - end, usize::MAX), 30_000);
        assert!(!pair.ends[1 - end].saw_finish, "a reset is no end of file");
        assert_reset_by(&mut pair, end);
    }
}

#[test]
fn a_reset_waits_for_the_window_and_for_the_next_link() {
    for end in BOTH {
        let mut pair = Pair::open_with([settings(60_000, 20_000); 2]);
        pair.write(end, 60_000);
        break_off(&mut pair, end);
        let mut arrived = 0;
        for round in 0..20 {
            pair.run(10 * SECOND);
            if round % 4 == 1
                && let Some(link) = pair.open_links().last().copied()
            {
                pair.cut(link, 0);
            }
            arrived += pair.read(1 - end, 6_000);
        }
        assert_eq!(arrived + pair.read(1 - end, usize::MAX), 60_000);
        assert_reset_by(&mut pair, end);
    }
}

#[test]
fn what_was_sent_behind_the_hello_arrives_before_the_reset() {
    let mut pair = Pair::new(1);
    pair.dial(false);
    pair.write(OPENER, 40_000);
    break_off(&mut pair, OPENER);
    pair.run(SECOND);
    assert_eq!(pair.read(ACCEPTOR, usize::MAX), 40_000);
    assert_reset_by(&mut pair, OPENER);
}

#[test]
fn an_end_and_a_reset_behind_it_both_arrive() {
    for end in BOTH {
        let mut pair = Pair::open();
        pair.write(end, 1_000);
        pair.finish(end);
        pair.run(MOMENT);
        pair.read(1 - end, usize::MAX);
        assert!(pair.ends[1 - end].saw_finish);
        break_off(&mut pair, end);
        pair.run(MOMENT);
        assert_reset_by(&mut pair, end);
    }
}

#[test]
fn an_application_that_takes_nothing_holds_up_a_reset_for_twice_the_liveness_time_only() {
    for end in BOTH {
        let mut pair = Pair::open_with([settings(60_000, 20_000); 2]);
        pair.write(end, 60_000);
        break_off(&mut pair, end);
        pair.run(29 * SECOND);
        assert_eq!(pair.ends[1 - end].outcome, None);
        pair.run(2 * SECOND);
        assert_eq!(pair.read(1 - end, usize::MAX), 20_000);
        assert_reset_by(&mut pair, end);
    }
}

#[test]
fn rotations_give_an_application_that_takes_nothing_no_more_time() {
    for end in BOTH {
        let mut pair = Pair::open_with([settings(60_000, 20_000); 2]);
        pair.write(end, 60_000);
        break_off(&mut pair, end);
        for _ in 0..4 {
            pair.run(8 * SECOND);
            pair.dial(true);
        }
        pair.run(MOMENT);
        assert_reset_by(&mut pair, end);
    }
}

#[test]
fn a_hard_reset_does_not_wait_for_what_an_earlier_one_still_sends() {
    for end in BOTH {
        let mut pair = Pair::open_with([settings(60_000, 20_000); 2]);
        pair.write(end, 60_000);
        break_off(&mut pair, end);
        pair.run(MOMENT);
        pair.session(end).reset(ResetCode::Draining, "the tunnel is shutting down");
        pair.run(MOMENT);
        assert_reset_by(&mut pair, end);
    }
}

#[test]
fn what_an_application_that_is_gone_does_not_take_holds_nobody_up() {
    for end in BOTH {
        let mut pair = Pair::open_with([settings(60_000, 20_000); 2]);
        pair.session(1 - end).discard_received();
        for _ in 0..10 {
            assert_eq!(pair.write(end, 20_000), 20_000);
            pair.run(SECOND);
        }
        assert_eq!(pair.session(end).acked(), 200_000);
        assert_eq!(pair.allocated(1 - end), 0);
    }
}

// --- what the peer owes ------------------------------------------------------------------------------------------------

/// Lets time pass in which the peer of `end` sends Pings over the link of `epoch`, and nothing else.
fn only_pings(pair: &mut Pair, end: usize, epoch: Epoch, seconds: u64) {
    for token in 0..seconds {
        pair.run(SECOND);
        let now = pair.now;
        pair.session(end).handle_frame(now, epoch, Frame::Ping { token });
    }
}

#[test]
fn a_reset_that_is_never_answered_ends_the_session_after_twice_the_liveness_time() {
    for end in BOTH {
        let mut pair = Pair::open();
        pair.hold(0, 1 - end, true);
        reset(&mut pair, end);
        only_pings(&mut pair, end, Epoch(1), 29);
        assert_eq!(pair.ends[end].outcome, None);
        only_pings(&mut pair, end, Epoch(1), 2);
        assert_eq!(pair.ends[end].outcome.as_ref().map(kind), Some("reset here"));
        assert_eq!(pair.session(end).poll_timeout(), None);
    }
}

#[test]
fn a_done_that_is_held_back_ends_the_session_after_twice_the_liveness_time() {
    for end in BOTH {
        let mut pair = Pair::open();
        for end in BOTH {
            pair.finish(end);
        }
        pair.run(Duration::from_micros(1));
        let acked = |pair: &mut Pair| BOTH.map(|end| pair.session(end).acked());
        while acked(&mut pair) != [1, 1] {
            let until = pair.now + MOMENT;
            pair.step(until);
        }
        pair.hold(0, 1 - end, true);
        only_pings(&mut pair, end, Epoch(1), 31);
        assert_eq!(pair.ends[end].outcome, Some(Outcome::Finished));
    }
}

#[test]
fn a_rotation_whose_retire_never_comes_ends_in_a_resume_after_twice_the_liveness_time() {
    let mut pair = Pair::open();
    pair.dial(true);
    pair.hold(0, ACCEPTOR, true);
    pair.run(MOMENT);
    only_pings(&mut pair, OPENER, Epoch(1), 29);
    assert!(pair.ends[OPENER].released.is_empty());
    only_pings(&mut pair, OPENER, Epoch(1), 2);
    assert_eq!(pair.ends[OPENER].released, [Release::Overdue, Release::Abandoned]);
    pair.run(SECOND);
    assert_eq!(pair.ends[OPENER].attached.last(), Some(&Intent::Resume));
    pair.exchange_and_close([1_000, 1_000]);
}
