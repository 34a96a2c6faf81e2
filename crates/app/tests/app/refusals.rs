//! A far side that does not keep to the sub-protocol.

use ferry_app::{SUBPROTOCOL, Webapp};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::pair::*;

async fn dial(webapp: &Webapp, subprotocol: Option<&'static str>) -> Result<StreamClient, (u16, Value)> {
    let mut request = format!("ws://{}/ws", webapp.local_addr()).into_client_request().unwrap();
    if let Some(name) = subprotocol {
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(name));
    }
    match connect_async(request).await {
        Ok((websocket, _)) => Ok(StreamClient(websocket)),
        Err(Error::Http(response)) => {
            let body = response.body().clone().unwrap();
            Err((response.status().as_u16(), serde_json::from_slice(&body).unwrap()))
        }
        Err(other) => panic!("{other}"),
    }
}

fn hello() -> Value {
    json!({"hello": {"sender": "somebody", "pod": "p", "cluster": "c", "acked": 0}})
}

fn message(seq: u64) -> Value {
    let hop = json!({"pod": "p", "cluster": "c", "at": "2025-06-01T12:00:00.000Z"});
    json!({"message": {"seq": seq, "id": format!("somebody-{seq}"), "payload": {"n": seq}, "trail": [hop]}})
}

#[tokio::test]
async fn another_subprotocol_is_refused_with_the_reason() {
    let terminator = terminator();
    for wrong in [None, Some("ferry.app.v2"), Some("chat")] {
        let Err((status, body)) = dial(&terminator, wrong).await else { panic!("{wrong:?} was let in") };
        assert_eq!(status, 400, "{body}");
        assert!(body["error"].as_str().unwrap().contains(SUBPROTOCOL), "{body}");
    }
    assert!(dial(&terminator, Some("ferry.app.v2, ferry.app.v1")).await.is_ok());
}

#[tokio::test]
async fn an_initiator_has_no_ws() {
    let initiator = initiator(nobody());
    let Err((status, _)) = dial(&initiator, Some(SUBPROTOCOL)).await else { panic!("let in") };
    assert_eq!(status, 404);
}

#[tokio::test]
async fn a_far_side_that_misbehaves_is_sent_away_with_the_reason_and_the_next_is_served() {
    let terminator = terminator();
    let hop = json!({"pod": "p", "cluster": "c", "at": "2025-06-01T12:00:00.000Z"});
    for (frames, says) in [
        (vec![json!("hi")], "not a frame"),
        (vec![json!({"goodbye": {}})], "not a frame"),
        (vec![json!({"ack": {"seq": 0}})], "ack where hello"),
        (vec![json!({"hello": {"sender": "a b", "pod": "p", "cluster": "c", "acked": 0}})], "not an id"),
        (vec![json!({"hello": {"sender": "a", "pod": "p\u{7}", "cluster": "c", "acked": 0}})], "control characters"),
        (vec![hello(), hello()], "hello where message or ack"),
        (vec![hello(), message(2)], "a gap"),
        (vec![hello(), json!({"ack": {"seq": 1}})], "an ack of 1"),
        (vec![hello(), json!({"message": {"seq": 1, "id": "../..", "payload": {}, "trail": [hop]}})], "not an id"),
        (
            vec![hello(), json!({"message": {"seq": 1, "id": "somebody-1", "payload": [], "trail": [hop]}})],
            "payload of some",
        ),
        (
            vec![hello(), json!({"message": {"seq": 1, "id": "another-1", "payload": {}, "trail": [hop]}})],
            "an id is its",
        ),
        (
            vec![hello(), json!({"message": {"seq": 1, "id": "somebody-2", "payload": {}, "trail": [hop]}})],
            "an id is its",
        ),
    ] {
        let mut client = dial(&terminator, Some(SUBPROTOCOL)).await.ok().unwrap();
        for frame in &frames {
            client.send(frame).await;
        }
        let (code, reason) = farewell(&mut client).await;
        assert_eq!(code, 1002, "{frames:?}: {reason}");
        assert!(reason.contains(says), "{frames:?}: {reason:?} does not say {says:?}");
    }
    let mut client = dial(&terminator, Some(SUBPROTOCOL)).await.ok().unwrap();
    client.0.send(Message::binary(vec![1])).await.unwrap();
    assert_eq!(farewell(&mut client).await.0, 1002);

    let initiator = initiator(terminator.local_addr());
    assert_eq!(trigger(&initiator, "?wait=60s", &json!({})).await.1["delivered"], json!(true));
    assert_eq!(results(&terminator, 1).await.len(), 1);
}

#[tokio::test]
async fn a_message_sent_twice_is_taken_once_also_over_a_second_websocket() {
    let terminator = terminator();
    let mut first = dial(&terminator, Some(SUBPROTOCOL)).await.ok().unwrap();
    for frame in [hello(), message(1), message(1), message(2), message(1), message(2)] {
        first.send(&frame).await;
    }
    results(&terminator, 2).await;
    let mut second = dial(&terminator, Some(SUBPROTOCOL)).await.ok().unwrap();
    second.send(&hello()).await;
    assert_eq!(farewell(&mut first).await.0, 4001, "the newest wins");
    assert!(second.next().await["hello"].is_object());
    assert_eq!(second.next().await, json!({"ack": {"seq": 2}}), "the watermark outlives the WebSocket");
    for frame in [message(1), message(2), message(3)] {
        second.send(&frame).await;
    }
    assert_eq!(numbers(&results(&terminator, 3).await), [1, 2, 3]);
    assert_eq!(metric(&terminator, "ferry_app_duplicate_messages_total").await, 5.0);
}

#[tokio::test]
async fn a_far_side_that_goes_on_after_acks_we_never_saw_is_followed() {
    let terminator = terminator();
    let mut client = dial(&terminator, Some(SUBPROTOCOL)).await.ok().unwrap();
    client.send(&json!({"hello": {"sender": "somebody", "pod": "p", "cluster": "c", "acked": 7}})).await;
    client.next().await;
    assert_eq!(client.next().await, json!({"ack": {"seq": 7}}));
    client.send(&message(8)).await;
    assert_eq!(client.next().await, json!({"ack": {"seq": 8}}));
    assert_eq!(numbers(&results(&terminator, 1).await), [8]);
}

async fn farewell(client: &mut StreamClient) -> (u16, String) {
    loop {
        match timeout(TEST_TIMEOUT, client.0.next()).await.expect("a close in time").unwrap().unwrap() {
            Message::Close(frame) => {
                let frame = frame.unwrap();
                return (frame.code.into(), frame.reason.to_string());
            }
            Message::Text(_) | Message::Ping(_) => {}
            other => panic!("{other}"),
        }
    }
}
