//! The applications at both ends: what they write, read and close, and what they must see.

use std::io::{IoSliceMut, Read};
use std::time::Duration;

use ferry_session::{Block, Frame, Outcome, Payload};

use crate::pair::{ACCEPTOR, OPENER, Pair, side};
use crate::rng::{Rng, pattern};

/// As a socket does: all that there is room for, or that there is.
fn fill(bufs: &mut [IoSliceMut<'_>], mut bytes: &[u8]) -> usize {
    bufs.iter_mut().map(|buf| bytes.read(buf).unwrap()).sum()
}

/// The frame as a driver hands it over that has opened its record into a block, as half of them do.
pub fn kept_in_place(frame: Frame<'_>) -> Frame<'_> {
    match frame {
        Frame::Data { offset, payload } if Rng::new(offset).chance(50) => {
            let mut block = Block::default();
            let start = Rng::new(offset).below((Block::SIZE - payload.len()) as u64) as usize;
            let bytes = start..start + payload.len();
            block[bytes.clone()].copy_from_slice(&payload);
            Frame::Data { offset, payload: Payload::owned(block, bytes) }
        }
        other => other,
    }
}

impl Pair {
    pub fn write(&mut self, end: usize, count: usize) -> usize {
        let from = self.ends[end].written;
        let bytes: Vec<u8> = (from..from + count as u64).map(|offset| pattern(side(end), offset)).collect();
        let in_place = Rng::new(from).chance(50);
        let session = self.session(end);
        let wrote = if in_place {
            session.write_with(count, Block::default, |bufs| fill(bufs, &bytes))
        } else {
            session.write(&bytes)
        };
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
        if session.is_drained() {
            session.finish_delivered();
        }
        (taken - start) as usize
    }

    pub fn finish(&mut self, end: usize) {
        self.session(end).finish();
        self.ends[end].finished = true;
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
            assert_eq!(self.allocated(end), 0, "memory left at end {end}");
        }
    }

    /// Memory that a session holds once its driver has taken the blocks that it has no use for.
    pub fn allocated(&mut self, end: usize) -> usize {
        let Some(session) = self.ends[end].session.as_mut() else { return 0 };
        while session.poll_spent().is_some() {}
        session.allocated()
    }
}
