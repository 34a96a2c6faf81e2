//! What is under way, kept and remembered is bounded, and tells what became of it.

use std::sync::Arc;

use ferry_app::{PassThrough, Webapp};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use crate::hooks::Picky;
use crate::pair::*;
use crate::payloads::{Peer, message};

/// A `POST /trigger` of this many bytes without the last one. It is sent as far as it is read, until this is dropped.
struct HeldBody(JoinHandle<TcpStream>);

impl HeldBody {
    async fn begin(webapp: &Webapp, bytes: usize) -> Self {
        let host = webapp.local_addr();
        let mut connection = TcpStream::connect(host).await.unwrap();
        let head =
            format!("POST /trigger HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\nconnection: close");
        let body = format!("{{\"a\":\"{}\"", "x".repeat(bytes - 8));
        let text = format!("{head}\r\ncontent-length: {bytes}\r\n\r\n{body}");
        Self(tokio::spawn(async move {
            connection.write_all(text.as_bytes()).await.unwrap();
            connection
        }))
    }

    /// Sends the last byte once all others are, and returns the answer's first line.
    async fn finish(&mut self) -> String {
        let mut connection = (&mut self.0).await.unwrap();
        connection.write_all(b"}").await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        answer.lines().next().unwrap().to_owned()
    }
}

impl Drop for HeldBody {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[tokio::test]
async fn large_bodies_that_are_held_open_leave_room_for_small_ones() {
    let webapp = initiator(nobody());
    let mut held = Vec::new();
    for _ in 0..60 {
        held.push(HeldBody::begin(&webapp, 1 << 20).await);
    }
    for n in 0..20 {
        assert_eq!(trigger(&webapp, "", &json!({"n": n, "text": "x".repeat(4000)})).await.0, 202);
    }
    drop(held);
    assert_eq!(trigger(&webapp, "", &json!({"text": "x".repeat(1_000_000)})).await.0, 202);
}

#[tokio::test]
async fn many_large_triggers_at_once_take_turns_and_none_is_refused() {
    let terminator = terminator();
    let initiator = Arc::new(initiator(terminator.local_addr()));
    let text = format!("{{\"a\":[0{}]}}", ",0".repeat(200_000));
    let all: Vec<_> = (0..40)
        .map(|_| {
            let (initiator, text) = (initiator.clone(), text.clone());
            tokio::spawn(async move { crate::payloads::post(&initiator, "", &text).await.0 })
        })
        .collect();
    for answer in all {
        assert_eq!(answer.await.unwrap(), 202);
    }
    eventually("all", async || (get(&terminator, "/output?limit=1").await.1["count"] == 40).then_some(())).await;
}

#[tokio::test]
async fn large_frames_of_streams_take_turns_too() {
    let webapp = initiator(nobody());
    let mut clients = Vec::new();
    for n in 0..30 {
        let mut client = StreamClient::connect(&webapp).await;
        client.send(&json!({"n": n, "big": "x".repeat(500_000)})).await;
        clients.push(client);
    }
    for client in &mut clients {
        assert!(client.next().await["id"].is_string());
        client.0.send(Message::text("[]")).await.unwrap();
        assert!(client.next().await["error"].is_string());
    }
}

#[tokio::test]
async fn a_page_is_bounded_by_what_is_in_it_and_not_by_its_payloads() {
    let webapp = terminator();
    let mut peer = Peer::connect(&webapp, "far", 0).await;
    let name = "p".repeat(253);
    let hop = json!({"pod": name, "cluster": name, "at": name}).to_string();
    let trail = format!("[{}]", vec![hop; 15].join(","));
    for seq in 1..=600 {
        peer.send(&message("far", seq, "{}", &trail)).await;
    }
    peer.acked(600).await;
    let (status, text) = get_text(&webapp, "/output?limit=1000").await;
    let page: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &page["count"]), (200, &json!(600)));
    assert!(text.len() < 4 << 20, "{} bytes", text.len());
    assert!(page["results"].as_array().unwrap().len() < 600);
    let all = results(&webapp, 600).await;
    assert_eq!(all.len(), 600);
}

#[tokio::test]
async fn nobody_takes_a_senders_numbers_by_a_hello_that_is_ahead() {
    let terminator = terminator();
    let initiator = initiator(terminator.local_addr());
    let (_, first) = trigger(&initiator, "?wait=60s", &json!({"n": 1})).await;
    let sender = first["id"].as_str().unwrap().strip_suffix("-1").unwrap().to_owned();
    let ahead = 1_000_000_000_000_000;
    let mut forged = Peer::connect(&terminator, &sender, ahead - 1).await;
    let closed = loop {
        match tokio::time::timeout(TEST_TIMEOUT, forged.0.next()).await.expect("a close in time") {
            Some(Ok(Message::Close(Some(frame)))) => break frame,
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(u16::from(closed.code), 1002);
    assert!(closed.reason.contains("acknowledged in this sender's name, but only 1 received"), "{}", closed.reason);
    for n in 2..=3 {
        let (status, answer) = trigger(&initiator, "?wait=60s", &json!({"n": n})).await;
        assert_eq!((status, &answer["delivered"]), (200, &json!(true)));
    }
    assert_eq!(numbers(&results(&terminator, 3).await), [1, 2, 3]);
}

async fn keyed(webapp: &Webapp, key: &str, n: u64) -> (u16, Value) {
    let request = reqwest::Client::new().post(url(webapp, "/trigger?wait=60s")).header("idempotency-key", key);
    answer(request.json(&json!({"n": n})).send().await.unwrap()).await
}

#[tokio::test]
async fn a_retry_under_a_key_is_told_at_once_what_became_of_the_message_also_after_a_restart() {
    let terminator = terminator_with(Arc::new(Picky { dislikes: 2, ..Picky::default() }));
    let role = ferry_app::Role::Initiator { peer: format!("ws://{}/ws", terminator.local_addr()) };
    let config = config(role);
    let mut initiator = Webapp::start(config.clone(), Arc::new(PassThrough)).unwrap();
    let (status, delivered) = keyed(&initiator, "good", 1).await;
    assert_eq!((status, &delivered["delivered"]), (200, &json!(true)), "{delivered}");
    let (status, dead) = keyed(&initiator, "bad", 2).await;
    assert_eq!((status, &dead["delivered"]), (424, &json!(false)), "{dead}");
    for _ in 0..2 {
        // Nothing that is asked here waits: in vain it would be for the whole minute, and then be 202.
        assert_eq!(keyed(&initiator, "good", 1).await, (200, delivered.clone()));
        let (status, again) = keyed(&initiator, "bad", 2).await;
        assert_eq!((status, &again["id"], &again["delivered"]), (424, &dead["id"], &json!(false)), "{again}");
        initiator.drain(TEST_TIMEOUT).await;
        initiator = Webapp::start(config.clone(), Arc::new(PassThrough)).unwrap();
    }
    assert_eq!(results(&terminator, 1).await.len(), 1);
}

#[tokio::test]
async fn a_body_that_waits_for_room_is_finished_when_there_is_some() {
    let webapp = initiator(nobody());
    let mut held = Vec::new();
    for _ in 0..15 {
        held.push(HeldBody::begin(&webapp, 200_000).await);
    }
    let mut last = HeldBody::begin(&webapp, 200_000).await;
    drop(held);
    assert_eq!(last.finish().await, "HTTP/1.1 202 Accepted");
}
