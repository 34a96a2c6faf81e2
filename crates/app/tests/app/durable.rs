//! What outlives a process.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ferry_app::{BoxFuture, Config, HookError, Hooks, PassThrough, Payload, Role, StartError, StoreError, Webapp};
use serde_json::{Value, json};

use crate::pair::*;
use crate::proxy::Proxy;

/// Starts a web-app on a directory, once the one before it has let go of it.
async fn start(role: Role, data: &Path, hooks: Arc<dyn Hooks>) -> Webapp {
    eventually("the directory free", async || {
        match Webapp::start(Config { data: data.to_owned(), ..config(role.clone()) }, hooks.clone()) {
            Ok(webapp) => Some(webapp),
            Err(StartError::Store(StoreError::InUse(_))) => None,
            Err(error) => panic!("{error}"),
        }
    })
    .await
}

fn initiating(peer: std::net::SocketAddr) -> Role {
    Role::Initiator { peer: format!("ws://{peer}/ws") }
}

#[tokio::test]
async fn both_ends_dropped_without_a_goodbye_go_on_where_they_were() {
    let (a, b) = (fresh_dir(), fresh_dir());
    let proxy = Proxy::to(nobody()).await;
    let mut expected = Vec::new();
    for round in 0..4 {
        let initiator = start(initiating(proxy.address), &a, Arc::new(PassThrough)).await;
        for n in round * 20..round * 20 + 20 {
            assert_eq!(trigger(&initiator, "", &json!({"n": n})).await.0, 202);
            expected.push(n);
        }
        let terminator = start(Role::Terminator, &b, Arc::new(PassThrough)).await;
        proxy.redirect(terminator.local_addr());
        if round % 2 == 0 {
            let some = expected.len() as u64 - 15;
            let count = async || get(&terminator, "/output?limit=1").await.1["count"].as_u64().unwrap();
            eventually("some", async || (count().await >= some).then_some(())).await;
        }
        drop(initiator);
        drop(terminator);
        proxy.cut();
    }
    let terminator = start(Role::Terminator, &b, Arc::new(PassThrough)).await;
    proxy.redirect(terminator.local_addr());
    let initiator = start(initiating(proxy.address), &a, Arc::new(PassThrough)).await;
    let all = results(&terminator, expected.len()).await;
    assert_eq!(numbers(&all), expected);
    // Paging continues across the restarts.
    let after = all[9]["id"].as_str().unwrap();
    let page = get(&terminator, &format!("/output?after={after}&limit=2")).await.1;
    assert_eq!(numbers(page["results"].as_array().unwrap()), [10, 11]);
    eventually("trimmed", async || (metric(&initiator, "ferry_app_outbox_messages").await == 0.0).then_some(())).await;
}

#[tokio::test]
async fn a_second_webapp_on_a_directory_is_refused() {
    let data = fresh_dir();
    let _first = start(Role::Terminator, &data, Arc::new(PassThrough)).await;
    let second = Webapp::start(Config { data, ..config(Role::Terminator) }, Arc::new(PassThrough));
    assert!(second.err().unwrap().to_string().contains("another ferry process"));
}

#[tokio::test]
async fn a_drained_webapp_has_trimmed_what_was_acknowledged() {
    let data = fresh_dir();
    let terminator = terminator();
    let initiator = start(initiating(terminator.local_addr()), &data, Arc::new(PassThrough)).await;
    assert_eq!(trigger(&initiator, "?wait=60s", &json!({"n": 1})).await.0, 200);
    initiator.drain(TEST_TIMEOUT).await;
    let again = start(initiating(nobody()), &data, Arc::new(PassThrough)).await;
    assert_eq!(metric(&again, "ferry_app_outbox_messages").await, 0.0);
}

/// Replies with its payload doubled.
struct Echo;

impl Hooks for Echo {
    fn on_receive_terminator(&self, payload: Payload) -> BoxFuture<'_, Result<Option<Payload>, HookError>> {
        let n = payload.to_object().unwrap()["n"].as_u64().unwrap();
        let reply = Payload::parse(json!({"n": n * 2}).to_string()).unwrap();
        Box::pin(async move { Ok((!n.is_multiple_of(10)).then_some(reply)) })
    }

    fn on_receive_initiator(&self, payload: Payload) -> BoxFuture<'_, Result<Option<Payload>, HookError>> {
        // A reply to a reply, which goes nowhere.
        Box::pin(async move { Ok(Some(payload)) })
    }
}

#[tokio::test]
async fn what_the_receiving_hook_returns_comes_back_as_the_reply_and_causes_none() {
    let terminator = terminator_with(Arc::new(Echo));
    let initiator = initiator_with(terminator.local_addr(), Arc::new(Echo));
    let mut stream = StreamClient::connect(&initiator).await;
    let (status, body) = trigger(&initiator, "?wait=60s", &json!({"n": 7})).await;
    assert_eq!((status, &body["delivered"], &body["reply"]), (200, &json!(true), &json!({"n": 14})));
    let reply = &results(&initiator, 1).await[0];
    assert_eq!((&reply["in_reply_to"], &reply["payload"]["n"]), (&body["id"], &json!(14)));
    assert_eq!(reply["trail"].as_array().unwrap().len(), 2);
    assert_eq!(stream.next().await["in_reply_to"], body["id"]);

    // Without a reply, and on a stream.
    assert_eq!(trigger(&initiator, "?wait=60s", &json!({"n": 10})).await.1["reply"], Value::Null);
    stream.send(&json!({"n": 3})).await;
    let notice = loop {
        let frame = stream.next().await;
        if frame.get("delivered").is_some() {
            break frame;
        }
    };
    assert_eq!(notice["reply"], json!({"n": 6}));
    assert_eq!(results(&terminator, 3).await.len(), 3, "no reply to a reply");
    eventually("settled", async || (metric(&terminator, "ferry_app_outbox_messages").await == 0.0).then_some(())).await;
    assert_eq!(metric(&terminator, "ferry_app_delivered_messages_total").await, 2.0);
}

#[tokio::test]
async fn replies_are_exactly_once_across_restarts_of_both_ends() {
    let (a, b) = (fresh_dir(), fresh_dir());
    let proxy = Proxy::to(nobody()).await;
    let initiator = start(initiating(proxy.address), &a, Arc::new(Echo)).await;
    for n in 1..=39 {
        assert_eq!(trigger(&initiator, "", &json!({"n": n})).await.0, 202);
    }
    drop(initiator);
    for _ in 0..3 {
        let terminator = start(Role::Terminator, &b, Arc::new(Echo)).await;
        proxy.redirect(terminator.local_addr());
        let initiator = start(initiating(proxy.address), &a, Arc::new(Echo)).await;
        connected(&initiator).await;
        drop((terminator, initiator));
    }
    let terminator = start(Role::Terminator, &b, Arc::new(Echo)).await;
    proxy.redirect(terminator.local_addr());
    let initiator = start(initiating(proxy.address), &a, Arc::new(Echo)).await;
    let expected: Vec<u64> = (1..=39).filter(|n| n % 10 != 0).map(|n| n * 2).collect();
    assert_eq!(numbers(&results(&initiator, expected.len()).await), expected);
    assert_eq!(numbers(&results(&terminator, 39).await), (1..=39).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_full_outbox_is_still_full_after_a_restart_and_nothing_of_it_is_dropped() {
    let data = fresh_dir();
    let proxy = Proxy::to(nobody()).await;
    let big = "x".repeat(1_000_000);
    let post = async |webapp: &Webapp, n: usize| {
        let request = reqwest::Client::new().post(url(webapp, "/trigger")).json(&json!({"n": n, "big": big}));
        let response = request.send().await.unwrap();
        let retry_after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), retry_after)
    };
    let full = (503, Some("1".to_owned()));
    let initiator = start(initiating(proxy.address), &data, Arc::new(PassThrough)).await;
    let mut accepted = 0;
    let refused = loop {
        match post(&initiator, accepted + 1).await {
            (202, _) => accepted += 1,
            refused => break refused,
        }
    };
    assert_eq!(refused, full);
    drop(initiator);
    let initiator = start(initiating(proxy.address), &data, Arc::new(PassThrough)).await;
    assert_eq!(post(&initiator, 0).await, full);
    let terminator = terminator();
    proxy.redirect(terminator.local_addr());
    let expected: Vec<_> = (1..=accepted as u64).collect();
    assert_eq!(numbers(&results(&terminator, accepted).await), expected);
    eventually("room", async || (metric(&initiator, "ferry_app_outbox_messages").await == 0.0).then_some(())).await;
    assert_eq!(post(&initiator, 0).await.0, 202);
}

async fn post_with_key(webapp: &Webapp, query: &str, key: &str, payload: &Value) -> (u16, Value) {
    let request = reqwest::Client::new().post(url(webapp, &format!("/trigger{query}"))).json(payload);
    answer(request.header("Idempotency-Key", key).send().await.unwrap()).await
}

#[tokio::test]
async fn a_retry_under_the_same_key_is_the_same_message_also_after_a_restart() {
    let data = fresh_dir();
    let terminator = terminator();
    let initiator = start(initiating(terminator.local_addr()), &data, Arc::new(PassThrough)).await;
    let payload = json!({"n": 1});
    let (first, again) = tokio::join!(
        post_with_key(&initiator, "", "order-7", &payload),
        post_with_key(&initiator, "", "\"order-7\"", &payload),
    );
    assert_eq!((first.0, &first), (202, &again));
    let (status, error) = post_with_key(&initiator, "", "order-7", &json!({"n": 2})).await;
    assert_eq!(status, 422, "{error}");
    results(&terminator, 1).await;
    drop(initiator);
    let initiator = start(initiating(terminator.local_addr()), &data, Arc::new(PassThrough)).await;
    assert_eq!(post_with_key(&initiator, "", "order-7", &json!({"n": 1})).await, first);
    assert_ne!(post_with_key(&initiator, "?wait=60s", "order-8", &json!({"n": 3})).await.1["id"], first.1["id"]);
    assert_eq!(numbers(&results(&terminator, 2).await), [1, 3]);
    assert_eq!(post_with_key(&initiator, "", "", &json!({})).await.0, 400);
    assert_eq!(post_with_key(&initiator, "", &"k".repeat(256), &json!({})).await.0, 400);
}

#[tokio::test]
async fn a_retry_that_waits_gets_the_reply_that_has_come_already_also_after_a_restart() {
    let data = fresh_dir();
    let terminator = terminator_with(Arc::new(Echo));
    let initiator = start(initiating(terminator.local_addr()), &data, Arc::new(PassThrough)).await;
    let first = post_with_key(&initiator, "?wait=60s", "order-7", &json!({"n": 7})).await;
    assert_eq!((first.0, &first.1["reply"]), (200, &json!({"n": 14})));
    assert_eq!(post_with_key(&initiator, "?wait=60s", "order-7", &json!({"n": 7})).await, first);
    results(&initiator, 1).await;
    drop(initiator);
    let initiator = start(initiating(terminator.local_addr()), &data, Arc::new(PassThrough)).await;
    assert_eq!(post_with_key(&initiator, "?wait=60s", "order-7", &json!({"n": 7})).await, first);
    assert_eq!(numbers(&results(&terminator, 1).await), [7]);
}

/// Refuses every message while it is cross.
struct Moody(AtomicBool);

impl Hooks for Moody {
    fn on_receive_terminator(&self, payload: Payload) -> BoxFuture<'_, Result<Option<Payload>, HookError>> {
        let cross = self.0.load(Ordering::SeqCst) && payload.to_object().unwrap()["n"] == 2;
        Box::pin(async move { if cross { Err(HookError::Failed("not now".into())) } else { Ok(None) } })
    }
}

#[tokio::test]
async fn a_retry_of_what_is_delivered_or_dead_is_answered_at_once_also_after_a_restart() {
    let data = fresh_dir();
    let terminator = terminator_with(Arc::new(Moody(AtomicBool::new(true))));
    let mut initiator = start(initiating(terminator.local_addr()), &data, Arc::new(PassThrough)).await;
    let (good, bad) = (json!({"n": 1}), json!({"n": 2}));
    let delivered = post_with_key(&initiator, "?wait=60s", "good", &good).await;
    let dead = post_with_key(&initiator, "?wait=60s", "bad", &bad).await;
    assert_eq!((&delivered.1["delivered"], &dead.1["delivered"]), (&json!(true), &json!(false)));
    for _ in 0..2 {
        // Nothing comes that could end the wait: either it is known, or the answer is 202.
        assert_eq!(post_with_key(&initiator, "?wait=60s", "good", &good).await, delivered);
        let again = post_with_key(&initiator, "?wait=60s", "bad", &bad).await;
        assert_eq!((again.0, &again.1["delivered"], &again.1["id"]), (dead.0, &json!(false), &dead.1["id"]));
        drop(initiator);
        initiator = start(initiating(terminator.local_addr()), &data, Arc::new(PassThrough)).await;
    }
}

#[tokio::test]
async fn a_dead_message_is_listed_survives_a_restart_and_a_retry_appends_it_at_the_end_once() {
    let data = fresh_dir();
    let hooks = Arc::new(Moody(AtomicBool::new(true)));
    let terminator = start(Role::Terminator, &data, hooks.clone()).await;
    let proxy = Proxy::to(terminator.local_addr()).await;
    let initiator = initiator(proxy.address);
    for n in 1..=3 {
        trigger(&initiator, "", &json!({"n": n})).await;
    }
    assert_eq!(numbers(&results(&terminator, 2).await), [1, 3]);
    drop(terminator);
    let terminator = start(Role::Terminator, &data, hooks.clone()).await;
    let (_, dead) = get(&terminator, "/dead").await;
    assert_eq!((&dead["count"], &dead["results"][0]["payload"]), (&json!(1), &json!({"n": 2})));
    assert_eq!(dead["results"][0]["error"], "not now");
    let id = dead["results"][0]["id"].as_str().unwrap().to_owned();
    let retry = async |id: &str| {
        answer(reqwest::Client::new().post(url(&terminator, &format!("/dead/{id}/retry"))).send().await.unwrap()).await
    };
    let (status, error) = retry(&id).await;
    assert!(status == 500 && error["error"].as_str().unwrap().contains("not now"), "{status} {error}");
    hooks.0.store(false, Ordering::SeqCst);
    assert_eq!(retry(&id).await, (200, json!({"id": id, "delivered": true})));
    assert_eq!(retry(&id).await.0, 404);
    assert_eq!(numbers(&results(&terminator, 3).await), [1, 3, 2]);
    drop(terminator);
    let terminator = start(Role::Terminator, &data, hooks).await;
    assert_eq!(get(&terminator, "/dead").await.1["count"], 0);
    assert_eq!(numbers(&results(&terminator, 3).await), [1, 3, 2]);
}

/// Refuses what it has not let through.
struct Refusing;

impl Hooks for Refusing {
    fn on_receive_terminator(&self, payload: Payload) -> BoxFuture<'_, Result<Option<Payload>, HookError>> {
        let refused = payload.to_object().unwrap()["n"] != 0;
        Box::pin(async move { if refused { Err(HookError::Failed("not now".into())) } else { Ok(None) } })
    }
}

#[tokio::test]
async fn the_dead_are_paged_by_the_last_id_seen() {
    let terminator = terminator_with(Arc::new(Refusing));
    let initiator = initiator(terminator.local_addr());
    for n in [1, 0, 2] {
        trigger(&initiator, "", &json!({"n": n})).await;
    }
    let count = async || get(&terminator, "/dead").await.1["count"].as_u64().unwrap();
    eventually("two dead", async || (count().await == 2).then_some(())).await;
    let page = async |query: &str| get(&terminator, &format!("/dead{query}")).await;
    let (_, first) = page("?limit=1").await;
    let mut seen = vec![first["results"][0].clone()];
    assert_eq!((&first["count"], first["results"].as_array().unwrap().len()), (&json!(2), 1));
    let after = first["results"][0]["id"].as_str().unwrap().to_owned();
    let (_, rest) = page(&format!("?after={after}")).await;
    seen.extend(rest["results"].as_array().unwrap().iter().cloned());
    assert_eq!(numbers(&seen), [1, 2]);
    let last = seen[1]["id"].as_str().unwrap();
    assert_eq!(page(&format!("?after={last}")).await, (200, json!({"count": 2, "results": []})));
    let (status, error) = page("?after=unknown-1").await;
    assert!(status == 410 && error["error"].as_str().unwrap().contains("without `after`"), "{status} {error}");
    let (status, error) = page("?limit=0").await;
    assert!(status == 400 && error["error"].as_str().unwrap().contains("from 1 to 1000"), "{status} {error}");
}

/// A file system of its own, which only root can make.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let dir = fresh_dir();
        std::fs::create_dir_all(&dir).unwrap();
        let options = format!("size={size}");
        let mounted =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", &options, "ferry"]).arg(&dir).output();
        if mounted.is_ok_and(|run| run.status.success()) {
            return Some(Self(dir));
        }
        println!("left out: a small file system can be mounted by root only");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[tokio::test]
async fn a_full_disk_is_told_loses_nothing_accepted_and_passes_again_and_again() {
    for (size, at_least) in [("4m", 5), ("16m", 20), ("48m", 100)] {
        let Some(disk) = SmallDisk::mount(size) else { return };
        let proxy = Proxy::to(nobody()).await;
        let initiator = start(initiating(proxy.address), &disk.0.join("data"), Arc::new(PassThrough)).await;
        let terminator = terminator();
        let big = "x".repeat(100_000);
        let mut accepted = 0;
        for round in 1..=3 {
            let before = accepted;
            let error = loop {
                match trigger(&initiator, "", &json!({"n": accepted, "big": big})).await {
                    (202, _) => accepted += 1,
                    (status, body) => {
                        assert_eq!(status, 503, "{body}");
                        break body["error"].as_str().unwrap().to_owned();
                    }
                }
            };
            assert!(error.contains("disk") && error.contains("full"), "{size}: {error}");
            assert!(accepted - before >= at_least, "{size}, round {round}: only {}", accepted - before);
            let (status, body) = get(&initiator, "/readyz").await;
            assert!(status == 503 && body["error"].as_str().unwrap().contains("full"), "{status} {body}");

            proxy.redirect(terminator.local_addr());
            assert_eq!(numbers(&results(&terminator, accepted).await), (0..accepted as u64).collect::<Vec<_>>());
            eventually("ready again", async || (get_text(&initiator, "/readyz").await.0 == 200).then_some(())).await;
            proxy.redirect(nobody());
            proxy.cut();
        }
        initiator.drain(TEST_TIMEOUT).await;
    }
}
