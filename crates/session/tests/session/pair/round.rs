//! One round: what both ends do at one moment, as their drivers would.

use ferry_session::{Event, Frame, Intent, Reject, RejectCode, Release, Session, decode};

use super::{ACCEPTOR, OPENER, Pair, Sent};
use crate::apps::kept_in_place;

impl Pair {
    /// Lets both ends do everything that they can do at this moment.
    pub fn settle(&mut self) {
        for end in [OPENER, ACCEPTOR] {
            while self.deliver(end) {}
            self.drain(end);
        }
    }

    /// Says whether anything came: it may have made another link readable.
    fn deliver(&mut self, end: usize) -> bool {
        let mut any = false;
        let mut order: Vec<usize> = (0..self.links.len()).collect();
        if self.rng.chance(50) {
            order.reverse();
        }
        for index in order {
            if self.links[index].gone[end] {
                continue;
            }
            while !self.links[index].held[1 - end]
                && let Some((at, _)) = self.links[index].flight[1 - end].front()
                && *at <= self.now
            {
                let (_, bytes) = self.links[index].flight[1 - end].pop_front().unwrap();
                self.links[index].arrived[end].push_back(bytes);
            }
            any |= self.hand_over(end, index);
            let link = &self.links[index];
            let ended = !link.held[1 - end] && link.end[end].is_some_and(|at| at <= self.now);
            if ended && !link.gone[end] && link.arrived[end].is_empty() && link.flight[1 - end].is_empty() {
                let epoch = self.ends[end].links.iter().find(|(_, link)| *link == index).map(|(epoch, _)| *epoch);
                self.let_go(end, index, false);
                any = true;
                if let (Some(epoch), Some(session)) = (epoch, self.ends[end].session.as_mut()) {
                    session.detach(self.now, epoch);
                }
            }
        }
        any
    }

    fn hand_over(&mut self, end: usize, index: usize) -> bool {
        let mut any = false;
        loop {
            let epoch = self.ends[end].links.iter().find(|(_, link)| *link == index).map(|(epoch, _)| *epoch);
            let session = self.ends[end].session.as_ref();
            if epoch.is_some_and(|epoch| !session.is_some_and(|session| session.may_read(epoch))) {
                return any;
            }
            let Some(bytes) = self.links[index].arrived[end].pop_front() else { return any };
            any = true;
            let (frame, length) = decode(&bytes).unwrap().expect("a whole frame");
            assert_eq!(length, bytes.len());
            match epoch {
                Some(epoch) => {
                    let now = self.now;
                    self.session(end).handle_frame(now, epoch, kept_in_place(frame));
                    if end == OPENER && self.eager > 0 && self.rng.chance(self.eager) {
                        let rotate = self.rng.chance(70);
                        self.dial(rotate);
                    }
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
            None if let Some(received) = end.tombstone => {
                Some(Reject { code: RejectCode::Closed, received, reason: "it has ended".into() })
            }
            None if hello.intent == Intent::Open && !self.acceptor_restarted => {
                end.session = Some(Session::acceptor(self.now, hello, settings));
                end.store();
                let session = end.session.as_mut().unwrap();
                session.accept(self.now, hello).expect("a new session accepts its first Hello");
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

    pub fn drain(&mut self, end: usize) {
        let (mut frames, mut is_first) = (0, true);
        loop {
            // As a driver does before it sends, and after that only if there is more: it may be killed right then.
            let stored = self.ends[end].session.as_ref().map(Session::snapshot);
            if std::mem::take(&mut is_first) {
                self.ends[end].stored = stored;
            }
            let mut moved = false;
            let mut links = self.ends[end].links.clone();
            if self.rng.chance(50) {
                links.reverse();
            }
            for (epoch, index) in links {
                loop {
                    let queued: usize = self.links[index].flight[end].iter().map(|(_, bytes)| bytes.len()).sum();
                    let now = self.now;
                    if queued >= self.link_capacity || self.links[index].gone[end] {
                        break;
                    }
                    let session = self.ends[end].session.as_mut().expect("a session at this end");
                    let Some(frame) = session.poll_transmit(now, epoch) else { break };
                    self.ends[end].stored = stored;
                    let (name, mut bytes) = (frame.name(), Vec::new());
                    let payload = frame.encode(&mut bytes);
                    bytes.extend_from_slice(payload);
                    let payload = payload.len() as u64;
                    self.sent.push(Sent { at: now, from: end, link: index, name, payload });
                    self.send(end, index, bytes);
                    moved = true;
                    frames += 1;
                    assert!(frames < 10_000, "a session that is never done with sending");
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
                Event::Suspect { .. } => {
                    self.ends[end].suspects += 1;
                    if end == OPENER && self.resumes {
                        self.dial(false);
                    }
                }
                Event::Closed(outcome) => self.ends[end].outcome = Some(outcome),
                Event::Detached => {}
            }
        }
        any
    }
}
