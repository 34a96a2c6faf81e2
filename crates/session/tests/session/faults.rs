//! What happens to links and to the processes at their ends.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::Duration;

use ferry_session::{AdoptError, Block, Epoch, Frame, Hello, Intent, Session, SessionId, Settings, Survivor};

use crate::pair::{ACCEPTOR, MOMENT, OPENER, Pair, side};
use crate::rng::pattern;

/// A Hello for the pair's session that its opener did not send.
pub fn hello(epoch: u32, intent: Intent, received: u64) -> Hello<'static> {
    Hello {
        session: SessionId([7; 16]),
        epoch: Epoch(epoch),
        intent,
        received,
        window: 64 * 1024,
        resume_window: Duration::from_secs(600),
        service: Cow::Borrowed("echo"),
    }
}

impl Pair {
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
        self.links[index].held = [false; 2];
    }

    /// From now on nothing gets through, and nobody is told.
    pub fn black_hole(&mut self, index: usize) {
        self.links[index].black = true;
        self.links[index].flight.iter_mut().for_each(VecDeque::clear);
    }

    /// Nothing that `from` sends over the link arrives until it is let through again.
    pub fn hold(&mut self, index: usize, from: usize, held: bool) {
        self.links[index].held[from] = held;
    }

    /// Every link is lost until the acceptor's resume window is over; then the opener dials.
    pub fn dial_after_the_acceptor_expired(&mut self) {
        self.resumes = false;
        self.cut(0, 0);
        self.run(MOMENT);
        let later = self.now + Duration::from_secs(601);
        self.session(ACCEPTOR).handle_timeout(later, |_| None);
        self.dial(false);
        self.run(MOMENT);
    }

    /// The process at `end` is killed; a new one, which knows nothing, takes its place.
    pub fn kill(&mut self, end: usize) {
        self.ends[end].session = None;
        for (_, index) in std::mem::take(&mut self.ends[end].links) {
            self.let_go(end, index, false);
        }
        self.acceptor_restarted |= end == ACCEPTOR;
    }

    /// The process at `end` is killed, and another one takes its session over: from what was stored, from what the
    /// applications' kernel counts, and from bytes that were read and may not have been acknowledged.
    pub fn restart(&mut self, end: usize) {
        for (_, index) in std::mem::take(&mut self.ends[end].links) {
            let flushed = self.rng.chance(50);
            self.let_go(end, index, flushed);
        }
        let Some(old) = self.ends[end].session.take() else { return };
        self.restarted = true;
        let written = self.ends[end].written;
        // A slot is given back once all of it was acknowledged.
        let base = old.acked().min(written).saturating_sub(self.rng.below(Block::ROOM as u64));
        let survivor = Survivor {
            side: side(end),
            id: old.id(),
            service: old.service().into(),
            snapshot: self.ends[end].stored.expect("it is stored before anything is sent"),
            base,
            kept: self.slots(end, base, written),
            finished: self.ends[end].finished,
            delivered: self.ends[end].taken,
            finish_delivered: self.ends[end].saw_finish,
        };
        // It may be lent less memory than the one before.
        let receive_capacity = 16 * 1024 * (1 + self.rng.below(3));
        let settings = Settings { receive_capacity, ..self.settings[end] };
        match Session::adopt(self.now, settings, survivor) {
            Ok(session) => {
                self.ends[end].session = Some(session);
                self.ends[end].outcome = None;
            }
            Err(AdoptError::Ended) => {
                assert!(self.ends[end].outcome.is_some(), "it has not ended");
                self.ends[end].tombstone = Some(old.received());
            }
            Err(damage) => panic!("{damage}"),
        }
    }

    /// Blocks as the process that was killed filled them.
    fn slots(&mut self, end: usize, base: u64, written: u64) -> Vec<(Block, usize)> {
        let (mut slots, mut start) = (Vec::new(), base);
        while start < written {
            let most = (written - start).min(Block::ROOM as u64);
            let length = if self.rng.chance(80) { most } else { 1 + self.rng.below(most) };
            let mut block = Block::default();
            for (byte, offset) in block.iter_mut().zip(start..start + length) {
                *byte = pattern(side(end), offset);
            }
            slots.push((block, length as usize));
            start += length;
        }
        slots
    }

    /// The session at `end` is handed a frame of a peer that does not keep to the rules.
    pub fn inject(&mut self, end: usize, frame: &Frame<'_>) {
        let (now, epoch) = (self.now, self.link_epoch(end));
        self.session(end).handle_frame(now, epoch, frame.clone());
        self.drain(end);
    }

    /// The oldest link that the session at `end` is attached to.
    pub fn link_epoch(&self, end: usize) -> Epoch {
        self.ends[end].links.first().expect("a link").0
    }

    /// The names of the frames that `from` has sent over the link.
    pub fn frames(&self, from: usize, link: usize) -> Vec<&'static str> {
        self.sent.iter().filter(|sent| sent.from == from && sent.link == link).map(|sent| sent.name).collect()
    }

    /// How many application bytes `from` has sent, over all links.
    pub fn payload_sent(&self, from: usize) -> u64 {
        self.sent.iter().filter(|sent| sent.from == from).map(|sent| sent.payload).sum()
    }
}
