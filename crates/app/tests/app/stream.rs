//! Local clients on `/stream`.

use std::time::Duration;

use ferry_app::Webapp;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::pair::*;

#[tokio::test]
async fn triggers_are_answered_in_order_then_told_delivered_and_pushed_at_the_far_end() {
    let terminator = terminator();
    let initiator = initiator(terminator.local_addr());
    for (from, to) in [(&initiator, &terminator), (&terminator, &initiator)] {
        let (mut sender, mut receiver) = (StreamClient::connect(from).await, StreamClient::connect(to).await);
        for n in 1..=100 {
            sender.send(&json!({"n": n})).await;
        }
        let (mut ids, mut delivered) = (Vec::new(), Vec::new());
        while delivered.len() < 100 {
            let frame = sender.next().await;
            match frame.get("delivered") {
                None => ids.push(frame["id"].clone()),
                Some(_) => {
                    assert_eq!(frame, json!({"id": frame["id"], "delivered": true, "reply": null}));
                    delivered.push(frame["id"].clone());
                }
            }
        }
        assert_eq!(ids, delivered);
        for n in 1..=100 {
            let pushed = receiver.next().await;
            assert_eq!((&pushed["payload"], &pushed["id"]), (&json!({"n": n}), &ids[n - 1]));
            assert_eq!(pushed["trail"].as_array().unwrap().len(), 2);
        }
    }
}

#[tokio::test]
async fn a_bad_frame_gets_an_error_and_the_stream_goes_on() {
    let initiator = initiator(nobody());
    let mut client = StreamClient::connect(&initiator).await;
    let big = format!("{{\"a\": \"{}\"}}", "x".repeat(1 << 20));
    for (bad, says) in [
        (Message::text("hello"), "not JSON"),
        (Message::text("[1]"), "an array"),
        (Message::text(""), "nothing"),
        (Message::binary(b"{}".to_vec()), "text frame"),
        (Message::text(big), "at most 1048576 bytes"),
    ] {
        client.0.send(bad).await.unwrap();
        let error = client.next().await;
        assert!(error["error"].as_str().unwrap().contains(says), "{error}");
    }
    client.send(&json!({"n": 1})).await;
    assert!(client.next().await["id"].is_string());
}

#[tokio::test]
async fn a_frame_beyond_all_bounds_ends_its_stream_only() {
    let initiator = initiator(nobody());
    let (mut greedy, mut modest) = (StreamClient::connect(&initiator).await, StreamClient::connect(&initiator).await);
    // The server may be gone before all of it is written.
    let _ = greedy.0.send(Message::text("x".repeat(4 << 20))).await;
    loop {
        match timeout(TEST_TIMEOUT, greedy.0.next()).await.expect("an end in time") {
            None | Some(Err(_) | Ok(Message::Close(_))) => break,
            Some(Ok(_)) => {}
        }
    }
    modest.send(&json!({})).await;
    assert!(modest.next().await["id"].is_string());
}

#[tokio::test]
async fn a_client_that_does_not_read_is_slowed_and_loses_nothing() {
    let terminator = terminator();
    let initiator = initiator(terminator.local_addr());
    connected(&initiator).await;
    let mut client = StreamClient::connect(&initiator).await;
    // Far more than socket buffers hold is pushed to the client, which does not read.
    let (pushed, big) = (64, "x".repeat(1_000_000));
    let mut far = StreamClient::connect(&terminator).await;
    for n in 0..pushed {
        far.send(&json!({"n": n, "big": big})).await;
    }
    results(&initiator, pushed).await;

    // Nor is it read from: its own triggers fill what the sockets hold, and then sending stalls.
    let mut sent = 0;
    while timeout(Duration::from_secs(1), client.0.send(Message::text(json!({"big": big}).to_string()))).await.is_ok() {
        sent += 1;
        assert!(sent < 60, "a client that does not read may send without end");
    }
    assert_eq!(metric(&initiator, "ferry_app_stream_websockets").await, 1.0);

    // Once it reads, everything comes: each push in order, and an answer for each trigger, the stalled one included.
    let (mut writer, mut reader) = client.0.split();
    let flushed = tokio::spawn(async move { writer.flush().await.map(|()| writer) });
    let (mut numbers, mut answers, mut notices) = (Vec::new(), 0, 0);
    while numbers.len() < pushed || notices < sent + 1 {
        let message = timeout(TEST_TIMEOUT, reader.next()).await.expect("a frame in time").unwrap().unwrap();
        let Message::Text(text) = message else { continue };
        let frame: Value = serde_json::from_str(&text).unwrap();
        match (frame.get("payload"), frame.get("delivered")) {
            (Some(payload), _) => numbers.push(usize::try_from(payload["n"].as_u64().unwrap()).unwrap()),
            (None, Some(_)) => notices += 1,
            (None, None) => answers += usize::from(frame["id"].is_string()),
        }
    }
    assert_eq!(numbers, (0..pushed).collect::<Vec<_>>());
    assert_eq!(answers, sent + 1);
    drop(flushed.await.unwrap().unwrap());
}

#[tokio::test]
async fn a_full_outbox_slows_a_stream_and_refuses_nothing() {
    let proxy = crate::proxy::Proxy::to(nobody()).await;
    let initiator = initiator(proxy.address);
    let (mut writer, mut reader) = StreamClient::connect(&initiator).await.0.split();
    // 80 MB, where the outbox takes 64 MiB.
    let sending = tokio::spawn(async move {
        for n in 0..80 {
            writer.send(Message::text(json!({"n": n, "big": "x".repeat(1_000_000)}).to_string())).await.unwrap();
        }
        writer
    });
    eventually("full", async || (metric(&initiator, "ferry_app_outbox_messages").await == 67.0).then_some(())).await;
    let terminator = terminator();
    proxy.redirect(terminator.local_addr());
    let mut answers = 0;
    while answers < 80 {
        let message = timeout(TEST_TIMEOUT, reader.next()).await.expect("a frame in time").unwrap().unwrap();
        let Message::Text(text) = message else { continue };
        let frame: Value = serde_json::from_str(&text).unwrap();
        assert!(frame.get("error").is_none(), "{frame}");
        answers += usize::from(frame.get("delivered").is_none());
    }
    assert_eq!(numbers(&results(&terminator, 80).await), (0..80).collect::<Vec<_>>());
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn a_page_from_another_origin_is_refused() {
    let initiator = initiator(nobody());
    let own = format!("http://{}", initiator.local_addr());
    for (origin, status) in [("https://evil.example", 403), ("null", 403), (own.as_str(), 101)] {
        let request = reqwest::Client::new()
            .get(url(&initiator, "/stream"))
            .header("origin", origin)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==");
        assert_eq!(request.send().await.unwrap().status(), status, "{origin}");
    }
    let (status, body) = get(&initiator, "/stream").await;
    assert!(status == 400 && body["error"].as_str().unwrap().contains("WebSocket client"), "{status} {body}");
}

async fn connect_to(webapp: &Webapp, query: &str) -> StreamClient {
    let url = format!("ws://{}/stream{query}", webapp.local_addr());
    StreamClient(tokio_tungstenite::connect_async(url).await.unwrap().0)
}

#[tokio::test]
async fn a_series_goes_on_over_another_connection_and_nothing_is_taken_twice() {
    let terminator = terminator();
    let initiator = initiator(terminator.local_addr());
    let mut sent = 0;
    // Each connection is lost at another point, with unread answers.
    for (from, to, read) in [(1, 40, 0), (1, 60, 30), (31, 61, 3), (20, 80, 61)] {
        let mut client = connect_to(&initiator, &format!("?key=import-7&from={from}")).await;
        for n in from..=to {
            client.send(&json!({"n": n})).await;
        }
        let mut ids = Vec::new();
        while ids.len() < read {
            let frame = client.next().await;
            if frame.get("delivered").is_none() {
                ids.push(frame["id"].as_str().unwrap().to_owned());
            }
        }
        sent = to;
    }
    let results = results(&terminator, sent).await;
    assert_eq!(numbers(&results), (1..=sent as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn every_trigger_is_answered_in_order_also_one_that_is_refused() {
    let initiator = initiator(nobody());
    let mut client = connect_to(&initiator, "?key=k&from=5").await;
    client.send(&json!({"n": 1})).await;
    client.0.send(Message::text("[2]")).await.unwrap();
    client.send(&json!({"n": 3})).await;
    let mut answers = [client.next().await, client.next().await, client.next().await];
    assert!(answers[0]["id"].is_string() && answers[2]["id"].is_string(), "{answers:?}");
    assert!(answers[1]["error"].as_str().unwrap().contains("an array"), "{answers:?}");
    // The same again, and what has another body under the same number.
    let mut again = connect_to(&initiator, "?key=k&from=5").await;
    again.send(&json!({"n": 1})).await;
    again.0.send(Message::text("[2]")).await.unwrap();
    again.send(&json!({"n": 4})).await;
    assert_eq!(again.next().await, answers[0]);
    assert_eq!(again.next().await, answers[1]);
    answers[2] = again.next().await;
    assert!(answers[2]["error"].as_str().unwrap().contains("another"), "{answers:?}");
}

#[tokio::test]
async fn a_series_that_cannot_be_is_refused_with_what_it_is() {
    let webapp = initiator(nobody());
    let long = format!("?key={}", "x".repeat(201));
    for query in ["?key=", "?from=1", "?key=%0a", "?key=k&from=x", "?keys=k", long.as_str()] {
        let url = format!("ws://{}/stream{query}", webapp.local_addr());
        let error = tokio_tungstenite::connect_async(url).await.unwrap_err();
        let tokio_tungstenite::tungstenite::Error::Http(response) = error else { panic!("{query}: {error}") };
        assert_eq!(response.status().as_u16(), 400, "{query}");
    }
}
