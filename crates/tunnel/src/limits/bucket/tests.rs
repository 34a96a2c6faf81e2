//! Sessions that share a bucket, by seed, on a clock of their own. `seeds.rs` says how to repeat one.

use super::*;
use crate::seeds::{Rng, each_seed};

const MILLI: Duration = Duration::from_millis(1);

/// A session's task comes this much later than it wanted to, at most.
const LATENESS: Duration = Duration::from_millis(3);

/// Bytes of one read.
const READ: u64 = 256 << 10;

/// What a session has to send.
#[derive(Clone, Copy, PartialEq)]
enum Wants {
    /// As much as it may.
    All,
    /// So much at a time, so often.
    Some(u64, Duration),
    /// Nothing, and it asks anyhow when it is woken.
    Nothing,
}

struct Session {
    wants: Wants,
    place: Place,
    backlog: u64,
    /// When its backlog grows next.
    grows: Time,
    wakes: Time,
    /// Since when it is held back.
    since: Option<Time>,
    longest_wait: Duration,
    taken: u64,
}

/// A bucket, who shares it, and how far it was overdrawn.
struct World {
    bucket: Bucket,
    sessions: Vec<Session>,
    now: Time,
    /// What was taken beyond the rate, at most: over all stretches of time.
    level: f64,
    most: f64,
    at: Time,
}

impl World {
    fn new(rate: u64, wants: impl IntoIterator<Item = Wants>) -> Self {
        let session = |wants| Session {
            wants,
            place: Place::default(),
            backlog: 0,
            grows: Time::ZERO,
            wakes: Time::ZERO,
            since: None,
            longest_wait: Duration::ZERO,
            taken: 0,
        };
        let sessions = wants.into_iter().map(session).collect();
        Self { bucket: Bucket::new(rate), sessions, now: Time::ZERO, level: 0.0, most: 0.0, at: Time::ZERO }
    }

    fn run(&mut self, rng: &mut Rng, until: Duration) {
        while self.now.since_origin() < until {
            let Some(next) = (0..self.sessions.len()).min_by_key(|index| self.sessions[*index].wakes) else { return };
            // Several may be woken by now, and come in any order.
            let late = self.sessions[next].wakes + LATENESS;
            let ready: Vec<_> = (0..self.sessions.len()).filter(|index| self.sessions[*index].wakes <= late).collect();
            let index = if late < self.now { next } else { ready[rng.below(ready.len() as u64) as usize] };
            self.now = self.now.max(self.sessions[index].wakes) + Duration::from_micros(1 + rng.below(20));
            self.step(rng, index);
        }
    }

    fn step(&mut self, rng: &mut Rng, index: usize) {
        let (now, session) = (self.now, &mut self.sessions[index]);
        match session.wants {
            Wants::All => session.backlog = u64::MAX,
            Wants::Some(bytes, every) => {
                while session.grows <= now {
                    (session.backlog, session.grows) = (session.backlog + bytes, session.grows + every);
                }
            }
            Wants::Nothing => {}
        }
        if session.backlog == 0 && session.wants != Wants::Nothing {
            session.wakes = session.grows;
            return self.bucket.leave(&mut session.place);
        }
        match self.bucket.ask(now, &mut session.place) {
            Ok(most) => {
                assert!(most > 0, "nothing is no permission");
                let waited = session.since.take().map_or(Duration::ZERO, |since| now.since(since));
                session.longest_wait = session.longest_wait.max(waited);
                let bytes = most.min(session.backlog).min(READ);
                session.backlog -= bytes;
                session.taken += bytes;
                self.bucket.take(now, &mut session.place, bytes);
                let paid = now.since(self.at).as_secs_f64() * self.bucket.rate as f64;
                self.level = (self.level - paid).max(0.0) + bytes as f64;
                (self.most, self.at) = (self.most.max(self.level), now);
                session.wakes = now + if bytes == 0 { MILLI } else { Duration::ZERO };
            }
            Err(at) => {
                assert!(at > now, "it would ask for ever");
                session.since.get_or_insert(now);
                // As timers do, on the millisecond; others may wake it before.
                let ring = Time::from_origin(Duration::from_millis(at.since_origin().as_millis() as u64 + 1));
                session.wakes = if rng.below(4) == 0 { ring.min(now + MILLI) } else { ring };
            }
        }
    }

    /// Bytes of a round with so many sessions that want some.
    fn round(&self, sessions: usize) -> f64 {
        part(self.bucket.rate, sessions as u64) as f64 * sessions as f64
    }
}

fn rate(rng: &mut Rng) -> u64 {
    [1 << 10, 50_000, 1 << 20, 12_500_000, 1 << 30][rng.below(5) as usize]
}

#[test]
fn no_stretch_of_time_brings_more_than_the_rate_and_a_burst_whoever_wants_what() {
    each_seed(30, |rng| {
        let (rate, count) = (rate(rng), 1 + rng.below(60) as usize);
        let wants: Vec<_> = (0..count)
            .map(|_| match rng.below(3) {
                0 => Wants::All,
                1 => Wants::Nothing,
                _ => Wants::Some(1 + rng.below(rate), Duration::from_millis(1 + rng.below(3000))),
            })
            .collect();
        let mut world = World::new(rate, wants);
        world.run(rng, Duration::from_secs(3));
        let bound = rate as f64 * BURST.as_secs_f64() + 2.0 * world.round(count) + part(rate, 1) as f64;
        assert!(world.most <= bound, "{} of {bound} at {rate} B/s for {count}", world.most);
    });
}

#[test]
fn sessions_that_want_all_get_equal_parts_and_together_all_that_others_leave() {
    each_seed(30, |rng| {
        let (rate, count, small) = (rate(rng).max(50_000), 1 + rng.below(30), rng.below(30));
        // Each asks for a quarter of its share.
        let some = Wants::Some((rate / 80 / (count + small)).max(1), 50 * MILLI);
        let all = (0..count).map(|_| Wants::All).chain((0..small).map(|_| some));
        let mut world = World::new(rate, all);
        let time = Duration::from_secs(6);
        world.run(rng, time);
        let taken: Vec<_> = world.sessions.iter().map(|session| session.taken).collect();
        let (greedy, modest) = taken.split_at(count as usize);
        let (least, most) = (greedy.iter().min().unwrap(), greedy.iter().max().unwrap());
        let (total, due) = (taken.iter().sum::<u64>() as f64, rate as f64 * time.as_secs_f64());
        let bound = due + world.round(world.sessions.len()) + world.round(1);
        assert!((due * 0.95..=bound).contains(&total), "{total} of {due} at {rate} B/s, by {count} and {small}");
        let mean = greedy.iter().sum::<u64>() as f64 / count as f64;
        let apart = (most - least) as f64;
        assert!(
            apart <= (mean * 0.05).max(3.0 * world.round(1)),
            "{least} to {most} of {rate} B/s for {count} beside {small}: {greedy:?}"
        );
        for (session, taken) in world.sessions[count as usize..].iter().zip(modest) {
            let asked = taken + session.backlog;
            assert!(
                session.backlog as f64 <= 0.2 * asked as f64,
                "a modest one of {small} beside {count} got {taken} of {asked} at {rate} B/s"
            );
        }
    });
}

#[test]
fn nobody_waits_longer_than_two_rounds_however_many_come_and_go() {
    each_seed(30, |rng| {
        let (rate, count) = (rate(rng).max(1 << 20), 2 + rng.below(60) as usize);
        let mut world = World::new(rate, (0..count).map(|_| Wants::All));
        let mut waited = Duration::ZERO;
        for turn in 1..=40 {
            world.run(rng, Duration::from_millis(turn * 100));
            // One goes, in whatever state it is, and one that is new comes.
            let index = rng.below(count as u64) as usize;
            waited = waited.max(world.sessions[index].longest_wait);
            world.bucket.leave(&mut world.sessions[index].place);
            let fresh = World::new(rate, [Wants::All]).sessions.remove(0);
            world.sessions[index] = Session { wakes: world.now, ..fresh };
        }
        let round = Duration::from_secs_f64(world.round(count) / rate as f64);
        let longest = world.sessions.iter().map(|session| session.longest_wait).max().unwrap().max(waited);
        assert!(longest <= 2 * round + BURST + 4 * LATENESS, "{longest:?} with rounds of {round:?}");
        world.sessions.iter_mut().for_each(|session| world.bucket.leave(&mut session.place));
        assert_eq!(world.bucket.held_back(), 0, "who is gone is not waited for");
    });
}

#[test]
fn what_is_owed_at_a_high_rate_does_not_hold_a_low_one_up() {
    let (mut bucket, mut place) = (Bucket::new(1 << 30), Place::default());
    let now = Time::ZERO + Duration::from_secs(1);
    while let Ok(bytes) = bucket.ask(now, &mut place) {
        bucket.take(now, &mut place, bytes);
    }
    bucket.set_rate(1 << 10);
    let again = bucket.ask(now, &mut place).unwrap_err();
    assert!(again.since(now) <= 2 * LONGEST_ROUND, "{:?}", again.since(now));
}

#[test]
fn what_is_used_is_that_of_the_last_whole_second() {
    let (mut bucket, mut place) = (Bucket::new(1 << 20), Place::default());
    let at = |millis| Time::ZERO + Duration::from_millis(millis);
    for millis in [1000, 1500, 2100] {
        bucket.ask(at(millis), &mut place).unwrap();
        bucket.take(at(millis), &mut place, 100);
    }
    assert_eq!([2900, 3100, 4100].map(|millis| bucket.used(at(millis))), [200, 100, 0]);
}

#[test]
fn what_another_limit_does_not_let_it_take_it_is_first_to_take_in_the_next_round() {
    let mut bucket = Bucket::new(1 << 20);
    let [mut deferred, mut other] = [(); 2].map(|()| Place::default());
    let now = Time::ZERO + Duration::from_secs(1);
    bucket.ask(now, &mut deferred).unwrap();
    bucket.defer(&mut deferred);
    let at = loop {
        match bucket.ask(now, &mut other) {
            Ok(bytes) => bucket.take(now, &mut other, bytes),
            Err(at) => break at,
        }
    };
    // The other takes a part of each round; this one has its own of whichever is open.
    assert!(bucket.ask(now, &mut deferred).is_ok());
    assert!(at > now);
}
