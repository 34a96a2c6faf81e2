//! What a link receives: frames out of records.

use std::io::IoSliceMut;
use std::ops::ControlFlow;
use std::task::{Context, Poll, ready};

use ferry_session::{Block, Frame, Payload, decode};

use super::LinkError;
use crate::memory::scratch;
use crate::net::Stream;
use crate::transport::tls::{Opened, RecordDecryptor};

/// A record with so much in it is opened into a block that the session keeps; what is in a smaller one is copied.
const LARGE_PAYLOAD: std::ops::RangeInclusive<usize> = Block::SIZE / 2..=Block::SIZE;

/// Takes frames: `Break` for no more of them now.
pub(super) type Take<'a> = dyn FnMut(Frame<'_>) -> ControlFlow<()> + 'a;

/// The receiving half of a link.
pub(super) struct Incoming {
    decryptor: RecordDecryptor,
    /// Received records that were not opened yet.
    received: Vec<u8>,
    /// Frames of an opened record that were not taken yet.
    held: Vec<u8>,
    /// Bytes opened.
    opened: u64,
    /// The last read left nothing in the socket, and everything that is here was taken.
    emptied: bool,
}

impl Incoming {
    /// `received` came behind the handshake.
    pub(super) fn new(decryptor: RecordDecryptor, received: Vec<u8>) -> Self {
        Self { decryptor, received, held: Vec::new(), opened: 0, emptied: false }
    }

    pub(super) fn records(&self) -> u64 {
        self.decryptor.records()
    }

    pub(super) fn opened(&self) -> u64 {
        self.opened
    }

    pub(super) fn is_emptied(&self) -> bool {
        self.emptied
    }

    /// Hands over the frames that are there, reading the socket at most once. `Continue`: there may be more;
    /// `Break`: `take` broke off, the rest is kept.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut dyn Stream,
        take: &mut Take<'_>,
    ) -> Poll<Result<ControlFlow<()>, LinkError>> {
        self.emptied = false;
        if !self.held.is_empty() {
            let held = std::mem::take(&mut self.held);
            let (taken, flow) = take_frames(&held, take)?;
            self.held = held[taken..].to_vec();
            if flow.is_break() {
                return Poll::Ready(Ok(flow));
            }
        }
        scratch::with_read_buffer(|buffer| self.poll_records(cx, stream, buffer, take))
    }

    fn poll_records(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut dyn Stream,
        buffer: &mut [u8],
        take: &mut Take<'_>,
    ) -> Poll<Result<ControlFlow<()>, LinkError>> {
        let kept = self.received.len();
        buffer[..kept].copy_from_slice(&self.received);
        let (mut filled, mut emptied) = (kept, false);
        if RecordDecryptor::length(&buffer[..kept])?.is_none() {
            filled += match ready!(stream.poll_read(cx, &mut [IoSliceMut::new(&mut buffer[kept..])]))? {
                0 => return Poll::Ready(Err(LinkError::Closed)),
                count => count,
            };
            emptied = filled < buffer.len();
        }
        let mut start = 0;
        let mut flow = ControlFlow::Continue(());
        while let Some(length) = RecordDecryptor::length(&buffer[start..filled])? {
            flow = self.open(&mut buffer[start..start + length], take)?;
            start += length;
            if flow.is_break() {
                break;
            }
        }
        self.emptied = emptied && flow.is_continue();
        // An exact size: what waits here may wait for long.
        self.received = buffer[start..filled].to_vec();
        Poll::Ready(Ok(flow))
    }

    /// Opens a record and hands over its frames.
    fn open(&mut self, record: &mut [u8], take: &mut Take<'_>) -> Result<ControlFlow<()>, LinkError> {
        self.opened += record.len() as u64;
        if LARGE_PAYLOAD.contains(&RecordDecryptor::inner_length(record.len())) {
            let mut block = scratch::take_block();
            let length = data(self.decryptor.open_into(record, &mut block[..])?)?.len();
            return self.take_block(block, length, take);
        }
        let frames = data(self.decryptor.open(record)?)?;
        let (taken, flow) = take_frames(frames, take)?;
        self.held = frames[taken..].to_vec();
        Ok(flow)
    }

    /// Hands over the frames of a block, and the block with the payload of the last one.
    fn take_block(&mut self, block: Block, length: usize, take: &mut Take<'_>) -> Result<ControlFlow<()>, LinkError> {
        let mut taken = 0;
        while taken < length {
            let (frame, size) = decode(&block[taken..length])?.ok_or(LinkError::Cut)?;
            taken += size;
            let flow = match frame {
                Frame::Data { offset, payload } if taken == length => {
                    let bytes = length - payload.len()..length;
                    return Ok(take(Frame::Data { offset, payload: Payload::owned(block, bytes) }));
                }
                frame => take(frame),
            };
            if flow.is_break() {
                self.held = block[taken..length].to_vec();
                scratch::return_block(block);
                return Ok(flow);
            }
        }
        scratch::return_block(block);
        Ok(ControlFlow::Continue(()))
    }
}

/// What a record holds, unless it is that nothing follows.
fn data(opened: Opened<'_>) -> Result<&[u8], LinkError> {
    opened.data()?.ok_or(LinkError::Closed)
}

/// Hands over the frames of one record, up to the one that breaks off, and how many bytes they were.
fn take_frames(record: &[u8], take: &mut Take<'_>) -> Result<(usize, ControlFlow<()>), LinkError> {
    let mut taken = 0;
    while taken < record.len() {
        let (frame, length) = decode(&record[taken..])?.ok_or(LinkError::Cut)?;
        taken += length;
        if take(frame).is_break() {
            return Ok((taken, ControlFlow::Break(())));
        }
    }
    Ok((taken, ControlFlow::Continue(())))
}
