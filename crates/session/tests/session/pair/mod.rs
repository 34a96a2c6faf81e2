//! Two sessions, the links between them, their applications, and a clock that only moves when told.

mod round;

use std::collections::VecDeque;
use std::time::Duration;

use ferry_session::{AckPoint, Epoch, Intent, Outcome, Release, Session, SessionId, Settings, Side, Snapshot, Time};

use crate::rng::Rng;

pub const OPENER: usize = 0;
pub const ACCEPTOR: usize = 1;

/// Long enough for everything that does not wait for a timer, where links have no delay.
pub const MOMENT: Duration = Duration::from_millis(1);

pub fn side(end: usize) -> Side {
    if end == OPENER { Side::Opener } else { Side::Acceptor }
}

/// One application and its end of the session.
pub struct End {
    pub session: Option<Session>,
    /// Links that the session is attached to, by epoch.
    pub links: Vec<(Epoch, usize)>,
    pub written: u64,
    pub taken: u64,
    /// The application closed its direction.
    pub finished: bool,
    /// The application saw the end of the other direction.
    pub saw_finish: bool,
    pub outcome: Option<Outcome>,
    pub attached: Vec<Intent>,
    pub released: Vec<Release>,
    pub suspects: usize,
    /// Packets that come with nothing in them that could be read: one in so long.
    pub packets_every: Option<Duration>,
    /// What outlives the process, besides what the applications' own counts tell.
    pub stored: Option<Snapshot>,
    /// The session had ended before its process did: how much had arrived.
    pub tombstone: Option<u64>,
}

impl End {
    /// As a driver does before it sends anything.
    fn store(&mut self) {
        if let Some(session) = &self.session {
            self.stored = Some(session.snapshot());
        }
    }
}

/// A frame that left an end.
pub struct Sent {
    pub at: Time,
    pub from: usize,
    pub link: usize,
    pub name: &'static str,
    /// Application bytes in it.
    pub payload: u64,
}

/// A link: bytes on their way in each direction, in order.
pub struct Link {
    pub flight: [VecDeque<(Time, Vec<u8>)>; 2],
    /// What each end has received and not handed over: its session does not read this link yet.
    pub arrived: [VecDeque<Vec<u8>>; 2],
    /// When each end learns that the link is gone, after what is still on its way.
    pub end: [Option<Time>; 2],
    /// Each end has let go of it.
    pub gone: [bool; 2],
    /// Nothing gets through any more, and nobody is told.
    pub black: bool,
    /// Nothing that an end sends arrives for now.
    pub held: [bool; 2],
    pub last: [Time; 2],
}

pub struct Pair {
    pub now: Time,
    pub rng: Rng,
    pub ends: [End; 2],
    pub links: Vec<Link>,
    pub settings: [Settings; 2],
    /// Longest one-way delay of a frame, in microseconds.
    pub delay: u64,
    /// The opener dials again by itself.
    pub resumes: bool,
    next_dial: Option<Time>,
    /// Bytes that a link takes before it pushes back.
    pub link_capacity: usize,
    pub acceptor_restarted: bool,
    /// A session was taken over at least once.
    pub restarted: bool,
    /// In how many of 100 cases the opener attaches anew right after a frame, before it has answered it.
    pub eager: u64,
    /// Everything that was sent.
    pub sent: Vec<Sent>,
}

pub fn settings(replay: u64, receive: u64) -> Settings {
    Settings {
        replay_capacity: replay,
        receive_capacity: receive,
        liveness: Duration::from_secs(15),
        resume_window: Duration::from_secs(600),
        ack_at: AckPoint::Arrival,
    }
}

impl Pair {
    pub fn new(seed: u64) -> Self {
        Self::with_settings(seed, [settings(64 * 1024, 64 * 1024); 2])
    }

    /// Attached over one link without delay.
    pub fn open() -> Self {
        Self::open_with([settings(64 * 1024, 64 * 1024); 2])
    }

    pub fn open_with(settings: [Settings; 2]) -> Self {
        let mut pair = Self::with_settings(1, settings);
        pair.delay = 1;
        pair.dial(false);
        pair.run(MOMENT);
        assert!(pair.session(OPENER).is_attached() && pair.session(ACCEPTOR).is_attached());
        pair
    }

    pub fn with_settings(seed: u64, settings: [Settings; 2]) -> Self {
        let now = Time::from_origin(Duration::from_secs(1));
        let opener = Session::opener(now, SessionId([7; 16]), "echo", settings[OPENER]);
        let end = |session| End {
            session,
            links: Vec::new(),
            written: 0,
            taken: 0,
            finished: false,
            saw_finish: false,
            outcome: None,
            attached: Vec::new(),
            released: Vec::new(),
            suspects: 0,
            packets_every: None,
            stored: None,
            tombstone: None,
        };
        let mut ends = [end(Some(opener)), end(None)];
        ends[OPENER].store();
        Self {
            now,
            rng: Rng::new(seed),
            ends,
            links: Vec::new(),
            settings,
            delay: 5_000,
            resumes: true,
            next_dial: None,
            link_capacity: 40_000,
            acceptor_restarted: false,
            restarted: false,
            eager: 0,
            sent: Vec::new(),
        }
    }

    pub fn session(&mut self, end: usize) -> &mut Session {
        self.ends[end].session.as_mut().expect("a session at this end")
    }

    // --- links -------------------------------------------------------------------------------------------------

    /// A new link for the opener; `rotate` or an open or resume. False if the session does not attach now.
    pub fn dial(&mut self, rotate: bool) -> bool {
        let now = self.now;
        let Some(session) = self.ends[OPENER].session.as_mut() else { return false };
        let attached = if rotate { session.rotate(now) } else { session.attach(now) };
        let Ok(epoch) = attached else { return false };
        self.ends[OPENER].links.push((epoch, self.links.len()));
        self.links.push(Link {
            flight: Default::default(),
            arrived: Default::default(),
            end: [None; 2],
            gone: [false; 2],
            black: false,
            held: [false; 2],
            last: [now; 2],
        });
        true
    }

    fn send(&mut self, from: usize, index: usize, bytes: Vec<u8>) {
        let at = self.now + Duration::from_micros(1 + self.rng.below(self.delay.max(1)));
        let link = &mut self.links[index];
        if link.black || link.end[1 - from].is_some() {
            return;
        }
        let at = at.max(link.last[from]);
        link.last[from] = at;
        link.flight[from].push_back((at, bytes));
    }

    /// The session at `end` has let go of the link: the other end learns it after what is on its way.
    pub fn let_go(&mut self, end: usize, index: usize, graceful: bool) {
        let after = self.now + Duration::from_micros(1 + self.rng.below(self.delay.max(1)));
        self.ends[end].links.retain(|(_, link)| *link != index);
        let link = &mut self.links[index];
        link.gone[end] = true;
        if !graceful {
            link.flight[end].clear();
        }
        if !link.black {
            let after = after.max(link.last[end]);
            link.end[1 - end].get_or_insert(after);
        }
    }

    // --- time --------------------------------------------------------------------------------------------------

    fn next_moment(&self) -> Option<Time> {
        let flights = self.links.iter().flat_map(|link| {
            [OPENER, ACCEPTOR].into_iter().flat_map(|end| {
                let arriving = (!link.gone[1 - end] && !link.held[end])
                    .then(|| link.flight[end].front().map(|(at, _)| *at))
                    .flatten();
                let ending = (!link.gone[end]).then_some(link.end[end]).flatten();
                [arriving, ending]
            })
        });
        let ahead = flights.chain([self.next_dial]).flatten().filter(|at| *at > self.now);
        // One that a frame has made overdue is due now.
        ahead.chain(self.ends.iter().filter_map(|end| end.session.as_ref()?.poll_timeout())).min()
    }

    /// Moves the clock to the next thing that happens, at most to `until`. False if that is where it stands.
    pub fn step(&mut self, until: Time) -> bool {
        self.settle();
        self.redial();
        let next = self.next_moment().unwrap_or(until).min(until);
        let moved = next > self.now;
        self.now = next.max(self.now);
        for end in [OPENER, ACCEPTOR] {
            let (now, every) = (self.now, self.ends[end].packets_every);
            if let Some(session) = self.ends[end].session.as_mut()
                && session.poll_timeout().is_some_and(|at| at <= now)
            {
                let packets = every.map(|every| (now.since_origin().as_nanos() / every.as_nanos()) as u32);
                session.handle_timeout(now, |_| packets);
                assert!(session.poll_timeout().is_none_or(|at| at > now), "a timeout that stays due");
            }
        }
        self.redial();
        self.settle();
        moved
    }

    /// A detached opener dials once in a while.
    fn redial(&mut self) {
        let Some(session) = self.ends[OPENER].session.as_ref() else { return };
        let begun = session.epoch() > Epoch::NONE || self.restarted;
        let lost = !session.is_closed() && begun && self.ends[OPENER].links.is_empty();
        if !lost || !self.resumes {
            self.next_dial = None;
        } else if self.next_dial.is_some_and(|at| at <= self.now) {
            self.next_dial = None;
            self.dial(false);
        } else if self.next_dial.is_none() {
            self.next_dial = Some(self.now + Duration::from_micros(1 + self.rng.below(200_000)));
        }
    }

    /// Lets `duration` pass.
    pub fn run(&mut self, duration: Duration) {
        let until = self.now + duration;
        while self.step(until) || self.now < until {}
    }
}
