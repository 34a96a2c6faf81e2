//! A session outlives the process that carries it.

use std::time::Duration;

use ferry_session::{AckPoint, Outcome, RejectCode, ResetCode, Settings};

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
