use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use thiserror::Error;

use crate::frame::bounded;
use crate::time::millis;
use crate::{
    Accept, Epoch, Frame, Hello, Instance, Intent, LinkKind, MAX_PAYLOAD, MAX_REASON, MAX_SERVICE, Origin, Payload,
    Preface, Reject, RejectCode, Reset, ResetCode, SessionId, VERSION,
};

/// Bytes before a frame's body: its type (one byte) and the body's length (two, big-endian).
pub const HEADER: usize = 3;

/// Longest frame with its header: what one TLS record holds.
pub const MAX_FRAME: usize = 1 << 14;

/// Bytes before a Data frame's payload: header and offset.
pub(crate) const DATA_HEADER: usize = HEADER + 8;

const PREFACE: u8 = 0x01;
const HELLO: u8 = 0x02;
const ACCEPT: u8 = 0x03;
const REJECT: u8 = 0x04;
const DATA: u8 = 0x10;
const ACK: u8 = 0x11;
const FINISH: u8 = 0x12;
const RETIRE: u8 = 0x13;
const DONE: u8 = 0x14;
const RESET: u8 = 0x15;
const PING: u8 = 0x20;
const PONG: u8 = 0x21;
const GONE: u8 = 0x22;
const ORIGIN: u8 = 0x23;

/// Fixed part of a Hello: session, epoch, intent, received, window, resume window; the rest is the service.
const HELLO_FIXED: usize = 16 + 4 + 1 + 8 + 8 + 4;

/// Why bytes are not a frame. The peer misbehaved; the link is refused with this text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The type is none of ours.
    #[error("unknown frame type {0:#04x}")]
    UnknownType(u8),
    /// The Preface of another version: what else is in it is not known.
    #[error("version {0} of the protocol is not spoken here, only {VERSION}")]
    Version(u16),
    /// The length is not one that this type can have.
    #[error("{name} frame of {length} bytes, allowed are {min} to {max}")]
    Length {
        /// The frame's name.
        name: &'static str,
        /// The body's length on the wire.
        length: usize,
        /// Shortest body allowed.
        min: usize,
        /// Longest body allowed.
        max: usize,
    },
    /// A field has a value that it cannot have.
    #[error("{name} frame with an impossible {field}")]
    Field {
        /// The frame's name.
        name: &'static str,
        /// The field's name.
        field: &'static str,
    },
}

/// Name and shortest and longest body of a frame type.
fn bounds(kind: u8) -> Result<(&'static str, usize, usize), DecodeError> {
    Ok(match kind {
        PREFACE => ("Preface", 19, 19),
        HELLO => ("Hello", HELLO_FIXED + 1, HELLO_FIXED + MAX_SERVICE),
        ACCEPT => ("Accept", 20, 20),
        REJECT => ("Reject", 9, 9 + MAX_REASON),
        DATA => ("Data", 9, MAX_FRAME - HEADER),
        ACK => ("Ack", 16, 16),
        FINISH => ("Finish", 8, 8),
        RETIRE => ("Retire", 8, 8),
        DONE => ("Done", 0, 0),
        RESET => ("Reset", 1, 1 + MAX_REASON),
        PING => ("Ping", 8, 8),
        PONG => ("Pong", 8, 8),
        GONE => ("Gone", 16, 16),
        ORIGIN => ("Origin", 1 + 2 * (4 + 2), 1 + 2 * (16 + 2)),
        other => return Err(DecodeError::UnknownType(other)),
    })
}

/// The frame at the start of `bytes` and its length there; `None` while it is incomplete.
///
/// # Errors
/// When no continuation could make a frame of the bytes: type and length are judged as soon as they are there, a Preface's
/// length as soon as its version is, before anything is kept for the rest.
pub fn decode(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, DecodeError> {
    match decode_data(bytes) {
        Some(data) => Ok(Some(data)),
        None => decode_any(bytes),
    }
}

/// A whole Data frame with nothing wrong, if that is what is there: most bytes are in those, and are not to pay for the
/// others.
fn decode_data(bytes: &[u8]) -> Option<(Frame<'_>, usize)> {
    let (&[DATA, high, low], rest) = bytes.split_first_chunk()? else { return None };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let (offset, payload) = rest.get(..length)?.split_first_chunk()?;
    let is_allowed = !payload.is_empty() && payload.len() <= MAX_PAYLOAD;
    let frame = Frame::Data { offset: u64::from_be_bytes(*offset), payload: payload.into() };
    is_allowed.then_some((frame, HEADER + length))
}

#[inline(never)]
fn decode_any(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, DecodeError> {
    let Some((&kind, rest)) = bytes.split_first() else { return Ok(None) };
    let (name, min, max) = bounds(kind)?;
    let Some((length, rest)) = rest.split_first_chunk() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes(*length));
    if kind == PREFACE && length >= 2 {
        let Some(version) = rest.first_chunk() else { return Ok(None) };
        let version = u16::from_be_bytes(*version);
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
    }
    if !(min..=max).contains(&length) {
        return Err(DecodeError::Length { name, length, min, max });
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    Ok(Some((decode_body(kind, name, body)?, HEADER + length)))
}

fn decode_body<'a>(kind: u8, name: &'static str, body: &'a [u8]) -> Result<Frame<'a>, DecodeError> {
    let mut fields = Fields { name, body };
    Ok(match kind {
        PREFACE => Frame::Preface(Preface {
            version: u16::from_be_bytes(fields.take("version")?),
            instance: Instance(fields.take("instance")?),
            kind: match fields.u8("kind")? {
                0 => LinkKind::Own,
                1 => LinkKind::Offered,
                _ => return Err(fields.impossible("kind")),
            },
        }),
        HELLO => Frame::Hello(Hello {
            session: SessionId(fields.take("session")?),
            epoch: match u32::from_be_bytes(fields.take("epoch")?) {
                0 => return Err(fields.impossible("epoch")),
                epoch => Epoch(epoch),
            },
            intent: match fields.u8("intent")? {
                0 => Intent::Open,
                1 => Intent::Resume,
                2 => Intent::Rotate,
                _ => return Err(fields.impossible("intent")),
            },
            received: fields.u64("received")?,
            window: fields.u64("window")?,
            resume_window: fields.millis("resume window")?,
            service: fields.text("service")?,
        }),
        ACCEPT => Frame::Accept(Accept {
            received: fields.u64("received")?,
            window: fields.u64("window")?,
            resume_window: fields.millis("resume window")?,
        }),
        REJECT => Frame::Reject(Reject {
            code: reject_code(fields.u8("code")?).ok_or_else(|| fields.impossible("code"))?,
            received: fields.u64("received")?,
            reason: fields.text("reason")?,
        }),
        DATA => Frame::Data { offset: fields.u64("offset")?, payload: fields.body.into() },
        ACK => Frame::Ack { received: fields.u64("received")?, window: fields.u64("window")? },
        FINISH => Frame::Finish { offset: fields.u64("offset")? },
        RETIRE => Frame::Retire { end: fields.u64("end")? },
        DONE => Frame::Done,
        RESET => Frame::Reset(Reset {
            code: reset_code(fields.u8("code")?).ok_or_else(|| fields.impossible("code"))?,
            reason: fields.text("reason")?,
        }),
        PING => Frame::Ping { token: fields.u64("token")? },
        PONG => Frame::Pong { token: fields.u64("token")? },
        GONE => Frame::Gone { instance: Instance(fields.take("instance")?) },
        ORIGIN => match fields.u8("family")? {
            4 => fields.origin(Fields::take::<4>)?,
            6 => fields.origin(Fields::take::<16>)?,
            _ => return Err(fields.impossible("family")),
        },
        other => return Err(DecodeError::UnknownType(other)),
    })
}

fn reject_code(byte: u8) -> Option<RejectCode> {
    use RejectCode::{Closed, Draining, Limit, NotAttached, Protocol, Service, Stale, Unknown, Unreachable, Version};
    [Version, Protocol, Service, Unreachable, Limit, Draining, Unknown, Closed, Stale, NotAttached]
        .into_iter()
        .find(|code| *code as u8 == byte)
}

fn reset_code(byte: u8) -> Option<ResetCode> {
    use ResetCode::{Application, Draining, Protocol, Unreachable, Withdrawn};
    [Application, Draining, Withdrawn, Protocol, Unreachable].into_iter().find(|code| *code as u8 == byte)
}

/// Reads a body from front to back.
struct Fields<'a> {
    name: &'static str,
    body: &'a [u8],
}

impl<'a> Fields<'a> {
    fn impossible(&self, field: &'static str) -> DecodeError {
        DecodeError::Field { name: self.name, field }
    }

    fn take<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let (value, rest) = self.body.split_first_chunk().ok_or_else(|| self.impossible(field))?;
        self.body = rest;
        Ok(*value)
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.take(field).map(|[byte]| byte)
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.take(field).map(u64::from_be_bytes)
    }

    fn millis(&mut self, field: &'static str) -> Result<Duration, DecodeError> {
        self.take(field).map(|bytes| Duration::from_millis(u32::from_be_bytes(bytes).into()))
    }

    /// Two addresses with their ports, and nothing behind them.
    fn origin<Ip: Into<IpAddr>>(
        &mut self,
        take: impl Fn(&mut Self, &'static str) -> Result<Ip, DecodeError>,
    ) -> Result<Frame<'a>, DecodeError> {
        let mut address = |field| {
            let ip = take(self, field)?.into();
            Ok(SocketAddr::new(ip, u16::from_be_bytes(self.take(field)?)))
        };
        let origin = Origin { source: address("source")?, destination: address("destination")? };
        if self.body.is_empty() { Ok(Frame::Origin(origin)) } else { Err(self.impossible("family")) }
    }

    /// The rest of the body.
    fn text(&mut self, field: &'static str) -> Result<Cow<'a, str>, DecodeError> {
        std::str::from_utf8(self.body).map(Cow::Borrowed).map_err(|_| self.impossible(field))
    }
}

impl<'a> Frame<'a> {
    /// Appends the frame to `out`, all but a Data frame's payload, which is returned so that it need not be copied.
    pub fn encode(&self, out: &mut Vec<u8>) -> &Payload<'a> {
        let Frame::Data { offset, payload } = self else {
            self.encode_whole(out);
            return &Payload::EMPTY;
        };
        let mut head = [DATA; DATA_HEADER];
        head[1..HEADER].copy_from_slice(&length_field(8 + payload.len()));
        head[HEADER..].copy_from_slice(&offset.to_be_bytes());
        out.extend_from_slice(&head);
        payload
    }

    /// Appends a frame without a payload.
    #[inline(never)]
    fn encode_whole(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER]);
        let kind = self.encode_body(out);
        let length = length_field(out.len() - start - HEADER);
        out[start] = kind;
        out[start + 1..start + HEADER].copy_from_slice(&length);
    }

    fn encode_body(&self, out: &mut Vec<u8>) -> u8 {
        match self {
            Frame::Preface(preface) => {
                out.extend_from_slice(&preface.version.to_be_bytes());
                out.extend_from_slice(&preface.instance.0);
                out.push(match preface.kind {
                    LinkKind::Own => 0,
                    LinkKind::Offered => 1,
                });
                PREFACE
            }
            Frame::Hello(hello) => {
                out.extend_from_slice(&hello.session.0);
                out.extend_from_slice(&hello.epoch.0.to_be_bytes());
                out.push(match hello.intent {
                    Intent::Open => 0,
                    Intent::Resume => 1,
                    Intent::Rotate => 2,
                });
                put_u64s(out, &[hello.received, hello.window]);
                put_millis(out, hello.resume_window);
                out.extend_from_slice(hello.service.as_bytes());
                HELLO
            }
            Frame::Accept(accept) => {
                put_u64s(out, &[accept.received, accept.window]);
                put_millis(out, accept.resume_window);
                ACCEPT
            }
            Frame::Reject(reject) => {
                out.push(reject.code as u8);
                put_u64s(out, &[reject.received]);
                out.extend_from_slice(bounded(&reject.reason).as_bytes());
                REJECT
            }
            Frame::Data { offset, .. } => {
                put_u64s(out, &[*offset]);
                DATA
            }
            Frame::Ack { received, window } => {
                put_u64s(out, &[*received, *window]);
                ACK
            }
            Frame::Finish { offset } => {
                put_u64s(out, &[*offset]);
                FINISH
            }
            Frame::Retire { end } => {
                put_u64s(out, &[*end]);
                RETIRE
            }
            Frame::Done => DONE,
            Frame::Reset(reset) => {
                out.push(reset.code as u8);
                out.extend_from_slice(bounded(&reset.reason).as_bytes());
                RESET
            }
            Frame::Ping { token } => {
                put_u64s(out, &[*token]);
                PING
            }
            Frame::Pong { token } => {
                put_u64s(out, &[*token]);
                PONG
            }
            Frame::Gone { instance } => {
                out.extend_from_slice(&instance.0);
                GONE
            }
            Frame::Origin(origin) => {
                put_origin(out, origin);
                ORIGIN
            }
        }
    }
}

fn length_field(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

fn put_u64s(out: &mut Vec<u8>, values: &[u64]) {
    values.iter().for_each(|value| out.extend_from_slice(&value.to_be_bytes()));
}

fn put_origin(out: &mut Vec<u8>, origin: &Origin) {
    let v6 = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let addresses = [origin.source, origin.destination];
    let is_v4 = addresses.iter().all(SocketAddr::is_ipv4);
    out.push(if is_v4 { 4 } else { 6 });
    for address in addresses {
        let octets = v6(address).octets();
        out.extend_from_slice(&octets[if is_v4 { 12 } else { 0 }..]);
        out.extend_from_slice(&address.port().to_be_bytes());
    }
}

/// Durations above 49 days are 49 days on the wire.
fn put_millis(out: &mut Vec<u8>, duration: Duration) {
    out.extend_from_slice(&millis(duration).to_be_bytes());
}
