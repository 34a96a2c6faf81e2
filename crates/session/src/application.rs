//! The application's side: bytes in and out, and what is held of them.

use std::io::IoSliceMut;
use std::time::Duration;

use crate::frame::bounded;
use crate::link::Link;
use crate::time::millis;
use crate::{Block, Epoch, Outcome, ResetCode, Session, Time};

impl Session {
    /// How many bytes may be written now: zero is back-pressure.
    pub fn writable(&self) -> usize {
        if self.resetting.is_some() || self.is_closed() { 0 } else { self.send.writable() }
    }

    /// Takes application bytes, at most [`writable`](Self::writable); returns how many it took.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.writable());
        self.send.replay().push(&bytes[..count]);
        count
    }

    /// Takes application bytes that `fill` writes in place, at most `want` and [`writable`](Self::writable); it says how
    /// many it wrote, and so does this. The blocks for them come from `lend`.
    pub fn write_with(
        &mut self,
        want: usize,
        lend: impl FnMut() -> Block,
        fill: impl FnOnce(&mut [IoSliceMut<'_>]) -> usize,
    ) -> usize {
        let want = want.min(self.writable());
        self.send.replay().fill(want, lend, fill)
    }

    /// A block that the session has no use for any more. Ask after every mutation: a session at rest should hold none.
    pub fn poll_spent(&mut self) -> Option<Block> {
        self.send.replay().poll_spent().or_else(|| self.receive.poll_spent())
    }

    /// The application closed this direction. Nothing can be written any more.
    pub fn finish(&mut self) {
        self.send.finish();
    }

    /// Bytes for the application, in order. [`consume`](Self::consume) what it took.
    pub fn readable(&self) -> impl Iterator<Item = &[u8]> {
        self.receive.slices()
    }

    /// The application took the first `count` bytes of [`readable`](Self::readable).
    pub fn consume(&mut self, count: usize) {
        self.receive.consume(count);
    }

    /// The other direction has ended and everything of it was taken: pass the end on. A session that ends as anything
    /// but finished is a reset to the application, which must not look like an end before.
    pub fn is_drained(&self) -> bool {
        self.receive.is_drained() && !self.failed
    }

    /// The application was told the end, as [`is_drained`](Self::is_drained) asked for.
    pub fn finish_delivered(&mut self) {
        self.receive.finish_delivered();
    }

    /// The application takes nothing more: what has arrived is dropped, and so is what comes, which is acknowledged as
    /// before. So the peer's application is not held up by one that is gone.
    pub fn discard_received(&mut self) {
        self.receive.discard();
    }

    /// The application's connection was reset: what it wrote before is sent, and then the Reset. If the peer makes no
    /// progress with it for twice the liveness time, the rest is dropped.
    pub fn reset_after_sent(&mut self, now: Time, code: ResetCode, reason: &str) {
        if self.resetting.is_some() || self.is_closed() {
            return;
        }
        self.resetting = Some((code, bounded(reason).into()));
        self.receive.discard();
        if self.epoch == Epoch::NONE {
            self.close(Outcome::Finished);
        }
        self.watch_progress(now);
    }

    /// Ends the session without regard to what is under way. If it has no link, the next attach carries the reset.
    pub fn reset(&mut self, code: ResetCode, reason: &str) {
        if self.is_closed() {
            return;
        }
        self.resetting.get_or_insert_with(|| (code, bounded(reason).into()));
        self.send.discard();
        self.receive.discard();
        if self.epoch == Epoch::NONE {
            self.close(Outcome::Finished);
        }
    }

    /// Bytes kept for replay.
    pub fn replay_buffered(&self) -> u64 {
        self.send.buffered()
    }

    /// Bytes received and not taken by the application.
    pub fn receive_buffered(&self) -> u64 {
        self.receive.buffered()
    }

    /// Bytes that are received and not taken by the application, or that the peer was told it may send.
    pub fn receive_promised(&self) -> u64 {
        self.receive.promised()
    }

    /// Bytes of memory that the session's buffers hold now.
    pub fn allocated(&self) -> usize {
        self.send.allocated() + self.receive.allocated()
    }

    /// Everything below this offset, counting the Finish, has come as far as [`AckPoint`](crate::AckPoint) asks for.
    pub fn received(&self) -> u64 {
        self.receive.received()
    }

    /// Everything below this offset, counting the Finish, is held by the peer.
    pub fn acked(&self) -> u64 {
        self.send.acked()
    }

    /// Changes how much the replay buffer and the receive queue may hold, in bytes. What is held or granted already stays.
    pub fn set_capacities(&mut self, replay: u64, receive: u64) {
        self.send.set_capacity(replay);
        self.receive.set_capacity(receive);
    }

    /// The replay buffer is full of what was sent: its capacity is what holds the application up.
    pub fn is_replay_limited(&self) -> bool {
        let everything_sent = |link: &Link| link.next >= self.send.replay_end();
        !self.send.is_finished()
            && self.send.writable() == 0
            && self.attachment.write_link().is_some_and(everything_sent)
    }

    /// The receive window has held the peer up since this was asked last, although the application takes what comes.
    pub fn take_window_limited(&mut self) -> bool {
        self.receive.take_window_limited() && self.receive.buffered() == 0
    }

    /// Has an idle link asked after `interval` from now on, and not after [`IDLE_PING_INTERVAL`](crate::IDLE_PING_INTERVAL):
    /// an opener whose link only the other end has lost learns of that by asking.
    pub fn set_idle_ping(&mut self, interval: Duration) {
        self.idle_ping_millis = millis(interval);
    }

    /// The last round trip measured on the link that is read, if any.
    pub fn rtt(&self) -> Option<Duration> {
        self.attachment.read_links().find_map(|link| link.liveness.rtt())
    }

    /// The application closed this end's direction.
    pub fn is_finished(&self) -> bool {
        self.send.is_finished()
    }
}
