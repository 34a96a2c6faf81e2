use futures_util::FutureExt;
use serde_json::value::to_raw_value;

use super::*;
use crate::message::Place;

/// Three messages or 20 bytes held, two messages or 12 bytes on their way.
fn small() -> Outbox {
    let limits = Limits { messages: 3, bytes: 20, window_messages: 2, window_bytes: 12 };
    Outbox::new(SenderId::random().unwrap(), limits)
}

fn accept(outbox: &Outbox, payload: &str) -> Result<Accepted, Full> {
    let place = Place { pod: "p".into(), cluster: "c".into() };
    // As JSON, a text of n letters takes n + 2 bytes.
    outbox.accept(to_raw_value(payload).unwrap(), place.hop())
}

fn next(outbox: &Outbox, sent: u64) -> Option<(u64, bool)> {
    outbox.next(sent).now_or_never().map(|(message, again)| (message.seq, again))
}

#[test]
fn a_full_outbox_refuses_by_count_and_by_bytes_and_has_room_again_after_an_ack() {
    let outbox = small();
    for _ in 0..3 {
        accept(&outbox, "").unwrap();
    }
    assert_eq!(accept(&outbox, "").unwrap_err(), Full);
    assert!(outbox.room(0).now_or_never().is_none());
    assert_eq!(next(&outbox, 0), Some((1, false)));
    outbox.ack(1, Vec::new()).unwrap();
    assert!(outbox.room(0).now_or_never().is_some());
    accept(&outbox, "").unwrap();

    let outbox = small();
    accept(&outbox, "0123456789").unwrap();
    assert_eq!(accept(&outbox, "0123456").unwrap_err(), Full);
    assert!(!outbox.has_room(9) && outbox.has_room(8));
    accept(&outbox, "012345").unwrap();
    assert_eq!(outbox.depth(), Depth { messages: 2, bytes: 20 });
}

#[test]
fn no_more_is_sent_than_the_window_holds() {
    let outbox = small();
    for _ in 0..3 {
        accept(&outbox, "").unwrap();
    }
    assert_eq!(next(&outbox, 0), Some((1, false)));
    assert_eq!(next(&outbox, 1), Some((2, false)));
    assert_eq!(next(&outbox, 2), None);
    outbox.ack(1, Vec::new()).unwrap();
    assert_eq!(next(&outbox, 2), Some((3, false)));

    let outbox = small();
    accept(&outbox, "0123456").unwrap();
    accept(&outbox, "01").unwrap();
    assert_eq!(next(&outbox, 0), Some((1, false)));
    assert_eq!(next(&outbox, 1), None, "13 bytes");
    outbox.ack(1, Vec::new()).unwrap();
    assert_eq!(next(&outbox, 1), Some((2, false)));
}

#[test]
fn a_message_larger_than_the_window_is_sent_alone() {
    let outbox = small();
    accept(&outbox, "0123456789abcdef").unwrap();
    assert_eq!(next(&outbox, 0), Some((1, false)));
}

#[test]
fn sending_starts_again_after_any_watermark_and_says_so() {
    let outbox = small();
    for _ in 0..3 {
        accept(&outbox, "").unwrap();
    }
    assert_eq!((next(&outbox, 0), next(&outbox, 1)), (Some((1, false)), Some((2, false))));
    assert_eq!((next(&outbox, 0), next(&outbox, 1)), (Some((1, true)), Some((2, true))));
    outbox.ack(2, Vec::new()).unwrap();
    assert_eq!(next(&outbox, 2), Some((3, false)));
    assert_eq!(next(&outbox, 1), None, "acknowledged messages are gone");
}

#[test]
fn an_ack_of_what_was_never_sent_or_backwards_is_refused_and_changes_nothing() {
    let outbox = small();
    for _ in 0..3 {
        accept(&outbox, "").unwrap();
    }
    next(&outbox, 0);
    next(&outbox, 1);
    assert_eq!(outbox.ack(3, Vec::new()).unwrap_err(), WireError::Ack { got: 3, acked: 0, sent: 2 });
    outbox.ack(2, Vec::new()).unwrap();
    assert_eq!(outbox.ack(1, Vec::new()).unwrap_err(), WireError::Ack { got: 1, acked: 2, sent: 2 });
    assert_eq!(outbox.ack(u64::MAX, Vec::new()).unwrap_err(), WireError::Ack { got: u64::MAX, acked: 2, sent: 2 });
    assert_eq!((outbox.acked(), outbox.depth().messages), (2, 1));
    assert!(outbox.ack(2, Vec::new()).unwrap().is_empty(), "the same again is no news");
}

#[test]
fn every_message_under_an_ack_gets_its_own_verdict() {
    let outbox = small();
    let mut accepted: Vec<_> = (0..3).map(|_| accept(&outbox, "").unwrap()).collect();
    for sent in 0..2 {
        next(&outbox, sent);
    }
    let dead = Dead { seq: 2, id: accepted[1].id.clone(), error: "no".into() };
    outbox.ack(2, vec![dead]).unwrap();
    let verdicts: Vec<_> = accepted.iter_mut().map(|message| message.verdict().now_or_never()).collect();
    assert_eq!(verdicts, [Some(Verdict::Delivered), Some(Verdict::Dead("no".into())), None]);
    assert!(outbox.empty().now_or_never().is_none());
}
