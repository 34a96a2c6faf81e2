//! What becomes of payloads that are hard to take: nothing that is accepted is changed, lost or in the way.

use std::sync::Arc;

use ferry_app::{Hooks, PassThrough, Webapp};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::pair::*;

const RAW_KEY: &str = "$serde_json::private::RawValue";

/// `POST /trigger` with this very text.
pub(crate) async fn post(webapp: &Webapp, query: &str, text: &str) -> (u16, Value) {
    let request = reqwest::Client::new().post(url(webapp, &format!("/trigger{query}")));
    answer(request.header("content-type", "application/json").body(text.to_owned()).send().await.unwrap()).await
}

/// Objects under `key`, each the text of the next: the innermost has this many levels.
fn nested_in_text(key: &str, levels: usize, times: usize) -> String {
    let mut text = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    for _ in 0..times {
        text = json!({ key: text }).to_string();
    }
    text
}

/// The far side of an initiator or a terminator, played by the test.
pub(crate) struct Peer(
    pub(crate) tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>,
);

impl Peer {
    pub(crate) async fn connect(terminator: &Webapp, sender: &str, acked: u64) -> Self {
        use tokio_tungstenite::tungstenite::client::IntoClientRequest;
        let mut request = format!("ws://{}/ws", terminator.local_addr()).into_client_request().unwrap();
        let protocol = ferry_app::SUBPROTOCOL.parse().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", protocol);
        let mut peer = Self(tokio_tungstenite::connect_async(request).await.unwrap().0);
        let hello = json!({"hello": {"sender": sender, "pod": "p", "cluster": "c", "acked": acked}});
        peer.send(&hello.to_string()).await;
        peer.send(r#"{"ack":{"seq":0}}"#).await;
        peer
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.0.send(Message::text(text.to_owned())).await.unwrap();
    }

    /// The first ack that covers `seq`.
    pub(crate) async fn acked(&mut self, seq: u64) -> Value {
        loop {
            let message =
                tokio::time::timeout(TEST_TIMEOUT, self.0.next()).await.expect("an ack in time").unwrap().unwrap();
            let Message::Text(text) = message else { continue };
            let frame: Value = serde_json::from_str(&text).unwrap();
            if frame["ack"]["seq"].as_u64() >= Some(seq) {
                return frame["ack"].clone();
            }
        }
    }
}

pub(crate) fn message(sender: &str, seq: u64, payload: &str, trail: &str) -> String {
    format!(r#"{{"message":{{"seq":{seq},"id":"{sender}-{seq}","payload":{payload},"trail":{trail}}}}}"#)
}

#[tokio::test]
async fn no_key_of_a_payload_is_taken_for_a_sign_of_the_parsers() {
    let terminator = terminator();
    let initiator = initiator(terminator.local_addr());
    let mut stream = StreamClient::connect(&initiator).await;
    let deep = nested_in_text(RAW_KEY, 100, 10);
    for (n, text) in [
        deep.as_str(),
        &format!(r#"{{"a":{{"{RAW_KEY}":"[1"}}}}"#),
        r#"{"$serde_json::private::Number":"17","a":{"$serde_json::private::Number":"x"}}"#,
    ]
    .into_iter()
    .enumerate()
    {
        let (status, answer) = post(&initiator, "?wait=60s", text).await;
        assert_eq!((status, &answer["delivered"]), (200, &json!(true)), "{answer}");
        stream.0.send(Message::text(text.to_owned())).await.unwrap();
        // Read as text: this test's own parser would take the key for its sign.
        let payload = format!("\"payload\":{text},");
        eventually("both", async || {
            let (_, page) = get_text(&terminator, "/output").await;
            (page.matches("\"payload\"").count() == 2 * (n + 1)).then(|| {
                assert_eq!(page.matches(&payload).count(), 2, "{text:.100}");
            })
        })
        .await;
    }
    // The other way, too.
    assert_eq!(post(&terminator, "?wait=60s", &deep).await.0, 200);
    eventually("the reply", async || {
        let (_, page) = get_text(&initiator, "/output").await;
        page.contains(&format!("\"payload\":{deep},")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn numbers_pass_as_they_were_written_and_a_repeated_key_is_refused_by_name() {
    let terminator = terminator();
    let initiator = initiator(terminator.local_addr());
    let text = r#"{"id":18446744073709551616,"pi":3.14159265358979323846264338327950288,"e":1e300,"d":1.50}"#;
    assert_eq!(post(&initiator, "?wait=60s", text).await.0, 200);
    results(&terminator, 1).await;
    let (_, page) = get_text(&terminator, "/output").await;
    assert!(page.contains(&format!("\"payload\":{text}")), "{page}");

    let mut stream = StreamClient::connect(&initiator).await;
    for twice in [r#"{"n":1,"n":2}"#, r#"{"a":[{"n":1,"\u006e":1}]}"#] {
        let (status, answer) = post(&initiator, "", twice).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains("the key \"n\" is repeated"), "{answer}");
        stream.0.send(Message::text(twice)).await.unwrap();
        assert_eq!(stream.next().await["error"], answer["error"]);
    }
}

#[tokio::test]
async fn what_is_deeper_than_the_far_side_takes_is_refused_before_it_is_accepted() {
    let terminator = terminator();
    let initiator = initiator(terminator.local_addr());
    let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
    for webapp in [&initiator, &terminator] {
        assert_eq!(post(webapp, "?wait=60s", &nested(ferry_app::MAX_PAYLOAD_DEPTH)).await.0, 200);
        for levels in [ferry_app::MAX_PAYLOAD_DEPTH + 1, 3000, 500_000] {
            let (status, answer) = post(webapp, "", &nested(levels)).await;
            assert_eq!(status, 400, "{answer}");
            assert!(answer["error"].as_str().unwrap().contains("more than 100 levels"), "{answer}");
        }
    }
    // The reader of this test has a limit of its own, and the page around the deepest payload is within it.
    assert_eq!(results(&terminator, 1).await.len(), 1);
}

#[tokio::test]
async fn a_message_that_cannot_be_taken_is_dead_and_those_behind_it_arrive() {
    let webapp = terminator();
    let mut peer = Peer::connect(&webapp, "far", 0).await;
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let hop = r#"{"pod":"p","cluster":"c","at":"t"}"#;
    let many = format!("[{}]", vec![hop; 17].join(","));
    let hard = [
        (format!(r#"{{"a":{deep}}}"#), "[]".into(), "more than 100 levels deep"),
        (r#"{"a":1,"a":2}"#.into(), "[]".into(), "the key \"a\" is repeated"),
        (r#"{"a":"\ud800"}"#.into(), "[]".into(), "not JSON"),
        (format!("{{\"a\":{}}}", "7".repeat(5000)), "[]".into(), "more than 4096 characters"),
        ("{\"a\":1e400}".into(), "[]".into(), "beyond 1.8e308"),
        (format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20)), "[]".into(), "1048576 is the most"),
        ("{}".into(), many, "17 hops, where 16 is the most"),
        ("{}".into(), hop.replace("\"t\"", r#""\u001b[31m""#), "cannot be read"),
        ("{}".into(), format!("[{}]", hop.replace("\"t\"", r#""\u001b[31m""#)), "at holds control characters"),
        ("{}".into(), format!("[{}]", hop.replace("\"p\"", &format!("\"{}\"", "p".repeat(254)))), "longer than 253"),
    ];
    for (seq, (payload, trail, _)) in (1..).zip(&hard) {
        peer.send(&message("far", seq, payload, trail)).await;
    }
    peer.send(&message("far", 11, r#"{"n":11}"#, &format!("[{}]", vec![hop; 16].join(",")))).await;
    let mut told = Vec::new();
    while told.len() < 10 {
        let ack = peer.acked(told.len() as u64 + 1).await;
        told.extend(ack["dead"].as_array().unwrap().iter().cloned());
    }
    for ((_, _, says), dead) in hard.iter().zip(&told) {
        assert!(dead["error"].as_str().unwrap().contains(says), "{dead}, not {says:?}");
    }
    assert_eq!(numbers(&results(&webapp, 1).await), [11]);
    assert_eq!(results(&webapp, 1).await[0]["trail"].as_array().unwrap().len(), 16);

    // What came is kept as text, which any reader can read, and stays dead when it is tried again.
    let (_, page) = get(&webapp, "/dead").await;
    assert_eq!(page["count"], 10);
    assert_eq!(page["results"][0]["payload"], Value::Null);
    assert_eq!(page["results"][0]["raw"], format!(r#"{{"a":{deep}}}"#));
    assert_eq!((&page["results"][6]["payload"], &page["results"][6]["raw"]), (&json!({}), &Value::Null));
    let request = reqwest::Client::new().post(url(&webapp, "/dead/far-1/retry"));
    let (status, refused) = answer(request.send().await.unwrap()).await;
    assert!(status == 500 && refused["error"].as_str().unwrap().contains("100 levels deep"), "{status} {refused}");
    let request = reqwest::Client::new().post(url(&webapp, "/dead/far-7/retry"));
    assert_eq!(answer(request.send().await.unwrap()).await.0, 200);
}

#[tokio::test]
async fn python_hooks_pass_numbers_on_as_they_were_written() {
    let code = r#"
import copy, json, pickle
def on_trigger(payload, headers):
    assert payload["big"] + 1 == 18446744073709551617
    assert isinstance(payload["long"], float) and payload["long"] * 2 == 0.24691357802469136
    assert type(pickle.loads(pickle.dumps(payload["long"]))) is float
    assert json.dumps(payload["short"]) == "1.5"
    return copy.deepcopy(payload)
def on_receive_terminator(payload):
    return {"echo": payload}
"#;
    let hooks: Arc<dyn Hooks> = crate::python::load(code).await;
    let terminator = terminator_with(hooks.clone());
    let initiator = initiator_with(terminator.local_addr(), hooks);
    let big = "9".repeat(300);
    let text = format!(
        r#"{{"big":18446744073709551616,"bigger":{big},"long":0.12345678901234567890123,"tiny":1e-400,"short":1.5,"é":"é\"\n","exp":1e22}}"#
    );
    let (status, answer) = post(&initiator, "?wait=60s", &text).await;
    assert_eq!(status, 200, "{answer}");
    let written = text.replace("1e22", "1e+22");
    let (_, page) = get_text(&terminator, "/output").await;
    assert!(page.contains(&written), "{page}");
    results(&initiator, 1).await;
    let (_, page) = get_text(&initiator, "/output").await;
    assert!(page.contains(&format!("\"payload\":{{\"echo\":{written}}}")), "{page}");
}

#[tokio::test]
async fn what_a_python_hook_returns_is_judged_like_a_trigger() {
    let code = r#"
def on_trigger(payload, headers):
    kind = payload["kind"]
    if kind == "twice":
        return {1: "a", "1": "b"}
    if kind == "deep":
        value = 1
        for _ in range(500):
            value = [value]
        return {"a": value}
    if kind == "long":
        return {"a": 10 ** 4200}
    if kind == "key":
        return {"$serde_json::private::RawValue": "[" * 200}
    return payload
"#;
    let webapp = initiator_with(nobody(), crate::python::load(code).await);
    for (kind, says) in [("twice", "\"1\" is repeated"), ("deep", "100 levels"), ("long", "4096 characters")] {
        let (status, answer) = trigger(&webapp, "", &json!({"kind": kind})).await;
        assert_eq!(status, 500, "{kind}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(says), "{answer}");
    }
    assert_eq!(trigger(&webapp, "", &json!({"kind": "key"})).await.0, 202);
    // What fits without hooks fits with them, whatever alphabet it is in.
    let text = "é".repeat((1 << 19) - 50);
    assert_eq!(trigger(&webapp, "", &json!({"kind": "none", "text": text})).await.0, 202);
}

#[tokio::test]
async fn a_reply_that_is_no_payload_is_a_failure_of_the_hook_and_not_a_wall() {
    let code = "def on_receive_terminator(payload):\n    return {'a': 10 ** 4200} if payload['n'] == 1 else {'b': 2}\n";
    let terminator = terminator_with(crate::python::load(code).await);
    let initiator = initiator_with(terminator.local_addr(), Arc::new(PassThrough));
    let (_, dead) = trigger(&initiator, "?wait=60s", &json!({"n": 1})).await;
    assert!(dead["error"].as_str().unwrap().contains("4096 characters"), "{dead}");
    assert_eq!(trigger(&initiator, "?wait=60s", &json!({"n": 2})).await.1["reply"], json!({"b": 2}));
}
