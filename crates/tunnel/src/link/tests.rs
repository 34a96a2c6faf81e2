//! Frames go into records and come out of them, however the records are cut and whoever breaks off.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read};
use std::task::Waker;

use ferry_session::{Block, Epoch, Payload, Session, SessionId, Settings, TRAILER, Time};
use proptest::prelude::*;

use super::*;
use crate::tls::twins;

/// The receiving end of a connection: bytes that have arrived, as many at once as `piece` says.
struct Arrived {
    bytes: VecDeque<u8>,
    piece: usize,
}

impl Stream for Arrived {
    fn poll_read(&mut self, _: &mut Context<'_>, bufs: &mut [io::IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        let room = bufs[0].len().min(self.piece);
        match self.bytes.read(&mut bufs[0][..room]) {
            Ok(0) => Poll::Pending,
            read => Poll::Ready(read),
        }
    }

    fn poll_write(&mut self, _: &mut Context<'_>, _: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn poll_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn limit_unsent(&mut self, _: u32) {}

    fn make_room(&mut self, _: u32) {}

    fn be_local(&mut self) {}

    fn settle(self: Box<Self>) -> Box<dyn Stream> {
        self
    }

    fn reset_on_drop(&mut self) {}
}

fn ends() -> (Outgoing, Incoming) {
    let (sealer, opener) = twins(0);
    (Outgoing::new(sealer, Vec::new()), Incoming::new(opener, Vec::new()))
}

/// All that is queued, as the socket would take it.
fn written(outgoing: &mut Outgoing) -> Vec<u8> {
    let bytes = outgoing.unwritten().expect("sealed").to_vec();
    outgoing.on_written(bytes.len());
    bytes
}

/// What the frames say, one after another; `take` breaks off after those that `breaks` says.
fn received(incoming: &mut Incoming, bytes: Vec<u8>, piece: usize, breaks: &[bool]) -> Vec<Frame<'static>> {
    let mut stream = Arrived { bytes: bytes.into(), piece };
    let mut cx = Context::from_waker(Waker::noop());
    let (mut frames, mut breaks) = (Vec::new(), breaks.iter().cycle());
    let mut take = |frame: Frame<'_>| {
        frames.push(match frame {
            Frame::Data { offset, payload } => {
                let mut block = Block::default();
                block[..payload.len()].copy_from_slice(&payload);
                Frame::Data { offset, payload: Payload::owned(block, 0..payload.len()) }
            }
            Frame::Ack { received, window } => Frame::Ack { received, window },
            other => panic!("{} was not sent", other.name()),
        });
        if *breaks.next().expect("a cycle") { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    while let Poll::Ready(polled) = incoming.poll(&mut cx, &mut stream, &mut take) {
        let _ = polled.expect("frames");
    }
    frames
}

/// A session that sends what it is given at once.
fn sending() -> (Session, Time, Epoch) {
    let settings = Settings {
        replay_capacity: 1 << 24,
        receive_capacity: 1 << 24,
        liveness: Duration::from_secs(15),
        resume_window: Duration::from_secs(600),
    };
    let now = Time::from_origin(Duration::ZERO);
    let mut session = Session::opener(now, SessionId([7; 16]), "app", settings);
    let epoch = session.attach(now).expect("a new session");
    let hello = session.poll_transmit(now, epoch).map(|frame| frame.name());
    assert_eq!(hello, Some("Hello"));
    let accept = ferry_session::Accept { received: 0, window: 1 << 24, resume_window: Duration::from_secs(600) };
    session.handle_frame(now, epoch, Frame::Accept(accept));
    (session, now, epoch)
}

proptest! {
    #[test]
    fn frames_come_out_as_they_went_in(
        writes in prop::collection::vec((1_usize..40_000, any::<bool>(), any::<bool>()), 1..12),
        piece in prop_oneof![Just(1_usize << 20), 1_usize..50_000],
        breaks in prop::collection::vec(any::<bool>(), 1..8),
    ) {
        let (mut session, now, epoch) = sending();
        let (mut outgoing, mut incoming) = ends();
        let (mut sent, mut wire, mut whole) = (Vec::new(), Vec::new(), Vec::new());
        for (count, in_place, flush) in writes {
            let bytes: Vec<u8> = (0..count).map(|at| (whole.len() + at) as u8).collect();
            if in_place {
                let fill = |bufs: &mut [io::IoSliceMut<'_>]| {
                    let mut rest = &bytes[..];
                    bufs.iter_mut().map(|buf| rest.read(buf).expect("a slice")).sum()
                };
                prop_assert_eq!(session.write_with(count, scratch::take_block, fill), count);
            } else {
                prop_assert_eq!(session.write(&bytes), count);
            }
            whole.extend(bytes);
            let ack = Frame::Ack { received: count as u64, window: 9 };
            outgoing.push(&ack).expect("room");
            sent.push(ack);
            while let Some(frame) = session.poll_transmit(now, epoch) {
                outgoing.push(&frame).expect("room");
                let Frame::Data { offset, payload } = frame else { continue };
                let mut block = Block::default();
                block[..payload.len()].copy_from_slice(&payload);
                sent.push(Frame::Data { offset, payload: Payload::owned(block, 0..payload.len()) });
            }
            if flush {
                wire.extend(written(&mut outgoing));
            }
        }
        wire.extend(written(&mut outgoing));
        let frames = received(&mut incoming, wire, piece, &breaks);
        prop_assert!(frames == sent, "{:?} of {:?}", frames.len(), sent.len());
        let payloads = frames.iter().filter_map(|frame| match frame {
            Frame::Data { payload, .. } => Some(&payload[..]),
            _ => None,
        });
        prop_assert_eq!(payloads.collect::<Vec<_>>().concat(), whole);
    }
}

#[test]
fn the_payload_of_a_large_record_comes_in_a_block_of_its_own() {
    let (mut session, now, epoch) = sending();
    let (mut outgoing, mut incoming) = ends();
    session.write_with(100_000, scratch::take_block, |bufs| bufs.iter().map(|buf| buf.len()).sum());
    while let Some(frame) = session.poll_transmit(now, epoch) {
        assert!(
            matches!(&frame, Frame::Data { payload, .. } if payload.trailed().is_some_and(|it| it.ends_with(&[TRAILER])))
        );
        outgoing.push(&frame).expect("room");
    }
    let mut stream = Arrived { bytes: written(&mut outgoing).into(), piece: usize::MAX };
    let mut cx = Context::from_waker(Waker::noop());
    let (mut whole, mut copied) = (0, 0);
    let mut take = |frame: Frame<'_>| {
        let Frame::Data { payload, .. } = frame else { panic!("{} was not sent", frame.name()) };
        *if payload.is_owned() { &mut whole } else { &mut copied } += payload.len();
        ControlFlow::Continue(())
    };
    while incoming.poll(&mut cx, &mut stream, &mut take).is_ready() {}
    assert_eq!((whole + copied, copied), (100_000, 100_000 % (Block::SIZE - 12)));
}
