//! Ending in good order, and not starting at all.

use std::sync::Arc;
use std::time::Duration;

use ferry_app::{PassThrough, Role, StartError, Webapp};
use futures_util::{FutureExt, StreamExt};
use serde_json::json;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::hooks::Gate;
use crate::pair::*;

#[tokio::test]
async fn a_drain_waits_for_what_is_under_way_and_closes_websockets_with_1001() {
    let gate = Arc::new(Gate::at(1));
    let terminator = terminator_with(gate.clone());
    let initiator = initiator(terminator.local_addr());
    let mut stream = StreamClient::connect(&initiator).await;
    let (initiator_url, ready) = (url(&initiator, "/trigger?wait=60s"), url(&initiator, "/readyz"));
    let waiting = tokio::spawn(
        reqwest::Client::new().post(initiator_url).json(&json!({"n": 1})).send().then(|r| answer(r.unwrap())),
    );
    gate.reached.acquire().await.unwrap().forget();

    let drain = tokio::spawn(initiator.drain(TEST_TIMEOUT));
    eventually("the listener closed", async || reqwest::get(&ready).await.is_err().then_some(())).await;
    stream.send(&json!({"n": 2})).await;
    assert!(stream.next().await["error"].as_str().unwrap().contains("shutting down"));
    let early = timeout(Duration::from_millis(100), stream.0.next()).await;
    assert!(early.is_err() && !drain.is_finished(), "the message is not delivered yet: {early:?}");
    gate.open.add_permits(1);

    assert_eq!(waiting.await.unwrap().1["delivered"], json!(true));
    loop {
        match stream.0.next().await.unwrap().unwrap() {
            Message::Close(frame) => {
                assert_eq!(u16::from(frame.unwrap().code), 1001);
                break;
            }
            other => assert!(!other.is_binary()),
        }
    }
    drain.await.unwrap();
    assert_eq!(numbers(&results(&terminator, 1).await), [1]);
}

#[tokio::test]
async fn a_drain_ends_by_its_deadline_though_the_far_side_is_away() {
    let initiator = initiator(nobody());
    let _stream = StreamClient::connect(&initiator).await;
    assert_eq!(trigger(&initiator, "", &json!({"n": 1})).await.0, 202);
    let ready = url(&initiator, "/readyz");
    initiator.drain(Duration::from_millis(200)).await;
    assert!(reqwest::get(ready).await.is_err());
}

#[tokio::test]
async fn a_terminator_that_drains_finishes_and_acknowledges_the_message_in_its_hook() {
    let gate = Arc::new(Gate::at(1));
    let terminator = terminator_with(gate.clone());
    let initiator = initiator(terminator.local_addr());
    let waiting = tokio::spawn(
        reqwest::Client::new()
            .post(url(&initiator, "/trigger?wait=60s"))
            .json(&json!({"n": 1}))
            .send()
            .then(|r| answer(r.unwrap())),
    );
    gate.reached.acquire().await.unwrap().forget();
    let draining = tokio::spawn(terminator.drain(TEST_TIMEOUT));
    gate.open.add_permits(1);
    assert_eq!(waiting.await.unwrap().1["delivered"], json!(true));
    draining.await.unwrap();
}

#[tokio::test]
async fn a_webapp_that_is_dropped_ends() {
    let terminator = terminator();
    let ready = url(&terminator, "/readyz");
    assert_eq!(reqwest::get(&ready).await.unwrap().status(), 200);
    drop(terminator);
    eventually("ended", async || reqwest::get(&ready).await.is_err().then_some(())).await;
}

#[tokio::test]
async fn a_healthy_webapp_does_not_stop_by_itself() {
    let mut terminator = terminator();
    assert!(terminator.stopped().now_or_never().is_none());
    assert_eq!(get_text(&terminator, "/livez").await.0, 200);
    assert!(terminator.stopped().now_or_never().is_none());
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused_with_the_reason() {
    let start = |config| Webapp::start(config, Arc::new(PassThrough)).err().unwrap();
    let taken = terminator();
    let mut wrong = config(Role::Terminator);
    wrong.listen = taken.local_addr();
    let error = start(wrong);
    assert!(matches!(error, StartError::Listen { .. }), "{error}");
    assert!(error.to_string().contains(&taken.local_addr().to_string()), "{error}");

    let error = start(config(Role::Initiator { peer: "http://far/ws".into() }));
    assert!(matches!(error, StartError::Peer { .. }), "{error}");

    let mut wrong = config(Role::Terminator);
    wrong.pod = "a\nb".into();
    assert!(matches!(start(wrong), StartError::Name(_)));

    let mut wrong = config(Role::Terminator);
    wrong.output_max = 0;
    assert!(matches!(start(wrong), StartError::OutputMax));
}
