//! Frames that go (RFC 6455 §5.2). A payload is read where the caller has it, and nothing of it is kept.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::mask::{self, Mask};
use super::receiving::{Asked, MAX_HEAD};
use crate::net::Stream;

/// Bytes of one message at most: more than a link writes at once, and less than the other end takes.
const MAX_SENT: usize = 512 * 1024;

/// What is on its way out.
pub(super) struct Sending {
    role: Role,
    /// The message whose bytes the caller brings.
    frame: Option<Frame>,
    /// The control frame that goes next, whole, and how much of it is written.
    control: Vec<u8>,
    control_written: usize,
    /// The one that goes behind it.
    waiting: Option<Asked>,
    closed: bool,
}

struct Frame {
    head: [u8; MAX_HEAD],
    head_length: usize,
    mask: Option<Mask>,
    length: usize,
    /// Bytes of head and payload.
    written: usize,
}

impl Sending {
    pub(super) fn new(role: Role) -> Self {
        Self { role, frame: None, control: Vec::new(), control_written: 0, waiting: None, closed: false }
    }

    /// Answers once no message is in between. Of several Pings the last one has to be answered (§5.5.3).
    pub(super) fn answer(&mut self, asked: Asked) {
        if !self.closed {
            self.closed = matches!(asked, Asked::Close(_));
            self.waiting = Some(asked);
        }
    }

    /// A message is only partly written.
    pub(super) fn is_within_message(&self) -> bool {
        self.frame.is_some()
    }

    /// Writes bytes of `bufs`, in order, as binary messages. Returns how many.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        below: &mut dyn Stream,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.frame.is_none() {
            ready!(self.poll_control(cx, below))?;
        }
        let length = bufs.iter().map(|buf| buf.len()).sum::<usize>();
        if length == 0 {
            return Poll::Ready(Ok(0));
        }
        let role = self.role;
        let frame =
            self.frame.get_or_insert_with(|| Frame::new(role, OpCode::Data(Data::Binary), length.min(MAX_SENT)));
        let mut payload = 0;
        while payload == 0 {
            payload = match ready!(frame.poll_write(cx, below, bufs))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => frame.on_written(count),
            };
        }
        if frame.written == frame.head_length + frame.length {
            self.frame = None;
        }
        Poll::Ready(Ok(payload))
    }

    /// Writes the control frames that wait, unless a message is in between.
    pub(super) fn poll_control(&mut self, cx: &mut Context<'_>, below: &mut dyn Stream) -> Poll<io::Result<()>> {
        if self.frame.is_some() {
            return Poll::Ready(Ok(()));
        }
        loop {
            if self.control_written == self.control.len() {
                (self.control, self.control_written) = match self.waiting.take() {
                    Some(asked) => (control_frame(self.role, asked), 0),
                    None => (Vec::new(), 0),
                };
                if self.control.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
            match ready!(below.poll_write(cx, &[IoSlice::new(&self.control[self.control_written..])]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.control_written += count,
            }
        }
    }
}

impl Frame {
    fn new(role: Role, opcode: OpCode, length: usize) -> Self {
        // "If the data is being sent by the client, the frame(s) MUST be masked [...] derived from a strong source of
        // entropy" (§6.1, §5.3).
        let mask = (role == Role::Client).then(rand::random);
        let header = FrameHeader { opcode, mask, ..FrameHeader::default() };
        let mut head = [0; MAX_HEAD];
        let mut room = &mut head[..];
        // A head is never longer than the longest.
        let _ = header.format(length as u64, &mut room);
        let head_length = MAX_HEAD - room.len();
        Self { head, head_length, mask, length, written: 0 }
    }

    fn poll_write(
        &self,
        cx: &mut Context<'_>,
        below: &mut dyn Stream,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let head = &self.head[self.written.min(self.head_length)..self.head_length];
        let offset = self.written.saturating_sub(self.head_length);
        let left = self.length - offset;
        let Some(mask) = self.mask else {
            // Links bring one piece. What does not fit in here goes with the next call.
            let mut slices = [IoSlice::new(head), IoSlice::new(&[]), IoSlice::new(&[])];
            let mut left = left;
            for (slice, buf) in slices[1..].iter_mut().zip(bufs) {
                *slice = IoSlice::new(&buf[..buf.len().min(left)]);
                left -= slice.len();
            }
            return below.poll_write(cx, &slices[usize::from(head.is_empty())..]);
        };
        // What is not taken is masked again: a link that waits holds no copy.
        let brought = bufs.iter().map(|buf| buf.len()).sum::<usize>().min(left);
        below.poll_write_filled(cx, head.len() + brought, &mut |at, room| {
            let of_head = head.get(at..).unwrap_or_default();
            let count = of_head.len().min(room.len());
            room[..count].copy_from_slice(&of_head[..count]);
            let mut place = (at + count).saturating_sub(head.len());
            let (mut room, mut passed) = (&mut room[count..], 0);
            for buf in bufs {
                let piece = buf.get(place.saturating_sub(passed)..).unwrap_or_default();
                let count = piece.len().min(room.len());
                mask::copy(&piece[..count], &mut room[..count], mask, offset + place);
                (place, room) = (place + count, &mut room[count..]);
                passed += buf.len();
            }
        })
    }

    /// So many bytes of head and payload are written. Returns how many of them are payload.
    fn on_written(&mut self, count: usize) -> usize {
        let before = self.written.max(self.head_length);
        self.written += count;
        self.written.saturating_sub(before)
    }
}

/// A control frame, whole.
fn control_frame(role: Role, asked: Asked) -> Vec<u8> {
    let (opcode, mut payload) = match asked {
        Asked::Ping(payload) => (Control::Pong, payload),
        Asked::Close(code) => (Control::Close, code.map(u16::to_be_bytes).into_iter().flatten().collect()),
    };
    let frame = Frame::new(role, OpCode::Control(opcode), payload.len());
    if let Some(mask) = frame.mask {
        mask::apply(&mut payload, mask, 0);
    }
    [&frame.head[..frame.head_length], &payload].concat()
}
