use super::*;

/// A peer that answers, with two warm links of each kind configured and there.
fn at_rest() -> Seen {
    Seen {
        has_address: true,
        every: Duration::from_secs(30),
        warm: (2, 2),
        ready: 2,
        awaiting_hello: 2,
        ..Seen::default()
    }
}

fn dialled(decision: &Decision) -> (usize, usize) {
    (decision.own, decision.offered)
}

#[test]
fn a_pool_that_is_full_dials_nothing_and_is_looked_at_now_and_then() {
    let now = Instant::now();
    let decision = Policy::new(now).decide(now, &at_rest());
    assert_eq!(decision, Decision { look_again: POOL_CHECK_INTERVAL, ..Decision::default() });
}

#[test]
fn what_is_missing_is_dialled_those_for_this_end_first() {
    let now = Instant::now();
    let seen = Seen { ready: 0, awaiting_hello: 1, waiting: 3, ..at_rest() };
    let decision = Policy::new(now).decide(now, &seen);
    assert_eq!(dialled(&decision), (5, 1));
    assert_eq!(decision.kinds().take(6).filter(|kind| *kind == LinkKind::Own).count(), 5);
    let under_way = Seen { on_time: (5, 1), dials: 6, ..seen };
    assert_eq!(dialled(&Policy::new(now).decide(now, &under_way)), (0, 0), "they are on their way");
}

#[test]
fn without_an_address_nothing_is_dialled_whatever_waits() {
    let now = Instant::now();
    let seen = Seen { has_address: false, ready: 0, waiting: 9, detached: 9, ..at_rest() };
    assert_eq!(dialled(&Policy::new(now).decide(now, &seen)), (0, 0));
}

#[test]
fn a_peer_that_does_not_answer_is_probed_by_one_dial_at_a_time_ever_less_often() {
    let start = Instant::now();
    let mut policy = Policy::new(start);
    let seen = Seen { ready: 0, awaiting_hello: 0, ..at_rest() };
    policy.on_failed(start);
    let (mut now, mut probes) = (start, Vec::new());
    for _ in 0..8 {
        let decision = policy.decide(now, &seen);
        if decision.own + decision.offered > 0 {
            assert_eq!(dialled(&decision), (1, 0));
            probes.push((now - start).as_millis());
        }
        now += decision.look_again;
    }
    assert_eq!(probes, [50, 100, 200, 400, 800, 1600, 2600]);
    policy.on_dialled(now, Duration::from_millis(1));
    assert_eq!(dialled(&policy.decide(now, &seen)).1, 2, "once it answers everything is dialled");
}

#[test]
fn a_late_dial_makes_the_next_ones_probes() {
    let now = Instant::now();
    let mut policy = Policy::new(now);
    let seen = Seen { ready: 0, unanswered: true, dials: 4, on_time: (0, 0), ..at_rest() };
    assert_eq!(dialled(&policy.decide(now, &seen)), (1, 0), "one at once");
    let decision = policy.decide(now, &seen);
    assert_eq!((dialled(&decision), decision.look_again), ((0, 0), MAX_RETRY_DELAY));
}

#[test]
fn a_burst_of_sessions_is_replaced_a_moment_later_and_remembered() {
    let start = Instant::now();
    let mut policy = Policy::new(start);
    policy.on_dialled(start, Duration::from_millis(80));
    let burst = Seen { asked: 1, ready: 2, ..at_rest() };
    let decision = policy.decide(start, &burst);
    assert_eq!(decision.own, 0, "there are links for what comes meanwhile");
    assert_eq!(decision.look_again, Duration::from_millis(5));
    let later = start + decision.look_again;
    assert_eq!(policy.decide(later, &at_rest()).own, 1, "one more than configured is kept while one is dialled");
    let much_later = later + Duration::from_secs(60);
    assert_eq!(policy.decide(much_later, &at_rest()).own, 0, "and not for ever");
}

#[test]
fn with_no_own_links_configured_only_what_waits_is_dialled() {
    let now = Instant::now();
    let mut policy = Policy::new(now);
    policy.on_dialled(now, Duration::from_millis(80));
    let seen = Seen { warm: (0, 0), ready: 0, awaiting_hello: 0, asked: 1, waiting: 1, ..at_rest() };
    assert_eq!(dialled(&policy.decide(now, &seen)), (1, 0));
}

#[test]
fn where_links_can_hardly_be_made_new_sessions_leave_the_last_ones() {
    let now = Instant::now();
    let seen = Seen { reserved: Some(1), ready: 0, ..at_rest() };
    assert_eq!(Policy::new(now).decide(now, &seen).own, 1);
    assert_eq!(Policy::new(now).decide(now, &Seen { ready: 1, ..seen }).own, 0);
}

#[test]
fn sessions_of_the_peer_that_wait_get_links_and_old_offers_are_replaced_every_three_seconds() {
    let start = Instant::now();
    let mut policy = Policy::new(start);
    let seen = Seen { detached: 3, ..at_rest() };
    let decision = policy.decide(start, &seen);
    assert_eq!((decision.offered, decision.renew_offers), (3, false));
    assert!(policy.decide(start + OFFER_TRUSTED_AGE, &seen).renew_offers);
    assert!(!policy.decide(start + OFFER_TRUSTED_AGE, &seen).renew_offers, "once");
}

#[test]
fn no_more_dials_are_under_way_than_a_peer_can_bear() {
    let now = Instant::now();
    let seen = Seen { ready: 0, waiting: 500, dials: 40, rotations: 10, ..at_rest() };
    assert_eq!(Policy::new(now).decide(now, &seen).own, MAX_DIALS - 50);
}

#[test]
fn fewer_links_are_kept_ready_for_keys_that_hardly_last() {
    let for_keys_of = |seconds| [0, 2, 4, 256].map(|configured| target_links(configured, Duration::from_secs(seconds)));
    assert_eq!(for_keys_of(30), [0, 2, 4, 256]);
    assert_eq!(for_keys_of(5), [0, 2, 4, 256]);
    assert_eq!(for_keys_of(2), [0, 1, 2, 103]);
    assert_eq!(for_keys_of(1), [0, 1, 1, 52]);
}
