//! Sessions over paths of all kinds that share the memory, by seed, on a clock of their own. `seeds.rs` says how to repeat one.

use super::*;
use crate::seeds::each_seed;

const MIB: u64 = 1 << 20;
const MILLI: Duration = Duration::from_millis(1);

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn bounds(memory: &Memory, buffer: Option<u64>) -> Bounds {
    let mut settings = Settings::default();
    settings.resume.buffer = buffer;
    Bound::of(&settings).within(memory)
}

/// One that sends all that its buffer lets it, over a path that takes so many bytes a millisecond and makes the rest wait.
/// Whatever there is room for is taken at once, so that the buffer always seems to be what holds it up.
struct Sender {
    lease: Lease,
    most: Bounds,
    path: RoundTrip,
    round_trip: u64,
    rate: u64,
    sent: u64,
    acked: u64,
    told: u64,
    /// What was sent by each of the last milliseconds, to come back a round trip later.
    log: std::collections::VecDeque<u64>,
    waits: u64,
    /// Acknowledgements come in bunches of so many milliseconds.
    bunch: u64,
}

impl Sender {
    fn start(memory: &Arc<Memory>, buffer: Option<u64>, round_trip: u64, rate: u64, bunch: u64) -> Self {
        let mut lease = memory.reserve(&name("a")).expect("room");
        let most = bounds(memory, buffer);
        // As by doubling.
        while lease.held.replay < most.unmeasured
            && lease.grow_to(Capacities { replay: (lease.held.replay * 2).min(most.unmeasured), ..lease.held })
        {
        }
        let path = RoundTrip::default();
        path.note(Some(MILLI * round_trip as u32));
        let log = std::iter::repeat_n(0, round_trip as usize).collect();
        let told = lease.held.replay;
        Self { lease, most, path, round_trip, rate, sent: 0, acked: 0, told, log, waits: 0, bunch }
    }

    fn pass(&mut self, millis: u64) {
        let room = self.told.saturating_sub(self.sent - self.acked);
        self.sent += room;
        self.waits += room;
        let leaves = self.waits.min(self.rate);
        self.waits -= leaves;
        self.log.push_back(leaves);
        if millis.is_multiple_of(self.bunch) {
            while self.log.len() as u64 > self.round_trip {
                self.acked += self.log.pop_front().unwrap_or_default();
            }
        }
        let shown = Shown {
            short: Short { replay: true, receive: false },
            delivered: Delivered { sent: self.acked, received: 0 },
            occupied: Capacities { replay: self.sent - self.acked, receive: START.receive },
        };
        let now = Time::from_origin(MILLI * millis as u32);
        if self.lease.is_to_be_measured(shown.short, self.most) && self.lease.follow(now, &shown, self.most, &self.path)
        {
            self.told = self.lease.told(self.most).replay;
        }
        assert!(self.sent - self.acked <= self.lease.held.replay, "what is kept is more than what is lent");
    }

    /// What is on its way when the path is full.
    fn on_the_way(&self) -> u64 {
        self.rate * self.round_trip
    }
}

#[test]
fn a_stream_comes_to_fill_its_path_and_holds_little_more_than_twice_of_what_is_on_it() {
    each_seed(100, |rng| {
        let memory = Memory::new(rng.between(256, 4096) * MIB, 1);
        let (round_trip, rate) = (rng.between(20, 300), rng.between(10, 1_500_000));
        let bunch = rng.between(1, round_trip / 5);
        let mut sender = Sender::start(&memory, None, round_trip, rate, bunch);
        (0..60 * round_trip).for_each(|millis| sender.pass(millis));
        let before = sender.acked;
        (60 * round_trip..80 * round_trip).for_each(|millis| sender.pass(millis));
        let (held, most) = (sender.lease.held.replay, sender.most.measured);
        let speed = (sender.acked - before) as f64 / (20 * round_trip * rate) as f64;
        let possible = (most as f64 / (sender.on_the_way() + (bunch + 2) * rate) as f64).min(1.0);
        assert!(speed > 0.93 * possible, "{speed} of the path's rate with {held} B of {most}");
        let bunches = (round_trip + bunch) as f64 / round_trip as f64;
        let useful = (2.0 * sender.on_the_way() as f64 * bunches).max(UNMEASURED as f64) * 1.05;
        assert!(held as f64 <= useful, "{held} B are held of a path with {} on it", sender.on_the_way());
        assert_eq!(memory.used(), sender.lease.held.total());
    });
}

#[test]
fn a_buffer_that_was_configured_is_a_bound_whatever_is_delivered() {
    let memory = Memory::new(1024 * MIB, 1);
    let mut sender = Sender::start(&memory, Some(20 * MIB), 100, 1_000_000, 1);
    (0..5_000).for_each(|millis| sender.pass(millis));
    assert_eq!(sender.lease.held.replay, 20 * MIB);
}

#[test]
fn all_together_take_half_of_the_memory_for_it_at_most_and_give_it_back_when_the_rest_is_short() {
    each_seed(100, |rng| {
        let limit = rng.between(256, 1024) * MIB;
        let memory = Memory::new(limit, 1);
        let count = rng.between(1, 6);
        let mut senders: Vec<_> = (0..count)
            .map(|_| Sender::start(&memory, None, rng.between(50, 200), rng.between(500_000, 1_500_000), 1))
            .collect();
        for millis in 0..5_000 {
            senders.iter_mut().for_each(|sender| sender.pass(millis));
            assert!(memory.used() <= limit / 2, "{} of {limit}", memory.used());
        }
        assert_eq!(memory.used(), senders.iter().map(|sender| sender.lease.held.total()).sum::<u64>());
        let mut other = memory.reserve(&name("a")).expect("room");
        let more = limit / 5 * 4 - memory.used();
        assert!(other.grow_to(Capacities { replay: other.held.replay + more, ..other.held }));
        for millis in 5_000..7_000 {
            senders.iter_mut().for_each(|sender| sender.pass(millis));
        }
        // Until the memory is not scarce any more, or nobody has more than all may have.
        let still_scarce = memory.is_scarce();
        assert!(!still_scarce || senders.iter().all(|sender| sender.lease.held.replay <= UNMEASURED));
        drop(other);
        drop(senders);
        assert_eq!(memory.used(), 0);
    });
}

#[test]
fn what_the_peer_was_told_it_may_send_stays_lent_until_it_has() {
    let memory = Memory::new(256 * MIB, 1);
    let mut lease = memory.reserve(&name("a")).expect("room");
    assert!(lease.grow_to(Capacities { receive: 40 * MIB, ..lease.held }));
    let mut other = memory.reserve(&name("a")).expect("room");
    assert!(other.grow_to(Capacities { replay: 190 * MIB, ..other.held }));
    let (most, path) = (bounds(&memory, None), RoundTrip::default());
    path.note(Some(10 * MILLI));
    let look = |lease: &mut Lease, millis: u32, promised: u64| {
        let occupied = Capacities { replay: 0, receive: promised };
        let shown = Shown { short: Short::default(), delivered: Delivered::default(), occupied };
        let changed = lease.follow(Time::from_origin(MILLI * millis), &shown, most, &path);
        (changed, lease.held.receive, lease.told(most).receive)
    };
    look(&mut lease, 0, 40 * MIB);
    assert_eq!(look(&mut lease, 10, 40 * MIB), (true, 40 * MIB, 16 * MIB));
    assert_eq!(look(&mut lease, 20, 40 * MIB), (false, 40 * MIB, 16 * MIB), "a session that waits is left alone");
    assert_eq!(look(&mut lease, 30, 25 * MIB), (true, 25 * MIB, 16 * MIB));
    assert_eq!(look(&mut lease, 40, 16 * MIB), (true, 16 * MIB, 16 * MIB));
    assert!(lease.trip.is_none(), "there is nothing more to look at");
}
