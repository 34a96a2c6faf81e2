use futures_util::FutureExt;
use serde_json::value::to_raw_value;

use super::*;

fn sender(name: &str) -> SenderId {
    SenderId::try_from(name.to_owned()).unwrap()
}

fn arrival(sender: &SenderId, seq: u64, bytes: usize) -> Arrival {
    Arrival {
        id: sender.message(seq),
        payload: Payload::stored(to_raw_value(&"x".repeat(bytes)).unwrap()),
        trail: Vec::new(),
        in_reply_to: None,
        site: None,
        headers: None,
    }
}

/// What a result counts in addition to its payload.
fn overhead() -> usize {
    let arrival = arrival(&sender("a"), 1, 0);
    arrival.bytes() - arrival.payload.len()
}

fn keeping(messages: usize) -> Output {
    Output::new(messages, StoredOutput::default(), &[])
}

fn limited(limits: Limits) -> Output {
    Output::limited(limits, StoredOutput::default(), &[])
}

fn change(sender: &SenderId, seq: u64, outcome: Outcome) -> Change {
    Change { source: Source::Message(sender.clone(), seq), outcome, reply: None }
}

/// Takes and stores a message; returns how many results it displaced.
fn append_sized(output: &Output, sender: &SenderId, seq: u64, bytes: usize) -> u64 {
    output.add(change(sender, seq, Outcome::Result(Arc::new(arrival(sender, seq, bytes)))));
    store(output)
}

fn append(output: &Output, sender: &SenderId, seq: u64) -> u64 {
    append_sized(output, sender, seq, 1)
}

fn store(output: &Output) -> u64 {
    output.mark_stored(output.waiting(100).0.len()).0
}

fn ids(results: &[Arc<Arrival>]) -> Vec<String> {
    results.iter().map(|result| result.id.to_string()).collect()
}

fn next_ack(output: &Output, sender: &SenderId, reported: u64) -> Option<(u64, Vec<u64>)> {
    output.next_ack(sender, reported).now_or_never().map(|ack| (ack.seq, ack.dead.iter().map(|row| row.seq).collect()))
}

fn add_dead(output: &Output, sender: &SenderId, seq: u64) {
    let dead = DeadMessage { arrival: arrival(sender, seq, 1), raw: None, error: "no".into(), at: "now".into() };
    output.add(change(sender, seq, Outcome::Dead(Arc::new(dead))));
    store(output);
}

#[test]
fn only_the_next_message_of_a_sender_is_taken_whatever_the_output_still_keeps() {
    let output = keeping(1);
    let (a, b) = (sender("a"), sender("b"));
    append(&output, &a, 1);
    append(&output, &a, 2);
    for seq in [1, 2, 4] {
        append(&output, &a, seq);
    }
    append(&output, &b, 1);
    append(&output, &a, 2);
    assert_eq!(ids(&output.page(None, 10).unwrap().results), ["b-1"]);
    assert_eq!((next_ack(&output, &a, 0), next_ack(&output, &b, 0)), (Some((2, vec![])), Some((1, vec![]))));
}

#[test]
fn a_receipt_waits_for_news() {
    let output = keeping(10);
    let a = sender("a");
    assert_eq!(next_ack(&output, &a, 0), None);
    append(&output, &a, 1);
    assert_eq!(next_ack(&output, &a, 0), Some((1, vec![])));
    assert_eq!(next_ack(&output, &a, 1), None);
}

#[test]
fn a_dead_message_has_its_place_in_the_order_and_is_told_until_the_sender_knows() {
    let output = keeping(10);
    let a = sender("a");
    append(&output, &a, 1);
    add_dead(&output, &a, 2);
    add_dead(&output, &a, 2);
    append(&output, &a, 3);
    assert_eq!(next_ack(&output, &a, 0), Some((3, vec![2])));
    assert_eq!(ids(&output.page(None, 10).unwrap().results), ["a-1", "a-3"]);
    // The ack was lost with its WebSocket.
    assert_eq!(output.register_sender(&a, 1, None), Ok(3));
    assert_eq!(output.first_ack(&a, 1).dead.len(), 1);
    assert_eq!(output.register_sender(&a, 3, None), Ok(3));
    assert_eq!(output.first_ack(&a, 3).dead.len(), 0);
}

#[test]
fn the_dead_are_not_remembered_without_end() {
    let output = keeping(10);
    let a = sender("a");
    for seq in 1..=3 * WINDOW_MESSAGES as u64 {
        add_dead(&output, &a, seq);
    }
    assert_eq!(next_ack(&output, &a, 0).unwrap().1.len(), WINDOW_MESSAGES);
}

#[test]
fn a_sender_that_is_further_than_we_remember_is_followed() {
    let output = keeping(10);
    let a = sender("a");
    assert_eq!(output.register_sender(&a, 7, None), Ok(7));
    append(&output, &a, 8);
    assert_eq!(next_ack(&output, &a, 7), Some((8, vec![])));
}

#[test]
fn a_sender_is_its_peers_from_its_first_message_on() {
    let (a, output) = (sender("a"), keeping(10));
    let peers = ["east", "west"].map(|name| PeerName::try_from(name.to_owned()).unwrap());
    let [east, west] = peers.each_ref().map(Some);
    // Nothing has been taken from it: a hello alone makes it nobody's.
    assert_eq!(output.register_sender(&a, 0, west), Ok(0));
    assert_eq!(output.register_sender(&a, 0, east), Ok(0));
    append(&output, &a, 1);
    assert_eq!(output.peer_of(&a), Some(peers[0].clone()));
    for _ in 0..2 {
        assert_eq!(output.register_sender(&a, 0, west), Err(WireError::ForeignSender(peers[1].clone())));
        assert_eq!(output.register_sender(&a, 0, None), Err(WireError::UnknownPeer));
        assert_eq!(output.register_sender(&a, 1, east), Ok(1));
    }
    // One that is known from before peers were told becomes that of the first that is told.
    let stored = StoredOutput { watermarks: vec![(a.clone(), 3)], ..StoredOutput::default() };
    let upgraded = Output::new(10, stored, &[]);
    assert_eq!(upgraded.register_sender(&a, 3, None), Ok(3));
    assert_eq!(upgraded.register_sender(&a, 3, east), Ok(3));
    assert_eq!(upgraded.register_sender(&a, 3, west), Err(WireError::ForeignSender(peers[1].clone())));
}

#[test]
fn senders_that_say_hello_and_send_nothing_are_not_remembered() {
    let output = keeping(10);
    for n in 0..1000 {
        assert_eq!(output.register_sender(&sender(&format!("s{n}")), 5, None), Ok(5));
    }
    assert_eq!(output.state.borrow().senders.known(), 1);
}

#[test]
fn a_known_sender_is_not_followed_over_a_gap() {
    let output = keeping(10);
    let a = sender("a");
    // Nothing has been taken from it: a hello alone fixes nothing.
    assert_eq!(output.register_sender(&a, 1 << 50, None), Ok(1 << 50));
    assert_eq!(output.register_sender(&a, 0, None), Ok(0));
    append(&output, &a, 1);
    assert_eq!(output.register_sender(&a, 1 << 50, None), Err(WireError::Ahead { acked: 1 << 50, last: 1 }));
    assert_eq!(output.register_sender(&a, 2, None), Err(WireError::Ahead { acked: 2, last: 1 }));
    assert_eq!(output.register_sender(&a, 1, None), Ok(1));
    append(&output, &a, 2);
    assert_eq!(next_ack(&output, &a, 1), Some((2, vec![])));

    let stored = StoredOutput { watermarks: vec![(a.clone(), 3)], ..StoredOutput::default() };
    let restarted = Output::new(10, stored, &[]);
    assert_eq!(restarted.register_sender(&a, 4, None), Err(WireError::Ahead { acked: 4, last: 3 }));
    assert_eq!(restarted.register_sender(&a, 3, None), Ok(3));
}

#[test]
fn an_ack_is_no_larger_than_a_frame_and_the_rest_of_the_dead_follow() {
    let output = keeping(10);
    let a = sender("a");
    let count = WINDOW_MESSAGES as u64;
    for seq in 1..=count {
        let error = "\u{1}".repeat(1000);
        let dead = DeadMessage::new(arrival(&a, seq, 1), None, error);
        output.add(change(&a, seq, Outcome::Dead(Arc::new(dead))));
        store(&output);
    }
    let (mut reported, mut seen) = (0, Vec::new());
    while reported < count {
        let ack = output.next_ack(&a, reported).now_or_never().unwrap();
        let first = output.first_ack(&a, reported);
        assert_eq!((first.seq, first.dead.len()), (ack.seq, ack.dead.len()));
        assert!(serde_json::to_string(&ack).unwrap().len() < crate::wire::MAX_FRAME_BYTES);
        reported = ack.seq;
        seen.extend(ack.dead.iter().map(|row| row.seq));
    }
    assert_eq!(seen, (1..=count).collect::<Vec<_>>());
}

#[test]
fn pages_follow_each_other_and_a_trimmed_one_is_gone() {
    let output = keeping(3);
    let a = sender("a");
    let dropped: u64 = (1..=5).map(|seq| append(&output, &a, seq)).sum();
    assert_eq!((dropped, output.kept()), (2, 3));
    let page = output.page(None, 2).unwrap();
    assert_eq!((page.count, ids(&page.results)), (3, vec!["a-3".to_owned(), "a-4".to_owned()]));
    assert_eq!(ids(&output.page(Some("a-4"), 2).unwrap().results), ["a-5"]);
    assert!(output.page(Some("a-5"), 2).unwrap().results.is_empty());
    for gone in ["a-2", "a-6", "nonsense", "", "../x"] {
        assert_eq!(output.page(Some(gone), 2).unwrap_err(), UnknownCursor(gone.into()));
    }
}

#[test]
fn a_page_is_bounded_in_bytes_but_holds_at_least_one_result() {
    let output = limited(Limits { messages: 10, bytes: 10_000, page_bytes: 20 + 2 * overhead() });
    let a = sender("a");
    for (seq, bytes) in [(1, 8), (2, 8), (3, 8), (4, 19)] {
        append_sized(&output, &a, seq, bytes);
    }
    assert_eq!(ids(&output.page(None, 10).unwrap().results), ["a-1", "a-2"]);
    assert_eq!(ids(&output.page(Some("a-2"), 10).unwrap().results), ["a-3"]);
    assert_eq!(ids(&output.page(Some("a-3"), 10).unwrap().results), ["a-4"]);
}

#[test]
fn the_output_is_bounded_in_bytes_but_keeps_the_newest() {
    let output = limited(Limits { messages: 1000, bytes: 30 + 3 * overhead(), page_bytes: 10_000 });
    let a = sender("a");
    let dropped: u64 = (1..=5).map(|seq| append_sized(&output, &a, seq, 8)).sum();
    assert_eq!((dropped, output.kept()), (2, 3));
    assert_eq!(append_sized(&output, &a, 6, 100 + 3 * overhead()), 3);
    assert_eq!(ids(&output.page(None, 10).unwrap().results), ["a-6"]);
}

#[test]
fn a_reader_that_lags_behind_the_output_is_told_what_it_missed() {
    let output = keeping(3);
    let a = sender("a");
    let start = output.end();
    assert!(output.since(start, 10).now_or_never().is_none());
    for seq in 1..=5 {
        append(&output, &a, seq);
    }
    let batch = output.since(start, 2).now_or_never().unwrap();
    assert_eq!((batch.missed, ids(&batch.results)), (2, vec!["a-3".to_owned(), "a-4".to_owned()]));
    let batch = output.since(batch.end, 2).now_or_never().unwrap();
    assert_eq!((batch.missed, ids(&batch.results)), (0, vec!["a-5".to_owned()]));
    assert!(output.since(batch.end, 2).now_or_never().is_none());
}

#[test]
fn nothing_is_shown_or_acknowledged_before_it_is_stored() {
    let output = keeping(10);
    let a = sender("a");
    output.add(change(&a, 1, Outcome::Result(Arc::new(arrival(&a, 1, 1)))));
    assert_eq!((output.kept(), next_ack(&output, &a, 0)), (0, None));
    assert_eq!(output.register_sender(&a, 0, None), Ok(1), "but it is not taken a second time");
    assert_eq!(output.first_ack(&a, 0).seq, 0);
    store(&output);
    assert_eq!((output.kept(), next_ack(&output, &a, 0)), (1, Some((1, vec![]))));
}

#[test]
fn a_restart_tells_of_the_dead_and_the_replied_that_the_sender_may_not_know() {
    let a = sender("a");
    let dead = DeadMessage { arrival: arrival(&a, 2, 1), raw: None, error: "no".into(), at: "now".into() };
    let stored = StoredOutput {
        results: vec![(5, arrival(&a, 1, 1)), (6, arrival(&a, 3, 1))],
        watermarks: vec![(a.clone(), 3)],
        dead: vec![(9, dead)],
        ..StoredOutput::default()
    };
    let output = Output::new(10, stored, &[a.message(3)]);
    assert_eq!(output.register_sender(&a, 0, None), Ok(3));
    let ack = output.first_ack(&a, 0);
    assert_eq!((ack.seq, ack.dead[0].seq, &ack.replied[..]), (3, 2, &[3][..]));
    assert_eq!((output.end(), output.next_dead()), (7, 10));
    assert_eq!(ids(&output.page(Some("a-1"), 10).unwrap().results), ["a-3"]);
}

#[test]
fn a_dead_message_is_retried_by_one_at_a_time_and_delivered_once() {
    let output = keeping(10);
    let a = sender("a");
    add_dead(&output, &a, 1);
    let letter = output.begin_retry("a-1").unwrap();
    assert_eq!(output.begin_retry("a-1").unwrap_err(), BeginRetryError::UnderWay);
    output.end_retry(letter.number);
    let letter = output.begin_retry("a-1").unwrap();
    let outcome = Outcome::Result(Arc::new(letter.message.arrival.clone()));
    output.add(Change { source: Source::DeadLetter(letter.number), outcome, reply: None });
    store(&output);
    output.end_retry(letter.number);
    assert_eq!(output.begin_retry("a-1").unwrap_err(), BeginRetryError::Unknown);
    assert_eq!(ids(&output.page(None, 10).unwrap().results), ["a-1"]);
}

#[test]
fn a_sender_that_is_about_to_begin_keeps_its_number_when_another_peer_connects() {
    let output = keeping(10);
    let peer = |name: &str| PeerName::try_from(name.to_owned()).unwrap();
    let (east, west) = (sender("east"), sender("west"));
    output.register_sender(&east, 57, Some(&peer("east"))).unwrap();
    output.register_sender(&west, 0, Some(&peer("west"))).unwrap();
    append(&output, &east, 58);
    assert_eq!(next_ack(&output, &east, 57), Some((58, Vec::new())));
    assert_eq!(output.peer_of(&east), Some(peer("east")));
    // Another sender of the same peer takes the place of one that has sent nothing.
    output.register_sender(&sender("west-again"), 0, Some(&peer("west"))).unwrap();
    assert_eq!(output.peer_of(&west), None);
}
