//! Two sessions, the links between them, their applications, and a clock that only moves when told.

use std::collections::VecDeque;
use std::time::Duration;

use ferry_session::{
    Epoch, Event, Frame, Intent, Outcome, Reject, RejectCode, Release, Session, SessionId, Settings, Side, Time, decode,
};

/// A small generator with a printable seed (SplitMix64, Steele et al. 2014).
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// The byte that belongs at `offset` of the direction from `side`.
pub fn pattern(side: Side, offset: u64) -> u8 {
    let word = (offset / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (side as u64).wrapping_mul(0xd1b5_4a32_d192_ed03);
    (word >> ((offset % 8) * 8)) as u8
}

pub const OPENER: usize = 0;
pub const ACCEPTOR: usize = 1;

fn side(end: usize) -> Side {
    if end == OPENER { Side::Opener } else { Side::Acceptor }
}

/// One application and its end of the session.
pub struct End {
    pub session: Option<Session>,
    /// Links that the session is attached to, by epoch.
    links: Vec<(Epoch, usize)>,
    pub written: u64,
    pub taken: u64,
    /// The application saw the end of the other direction.
    pub saw_finish: bool,
    pub outcome: Option<Outcome>,
    pub attached: Vec<Intent>,
    pub released: Vec<Release>,
}

/// A link: bytes on their way in each direction, in order.
struct Link {
    flight: [VecDeque<(Time, Vec<u8>)>; 2],
    /// What each end has received and not handed over: its session does not read this link yet.
    arrived: [VecDeque<Vec<u8>>; 2],
    /// When each end learns that the link is gone, after what is still on its way.
    end: [Option<Time>; 2],
    /// Each end has let go of it.
    gone: [bool; 2],
    /// Nothing gets through any more, and nobody is told.
    black: bool,
    last: [Time; 2],
}

pub struct Pair {
    pub now: Time,
    pub rng: Rng,
    pub ends: [End; 2],
    links: Vec<Link>,
    settings: [Settings; 2],
    /// Longest one-way delay of a frame, in microseconds.
    pub delay: u64,
    /// The opener dials again by itself.
    pub resumes: bool,
    next_dial: Option<Time>,
    /// Bytes that a link takes before it pushes back.
    pub link_capacity: usize,
    pub acceptor_restarted: bool,
}

pub fn settings(replay: u64, receive: u64) -> Settings {
    Settings {
        replay_capacity: replay,
        receive_capacity: receive,
        liveness: Duration::from_secs(15),
        resume_window: Duration::from_secs(600),
    }
}

impl Pair {
    pub fn new(seed: u64) -> Self {
        Self::with_settings(seed, [settings(64 * 1024, 64 * 1024); 2])
    }

    pub fn with_settings(seed: u64, settings: [Settings; 2]) -> Self {
        let now = Time::from_origin(Duration::from_secs(1));
        let opener = Session::opener(now, SessionId([7; 16]), "echo", settings[OPENER]);
        let end = |session| End {
            session,
            links: Vec::new(),
            written: 0,
            taken: 0,
            saw_finish: false,
            outcome: None,
            attached: Vec::new(),
            released: Vec::new(),
        };
        Self {
            now,
            rng: Rng::new(seed),
            ends: [end(Some(opener)), end(None)],
            links: Vec::new(),
            settings,
            delay: 5_000,
            resumes: true,
            next_dial: None,
            link_capacity: 40_000,
            acceptor_restarted: false,
        }
    }

    pub fn session(&mut self, end: usize) -> &mut Session {
        self.ends[end].session.as_mut().expect("a session at this end")
    }

    // --- links -------------------------------------------------------------------------------------------------

    /// A new link for the opener; `rotate` or an open or resume. False if the session does not attach now.
    pub fn dial(&mut self, rotate: bool) -> bool {
        let now = self.now;
        let session = self.session(OPENER);
        let attached = if rotate { session.rotate(now) } else { session.attach(now) };
        let Ok(epoch) = attached else { return false };
        self.ends[OPENER].links.push((epoch, self.links.len()));
        self.links.push(Link {
            flight: Default::default(),
            arrived: Default::default(),
            end: [None; 2],
            gone: [false; 2],
            black: false,
            last: [now; 2],
        });
        true
    }

    pub fn open_links(&self) -> Vec<usize> {
        (0..self.links.len()).filter(|&index| self.links[index].gone != [true; 2]).collect()
    }

    /// The newest link that the opener uses.
    pub fn current_link(&self) -> usize {
        self.ends[OPENER].links.last().expect("a link").1
    }

    /// Loses everything in flight; each end is told after up to `notice` microseconds.
    pub fn cut(&mut self, index: usize, notice: u64) {
        for end in [OPENER, ACCEPTOR] {
            let told = self.now + Duration::from_micros(self.rng.below(notice + 1));
            let link = &mut self.links[index];
            link.flight[end].clear();
            link.end[end].get_or_insert(told);
        }
        self.links[index].black = true;
    }

    /// From now on nothing gets through, and nobody is told.
    pub fn black_hole(&mut self, index: usize) {
        self.links[index].black = true;
        self.links[index].flight.iter_mut().for_each(VecDeque::clear);
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
    fn let_go(&mut self, end: usize, index: usize, graceful: bool) {
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

    // --- one round ---------------------------------------------------------------------------------------------

    /// Lets both ends do everything that they can do at this moment.
    pub fn settle(&mut self) {
        for end in [OPENER, ACCEPTOR] {
            self.deliver(end);
            self.drain(end);
        }
    }

    fn deliver(&mut self, end: usize) {
        for index in 0..self.links.len() {
            if self.links[index].gone[end] {
                continue;
            }
            while let Some((at, _)) = self.links[index].flight[1 - end].front()
                && *at <= self.now
            {
                let (_, bytes) = self.links[index].flight[1 - end].pop_front().unwrap();
                self.links[index].arrived[end].push_back(bytes);
            }
            self.hand_over(end, index);
            let link = &self.links[index];
            let ended = link.end[end].is_some_and(|at| at <= self.now);
            if ended && !link.gone[end] && link.arrived[end].is_empty() && link.flight[1 - end].is_empty() {
                let epoch = self.ends[end].links.iter().find(|(_, link)| *link == index).map(|(epoch, _)| *epoch);
                self.let_go(end, index, false);
                if let (Some(epoch), Some(session)) = (epoch, self.ends[end].session.as_mut()) {
                    session.detach(self.now, epoch);
                }
            }
        }
    }

    fn hand_over(&mut self, end: usize, index: usize) {
        loop {
            let epoch = self.ends[end].links.iter().find(|(_, link)| *link == index).map(|(epoch, _)| *epoch);
            let session = self.ends[end].session.as_ref();
            if epoch.is_some_and(|epoch| !session.is_some_and(|session| session.may_read(epoch))) {
                return;
            }
            let Some(bytes) = self.links[index].arrived[end].pop_front() else { return };
            let (frame, length) = decode(&bytes).unwrap().expect("a whole frame");
            assert_eq!(length, bytes.len());
            match epoch {
                Some(epoch) => {
                    let now = self.now;
                    self.session(end).handle_frame(now, epoch, &frame);
                }
                None => self.on_hello(index, &frame),
            }
            self.drain_events(end);
        }
    }

    /// What the driver at the accepting end does with a link's first frame.
    fn on_hello(&mut self, index: usize, frame: &Frame<'_>) {
        let Frame::Hello(hello) = frame else { return };
        let settings = self.settings[ACCEPTOR];
        let end = &mut self.ends[ACCEPTOR];
        let refused = match end.session.as_mut() {
            None if hello.intent == Intent::Open && !self.acceptor_restarted => {
                let mut session = Session::acceptor(self.now, hello, settings);
                session.accept(self.now, hello).expect("a new session accepts its first Hello");
                end.session = Some(session);
                None
            }
            None => Some(Reject { code: RejectCode::Unknown, received: 0, reason: "no such session".into() }),
            Some(session) => session.accept(self.now, hello).err().map(|rejection| rejection.to_reject()),
        };
        match refused {
            None => end.links.push((hello.epoch, index)),
            Some(reject) => {
                let mut bytes = Vec::new();
                Frame::Reject(reject).encode(&mut bytes);
                self.send(ACCEPTOR, index, bytes);
                self.let_go(ACCEPTOR, index, true);
            }
        }
        self.drain_events(ACCEPTOR);
    }

    fn drain(&mut self, end: usize) {
        loop {
            let mut moved = false;
            for (epoch, index) in self.ends[end].links.clone() {
                loop {
                    let queued: usize = self.links[index].flight[end].iter().map(|(_, bytes)| bytes.len()).sum();
                    let now = self.now;
                    if queued >= self.link_capacity || self.links[index].gone[end] {
                        break;
                    }
                    let Some(frame) = self.session(end).poll_transmit(now, epoch) else { break };
                    let mut bytes = Vec::new();
                    let payload = frame.encode(&mut bytes);
                    bytes.extend_from_slice(payload);
                    self.send(end, index, bytes);
                    moved = true;
                }
            }
            moved |= self.drain_events(end);
            if !moved {
                return;
            }
        }
    }

    fn drain_events(&mut self, end: usize) -> bool {
        let mut any = false;
        while let Some(event) = self.ends[end].session.as_mut().and_then(Session::poll_event) {
            any = true;
            match event {
                Event::Released { epoch, release } => {
                    if let Some((_, index)) = self.ends[end].links.iter().copied().find(|(of, _)| *of == epoch) {
                        self.let_go(end, index, release == Release::Finished);
                    }
                    self.ends[end].released.push(release);
                }
                Event::Attached { intent, .. } => self.ends[end].attached.push(intent),
                Event::Suspect { .. } if end == OPENER && self.resumes => {
                    self.dial(false);
                }
                Event::Closed(outcome) => self.ends[end].outcome = Some(outcome),
                Event::Detached | Event::Suspect { .. } => {}
            }
        }
        any
    }

    // --- time --------------------------------------------------------------------------------------------------

    fn next_moment(&self) -> Option<Time> {
        let flights = self.links.iter().flat_map(|link| {
            [OPENER, ACCEPTOR].into_iter().flat_map(|end| {
                let arriving = (!link.gone[1 - end]).then(|| link.flight[end].front().map(|(at, _)| *at)).flatten();
                let ending = (!link.gone[end]).then_some(link.end[end]).flatten();
                [arriving, ending]
            })
        });
        let timeouts = self.ends.iter().map(|end| end.session.as_ref().and_then(Session::poll_timeout));
        flights.chain(timeouts).chain([self.next_dial]).flatten().filter(|at| *at > self.now).min()
    }

    /// Moves the clock to the next thing that happens, at most to `until`. False if that is where it stands.
    pub fn step(&mut self, until: Time) -> bool {
        self.settle();
        let next = self.next_moment().unwrap_or(until).min(until);
        let moved = next > self.now;
        self.now = next.max(self.now);
        for end in [OPENER, ACCEPTOR] {
            let now = self.now;
            if let Some(session) = self.ends[end].session.as_mut()
                && session.poll_timeout().is_some_and(|at| at <= now)
            {
                session.handle_timeout(now);
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
        let lost = !session.is_closed() && session.epoch() > Epoch::NONE && self.ends[OPENER].links.is_empty();
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

    // --- the applications --------------------------------------------------------------------------------------

    pub fn write(&mut self, end: usize, count: usize) -> usize {
        let from = self.ends[end].written;
        let bytes: Vec<u8> = (from..from + count as u64).map(|offset| pattern(side(end), offset)).collect();
        let wrote = self.session(end).write(&bytes);
        self.ends[end].written += wrote as u64;
        wrote
    }

    /// Takes up to `limit` bytes and checks each.
    pub fn read(&mut self, end: usize, limit: usize) -> usize {
        let mut taken = self.ends[end].taken;
        let start = taken;
        let Some(session) = self.ends[end].session.as_mut() else { return 0 };
        for slice in session.readable() {
            for byte in slice.iter().take(limit - (taken - start) as usize) {
                assert_eq!(*byte, pattern(side(1 - end), taken), "wrong byte at offset {taken} for end {end}");
                taken += 1;
            }
        }
        session.consume((taken - start) as usize);
        self.ends[end].taken = taken;
        self.ends[end].saw_finish = session.is_drained();
        (taken - start) as usize
    }

    pub fn finish(&mut self, end: usize) {
        self.session(end).finish();
    }

    /// Both applications write `bytes` in full and close, reading everything meanwhile; both ends must finish.
    pub fn exchange_and_close(&mut self, bytes: [u64; 2]) {
        for _ in 0..200_000 {
            for end in [OPENER, ACCEPTOR] {
                if self.ends[end].session.is_none() {
                    continue;
                }
                let left = bytes[end].saturating_sub(self.ends[end].written);
                self.write(end, usize::try_from(left.min(20_000)).unwrap());
                if self.ends[end].written >= bytes[end] && !self.session(end).is_finished() {
                    self.finish(end);
                }
                self.read(end, usize::MAX);
            }
            let until = self.now + Duration::from_secs(30);
            if self.ends.iter().all(|end| end.outcome.is_some()) {
                break;
            }
            self.step(until);
        }
        for end in [OPENER, ACCEPTOR] {
            self.read(end, usize::MAX);
            let outcome = &self.ends[end].outcome;
            assert_eq!(
                *outcome,
                Some(Outcome::Finished),
                "end {end} at {:?}: {:#?}",
                self.now,
                [&self.ends[0].session, &self.ends[1].session]
            );
            assert_eq!(self.ends[end].taken, bytes[1 - end], "bytes taken at end {end}");
            assert!(self.ends[end].saw_finish, "end {end} saw no end");
            let session = self.ends[end].session.as_ref().unwrap();
            assert_eq!(session.allocated(), 0, "memory left at end {end}");
        }
    }
}
