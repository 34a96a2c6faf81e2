//! What happens to links and to the processes at their ends.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::Duration;

use ferry_session::{Epoch, Frame, Hello, Intent, SessionId};

use crate::pair::{ACCEPTOR, OPENER, Pair};

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

    /// The process at `end` is killed; a new one, which knows nothing, takes its place.
    pub fn kill(&mut self, end: usize) {
        self.ends[end].session = None;
        for (_, index) in std::mem::take(&mut self.ends[end].links) {
            self.let_go(end, index, false);
        }
        self.acceptor_restarted |= end == ACCEPTOR;
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
