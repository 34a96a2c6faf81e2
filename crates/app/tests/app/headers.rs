//! Headers that travel with a message to the far hook, and back with its reply.

use std::sync::Arc;

use ferry_app::{BoxFuture, HookError, Hooks, Payload, Received, Role, Webapp};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::pair::*;
use crate::python::{load, python};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Remembers the headers that its receiving hooks get, and replies at the terminator.
#[derive(Default)]
struct Noting {
    refuses: Mutex<bool>,
    seen: Mutex<Vec<Headers>>,
}

impl Hooks for Noting {
    fn on_receive<'a>(&'a self, received: Received<'a>) -> BoxFuture<'a, Result<Option<Payload>, HookError>> {
        self.seen.lock().push(received.headers.clone());
        let result = match (*self.refuses.lock(), received.is_initiator) {
            (true, _) => Err(HookError::Invalid("not now".into())),
            (false, is_initiator) => Ok((!is_initiator).then_some(received.payload)),
        };
        Box::pin(std::future::ready(result))
    }
}

fn travelling() -> Value {
    json!({"traceparent": PARENT, "tracestate": "a=1", "baggage": "user=7"})
}

/// `POST /trigger` with the three headers, and with others that stay where they are.
async fn trigger_with_headers(webapp: &Webapp, query: &str) -> (u16, Value) {
    let request = reqwest::Client::new()
        .post(url(webapp, &format!("/trigger{query}")))
        .header("traceparent", PARENT)
        .header("tracestate", "a=1")
        .header("baggage", "user=7")
        .header("x-secret", "stays here")
        .json(&json!({"n": 1}));
    answer(request.send().await.unwrap()).await
}

#[tokio::test]
async fn headers_of_a_trigger_reach_the_far_hook_and_come_back_with_the_reply() {
    let (there, here) = (Arc::new(Noting::default()), Arc::new(Noting::default()));
    let terminator = terminator_with(there.clone());
    let initiator = initiator_with(terminator.local_addr(), here.clone());
    let (status, answer) = trigger_with_headers(&initiator, "?wait=60s").await;
    assert_eq!((status, &answer["reply"]), (200, &json!({"n": 1})), "{answer}");
    let arrived = results(&terminator, 1).await;
    let replied = results(&initiator, 1).await;
    assert_eq!((&arrived[0]["headers"], &replied[0]["headers"]), (&travelling(), &travelling()));
    assert_eq!(json!([*there.seen.lock(), *here.seen.lock()]), json!([[travelling()], [travelling()]]));
}

#[tokio::test]
async fn a_message_without_headers_has_none() {
    let noting = Arc::new(Noting::default());
    let terminator = terminator_with(noting.clone());
    let initiator = initiator(terminator.local_addr());
    trigger(&initiator, "?wait=60s", &json!({"n": 1})).await;
    assert_eq!(results(&terminator, 1).await[0].get("headers"), None);
    assert_eq!(*noting.seen.lock(), [Headers::new()]);
}

#[tokio::test]
async fn headers_wait_in_the_outbox_with_their_message_also_through_a_restart() {
    // Nothing listens there: the message waits.
    let away = Role::Initiator { peer: format!("ws://{}/ws", nobody()) };
    let before = config(away);
    let data = before.data.clone();
    let initiator = Webapp::start(before, Arc::new(Noting::default())).unwrap();
    assert_eq!(trigger_with_headers(&initiator, "").await.0, 202);
    initiator.drain(std::time::Duration::ZERO).await;

    let noting = Arc::new(Noting::default());
    let terminator = terminator_with(noting.clone());
    let peer = format!("ws://{}/ws", terminator.local_addr());
    let after = ferry_app::Config { data, ..config(Role::Initiator { peer }) };
    let _initiator = Webapp::start(after, Arc::new(Noting::default())).unwrap();
    results(&terminator, 1).await;
    assert_eq!(json!(*noting.seen.lock()), json!([travelling()]));
}

#[tokio::test]
async fn a_dead_message_keeps_its_headers_for_the_retry() {
    let noting = Arc::new(Noting::default());
    *noting.refuses.lock() = true;
    let terminator = terminator_with(noting.clone());
    let initiator = initiator(terminator.local_addr());
    let (status, dead) = trigger_with_headers(&initiator, "?wait=60s").await;
    assert_eq!(status, 424, "{dead}");
    assert_eq!(get(&terminator, "/dead").await.1["results"][0]["headers"], travelling());
    *noting.refuses.lock() = false;
    noting.seen.lock().clear();
    let retry = url(&terminator, &format!("/dead/{}/retry", dead["id"].as_str().unwrap()));
    assert_eq!(reqwest::Client::new().post(retry).send().await.unwrap().status(), 200);
    assert_eq!(json!(*noting.seen.lock()), json!([travelling()]));
}

#[tokio::test]
async fn a_python_hook_gets_headers_where_it_has_a_place_for_them() {
    if !python() {
        return;
    }
    for (hook, gets) in [
        ("def on_receive_terminator(payload, headers):\n    return {'got': headers}\n", travelling()),
        ("async def on_receive_terminator(payload, headers=None):\n    return {'got': headers}\n", travelling()),
        ("def on_receive_terminator(payload, other):\n    return {'got': other}\n", travelling()),
        // Those that were written before there were any get none.
        ("def on_receive_terminator(payload):\n    return {'got': None}\n", Value::Null),
        ("def on_receive_terminator(payload, cache={}):\n    return {'got': cache}\n", json!({})),
        ("def on_receive_terminator(*rest):\n    return {'got': len(rest)}\n", json!(1)),
        ("def on_receive_terminator(payload, *, headers=1):\n    return {'got': headers}\n", json!(1)),
        ("on_receive_terminator = dict\n", Value::Null),
    ] {
        let terminator = terminator_with(load(hook).await);
        let initiator = initiator(terminator.local_addr());
        let (_, answer) = trigger_with_headers(&initiator, "?wait=60s").await;
        assert_eq!((&answer["delivered"], &answer["reply"]["got"]), (&json!(true), &gets), "{hook}: {answer}");
    }
}
