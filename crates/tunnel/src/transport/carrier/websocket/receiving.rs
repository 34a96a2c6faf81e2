//! Frames that come (RFC 6455 §5.2): their payloads, where they were received.

use std::io::{self, Cursor};
use std::str;

use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::mask::{self, Mask};

/// Longest head of a frame.
pub(super) const MAX_HEAD: usize = 14;

/// Bytes of a message that the other end, or a middlebox, may send, in one frame or in many.
const MAX_MESSAGE: usize = 1024 * 1024;

/// "All control frames MUST have a payload length of 125 bytes or less" (§5.5).
pub(super) const MAX_CONTROL: usize = 125;

/// Bytes that are moved and unmasked at a time, while the processor has them at hand.
const PIECE: usize = 4096;

/// What has to be answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// With a Pong of the same payload.
    Ping(Vec<u8>),
    /// With a Close of this code.
    Close(Option<u16>),
}

/// What comes, as far as it came.
pub(super) struct Receiving {
    role: Role,
    /// The head of the next frame, up to what came of it.
    head: [u8; MAX_HEAD],
    head_length: usize,
    frame: Option<Frame>,
    /// Bytes of the message whose last frame is still to come.
    message: Option<usize>,
    /// The payload of a control frame.
    control: Vec<u8>,
    ended: bool,
    /// What came that no WebSocket has, until it is told.
    problem: Option<Error>,
}

/// The frame whose payload comes.
#[derive(Clone, Copy)]
struct Frame {
    control: Option<Control>,
    mask: Option<Mask>,
    length: usize,
    received: usize,
}

impl Receiving {
    pub(super) fn new(role: Role) -> Self {
        let (head, control) = ([0; MAX_HEAD], Vec::new());
        Self { role, head, head_length: 0, frame: None, message: None, control, ended: false, problem: None }
    }

    /// Nothing follows: a Close came, or what no WebSocket has.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// What came that no WebSocket has. What came before it is right, and goes first.
    pub(super) fn take_problem(&mut self) -> Option<Error> {
        self.problem.take()
    }

    /// Takes all of `bytes`, up to a problem, and moves what of them is payload of messages to the front. Returns how much that
    /// is.
    pub(super) fn decode(&mut self, bytes: &mut [u8], ask: &mut dyn FnMut(Asked)) -> usize {
        let mut carried = 0;
        if let Err(problem) = self.decode_frames(bytes, &mut carried, ask) {
            self.ended = true;
            self.problem = Some(problem);
        }
        carried
    }

    fn decode_frames(
        &mut self,
        bytes: &mut [u8],
        carried: &mut usize,
        ask: &mut dyn FnMut(Asked),
    ) -> Result<(), Error> {
        let mut taken = 0;
        while taken < bytes.len() && !self.ended {
            let Some(frame) = &mut self.frame else {
                taken += self.take_head(&bytes[taken..])?;
                self.end_frame(ask)?;
                continue;
            };
            let count = (frame.length - frame.received).min(bytes.len() - taken).min(PIECE);
            let payload = if frame.control.is_some() {
                self.control.extend_from_slice(&bytes[taken..taken + count]);
                let end = self.control.len();
                &mut self.control[end - count..]
            } else {
                if taken != *carried {
                    bytes.copy_within(taken..taken + count, *carried);
                }
                *carried += count;
                &mut bytes[*carried - count..*carried]
            };
            if let Some(mask) = frame.mask {
                mask::apply(payload, mask, frame.received);
            }
            frame.received += count;
            taken += count;
            self.end_frame(ask)?;
        }
        Ok(())
    }

    /// Takes bytes of a head. Returns how many they are.
    fn take_head(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let (known, room) = (self.head_length, MAX_HEAD - self.head_length);
        let count = bytes.len().min(room);
        self.head[known..known + count].copy_from_slice(&bytes[..count]);
        let mut cursor = Cursor::new(&self.head[..known + count]);
        let Some((header, length)) = FrameHeader::parse(&mut cursor)? else {
            self.head_length += count;
            return Ok(count);
        };
        let taken = cursor.position() as usize - known;
        self.head_length = 0;
        self.frame = Some(self.begin_frame(&header, length)?);
        Ok(taken)
    }

    fn begin_frame(&mut self, header: &FrameHeader, length: u64) -> Result<Frame, Error> {
        // "MUST be 0 unless an extension is negotiated" (§5.2).
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(ProtocolError::NonZeroReservedBits.into());
        }
        // "The server MUST close the connection upon receiving a frame that is not masked. [...] A client MUST close a
        // connection if it detects a masked frame" (§5.1).
        match (self.role, header.mask) {
            (Role::Server, None) => return Err(ProtocolError::UnmaskedFrameFromClient.into()),
            (Role::Client, Some(_)) => return Err(ProtocolError::MaskedFrameFromServer.into()),
            _ => {}
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let control = match (header.opcode, self.message) {
            (OpCode::Control(_), _) if !header.is_final => return Err(ProtocolError::FragmentedControlFrame.into()),
            (OpCode::Control(_), _) if length > MAX_CONTROL => return Err(ProtocolError::ControlFrameTooBig.into()),
            (OpCode::Control(control), _) => Some(control),
            (OpCode::Data(Data::Continue), None) => return Err(ProtocolError::UnexpectedContinueFrame.into()),
            (OpCode::Data(Data::Continue), Some(_)) | (OpCode::Data(Data::Binary), None) => None,
            (OpCode::Data(data), Some(_)) => return Err(ProtocolError::ExpectedFragment(data).into()),
            (OpCode::Data(_), None) => return Err(io::Error::new(io::ErrorKind::InvalidData, "a text message").into()),
        };
        if control.is_none() {
            let size = self.message.unwrap_or(0).saturating_add(length);
            if size > MAX_MESSAGE {
                return Err(CapacityError::MessageTooLong { size, max_size: MAX_MESSAGE }.into());
            }
            self.message = (!header.is_final).then_some(size);
        }
        Ok(Frame { control, mask: header.mask, length, received: 0 })
    }

    /// Ends the frame, if all of it is here.
    fn end_frame(&mut self, ask: &mut dyn FnMut(Asked)) -> Result<(), Error> {
        let Some(frame) = self.frame.take_if(|frame| frame.received == frame.length) else { return Ok(()) };
        if let Some(control) = frame.control {
            let payload = std::mem::take(&mut self.control);
            match control {
                Control::Ping => ask(Asked::Ping(payload)),
                Control::Close => {
                    self.ended = true;
                    ask(Asked::Close(close_code(&payload)?));
                }
                Control::Pong | Control::Reserved(_) => {}
            }
        }
        Ok(())
    }
}

/// The code to answer a Close with.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Error> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(ProtocolError::InvalidCloseSequence.into()) };
    };
    str::from_utf8(reason).map_err(|error| Error::Utf8(error.to_string()))?;
    let code = CloseCode::from(u16::from_be_bytes(*code));
    Ok(Some(if code.is_allowed() { code } else { CloseCode::Protocol }.into()))
}
