//! What silence means: pings, suspicion, and links that are given up.

use std::time::Duration;

use ferry_session::{Epoch, Frame, Intent, Payload, Release, Settings, Time};

use crate::pair::{ACCEPTOR, MOMENT, OPENER, Pair, settings, side};
use crate::rng::pattern;

const BOTH: [usize; 2] = [OPENER, ACCEPTOR];
const SECOND: Duration = Duration::from_secs(1);

/// How long after `start` the frames of this name left `end`, in milliseconds.
fn times(pair: &Pair, start: Time, end: usize, name: &str) -> Vec<u128> {
    let sent = pair.sent.iter().filter(|sent| sent.from == end && sent.name == name && sent.at >= start);
    sent.map(|sent| sent.at.since(start).as_millis()).collect()
}

#[test]
fn an_idle_link_is_pinged_every_10_s_and_answered() {
    let patient = Settings { liveness: 60 * SECOND, ..settings(64 * 1024, 64 * 1024) };
    let mut pair = Pair::open_with([patient; 2]);
    pair.run(20 * SECOND);
    let start = pair.now;
    pair.run(600 * SECOND);
    for end in BOTH {
        // Each end's pings keep the other from asking as well, but for those that cross.
        assert!(times(&pair, start, end, "Ping").len() <= 60);
        assert_eq!(times(&pair, start, end, "Ping").len(), times(&pair, start, 1 - end, "Pong").len());
        assert_eq!((pair.ends[end].suspects, pair.ends[end].released.len()), (0, 0));
        assert!(pair.session(end).is_attached());
    }
    let mut heard: Vec<u128> = BOTH.iter().flat_map(|end| times(&pair, start, *end, "Ping")).collect();
    heard.sort_unstable();
    assert!(heard.windows(2).all(|pair| pair[1] - pair[0] <= 10_001), "{heard:?}");
    assert!(heard.len() >= 59);
}

#[test]
fn an_idle_link_is_pinged_as_often_as_its_driver_asks_for() {
    let mut pair = Pair::open();
    pair.run(20 * SECOND);
    pair.session(OPENER).set_idle_ping(SECOND);
    // What it has set itself for before is over.
    pair.run(10 * SECOND);
    let start = pair.now;
    pair.run(60 * SECOND);
    let pings = times(&pair, start, OPENER, "Ping");
    assert!(pings.len() >= 59 && pings.windows(2).all(|pair| pair[1] - pair[0] <= 1_001), "{pings:?}");
    assert_eq!(times(&pair, start, ACCEPTOR, "Ping").len(), 0, "the other end is asked, and has no need to ask");
    assert_eq!(times(&pair, start, ACCEPTOR, "Pong").len(), pings.len());
}

#[test]
fn traffic_that_stops_is_asked_after_once_after_1_s() {
    for end in BOTH {
        let mut pair = Pair::open();
        pair.run(20 * SECOND);
        let start = pair.now;
        // Enough for an ack at once.
        pair.write(end, 20_000);
        pair.run(5 * SECOND);
        for end in BOTH {
            let pings = times(&pair, start, end, "Ping");
            assert!(pings.len() <= 2 && pings.iter().all(|at| *at <= 1_001), "{pings:?}");
        }
        assert!(!times(&pair, start, end, "Ping").is_empty());
    }
}

#[test]
fn bytes_on_a_link_that_was_quiet_are_asked_after_at_once() {
    for end in BOTH {
        let mut pair = Pair::open();
        pair.run(5 * SECOND);
        pair.black_hole(0);
        let start = pair.now;
        pair.write(end, 1);
        pair.run(5 * SECOND);
        assert_eq!(times(&pair, start, end, "Ping").first(), Some(&0));
    }
}

#[test]
fn a_ping_measures_the_round_trip() {
    let mut pair = Pair::open();
    assert_eq!(pair.session(OPENER).rtt(), None);
    pair.run(11 * SECOND);
    let rtts = BOTH.map(|end| pair.session(end).rtt());
    assert!(rtts.contains(&Some(Duration::from_micros(2))), "{rtts:?}");
}

#[test]
fn a_pong_that_was_not_asked_for_measures_nothing() {
    let mut pair = Pair::open();
    pair.inject(OPENER, &Frame::Pong { token: 1 });
    assert_eq!((pair.session(OPENER).rtt(), pair.ends[OPENER].outcome.clone()), (None, None));
}

#[test]
fn a_link_that_is_silent_for_the_liveness_time_is_given_up() {
    for end in BOTH {
        let mut pair = Pair::open();
        pair.resumes = false;
        pair.run(MOMENT);
        pair.black_hole(0);
        pair.run(Duration::from_millis(14_900));
        assert!(pair.session(end).is_attached());
        pair.run(Duration::from_millis(200));
        assert!(!pair.session(end).is_attached());
        assert_eq!(pair.ends[end].released, [Release::Silent]);
    }
}

#[test]
fn a_part_of_a_frame_is_life_too() {
    let mut pair = Pair::open();
    pair.resumes = false;
    pair.black_hole(0);
    for _ in 0..20 {
        let (now, epoch) = (pair.now, pair.link_epoch(OPENER));
        pair.session(OPENER).handle_bytes(now, epoch);
        pair.run(SECOND);
    }
    assert!(pair.session(OPENER).is_attached());
    assert!(!pair.session(ACCEPTOR).is_attached());
}

#[test]
fn data_that_is_not_answered_makes_the_link_suspect_long_before_it_is_given_up() {
    let mut pair = Pair::open();
    pair.resumes = false;
    pair.black_hole(0);
    pair.write(OPENER, 100);
    pair.run(Duration::from_millis(1_400));
    assert_eq!(pair.ends[OPENER].suspects, 0);
    pair.run(Duration::from_millis(200));
    assert_eq!(pair.ends[OPENER].suspects, 1);
    pair.run(10 * SECOND);
    assert_eq!(pair.ends[OPENER].suspects, 1, "said once");
    assert!(pair.session(OPENER).is_attached());
}

/// The opener has sent bytes that nobody answers, but packets come over its link: one in so long.
fn unanswered(packets_every: Duration) -> Pair {
    let mut pair = Pair::open();
    pair.resumes = false;
    pair.run(MOMENT);
    pair.black_hole(0);
    pair.write(OPENER, 100);
    pair.ends[OPENER].packets_every = Some(packets_every);
    pair
}

#[test]
fn a_link_whose_packets_wait_for_a_lost_one_is_not_suspect_until_they_stop() {
    let mut pair = unanswered(Duration::from_millis(100));
    pair.run(10 * SECOND);
    assert_eq!(pair.ends[OPENER].suspects, 0);
    pair.ends[OPENER].packets_every = None;
    pair.run(Duration::from_millis(2_300));
    assert_eq!(pair.ends[OPENER].suspects, 1);
}

#[test]
fn what_an_end_that_hears_nothing_sends_again_keeps_no_link_from_being_suspect() {
    // Four in 750 ms.
    let mut pair = unanswered(Duration::from_millis(188));
    pair.run(Duration::from_millis(1_600));
    assert_eq!(pair.ends[OPENER].suspects, 1);
}

#[test]
fn packets_that_bring_nothing_for_the_liveness_time_save_no_link() {
    let mut pair = unanswered(Duration::from_millis(10));
    pair.run(Duration::from_millis(15_100));
    assert_eq!((pair.ends[OPENER].suspects, &pair.ends[OPENER].released[..]), (0, &[Release::Silent][..]));
}

#[test]
fn an_idle_link_that_is_dead_is_suspect_once_its_ping_is_not_answered() {
    let mut pair = Pair::open();
    pair.resumes = false;
    pair.black_hole(0);
    // A liveness of 15 s: asked after 7.5 s, suspect 1.5 s later.
    pair.run(Duration::from_millis(8_900));
    assert_eq!(pair.ends[OPENER].suspects, 0);
    pair.run(Duration::from_millis(200));
    assert_eq!(pair.ends[OPENER].suspects, 1);
}

#[test]
fn a_suspect_link_is_replaced_before_it_is_given_up() {
    let mut pair = Pair::open();
    pair.black_hole(0);
    for end in BOTH {
        pair.write(end, 1_000);
    }
    pair.run(3 * SECOND);
    assert_eq!(pair.ends[OPENER].attached, [Intent::Open, Intent::Resume]);
    assert_eq!(pair.ends[OPENER].released, [Release::Fenced]);
    assert_eq!(BOTH.map(|end| pair.read(end, usize::MAX)), [1_000, 1_000]);
}

#[test]
fn a_link_that_speaks_again_is_no_longer_suspect() {
    let mut pair = Pair::open();
    pair.resumes = false;
    pair.hold(0, ACCEPTOR, true);
    pair.write(OPENER, 100);
    pair.run(5 * SECOND);
    assert_eq!(pair.ends[OPENER].suspects, 1);
    pair.hold(0, ACCEPTOR, false);
    pair.run(60 * SECOND);
    assert_eq!(pair.ends[OPENER].suspects, 1);
    pair.black_hole(0);
    pair.run(12 * SECOND);
    assert_eq!(pair.ends[OPENER].suspects, 2, "each wait anew");
}

#[test]
fn a_slow_application_is_not_a_dead_link() {
    for end in BOTH {
        let mut pair = Pair::open();
        for _ in 0..60 {
            pair.write(end, 10_000);
            pair.run(10 * SECOND);
        }
        assert_eq!(pair.session(end).writable(), 0);
        assert_eq!(BOTH.map(|end| pair.ends[end].suspects), [0, 0]);
        assert_eq!(pair.session(end).epoch().0, 1);
        assert!(pair.session(end).is_attached());
    }
}

#[test]
fn a_hello_that_is_not_answered_is_given_up_after_the_liveness_time() {
    let mut pair = Pair::open();
    pair.resumes = false;
    pair.dial(true);
    pair.black_hole(1);
    pair.run(Duration::from_millis(14_900));
    assert!(pair.ends[OPENER].released.is_empty());
    pair.run(Duration::from_millis(200));
    assert_eq!(pair.ends[OPENER].released, [Release::Silent]);
    assert!(pair.session(OPENER).is_attached(), "to the old link");
    pair.exchange_and_close([1_000, 1_000]);
}

#[test]
fn a_rotation_whose_old_link_falls_silent_ends_in_a_resume() {
    let mut pair = Pair::open();
    pair.dial(true);
    pair.hold(0, ACCEPTOR, true);
    pair.run(MOMENT);
    pair.black_hole(0);
    for end in BOTH {
        pair.write(end, 1_000);
    }
    pair.run(16 * SECOND);
    assert_eq!(pair.ends[OPENER].released, [Release::Silent, Release::Abandoned]);
    assert_eq!(pair.ends[OPENER].attached.last(), Some(&Intent::Resume));
    pair.exchange_and_close([2_000, 2_000]);
}

#[test]
fn a_new_link_is_not_blamed_for_the_time_it_was_not_read() {
    let mut pair = Pair::open();
    pair.hold(0, ACCEPTOR, true);
    pair.write(ACCEPTOR, 20);
    pair.run(MOMENT);
    pair.dial(true);
    pair.run(MOMENT);
    pair.hold(1, ACCEPTOR, true);
    // The old link takes its time; what the opener sends on the new one keeps that alive at the other end.
    for offset in 0..20 {
        pair.write(OPENER, 10);
        pair.run(SECOND);
        let (now, payload) = (pair.now, [pattern(side(ACCEPTOR), offset)]);
        pair.session(OPENER).handle_frame(now, Epoch(1), Frame::Data { offset, payload: Payload::from(&payload) });
    }
    assert!(pair.ends[OPENER].released.is_empty());
    pair.hold(0, ACCEPTOR, false);
    // The ack for what came goes first.
    pair.run(Duration::from_millis(30));
    assert_eq!(pair.ends[OPENER].released, [Release::Finished]);
    let soon = pair.now + SECOND / 2;
    assert!(pair.session(OPENER).poll_timeout().is_some_and(|at| at > soon));
    pair.hold(1, ACCEPTOR, false);
    pair.run(SECOND);
    assert!(BOTH.iter().all(|end| pair.session(*end).is_attached()));
}
