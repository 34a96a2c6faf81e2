//! Messages from one web-app to the other.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use ferry_app::{Config, Hooks, PassThrough, Role, Webapp};
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use crate::hooks::{Gate, Obedient, Picky};
use crate::pair::*;
use crate::proxy::Proxy;

/// Collects log lines as a user sees them, for the current thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    fn lines(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.0.lock().unwrap()).lines().map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn the_auto_trigger_delivers_five_messages_in_order_and_logs_exactly_two_lines() {
    let log = Log::default();
    let subscriber =
        tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).without_time().with_target(false);
    let _guard = tracing::subscriber::set_default(subscriber.with_level(false).finish());
    let terminator = terminator();
    let role = Role::Initiator { peer: format!("ws://{}/ws", terminator.local_addr()) };
    let initiator = Webapp::start(Config { auto_trigger: 5, ..config(role) }, Arc::new(PassThrough)).unwrap();

    let results = results(&terminator, 5).await;
    eventually("the second line", async || log.lines().iter().any(|l| l.contains("complete")).then_some(())).await;

    assert_eq!(numbers(&results), [1, 2, 3, 4, 5]);
    for result in &results {
        assert_eq!(result["payload"]["message"], "Hello from initiator-0");
        let trail = result["trail"].as_array().unwrap();
        assert_eq!(trail.len(), 2, "{result}");
        assert_eq!((&trail[0]["pod"], &trail[0]["cluster"]), (&json!("initiator-0"), &json!("cluster-a")));
        assert_eq!((&trail[1]["pod"], &trail[1]["cluster"]), (&json!("terminator-0"), &json!("cluster-b")));
        assert!(trail.iter().all(|hop| hop["at"].as_str().unwrap().len() == "2025-06-01T12:00:00.000Z".len()));
    }
    let lines: Vec<_> = log.lines().into_iter().filter(|line| line.contains("Auto-trigger")).collect();
    assert_eq!(
        lines.iter().map(|line| line.trim_start()).collect::<Vec<_>>(),
        ["🔁 Auto-trigger starting — sending 5 messages", "🔁 Auto-trigger complete — 5/5 messages sent."],
    );
    let id = results[0]["id"].as_str().unwrap();
    for said in ["message sent", "message received"] {
        let line = log.lines().into_iter().find(|line| line.contains(said) && line.contains(id)).unwrap();
        assert!(line.contains("cluster-a/initiator-0") && line.contains("cluster-b/terminator-0"), "{line}");
    }
    drop((initiator, terminator));
}

/// An initiator with an auto-trigger, its log, and its terminator.
async fn auto_trigger(hooks: Arc<dyn Hooks>, far_hooks: Arc<dyn Hooks>) -> String {
    let log = Log::default();
    let _guard =
        tracing::subscriber::set_default(tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish());
    let terminator = terminator_with(far_hooks);
    let role = Role::Initiator { peer: format!("ws://{}/ws", terminator.local_addr()) };
    let _initiator = Webapp::start(Config { auto_trigger: 5, ..config(role) }, hooks).unwrap();
    eventually("a last line", async || log.lines().into_iter().find(|line| line.contains("omplete"))).await
}

#[tokio::test]
async fn an_auto_trigger_that_fails_says_how_many_and_why() {
    let line = auto_trigger(Arc::new(Refusing), Arc::new(PassThrough)).await;
    assert!(line.contains("🔁 Auto-trigger incomplete — 4/5 messages delivered; message 2: not today"), "{line}");

    let line = auto_trigger(Arc::new(PassThrough), Arc::new(Picky { dislikes: 4, ..Picky::default() })).await;
    assert!(line.contains("🔁 Auto-trigger incomplete — 4/5 messages delivered; "), "{line}");
    assert!(line.contains("-4: I do not like it"), "{line}");
}

/// Refuses the second trigger.
struct Refusing;

impl Hooks for Refusing {
    fn on_trigger<'a>(
        &'a self,
        payload: ferry_app::Payload,
        headers: &'a Headers,
    ) -> ferry_app::BoxFuture<'a, Result<ferry_app::Payload, ferry_app::HookError>> {
        assert!(headers.is_empty(), "an auto-trigger has no headers");
        Box::pin(async move {
            if payload.to_object()?["n"] == 2 {
                Err(ferry_app::HookError::Invalid("not today".into()))
            } else {
                Ok(payload)
            }
        })
    }
}

#[tokio::test]
async fn both_ends_send_at_once_and_ids_are_unique_across_them() {
    let terminator = terminator();
    let initiator = initiator(terminator.local_addr());
    for n in 1..=50 {
        assert_eq!(trigger(&initiator, "", &json!({"n": n})).await.0, 202);
        assert_eq!(trigger(&terminator, "", &json!({"n": n})).await.0, 202);
    }
    let (there, here) = (results(&terminator, 50).await, results(&initiator, 50).await);
    assert_eq!(numbers(&there), (1..=50).collect::<Vec<_>>());
    assert_eq!(numbers(&here), (1..=50).collect::<Vec<_>>());
    assert_eq!(here[0]["trail"][0]["pod"], "terminator-0");
    assert_eq!(here[0]["trail"][1]["pod"], "initiator-0");
    let ids: std::collections::HashSet<_> = there.iter().chain(&here).map(|r| r["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 100);
    assert!(ids.iter().all(|id| id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')));
}

#[tokio::test]
async fn a_payload_arrives_as_it_was_sent() {
    let terminator = terminator();
    let initiator = initiator(terminator.local_addr());
    let text = r#"{"f":0.1234567890123456789,"i":18446744073709551615,"m":-9223372036854775808,"s":"\u0000é🛳\"\\","x":[null,{"":[]}],"tiny":5e-324}"#;
    let body = reqwest::Client::new().post(url(&initiator, "/trigger")).header("content-type", "application/json");
    let (status, answer) = answer(body.body(text).send().await.unwrap()).await;
    assert_eq!(status, 202, "{answer}");
    let results = results(&terminator, 1).await;
    assert_eq!(results[0]["payload"], serde_json::from_str::<serde_json::Value>(text).unwrap());
}

#[tokio::test]
async fn what_is_accepted_before_the_far_side_is_there_arrives_once_it_is() {
    let proxy = Proxy::to(nobody()).await;
    let initiator = initiator(proxy.address);
    for n in 1..=3 {
        assert_eq!(trigger(&initiator, "", &json!({"n": n})).await.0, 202);
    }
    let terminator = terminator();
    proxy.redirect(terminator.local_addr());
    assert_eq!(numbers(&results(&terminator, 3).await), [1, 2, 3]);
}

#[tokio::test]
async fn a_cut_in_the_middle_resends_without_loss_or_duplicate() {
    let gate = Arc::new(Gate::at(10));
    let terminator = terminator_with(gate.clone());
    let proxy = Proxy::to(terminator.local_addr()).await;
    let initiator = initiator(proxy.address);
    for n in 1..=30 {
        assert_eq!(trigger(&initiator, "", &json!({"n": n})).await.0, 202);
    }
    // Ten to thirty are on their way and unacknowledged when the WebSocket is lost, twice over.
    for cuts in 1..=2 {
        gate.reached.acquire().await.unwrap().forget();
        eventually("all sent", async || {
            (metric(&initiator, "ferry_app_sent_messages_total").await == 30.0).then_some(())
        })
        .await;
        proxy.cut();
        eventually("reconnected", async || {
            (metric(&initiator, "ferry_app_far_connects_total").await > f64::from(cuts)).then_some(())
        })
        .await;
    }
    gate.open.add_permits(100);
    for n in 31..=40 {
        assert_eq!(trigger(&initiator, "", &json!({"n": n})).await.0, 202);
    }
    let (_, last) = trigger(&initiator, "?wait=60s", &json!({"n": 41})).await;
    assert_eq!(last["delivered"], json!(true));
    assert_eq!(numbers(&results(&terminator, 41).await), (1..=41).collect::<Vec<_>>());
    assert!(metric(&initiator, "ferry_app_resent_messages_total").await >= 21.0);
    assert_eq!(metric(&initiator, "ferry_app_delivered_messages_total").await, 41.0);
}

#[tokio::test]
async fn hundreds_of_messages_survive_many_cuts_in_both_directions() {
    let terminator = terminator();
    let proxy = Proxy::to(terminator.local_addr()).await;
    let initiator = initiator(proxy.address);
    let (mut near, mut far) = (StreamClient::connect(&initiator).await, StreamClient::connect(&terminator).await);
    for n in 1..=600 {
        near.send(&json!({"n": n})).await;
        far.send(&json!({"n": n})).await;
        if n % 60 == 0 {
            connected(&initiator).await;
            proxy.cut();
        }
    }
    let expected: Vec<u64> = (1..=600).collect();
    assert_eq!(numbers(&results(&terminator, 600).await), expected);
    assert_eq!(numbers(&results(&initiator, 600).await), expected);
}

#[tokio::test]
async fn a_second_websocket_replaces_the_first_and_nothing_is_doubled() {
    let terminator = terminator();
    let first = initiator(terminator.local_addr());
    assert_eq!(trigger(&first, "?wait=60s", &json!({"n": 1})).await.1["delivered"], json!(true));
    connected(&first).await;
    let second = initiator(terminator.local_addr());
    connected(&second).await;
    assert_eq!(trigger(&second, "?wait=60s", &json!({"n": 2})).await.1["delivered"], json!(true));
    // The first comes back by itself, so the two keep replacing each other; each message still arrives once.
    for n in 3..=20 {
        trigger(if n % 2 == 0 { &first } else { &second }, "", &json!({"n": n})).await;
    }
    let mut all = numbers(&results(&terminator, 20).await);
    all.sort_unstable();
    assert_eq!(all, (1..=20).collect::<Vec<_>>());
    assert!(metric(&terminator, "ferry_app_far_connects_total").await >= 2.0);
}

#[tokio::test]
async fn a_far_side_that_restarts_empty_takes_what_is_still_unacknowledged() {
    let before = terminator();
    let proxy = Proxy::to(before.local_addr()).await;
    let initiator = initiator(proxy.address);
    assert_eq!(trigger(&initiator, "?wait=60s", &json!({"n": 1})).await.1["delivered"], json!(true));
    drop(before);
    assert_eq!(trigger(&initiator, "", &json!({"n": 2})).await.0, 202);
    let after = terminator();
    proxy.redirect(after.local_addr());
    assert_eq!(trigger(&initiator, "?wait=60s", &json!({"n": 3})).await.1["delivered"], json!(true));
    assert_eq!(numbers(&results(&after, 2).await), [2, 3]);
}

#[tokio::test]
async fn a_receiving_hook_that_keeps_failing_costs_one_message_and_the_sender_is_told() {
    for panics in [false, true] {
        let picky = Arc::new(Picky { dislikes: 2, panics, ..Picky::default() });
        let terminator = terminator_with(picky.clone());
        let initiator = initiator(terminator.local_addr());
        assert_eq!(trigger(&initiator, "", &json!({"n": 1})).await.0, 202);
        let (status, refused) = trigger(&initiator, "?wait=60s", &json!({"n": 2})).await;
        assert_eq!((status, &refused["delivered"]), (424, &json!(false)), "{refused}");
        let why = if panics { "panicked" } else { "I do not like it" };
        assert!(refused["error"].as_str().unwrap().contains(why), "{refused}");
        assert_eq!(picky.runs.load(Ordering::SeqCst), 3);
        assert_eq!(trigger(&initiator, "?wait=60s", &json!({"n": 3})).await.1["delivered"], json!(true));
        assert_eq!(numbers(&results(&terminator, 2).await), [1, 3]);
        assert_eq!(metric(&terminator, "ferry_app_dead_messages_total").await, 1.0);
        assert_eq!(metric(&terminator, "ferry_app_hook_failures_total{hook=\"on_receive\"}").await, 3.0);
        assert_eq!(metric(&initiator, "ferry_app_refused_messages_total").await, 1.0);
    }
}

#[tokio::test]
async fn the_output_keeps_the_newest_and_counts_what_it_dropped() {
    let terminator =
        Webapp::start(Config { output_max: 3, ..config(Role::Terminator) }, Arc::new(PassThrough)).unwrap();
    let initiator = initiator_with(terminator.local_addr(), Arc::new(Obedient));
    let mut ids = Vec::new();
    for n in 1..=5 {
        ids.push(trigger(&initiator, "?wait=60s", &json!({"n": n})).await.1["id"].clone());
    }
    assert_eq!(numbers(&results(&terminator, 3).await), [3, 4, 5]);
    assert_eq!(metric(&terminator, "ferry_app_dropped_results_total").await, 2.0);
    let (status, error) = get(&terminator, &format!("/output?after={}", ids[0].as_str().unwrap())).await;
    assert_eq!(status, 410, "{error}");
}
