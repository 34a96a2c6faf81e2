//! Frames go into records and come out of them, however the records are cut and whoever breaks off.

use std::io::Read;
use std::task::Waker;

use ferry_session::{AckPoint, Block, Epoch, Payload, Session, SessionId, Settings, TRAILER, Time};
use proptest::prelude::*;
use tokio::io::duplex;

use super::*;
use crate::transport::tls::handshaken_pair;

fn ends() -> (Outgoing, Incoming) {
    let (encryptor, decryptor) = handshaken_pair(0);
    (Outgoing::new(encryptor, Vec::new()), Incoming::new(decryptor, Vec::new()))
}

/// All that is queued, as the socket would take it.
fn written(outgoing: &mut Outgoing) -> Vec<u8> {
    let bytes = outgoing.unwritten().expect("sealed").to_vec();
    outgoing.on_written(bytes.len());
    bytes
}

/// Hands over all frames of `bytes`, which arrive in pieces.
fn receive(incoming: &mut Incoming, bytes: &[u8], piece: usize, take: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>) {
    let mut cx = Context::from_waker(Waker::noop());
    let (mut near, mut far) = duplex(piece);
    for piece in bytes.chunks(piece) {
        let written = Stream::poll_write(&mut near, &mut cx, &[IoSlice::new(piece)]);
        assert!(matches!(written, Poll::Ready(Ok(count)) if count == piece.len()));
        while let Poll::Ready(polled) = incoming.poll(&mut cx, &mut far, take) {
            let _ = polled.expect("frames");
        }
    }
}

/// The frames, one after another; who takes them breaks off after those that `breaks` says.
fn received(incoming: &mut Incoming, bytes: &[u8], piece: usize, breaks: &[bool]) -> Vec<Frame<'static>> {
    let (mut frames, mut breaks) = (Vec::new(), breaks.iter().cycle());
    receive(incoming, bytes, piece, &mut |frame| {
        frames.push(match frame {
            Frame::Data { offset, payload } => kept(offset, &payload),
            Frame::Ack { received, window } => Frame::Ack { received, window },
            other => panic!("{} was not sent", other.name()),
        });
        if *breaks.next().expect("a cycle") { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    frames
}

/// A Data frame that outlives what it was made of.
fn kept(offset: u64, payload: &[u8]) -> Frame<'static> {
    let mut block = Block::default();
    block[..payload.len()].copy_from_slice(payload);
    Frame::Data { offset, payload: Payload::owned(block, 0..payload.len()) }
}

/// A session that sends what it is given at once.
fn sending() -> (Session, Time, Epoch) {
    let settings = Settings {
        replay_capacity: 1 << 24,
        receive_capacity: 1 << 24,
        liveness: Duration::from_secs(15),
        resume_window: Duration::from_secs(600),
        ack_at: AckPoint::Arrival,
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
                sent.push(kept(offset, &payload));
            }
            if flush {
                wire.extend(written(&mut outgoing));
            }
        }
        wire.extend(written(&mut outgoing));
        let frames = received(&mut incoming, &wire, piece, &breaks);
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
    let (mut whole, mut copied) = (0, 0);
    let wire = written(&mut outgoing);
    receive(&mut incoming, &wire, wire.len(), &mut |frame| {
        let Frame::Data { payload, .. } = frame else { panic!("{} was not sent", frame.name()) };
        *if payload.is_owned() { &mut whole } else { &mut copied } += payload.len();
        ControlFlow::Continue(())
    });
    assert_eq!((whole + copied, copied), (100_000, 100_000 % (Block::SIZE - 12)));
}
