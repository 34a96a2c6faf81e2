//! One direction of a simulated connection: a line that delays, holds and loses, between two bounded buffers.

use std::collections::VecDeque;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::Instant;

/// What a connection and the path under it are like, in each direction.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// One way.
    pub latency: Duration,
    /// Bytes per second; 0 is no limit.
    pub rate: u64,
    /// Bytes that are sent and were not read: both kernels' buffers together.
    pub buffer: usize,
    /// A reset destroys what arrived before it and was not read.
    pub fragile: bool,
}

/// What goes over it.
pub enum Cargo {
    Data(VecDeque<u8>),
    /// The end of the stream.
    Fin,
    /// The connection is gone.
    Rst,
}

struct Segment {
    /// When its last byte has left.
    departs: Instant,
    arrives: Instant,
    cargo: Cargo,
}

/// What the reading end finds.
pub enum Arrived<'a> {
    Data(&'a mut VecDeque<u8>),
    Fin,
    Rst,
    /// Nothing before then.
    At(Instant),
    /// Nothing before the pipe wakes the reader.
    Nothing,
}

pub struct Pipe {
    line: Line,
    segments: VecDeque<Segment>,
    /// Bytes in `segments`.
    held: usize,
    /// What the writer lets its kernel hold that has not departed.
    unsent_limit: usize,
    /// Nothing arrives until it is released.
    stopped: bool,
    /// Nothing arrives ever again.
    black: bool,
    /// The reader has let go: what arrives now is answered by a reset.
    deaf: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    pub fn new(line: Line) -> Self {
        Self {
            line,
            segments: VecDeque::new(),
            held: 0,
            unsent_limit: usize::MAX,
            stopped: false,
            black: false,
            deaf: false,
            reader: None,
            writer: None,
        }
    }

    pub fn latency(&self) -> Duration {
        self.line.latency
    }

    pub fn set_line(&mut self, line: Line) {
        self.line = Line { buffer: self.line.buffer, ..line };
    }

    pub fn set_unsent_limit(&mut self, bytes: usize) {
        self.unsent_limit = bytes;
    }

    /// Whether what is sent now is answered by a reset.
    pub fn bounces(&self) -> bool {
        self.deaf && !self.stopped && !self.black
    }

    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    // --- the writer's end --------------------------------------------------------------------------------------

    /// How many bytes may be written now; or none, and since when it is worth asking again.
    pub fn room(&self) -> Result<usize, Option<Instant>> {
        let room = self.line.buffer.saturating_sub(self.held);
        if room == 0 {
            return Err(None);
        }
        if self.line.rate > 0 && !self.black {
            let now = Instant::now();
            let mut unsent = 0;
            for segment in self.segments.iter().rev().take_while(|segment| segment.departs > now) {
                let Cargo::Data(data) = &segment.cargo else { continue };
                unsent += data.len();
                if unsent >= self.unsent_limit {
                    return Err(Some(segment.departs));
                }
            }
        }
        Ok(room)
    }

    pub fn send(&mut self, cargo: Cargo) {
        self.send_after(Duration::ZERO, cargo);
    }

    /// Sends something that leaves after `delay`.
    pub fn send_after(&mut self, delay: Duration, cargo: Cargo) {
        let now = Instant::now() + delay;
        let length = if let Cargo::Data(data) = &cargo { data.len() } else { 0 };
        let (departed, arrived) = self.segments.back().map_or((now, now), |last| (last.departs, last.arrives));
        let takes = (length as u64 * 1_000_000).checked_div(self.line.rate).unwrap_or_default();
        let departs = departed.max(now) + Duration::from_micros(takes);
        let arrives = (departs + self.line.latency).max(arrived);
        self.held += length;
        self.segments.push_back(Segment { departs, arrives, cargo });
        self.wake_reader();
    }

    pub fn await_room(&mut self, cx: &Context<'_>) {
        self.writer = Some(cx.waker().clone());
    }

    // --- the reader's end --------------------------------------------------------------------------------------

    pub fn arrived(&mut self) -> Arrived<'_> {
        if self.stopped || self.black {
            return Arrived::Nothing;
        }
        if self.line.fragile && self.has_reset() {
            return Arrived::Rst;
        }
        match self.segments.front_mut() {
            None => Arrived::Nothing,
            Some(first) if first.arrives > Instant::now() => Arrived::At(first.arrives),
            Some(Segment { cargo: Cargo::Data(data), .. }) => Arrived::Data(data),
            Some(Segment { cargo: Cargo::Fin, .. }) => Arrived::Fin,
            Some(Segment { cargo: Cargo::Rst, .. }) => Arrived::Rst,
        }
    }

    /// The reader took `count` bytes of the first segment.
    pub fn took(&mut self, count: usize) {
        self.held -= count;
        if let Some(Segment { cargo: Cargo::Data(data), .. }) = self.segments.front()
            && data.is_empty()
        {
            self.segments.pop_front();
        }
        self.wake_writer();
    }

    /// A reset has arrived, whatever the reader has not read before it.
    pub fn has_reset(&self) -> bool {
        let now = Instant::now();
        let gone = |segment: &Segment| matches!(segment.cargo, Cargo::Rst) && segment.arrives <= now;
        !self.stopped && !self.black && self.segments.back().is_some_and(gone)
    }

    /// Bytes have arrived that were not read.
    pub fn has_unread(&mut self) -> bool {
        matches!(self.arrived(), Arrived::Data(_))
    }

    pub fn await_cargo(&mut self, cx: &Context<'_>) {
        self.reader = Some(cx.waker().clone());
    }

    /// Nobody reads any more; what is under way may be lost.
    pub fn deafen(&mut self, loses: bool) {
        self.deaf = true;
        if loses {
            self.segments.clear();
            self.held = 0;
        }
        self.wake_writer();
    }

    // --- what happens to it ------------------------------------------------------------------------------------

    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// What waited arrives, the first of it after `delay`: the sender has to send it again.
    pub fn release(&mut self, delay: Duration) {
        if std::mem::take(&mut self.stopped) {
            let first = Instant::now() + delay;
            self.segments.iter_mut().for_each(|segment| segment.arrives = segment.arrives.max(first));
        }
        self.wake_reader();
    }

    pub fn blacken(&mut self) {
        self.black = true;
    }

    fn wake_reader(&mut self) {
        self.reader.take().into_iter().for_each(Waker::wake);
    }

    fn wake_writer(&mut self) {
        self.writer.take().into_iter().for_each(Waker::wake);
    }
}
