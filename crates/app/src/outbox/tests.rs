use futures_util::FutureExt;
use serde_json::value::to_raw_value;

use super::*;
use crate::message::Location;
use crate::wire::Dead;

/// Three messages or 20 bytes held, two messages or 12 bytes on their way.
fn small() -> Outbox {
    let limits = Limits { messages: 3, bytes: 20, window_messages: 2, window_bytes: 12, overhead: 0 };
    Outbox::new(Arc::default(), SenderId::random().unwrap(), limits, 0, Vec::new(), HashMap::new(), Vec::new())
}

fn message(payload: &str) -> NewMessage {
    let location = Location { pod: "p".into(), cluster: "c".into() };
    // As JSON, a text of n letters takes n + 2 bytes.
    NewMessage {
        payload: Payload::stored(to_raw_value(payload).unwrap()),
        hop: location.hop(),
        in_reply_to: None,
        headers: None,
        span: None,
    }
}

fn enqueue(outbox: &Outbox, payload: &str) -> Result<MessageHandle, OutboxError> {
    let accepted = outbox.enqueue(message(payload), None)?;
    store(outbox);
    Ok(accepted)
}

fn store(outbox: &Outbox) {
    outbox.mark_stored(outbox.number(&[], 100, 1000), 0);
}

fn ack(outbox: &Outbox, seq: u64) -> Result<Vec<AckedMessage>, WireError> {
    outbox.ack(Ack { seq, dead: Vec::new(), replied: Vec::new() })
}

fn next(outbox: &Outbox, sent: u64) -> Option<(u64, bool)> {
    outbox.next(sent).now_or_never().map(|(message, again)| (message.seq, again))
}

#[test]
fn a_full_outbox_refuses_by_count_and_by_bytes_and_has_room_again_after_an_ack() {
    let outbox = small();
    for _ in 0..3 {
        enqueue(&outbox, "").unwrap();
    }
    assert_eq!(enqueue(&outbox, "").unwrap_err(), OutboxError::Full);
    assert!(outbox.room(0).now_or_never().is_none());
    assert_eq!(next(&outbox, 0), Some((1, false)));
    ack(&outbox, 1).unwrap();
    assert!(outbox.room(0).now_or_never().is_some());
    enqueue(&outbox, "").unwrap();

    let outbox = small();
    enqueue(&outbox, "0123456789").unwrap();
    assert_eq!(enqueue(&outbox, "0123456").unwrap_err(), OutboxError::Full);
    assert!(!outbox.has_room(9) && outbox.has_room(8));
    enqueue(&outbox, "012345").unwrap();
    assert_eq!(outbox.depth(), Depth { messages: 2, bytes: 20 });
}

#[test]
fn no_more_is_sent_than_the_window_holds() {
    let outbox = small();
    for _ in 0..3 {
        enqueue(&outbox, "").unwrap();
    }
    assert_eq!(next(&outbox, 0), Some((1, false)));
    assert_eq!(next(&outbox, 1), Some((2, false)));
    assert_eq!(next(&outbox, 2), None);
    ack(&outbox, 1).unwrap();
    assert_eq!(next(&outbox, 2), Some((3, false)));

    let outbox = small();
    enqueue(&outbox, "0123456").unwrap();
    enqueue(&outbox, "01").unwrap();
    assert_eq!(next(&outbox, 0), Some((1, false)));
    assert_eq!(next(&outbox, 1), None, "13 bytes");
    ack(&outbox, 1).unwrap();
    assert_eq!(next(&outbox, 1), Some((2, false)));
}

#[test]
fn a_message_larger_than_the_window_is_sent_alone() {
    let outbox = small();
    enqueue(&outbox, "0123456789abcdef").unwrap();
    assert_eq!(next(&outbox, 0), Some((1, false)));
}

#[test]
fn sending_starts_again_after_any_watermark_and_says_so() {
    let outbox = small();
    for _ in 0..3 {
        enqueue(&outbox, "").unwrap();
    }
    assert_eq!((next(&outbox, 0), next(&outbox, 1)), (Some((1, false)), Some((2, false))));
    assert_eq!((next(&outbox, 0), next(&outbox, 1)), (Some((1, true)), Some((2, true))));
    ack(&outbox, 2).unwrap();
    assert_eq!(next(&outbox, 2), Some((3, false)));
    assert_eq!(next(&outbox, 1), None, "acknowledged messages are gone");
}

#[test]
fn an_ack_of_what_was_never_sent_or_backwards_is_refused_and_changes_nothing() {
    let outbox = small();
    for _ in 0..3 {
        enqueue(&outbox, "").unwrap();
    }
    next(&outbox, 0);
    next(&outbox, 1);
    assert_eq!(ack(&outbox, 3).unwrap_err(), WireError::Ack { got: 3, acked: 0, sent: 2 });
    ack(&outbox, 2).unwrap();
    assert_eq!(ack(&outbox, 1).unwrap_err(), WireError::Ack { got: 1, acked: 2, sent: 2 });
    assert_eq!(ack(&outbox, u64::MAX).unwrap_err(), WireError::Ack { got: u64::MAX, acked: 2, sent: 2 });
    assert_eq!((outbox.acked(), outbox.depth().messages), (2, 1));
    assert!(ack(&outbox, 2).unwrap().is_empty(), "the same again is no news");
}

#[test]
fn every_message_under_an_ack_gets_its_own_verdict() {
    let outbox = small();
    let mut accepted: Vec<_> = (0..3).map(|_| enqueue(&outbox, "").unwrap()).collect();
    for sent in 0..2 {
        next(&outbox, sent);
    }
    let dead = Dead { seq: 2, id: outbox.sender().message(2), error: "no".into() };
    outbox.ack(Ack { seq: 2, dead: vec![dead], replied: Vec::new() }).unwrap();
    let verdicts: Vec<_> = accepted.iter_mut().map(|message| message.verdict().now_or_never()).collect();
    assert!(
        matches!(&verdicts[..], [Some(Verdict::Delivered(None)), Some(Verdict::Dead(error)), None] if error == "no")
    );
    assert!(outbox.empty().now_or_never().is_none());
}

#[test]
fn nothing_is_confirmed_or_sent_before_it_is_stored() {
    let outbox = small();
    let mut accepted = outbox.enqueue(message("a"), None).unwrap();
    assert!(accepted.stored().now_or_never().is_none());
    assert_eq!(next(&outbox, 0), None);
    assert_eq!(outbox.depth(), Depth { messages: 1, bytes: 3 });
    store(&outbox);
    assert_eq!(accepted.stored().now_or_never().unwrap().unwrap(), outbox.sender().message(1));
    assert_eq!(next(&outbox, 0), Some((1, false)));
    assert_eq!(outbox.depth(), Depth { messages: 1, bytes: 3 });
}

#[test]
fn what_cannot_be_stored_is_refused_and_leaves_no_gap() {
    let outbox = small();
    enqueue(&outbox, "").unwrap();
    let mut accepted = outbox.enqueue(message(""), None).unwrap();
    outbox.reject_waiting(&StoreError::Full);
    assert_eq!(accepted.stored().now_or_never().unwrap().unwrap_err(), StoreError::Full);
    assert_eq!(outbox.depth(), Depth { messages: 1, bytes: 2 });
    let mut accepted = enqueue(&outbox, "").unwrap();
    assert_eq!(accepted.stored().now_or_never().unwrap().unwrap(), outbox.sender().message(2));
}

#[test]
fn a_verdict_waits_for_the_reply_whichever_comes_first() {
    for reply_first in [false, true] {
        let outbox = small();
        let mut accepted = enqueue(&outbox, "").unwrap();
        next(&outbox, 0);
        let (id, reply) = (outbox.sender().message(1), Payload::stored(to_raw_value("pong").unwrap()));
        if reply_first {
            outbox.resolve_reply(&id, &reply);
        }
        outbox.ack(Ack { seq: 1, dead: Vec::new(), replied: vec![1] }).unwrap();
        if !reply_first {
            assert!(accepted.verdict().now_or_never().is_none());
            outbox.resolve_reply(&id, &reply);
        }
        let verdict = accepted.verdict().now_or_never().unwrap();
        assert!(matches!(verdict, Verdict::Delivered(Some(payload)) if payload.as_str() == "\"pong\""));
    }
}

#[test]
fn a_restart_goes_on_with_the_number_after_the_last() {
    let before = small();
    enqueue(&before, "a").unwrap();
    enqueue(&before, "b").unwrap();
    let stored: Vec<_> = before.number(&[&message("c")], 0, 0).into_iter().map(|numbered| numbered.seq).collect();
    assert_eq!(stored, [3]);
    let text = |seq| {
        let message = Message {
            seq,
            id: before.sender().message(seq),
            payload: Payload::stored(to_raw_value("x").unwrap()),
            trail: Vec::new(),
            in_reply_to: None,
        };
        let text = serde_json::to_string(&message).unwrap();
        (message, text)
    };
    let after = Outbox::new(
        Arc::default(),
        before.sender().clone(),
        before.limits,
        4,
        vec![text(5), text(6)],
        HashMap::new(),
        Vec::new(),
    );
    assert_eq!((after.acked(), after.depth().messages), (4, 2));
    assert_eq!((next(&after, 4), next(&after, 5)), (Some((5, true)), Some((6, true))));
    ack(&after, 6).unwrap();
    enqueue(&after, "d").unwrap();
    assert_eq!(next(&after, 6), Some((7, false)));
}

/// A message of `bytes` bytes, without what it counts in addition.
fn sized(bytes: usize) -> NewMessage {
    message(&"x".repeat(bytes - 2))
}

#[test]
fn one_outbox_may_use_all_the_room_and_still_takes_none_of_anothers_share() {
    let pool = Arc::new(Pool::default());
    let limits = Limits { messages: 100, bytes: 1000, window_messages: 2, window_bytes: 12, overhead: 0 };
    let outbox =
        || Outbox::new(pool.clone(), SenderId::random().unwrap(), limits, 0, Vec::new(), HashMap::new(), Vec::new());
    let (dead, alive) = (outbox(), outbox());
    pool.share_between(2);
    while dead.enqueue(sized(10), None).is_ok() {}
    assert_eq!(dead.depth(), Depth { messages: 100, bytes: 1000 });
    assert!(dead.room(0).now_or_never().is_none() && alive.room(0).now_or_never().is_some());
    while alive.enqueue(sized(10), None).is_ok() {}
    assert_eq!(alive.depth(), Depth { messages: 50, bytes: 500 });
    // What the one gives up, the other may use.
    store(&dead);
    dead.next(0).now_or_never().unwrap();
    assert!(alive.room(0).now_or_never().is_none());
    dead.close();
    assert_eq!(pool.held().messages, 50);
    assert!(alive.room(0).now_or_never().is_some());
    assert_eq!(dead.enqueue(sized(10), None).unwrap_err(), OutboxError::Forgotten);
}

#[test]
fn a_message_larger_than_a_share_is_taken_where_nothing_else_waits() {
    let pool = Arc::new(Pool::default());
    let limits = Limits { messages: 100, bytes: 1000, window_messages: 2, window_bytes: 12, overhead: 0 };
    let outbox =
        || Outbox::new(pool.clone(), SenderId::random().unwrap(), limits, 0, Vec::new(), HashMap::new(), Vec::new());
    let (full, empty) = (outbox(), outbox());
    pool.share_between(10);
    full.enqueue(sized(1000), None).unwrap();
    assert!(empty.has_room(500));
    empty.enqueue(sized(500), None).unwrap();
    assert!(!empty.has_room(1));
}
