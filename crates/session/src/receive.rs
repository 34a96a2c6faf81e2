use crate::blocks::Blocks;
use crate::{AckPoint, Block, Payload, Violation};

/// The direction to this end's application: what has arrived and was not yet taken.
#[derive(Debug)]
pub(crate) struct ReceiveHalf {
    /// Bytes received and not taken.
    queue: Blocks,
    /// Most bytes that the queue is granted.
    capacity: u64,
    /// The peer's Finish has arrived; it stands at the queue's end.
    finished: bool,
    /// When bytes and the Finish are acknowledged.
    ack_at: AckPoint,
    /// The application was told the end.
    finish_delivered: bool,
    /// The highest offset that the peer was told it may send.
    granted: u64,
    /// What the peer was last told that this end holds.
    acked: u64,
    /// If data stops exactly at this earlier window, the window was what held the peer up.
    probe_window: u64,
    /// The window held the peer up since this was asked last.
    window_limited: bool,
    /// The last grant may not have reached the peer.
    grant_unconfirmed: bool,
    /// Nobody takes the bytes: they are counted and dropped.
    discarding: bool,
}

impl ReceiveHalf {
    pub(crate) fn new(ack_at: AckPoint, capacity: u64, granted: u64) -> Self {
        Self {
            queue: Blocks::default(),
            capacity,
            finished: false,
            ack_at,
            finish_delivered: false,
            granted,
            acked: 0,
            probe_window: granted,
            window_limited: false,
            grant_unconfirmed: false,
            discarding: false,
        }
    }

    /// The direction as a process before this one left it: the application has everything below `taken`, and was told the
    /// end behind it if `finished`.
    pub(crate) fn adopted(ack_at: AckPoint, capacity: u64, granted: u64, taken: u64, finished: bool) -> Self {
        let mut half = Self::new(ack_at, capacity, granted);
        half.queue = Blocks::at(taken);
        (half.finished, half.finish_delivered) = (finished, finished);
        half.acked = half.received();
        half
    }

    /// Everything below this offset has arrived; counts the Finish.
    #[inline]
    pub(crate) fn arrived(&self) -> u64 {
        self.queue.end() + u64::from(self.finished)
    }

    /// Everything below this offset is acknowledged, now or with the next ack; counts the Finish.
    #[inline]
    pub(crate) fn received(&self) -> u64 {
        match self.ack_at {
            AckPoint::Arrival => self.arrived(),
            AckPoint::Delivery => self.queue.base() + u64::from(self.has_ended()),
        }
    }

    /// The Finish is acknowledged, now or with the next ack.
    pub(crate) fn has_ended(&self) -> bool {
        self.finished && (self.ack_at == AckPoint::Arrival || self.finish_delivered || self.discarding)
    }

    pub(crate) fn buffered(&self) -> u64 {
        self.queue.len()
    }

    pub(crate) fn allocated(&self) -> usize {
        self.queue.allocated()
    }

    /// The direction has ended, and all of it counts as received.
    pub(crate) fn is_complete(&self) -> bool {
        self.finished && self.received() == self.arrived()
    }

    pub(crate) fn finish_delivered(&mut self) {
        self.finish_delivered = self.finished;
    }

    /// The peer's Finish is what the application takes next.
    pub(crate) fn is_drained(&self) -> bool {
        self.finished && self.queue.len() == 0
    }

    pub(crate) fn set_capacity(&mut self, capacity: u64) {
        self.capacity = capacity;
    }

    pub(crate) fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.queue.slices(self.queue.base())
    }

    pub(crate) fn consume(&mut self, count: usize) {
        let taken = self.queue.base().saturating_add(count as u64);
        self.queue.drop_below(taken.min(self.queue.end()));
    }

    pub(crate) fn poll_spent(&mut self) -> Option<Block> {
        self.queue.poll_spent()
    }

    pub(crate) fn is_discarding(&self) -> bool {
        self.discarding
    }

    /// Drops the bytes, and those that are still to come.
    pub(crate) fn discard(&mut self) {
        self.discarding = true;
        self.queue.clear();
    }

    /// How far the peer may send now. Never goes back.
    pub(crate) fn window(&self) -> u64 {
        self.granted.max(self.queue.base().saturating_add(self.capacity))
    }

    /// Bytes that the peer may have on their way here, or that wait for the application.
    pub(crate) fn promised(&self) -> u64 {
        self.window() - self.queue.base()
    }

    /// `received` and `window` for an Accept, an Ack, or the Hello on a session's only link, which is being sent now.
    pub(crate) fn advertise_and_record(&mut self) -> (u64, u64) {
        let (received, window) = self.advertise();
        self.acked = received;
        self.grant_unconfirmed = false;
        (received, window)
    }

    /// `received` and `window` for the Hello on a second link. The peer may read it later than what goes on the first one,
    /// or never, so it does not count as told.
    pub(crate) fn advertise(&mut self) -> (u64, u64) {
        let window = self.window();
        self.grant_unconfirmed |= window > self.granted;
        self.granted = window;
        (self.received(), window)
    }

    /// Something has arrived that is acknowledged later.
    #[inline]
    pub(crate) fn is_behind(&self) -> bool {
        self.ack_at == AckPoint::Delivery && self.received() < self.arrived()
    }

    /// Whether the window has held the peer up since this was asked last.
    pub(crate) fn take_window_limited(&mut self) -> bool {
        std::mem::take(&mut self.window_limited)
    }

    /// What the peer was told last may not have reached it.
    pub(crate) fn repeat_grant(&mut self) {
        self.grant_unconfirmed = true;
    }

    /// How much counts as received that the peer does not know of.
    #[inline]
    pub(crate) fn owed_ack(&self) -> u64 {
        self.received() - self.acked
    }

    /// The ack of what is `owed` should not wait: much has arrived, much has been taken, or the direction ended.
    #[inline]
    pub(crate) fn ack_is_urgent(&self, owed: u64) -> bool {
        let quarter = (self.capacity / 4).max(1);
        self.grant_unconfirmed
            || owed >= quarter.min(128 * 1024)
            || self.window() - self.granted >= quarter
            || (owed > 0 && self.has_ended())
    }

    /// Data at `offset`: drops what it has, keeps the rest. Says whether anything was new.
    pub(crate) fn on_data(&mut self, offset: u64, payload: Payload<'_>) -> Result<bool, Violation> {
        let received = self.queue.end();
        let end = offset.saturating_add(payload.len() as u64);
        // "A receiver refuses gaps."
        if offset > received {
            return Err(Violation::Gap { offset, received });
        }
        // "Nothing follows a Finish."
        if self.finished && end > received {
            return Err(Violation::BeyondFinish { end, finish: received });
        }
        // "A sender never exceeds the window."
        if end > self.granted {
            return Err(Violation::BeyondWindow { end, window: self.granted });
        }
        if end <= received {
            return Ok(false);
        }
        let known = usize::try_from(received - offset).unwrap_or(usize::MAX);
        match payload.into_block() {
            Ok((block, bytes)) => self.queue.append(block, bytes.start + known..bytes.end),
            Err(payload) => self.queue.push(&payload[known..]),
        }
        if self.discarding {
            self.queue.clear();
        }
        // A sender cuts its data at blocks of its own, and at the window only when that is what stops it.
        self.window_limited |= end == self.probe_window;
        if end >= self.probe_window {
            self.probe_window = self.granted;
        }
        Ok(true)
    }

    /// The direction's end at `offset`. Says whether that was new.
    pub(crate) fn on_finish(&mut self, offset: u64) -> Result<bool, Violation> {
        let received = self.queue.end();
        if offset > received {
            return Err(Violation::Gap { offset, received });
        }
        // A direction ends once, and where it ended nothing more can have come.
        if offset < received {
            return Err(Violation::BeyondFinish { end: received, finish: offset });
        }
        Ok(!std::mem::replace(&mut self.finished, true))
    }
}
