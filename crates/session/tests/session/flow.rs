//! Credit, acks and back-pressure: bytes wait where they must, and control frames never do.

use std::time::Duration;

use ferry_session::{Block, Epoch, Frame, Hello, Intent, MAX_PAYLOAD, Session, TRAILER, Time};

use crate::faults::hello;
use crate::pair::{ACCEPTOR, MOMENT, OPENER, Pair, settings};
use crate::rng::Rng;

const BOTH: [usize; 2] = [OPENER, ACCEPTOR];
/// With the content type behind it, as it is kept, it fills a record of the greatest length.
const WHOLE: usize = MAX_PAYLOAD - 1;

const SECOND: Duration = Duration::from_secs(1);

// --- acks ------------------------------------------------------------------------------------------------------------

#[test]
fn an_ack_that_has_nothing_to_travel_with_goes_after_25_ms() {
    for end in BOTH {
        let mut pair = Pair::open();
        let acks = |pair: &Pair| pair.frames(end, 0).iter().filter(|name| **name == "Ack").count();
        for round in 1..=3 {
            pair.write(1 - end, 100);
            pair.run(Duration::from_millis(24));
            assert_eq!(acks(&pair), round - 1);
            pair.run(Duration::from_millis(2));
            assert_eq!(acks(&pair), round);
            pair.run(SECOND);
            assert_eq!((acks(&pair), pair.session(1 - end).acked()), (round, 100 * round as u64));
        }
    }
}

#[test]
fn an_ack_travels_with_data() {
    for end in BOTH {
        let mut pair = Pair::open();
        pair.write(1 - end, 100);
        pair.run(MOMENT);
        pair.write(end, 100);
        pair.settle();
        assert!(pair.frames(end, 0).ends_with(&["Ack", "Data"]));
    }
}

#[test]
fn an_ack_for_much_or_for_the_end_goes_at_once() {
    for end in BOTH {
        let mut pair = Pair::open();
        pair.write(1 - end, 16 * 1024 - 1);
        pair.run(MOMENT);
        assert_eq!(pair.session(1 - end).acked(), 0);
        pair.write(1 - end, 1);
        pair.run(MOMENT);
        assert_eq!(pair.session(1 - end).acked(), 16 * 1024, "a quarter of the window");
        pair.finish(1 - end);
        pair.run(MOMENT);
        assert_eq!(pair.session(1 - end).acked(), 16 * 1024 + 1);
    }
}

#[test]
fn bulk_data_goes_in_whole_records() {
    let mut pair = Pair::open();
    pair.link_capacity = usize::MAX;
    pair.write(OPENER, 3 * WHOLE);
    pair.run(MOMENT);
    let payloads: Vec<u64> = pair.sent.iter().filter(|sent| sent.name == "Data").map(|sent| sent.payload).collect();
    assert_eq!(payloads, [WHOLE as u64; 3]);
}

// --- back-pressure ---------------------------------------------------------------------------------------------------

#[test]
fn a_slow_reader_stops_the_sender_at_the_window_and_then_at_the_replay_buffer() {
    for end in BOTH {
        let mut pair = Pair::open_with([settings(30_000, 20_000); 2]);
        let mut wrote = 0;
        for _ in 0..100 {
            wrote += pair.write(end, 10_000);
            pair.run(SECOND);
        }
        assert_eq!(pair.payload_sent(end), 20_000, "the window");
        assert_eq!(wrote, 50_000, "and the replay buffer");
        assert_eq!((pair.session(end).writable(), pair.session(end).replay_buffered()), (0, 30_000));
        assert_eq!(pair.session(1 - end).receive_buffered(), 20_000);

        assert_eq!(pair.read(1 - end, 5_000), 5_000);
        pair.run(MOMENT);
        assert_eq!(pair.payload_sent(end), 25_000, "what is taken may be sent");
        assert_eq!(pair.session(end).writable(), 5_000);
        pair.exchange_and_close([50_000, 50_000]);
    }
}

#[test]
fn an_acceptor_keeps_to_the_window_of_the_hello() {
    let (now, open) = (Time::ZERO, Hello { window: 1_000, ..hello(1, Intent::Open, 0) });
    let mut session = Session::acceptor(now, &open, settings(64 * 1024, 64 * 1024));
    session.write(&[0; 5_000]);
    assert_eq!(session.poll_transmit(now, Epoch(1)), None, "not before it is attached");
    session.accept(now, &open).unwrap();
    assert_eq!(session.poll_transmit(now, Epoch(1)).unwrap().name(), "Accept");
    let data = session.poll_transmit(now, Epoch(1));
    assert!(matches!(data, Some(Frame::Data { offset: 0, payload }) if payload.len() == 1_000));
    assert_eq!(session.poll_transmit(now, Epoch(1)), None);
}

#[test]
fn credit_is_not_dealt_out_in_crumbs() {
    let mut pair = Pair::open();
    pair.write(ACCEPTOR, 60_000);
    pair.run(SECOND);
    let acks = |pair: &Pair| pair.frames(OPENER, 0).iter().filter(|name| **name == "Ack").count();
    let before = acks(&pair);
    for _ in 0..60 {
        pair.read(OPENER, 100);
        pair.run(MOMENT);
    }
    assert_eq!(acks(&pair), before, "less than a quarter of the window is no news");
}

#[test]
fn a_pair_that_is_full_in_both_directions_still_passes_control_frames_and_does_not_deadlock() {
    let mut pair = Pair::open_with([settings(20_000, 20_000); 2]);
    for _ in 0..60 {
        for end in BOTH {
            pair.write(end, 20_000);
        }
        pair.run(SECOND);
    }
    for end in BOTH {
        assert_eq!(pair.session(end).writable(), 0);
        assert_eq!(pair.session(end).receive_buffered(), 20_000);
        assert_eq!(pair.ends[end].suspects, 0);
        assert!(pair.session(end).is_attached());
        assert!(pair.frames(end, 0).iter().filter(|name| **name == "Pong").count() >= 5);
    }
    // A rotation and a resume need no room either.
    assert!(pair.dial(true));
    pair.run(MOMENT);
    pair.cut(1, 0);
    pair.run(SECOND);
    assert!(BOTH.iter().all(|end| pair.session(*end).is_attached()));
    pair.exchange_and_close([60_000, 60_000]);
}

#[test]
fn a_finish_needs_no_credit() {
    for end in BOTH {
        let mut pair = Pair::open_with([settings(20_000, 20_000); 2]);
        pair.write(end, 20_000);
        pair.finish(end);
        pair.run(MOMENT);
        assert_eq!(pair.session(1 - end).received(), 20_001);
    }
}

#[test]
fn a_window_never_goes_back() {
    let mut pair = Pair::open();
    pair.write(ACCEPTOR, 10_000);
    pair.run(SECOND);
    pair.session(OPENER).set_capacities(64 * 1024, 1_000);
    pair.write(ACCEPTOR, 60_000);
    pair.run(SECOND);
    assert_eq!(pair.session(OPENER).receive_buffered(), 64 * 1024, "what was granted stays granted");
    pair.read(OPENER, usize::MAX);
    pair.run(SECOND);
    pair.write(ACCEPTOR, 60_000);
    pair.run(SECOND);
    assert_eq!(pair.session(OPENER).receive_buffered(), 1_000);
    pair.exchange_and_close([0, 130_000]);
}

#[test]
fn an_old_ack_that_comes_late_takes_nothing_back() {
    let mut pair = Pair::open();
    pair.write(OPENER, 30_000);
    pair.run(SECOND);
    pair.inject(OPENER, &Frame::Ack { received: 10, window: 10 });
    assert_eq!(pair.session(OPENER).acked(), 30_000);
    pair.exchange_and_close([80_000, 10]);
}

#[test]
fn idle_sessions_hold_no_buffers() {
    let mut pair = Pair::open();
    for end in BOTH {
        pair.write(end, 50_000);
    }
    for _ in 0..10 {
        pair.run(SECOND);
        for end in BOTH {
            pair.read(end, usize::MAX);
        }
    }
    assert_eq!(BOTH.map(|end| pair.allocated(end)), [0, 0]);
}

/// Also when the peer's window, or what was read at once, cuts it anywhere.
#[test]
fn what_is_read_in_place_has_the_trailer_behind_it_up_to_where_it_is_cut() {
    let mut pair = Pair::open_with([settings(1 << 20, 1 << 20), settings(1 << 20, 200_000)]);
    let (now, epoch) = (pair.now, pair.link_epoch(OPENER));
    let session = pair.session(OPENER);
    let mut rng = Rng::new(7);
    let (mut sent, mut in_one) = (0, 0);
    loop {
        let most = 1 + rng.below(100_000) as usize;
        let fill = |bufs: &mut [std::io::IoSliceMut<'_>]| {
            let mut left = most;
            for buf in bufs {
                let count = buf.len().min(left);
                buf[..count].fill(1);
                left -= count;
            }
            most - left
        };
        let wrote = session.write_with(256 * 1024, Block::default, fill) as u64;
        let before = sent;
        while let Some(frame) = session.poll_transmit(now, epoch) {
            let Frame::Data { offset, payload } = frame else { continue };
            assert_eq!(offset, sent);
            assert!(payload.iter().all(|byte| *byte == 1));
            sent += payload.len() as u64;
            if let Some(trailed) = payload.trailed() {
                assert_eq!(*trailed, [&payload, &[TRAILER][..]].concat());
                in_one += payload.len() as u64;
            }
        }
        if sent < before + wrote {
            break;
        }
    }
    // All but what the window cut off.
    assert!(sent > 100_000 && in_one > sent - WHOLE as u64, "{in_one} of {sent}");
}

/// However little of it is filled, and however much was acknowledged.
#[test]
fn a_replay_buffer_takes_no_more_memory_than_its_capacity_and_two_blocks() {
    const CAPACITY: u64 = 200_000;
    let mut pair = Pair::open_with([settings(CAPACITY, 64 * 1024), settings(CAPACITY, 1 << 20)]);
    let mut rng = Rng::new(1);
    for _ in 0..2_000 {
        let most = usize::try_from(1 << rng.below(19)).unwrap();
        pair.session(OPENER)
            .write_with(256 * 1024, Block::default, |bufs| bufs.iter().map(|buf| buf.len()).sum::<usize>().min(most));
        let held = pair.session(OPENER).allocated();
        assert!(held <= CAPACITY as usize + 2 * Block::SIZE, "{held}");
        pair.run(Duration::from_micros(rng.below(2_000)));
        let arrived = pair.session(ACCEPTOR).readable().map(<[u8]>::len).sum();
        pair.session(ACCEPTOR).consume(arrived);
    }
    assert!(pair.session(OPENER).acked() > 20 * CAPACITY);
}

#[test]
fn more_than_there_is_cannot_be_taken() {
    let mut pair = Pair::open();
    pair.write(OPENER, 100);
    pair.run(MOMENT);
    pair.session(ACCEPTOR).consume(40);
    pair.session(ACCEPTOR).consume(usize::MAX);
    assert_eq!((pair.session(ACCEPTOR).received(), pair.session(ACCEPTOR).receive_buffered()), (100, 0));
}

#[test]
fn short_writes_that_wait_leave_in_few_frames() {
    let mut pair = Pair::open();
    let (now, epoch) = (pair.now, pair.link_epoch(OPENER));
    let session = pair.session(OPENER);
    for _ in 0..200 {
        assert_eq!(session.write(&[7; 64]), 64);
    }
    let mut lengths = Vec::new();
    while let Some(frame) = session.poll_transmit(now, epoch) {
        if let Frame::Data { payload, .. } = frame {
            lengths.push(payload.len());
        }
    }
    assert_eq!(lengths.iter().sum::<usize>(), 200 * 64);
    assert!(lengths.len() <= 8, "{lengths:?}");
}
