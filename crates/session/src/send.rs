use crate::blocks::Blocks;
use crate::{Block, Payload, Violation};

/// The direction from this end's application: the replay buffer and how far the peer has it.
#[derive(Debug)]
pub(crate) struct SendHalf {
    /// Bytes not yet acknowledged.
    replay: Blocks,
    /// Most bytes that the replay buffer may hold.
    capacity: u64,
    /// The application closed this direction: its Finish stands at the buffer's end.
    finished: bool,
    /// Everything below is held by the peer; counts the Finish.
    acked: u64,
    /// The highest offset that may be sent.
    window: u64,
    /// Offset after the last thing that was ever sent on any link; counts the Finish.
    sent: u64,
}

impl SendHalf {
    pub(crate) fn new(capacity: u64, window: u64) -> Self {
        Self { replay: Blocks::default(), capacity, finished: false, acked: 0, window, sent: 0 }
    }

    /// The direction as a process before this one left it. Everything that is kept may have been sent, and may have been
    /// acknowledged.
    pub(crate) fn adopted(capacity: u64, window: u64, base: u64, kept: Vec<(Block, usize)>, finished: bool) -> Self {
        let mut replay = Blocks::at(base);
        for (block, length) in kept {
            replay.restore(block, length);
        }
        let mut half = Self { replay, capacity, finished, acked: base, window, sent: 0 };
        half.sent = half.end();
        half
    }

    pub(crate) fn acked(&self) -> u64 {
        self.acked
    }

    pub(crate) fn buffered(&self) -> u64 {
        self.replay.len()
    }

    pub(crate) fn allocated(&self) -> usize {
        self.replay.allocated()
    }

    /// Offset after everything that the application gave, with its Finish.
    pub(crate) fn end(&self) -> u64 {
        self.replay.end() + u64::from(self.finished)
    }

    /// Offset after the application's last byte.
    pub(crate) fn replay_end(&self) -> u64 {
        self.replay.end()
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    /// The peer holds everything, also the Finish.
    pub(crate) fn is_complete(&self) -> bool {
        self.finished && self.acked == self.end()
    }

    /// How many bytes the application may write now.
    pub(crate) fn writable(&self) -> usize {
        if self.finished {
            return 0;
        }
        usize::try_from(self.capacity.saturating_sub(self.replay.len())).unwrap_or(usize::MAX)
    }

    pub(crate) fn set_capacity(&mut self, capacity: u64) {
        self.capacity = capacity;
    }

    pub(crate) fn replay(&mut self) -> &mut Blocks {
        &mut self.replay
    }

    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    /// Forgets the bytes: the session is being reset.
    pub(crate) fn discard(&mut self) {
        self.replay.clear();
        self.finished = true;
        self.acked = self.end();
        self.sent = self.end();
    }

    /// The peer holds everything below `received`, and takes up to `window`.
    pub(crate) fn on_ack(&mut self, received: u64, window: u64) -> Result<(), Violation> {
        // "An end never acknowledges what was not sent."
        if received > self.sent {
            return Err(Violation::AckBeyondSent { received, sent: self.sent });
        }
        // An ack that overtook this one on another link has said more: keep the higher.
        if received > self.acked {
            self.acked = received;
            self.replay.drop_below(received.min(self.replay.end()));
        }
        self.window = self.window.max(window);
        Ok(())
    }

    /// How many bytes one frame may carry that begins at `offset`.
    pub(crate) fn sendable(&self, offset: u64) -> usize {
        // Asked again and again of a link that has sent everything.
        if offset >= self.replay.end() {
            return 0;
        }
        let allowed = usize::try_from(self.window.saturating_sub(offset)).unwrap_or(usize::MAX);
        self.replay.length_at(offset).min(allowed)
    }

    /// That many of the bytes from `offset` on.
    pub(crate) fn payload(&self, offset: u64, length: usize) -> Payload<'_> {
        self.replay.payload(offset).cut(length)
    }

    /// Whether the Finish is what comes next at `offset`.
    pub(crate) fn finish_is_next(&self, offset: u64) -> bool {
        self.finished && offset == self.replay.end()
    }

    /// Everything below `offset` has been sent on some link.
    pub(crate) fn on_sent(&mut self, offset: u64) {
        self.sent = self.sent.max(offset);
    }
}
