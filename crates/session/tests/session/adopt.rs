//! A session outlives the process that carries it.

use std::time::Duration;

use ferry_session::{AckPoint, Intent, Outcome, RejectCode, ResetCode, Settings};

use crate::pair::{ACCEPTOR, MOMENT, OPENER, Pair, settings};
use crate::props::{BOTH, applications, for_each_seed, random_pair, trouble};
use crate::rng::Rng;

fn durable() -> Settings {
    Settings { ack_at: AckPoint::Delivery, ..settings(64 * 1024, 64 * 1024) }
}

/// A pair whose processes may be killed, with buffers, delays and links of random sizes.
fn random_durable_pair(seed: u64, rng: &mut Rng) -> Pair {
    random_pair(seed | 1, rng)
}

fn maybe_restart(pair: &mut Pair, rng: &mut Rng) {
    for end in BOTH {
        if rng.chance(8) {
            pair.restart(end);
        }
    }
}

#[test]
fn whatever_process_is_killed_every_byte_arrives_once_and_in_order() {
    for_each_seed(1_000, |seed| {
        let mut rng = Rng::new(seed ^ 0x5a7e);
        let mut pair = random_durable_pair(seed, &mut rng);
        let total = [rng.below(60_000), rng.below(60_000)];
        pair.dial(false);
        for _ in 0..20 + rng.below(60) {
            applications(&mut pair, &mut rng, total, true, true);
            maybe_restart(&mut pair, &mut rng);
            trouble(&mut pair, &mut rng);
            maybe_restart(&mut pair, &mut rng);
        }
        pair.exchange_and_close([0, 1].map(|end| total[end].max(pair.ends[end].written)));
    });
}

#[test]
fn applications_that_do_not_read_are_held_up_and_lose_nothing() {
    for_each_seed(100, |seed| {
        let mut rng = Rng::new(seed ^ 0x510e);
        let mut pair = random_durable_pair(seed, &mut rng);
        let total = [120_000, 120_000];
        pair.dial(false);
        for _ in 0..20 + rng.below(60) {
            applications(&mut pair, &mut rng, total, false, false);
            trouble(&mut pair, &mut rng);
            maybe_restart(&mut pair, &mut rng);
        }
        pair.exchange_and_close(total);
    });
}

#[test]
fn a_reset_at_any_moment_ends_both_ends_whatever_process_is_killed() {
    for_each_seed(400, |seed| {
        let mut rng = Rng::new(seed ^ 0x4e57);
        let mut pair = random_durable_pair(seed, &mut rng);
        let rounds = 1 + rng.below(30);
        pair.dial(false);
        for _ in 0..rounds {
            applications(&mut pair, &mut rng, [60_000, 60_000], true, false);
            trouble(&mut pair, &mut rng);
            maybe_restart(&mut pair, &mut rng);
        }
        let end = if pair.ends[ACCEPTOR].session.is_some() { rng.below(2) as usize } else { OPENER };
        for round in 0..1_000 {
            // The kernel tells of its application's reset again to each process that asks.
            if let Some(session) = pair.ends[end].session.as_mut() {
                session.reset_after_sent(pair.now, ResetCode::Application, "by seed");
            }
            if round < 30 {
                trouble(&mut pair, &mut rng);
                maybe_restart(&mut pair, &mut rng);
            }
            pair.read(1 - end, usize::MAX);
            assert!(!pair.ends[1 - end].saw_finish);
            if pair.ends.iter().all(|end| end.outcome.is_some() || (end.session.is_none() && end.tombstone.is_none())) {
                break;
            }
            pair.run(Duration::from_secs(1));
        }
        let outcomes = [end, 1 - end].map(|end| pair.ends[end].outcome.clone());
        // Who had no answer is told that the session has ended; who waits for one that is gone waits for its window.
        let told = |outcome: &Outcome| {
            matches!(
                outcome,
                Outcome::ResetHere { .. }
                    | Outcome::ResetByPeer { .. }
                    | Outcome::Refused { code: RejectCode::Closed, .. }
                    | Outcome::Expired
            )
        };
        assert!(outcomes.iter().flatten().all(told), "{outcomes:?}");
        assert!(outcomes[0].is_some(), "{outcomes:?}");
    });
}

fn write_both(pair: &mut Pair) {
    for end in BOTH {
        pair.write(end, 20_000);
    }
}

/// Writes at both ends, kills `end` after that, and lets both come to their end.
fn killed(mut pair: Pair, end: usize) {
    pair.restart(end);
    pair.exchange_and_close([30_000, 30_000]);
}

#[test]
fn a_session_is_taken_over_in_every_state() {
    for end in BOTH {
        // Attached, idle.
        killed(Pair::open_with([durable(); 2]), end);
        // Bytes on their way both ways.
        let mut pair = Pair::open_with([durable(); 2]);
        write_both(&mut pair);
        killed(pair, end);
        // Detached.
        let mut pair = Pair::open_with([durable(); 2]);
        write_both(&mut pair);
        pair.cut(0, 0);
        pair.settle();
        killed(pair, end);
        // Rotating, as far as it goes without one end's frames.
        for (link, held) in [(0, OPENER), (0, ACCEPTOR), (1, OPENER), (1, ACCEPTOR)] {
            let mut pair = Pair::open_with([durable(); 2]);
            write_both(&mut pair);
            pair.dial(true);
            pair.hold(link, held, true);
            pair.run(MOMENT);
            pair.hold(link, held, false);
            killed(pair, end);
        }
        // Half-closed either way, read or not.
        for closed in BOTH {
            for read in [true, false] {
                let mut pair = Pair::open_with([durable(); 2]);
                pair.write(closed, 30_000);
                pair.finish(closed);
                pair.run(MOMENT);
                if read {
                    pair.read(1 - closed, usize::MAX);
                    pair.run(MOMENT);
                }
                killed(pair, end);
            }
        }
    }
}

#[test]
fn an_opening_session_is_taken_over_with_its_early_bytes() {
    for early in [0, 5_000] {
        let mut pair = Pair::with_settings(1, [durable(); 2]);
        pair.write(OPENER, early);
        killed(pair, OPENER);
        let mut pair = Pair::with_settings(1, [durable(); 2]);
        pair.write(OPENER, early);
        pair.dial(false);
        pair.settle();
        killed(pair, OPENER);
    }
}

#[test]
fn what_the_application_has_not_taken_is_not_acknowledged() {
    for end in BOTH {
        let mut pair = Pair::open_with([durable(); 2]);
        pair.write(end, 20_000);
        pair.run(Duration::from_secs(60));
        assert_eq!((pair.session(end).acked(), pair.session(1 - end).receive_buffered()), (0, 20_000));
        assert_eq!(pair.ends[end].suspects, 0, "a slow application is not a dead link");
        pair.read(1 - end, 100);
        pair.run(Duration::from_millis(30));
        assert_eq!(pair.session(end).acked(), 100, "a few bytes are acknowledged within 25 ms");
        pair.finish(end);
        pair.read(1 - end, usize::MAX);
        pair.run(MOMENT);
        assert_eq!(pair.session(end).acked(), 20_000);
        pair.read(1 - end, 0);
        pair.run(MOMENT);
        assert_eq!(pair.session(end).acked(), 20_001, "the end, once it was passed on");
    }
}

#[test]
fn a_slow_application_does_not_make_its_link_suspect_however_short_the_liveness() {
    for end in BOTH {
        let mut pair = Pair::open_with([Settings { liveness: Duration::from_secs(1), ..durable() }; 2]);
        for _ in 0..20 {
            pair.write(end, 2_000);
            pair.run(Duration::from_secs(3));
        }
        assert_eq!((pair.ends[OPENER].suspects, pair.ends[ACCEPTOR].suspects), (0, 0));
        assert_eq!(pair.links.len(), 1);
    }
}

#[test]
fn a_window_that_was_told_just_before_the_end_of_the_process_is_kept_to() {
    for seed in 0..20 {
        let mut pair = Pair::with_settings(seed, [durable(); 2]);
        pair.dial(false);
        pair.drain(OPENER);
        // The Hello is on its way, and the next process may be lent less.
        pair.restart(OPENER);
        pair.run(Duration::from_secs(1));
        pair.write(ACCEPTOR, 60_000);
        pair.run(Duration::from_secs(1));
        assert_eq!(BOTH.map(|end| pair.ends[end].outcome.clone()), [None, None], "seed {seed}");
    }
}

#[test]
fn an_end_that_has_everything_finishes_though_nobody_answers_its_next_process() {
    for seed in 0..20 {
        let mut pair = Pair::with_settings(seed, [durable(); 2]);
        pair.dial(false);
        pair.run(Duration::from_secs(1));
        for end in BOTH {
            pair.write(end, 5_000);
            pair.finish(end);
        }
        while pair.ends[OPENER].outcome.is_none() {
            for end in BOTH {
                pair.read(end, usize::MAX);
            }
            pair.step(pair.now + Duration::from_secs(1));
        }
        pair.restart(ACCEPTOR);
        pair.run(Duration::from_secs(601));
        assert_eq!(pair.ends[ACCEPTOR].outcome, Some(Outcome::Finished), "seed {seed}");
    }
}

#[test]
fn a_reset_and_what_is_dropped_are_remembered() {
    for end in BOTH {
        let mut pair = Pair::open_with([durable(); 2]);
        pair.cut(0, 0);
        pair.settle();
        pair.session(end).reset(ResetCode::Withdrawn, "withdrawn");
        pair.drain(end);
        pair.restart(end);
        pair.run(Duration::from_secs(1));
        assert!(matches!(pair.ends[1 - end].outcome, Some(Outcome::ResetByPeer { code: ResetCode::Withdrawn, .. })));

        let mut pair = Pair::open_with([durable(); 2]);
        pair.session(end).discard_received();
        pair.drain(end);
        pair.restart(end);
        pair.write(1 - end, 20_000);
        pair.run(Duration::from_secs(1));
        assert_eq!(pair.session(1 - end).acked(), 20_000, "nobody is waited for");
    }
}

#[test]
fn bytes_that_a_reset_dropped_are_not_sent_by_the_next_process() {
    for end in BOTH {
        let mut pair = Pair::open_with([durable(); 2]);
        pair.cut(0, 0);
        pair.settle();
        pair.write(end, 20_000);
        pair.session(end).reset(ResetCode::Withdrawn, "withdrawn");
        pair.drain(end);
        // Not all of the memory that they are in was given back yet.
        pair.restart(end);
        pair.run(Duration::from_secs(1));
        let outcome = &pair.ends[1 - end].outcome;
        assert!(matches!(outcome, Some(Outcome::ResetByPeer { code: ResetCode::Withdrawn, .. })), "{outcome:?}");
    }
}

#[test]
fn a_session_that_was_open_is_resumed() {
    for end in BOTH {
        let mut pair = Pair::open_with([durable(); 2]);
        pair.restart(end);
        pair.run(Duration::from_secs(1));
        assert_eq!(pair.ends[ACCEPTOR].attached, [Intent::Open, Intent::Resume]);
    }
}

// MUTANTS. As in `props.rs`: each was put in by itself, and the suite run with 300 seeds. The columns tell how many claims failed.
//
// | a window is told and not stored                        | 1 |
// | an epoch is used again                                 | 4 |
// | bytes are acknowledged before they are written         | 5 |
// | `sent` is too low after adoption                       | 4 |
// | `sent` does not count the Finish after adoption        | 2 |
// | everything kept counts as acknowledged                 | 5 |
// | a Finish that was passed on is forgotten               | 2 |
// | that the peer has everything is forgotten              | 1 |
// | the end of the session is not stored                   | 1 |
// | a Pong does not speak for what came before             | 3 |
// | what is taken after an ack is not acknowledged in time | 4 |
// | what was dropped unacknowledged is received again      | 1 |
// | Done goes before the application has the end           | 6 |
// | a Finish is acknowledged before it is passed on        | 3 |
// | a reset is forgotten                                   | 1 |
// | that bytes are dropped is forgotten                    | 1 |
// | an adopted session opens again                         | 1 |
