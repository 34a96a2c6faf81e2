//! Several sites at one terminator: initiators, each behind a tunnel that names its peer.

use std::net::SocketAddr;
use std::sync::Arc;

use ferry_app::{BoxFuture, Config, HookError, Hooks, PassThrough, Payload, Role, Webapp};
use proxy_header::{ProxyHeader, Tlv};
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::pair::*;

/// What a tunnel is to the web-apps at its ends: it names the peer, and carries bytes until it is cut.
struct Tunnel {
    address: SocketAddr,
    open: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Tunnel {
    async fn of(peer: &'static str, terminator: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, open) = (listener.local_addr().unwrap(), watch::Sender::new(true));
        let (opened, mut tasks) = (open.clone(), JoinSet::new());
        tasks.spawn(async move {
            let mut carried = JoinSet::new();
            loop {
                let Ok((mut near, _)) = listener.accept().await else { return };
                let mut open = opened.subscribe();
                carried.spawn(async move {
                    if !*open.borrow() {
                        return;
                    }
                    let mut far = TcpStream::connect(terminator).await.unwrap();
                    let mut header = Vec::new();
                    let name = Tlv::Custom(0xe0, peer.as_bytes().into());
                    ProxyHeader::with_tlvs(None, [name]).encode_v2(&mut header).unwrap();
                    far.write_all(&header).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = open.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Self { address, open, _tasks: tasks }
    }

    /// Ends what it carries, and carries nothing, until it is opened again.
    fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }
}

/// An initiator and its tunnel.
struct Far {
    webapp: Webapp,
    tunnel: Tunnel,
}

impl Far {
    async fn start(peer: &'static str, terminator: &Webapp) -> Self {
        let tunnel = Tunnel::of(peer, terminator.local_addr()).await;
        let webapp = initiator(tunnel.address);
        connected(&webapp).await;
        Self { webapp, tunnel }
    }

    /// Sends messages with these numbers, without waiting for their delivery.
    async fn send(&self, numbers: impl IntoIterator<Item = u64>) {
        for n in numbers {
            assert_eq!(trigger(&self.webapp, "", &json!({"n": n})).await.0, 202);
        }
    }
}

async fn status_of(terminator: &Webapp, site: &str) -> Option<Value> {
    let (_, status) = get(terminator, "/status").await;
    status["sites"].as_array().unwrap().iter().find(|row| row["site"] == json!(site)).cloned()
}

/// Waits until a site is connected, or is not.
async fn until_connected(terminator: &Webapp, site: &str, connected: bool) {
    eventually(site, async || status_of(terminator, site).await.filter(|row| row["connected"] == json!(connected)))
        .await;
}

/// The numbers that came from a site, in their order.
fn of_site(results: &[Value], site: &str) -> Vec<u64> {
    numbers(&results.iter().filter(|row| row["site"] == json!(site)).cloned().collect::<Vec<_>>())
}

#[tokio::test]
async fn sites_are_served_at_once_and_a_trigger_says_which_it_is_for() {
    let terminator = terminator();
    let east = Far::start("a/east", &terminator).await;
    assert_eq!(trigger(&terminator, "?wait=60s", &json!({"n": 0})).await.0, 200, "the only site");
    let west = Far::start("a/west", &terminator).await;
    until_connected(&terminator, "a/east", true).await;
    until_connected(&terminator, "a/west", true).await;

    let (status, error) = trigger(&terminator, "", &json!({"n": 1})).await;
    assert!(status == 400 && error["error"].as_str().unwrap().contains("known here: a/east, a/west;"), "{error}");
    let (status, error) = trigger(&terminator, "?to=a/north", &json!({"n": 1})).await;
    assert!(status == 404 && error["error"].as_str().unwrap().contains("no site \"a/north\""), "{error}");
    let (status, error) = trigger(&terminator, "?to=,", &json!({"n": 1})).await;
    assert!(status == 400 && error["error"].as_str().unwrap().contains("cannot be used"), "{error}");

    let (status, one) = trigger(&terminator, "?to=a/west&wait=60s", &json!({"n": 1})).await;
    assert_eq!((status, &one["delivered"]), (200, &json!(true)));
    for to in ["*", "a/east,a/west"] {
        let (status, all) = trigger(&terminator, &format!("?to={to}&wait=60s"), &json!({"n": 2})).await;
        assert_eq!(status, 200, "{all}");
        let rows = all["messages"].as_array().unwrap();
        assert_eq!(rows.iter().map(|row| row["to"].as_str().unwrap()).collect::<Vec<_>>(), ["a/east", "a/west"]);
        assert!(rows.iter().all(|row| row["delivered"] == json!(true) && row["id"].is_string()), "{all}");
    }
    assert_eq!(numbers(&results(&east.webapp, 3).await), [0, 2, 2]);
    assert_eq!(numbers(&results(&west.webapp, 3).await), [1, 2, 2]);

    east.send([1, 2, 3]).await;
    west.send([4, 5, 6]).await;
    let results = results(&terminator, 6).await;
    assert_eq!((of_site(&results, "a/east"), of_site(&results, "a/west")), (vec![1, 2, 3], vec![4, 5, 6]));
}

#[tokio::test]
async fn a_pair_sees_nothing_of_sites() {
    let terminator = terminator();
    let east = Far::start("a/east", &terminator).await;
    east.send([1]).await;
    let result = &results(&terminator, 1).await[0];
    let keys: Vec<_> = result.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["id", "payload", "trail"]);
    let (status, answer) = trigger(&terminator, "", &json!({"n": 1})).await;
    assert_eq!((status, answer.as_object().unwrap().len()), (202, 1));
}

#[tokio::test]
async fn what_is_for_a_site_waits_for_it_and_for_nobody_else_also_over_a_restart() {
    let config = config(Role::Terminator);
    let start = || Webapp::start(config.clone(), Arc::new(PassThrough)).unwrap();
    let first = start();
    // Before anybody has come: for whoever is first.
    assert_eq!(trigger(&first, "", &json!({"n": 0})).await.0, 202);
    let east = Far::start("east", &first).await;
    results(&east.webapp, 1).await;
    let west = Far::start("west", &first).await;
    west.tunnel.set_open(false);
    until_connected(&first, "west", false).await;
    for n in 1..=3 {
        assert_eq!(trigger(&first, "?to=*", &json!({"n": n})).await.0, 202);
    }
    assert_eq!(numbers(&results(&east.webapp, 4).await), [0, 1, 2, 3]);
    let row = status_of(&first, "west").await.unwrap();
    assert_eq!((&row["outbox"]["messages"], &row["connected"]), (&json!(3), &json!(false)));
    first.drain(TEST_TIMEOUT).await;

    let second = start();
    assert_eq!(status_of(&second, "west").await.unwrap()["outbox"]["messages"], json!(3));
    assert_eq!(status_of(&second, "east").await.unwrap()["outbox"]["messages"], json!(0));
    let west = Config { ..crate::pair::config(Role::Initiator { peer: String::new() }) };
    let tunnel = Tunnel::of("west", second.local_addr()).await;
    let role = Role::Initiator { peer: format!("ws://{}/ws", tunnel.address) };
    let west = Webapp::start(Config { role, ..west }, Arc::new(PassThrough)).unwrap();
    assert_eq!(numbers(&results(&west, 3).await), [1, 2, 3]);
}

/// The receiving hook hangs on what comes from a site that says so.
struct HangsFor(&'static str);

impl Hooks for HangsFor {
    fn on_receive_terminator(&self, payload: Payload) -> BoxFuture<'_, Result<Option<Payload>, HookError>> {
        Box::pin(async move {
            if payload.to_object()?.get("from").is_some_and(|from| from == self.0) {
                std::future::pending::<()>().await;
            }
            Ok(Some(payload))
        })
    }
}

#[tokio::test]
async fn a_site_whose_hook_hangs_and_one_that_is_away_hold_up_no_other() {
    let terminator = terminator_with(Arc::new(HangsFor("east")));
    let east = Far::start("east", &terminator).await;
    let west = Far::start("west", &terminator).await;
    let north = Far::start("north", &terminator).await;
    north.tunnel.set_open(false);
    for n in 1..=20 {
        east.send([]).await;
        assert_eq!(trigger(&east.webapp, "", &json!({"n": n, "from": "east"})).await.0, 202);
        assert_eq!(trigger(&terminator, "?to=north", &json!({"n": n})).await.0, 202);
        let (status, answer) = trigger(&west.webapp, "?wait=60s", &json!({"n": n})).await;
        assert_eq!((status, &answer["reply"]["n"]), (200, &json!(n)));
    }
    let row = status_of(&terminator, "north").await.unwrap();
    assert_eq!(row["outbox"]["messages"], json!(20));
    north.tunnel.set_open(true);
    assert_eq!(numbers(&results(&north.webapp, 20).await), (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn two_web_apps_of_one_identity_take_turns_and_neither_loses_or_doubles_anything() {
    let terminator = terminator();
    let _other = Far::start("west", &terminator).await;
    let one = Far::start("east", &terminator).await;
    one.send(1..=5).await;
    results(&terminator, 5).await;
    let two = Far::start("east", &terminator).await;
    one.send(6..=10).await;
    two.send(11..=20).await;
    let results = results(&terminator, 20).await;
    let all = of_site(&results, "east");
    let (of_one, of_two): (Vec<_>, Vec<_>) = all.into_iter().partition(|n| *n <= 10);
    assert_eq!((of_one, of_two), ((1..=10).collect(), (11..=20).collect()));
}

#[tokio::test]
async fn a_site_that_is_withdrawn_while_it_sends_can_be_forgotten_with_what_waits_for_it() {
    let config = config(Role::Terminator);
    let start = || Webapp::start(config.clone(), Arc::new(PassThrough)).unwrap();
    let forget = async |webapp: &Webapp, site: &str| {
        let request = reqwest::Client::new().delete(url(webapp, &format!("/sites/{site}")));
        answer(request.send().await.unwrap()).await
    };
    let terminator = start();
    let east = Far::start("a/east", &terminator).await;
    let west = Far::start("a/west", &terminator).await;
    east.send(1..=3).await;
    until_connected(&terminator, "a/east", true).await;
    let (status, error) = forget(&terminator, "a/east").await;
    assert!(status == 409 && error["error"].as_str().unwrap().contains("a/east is connected"), "{error}");
    results(&terminator, 3).await;
    east.tunnel.set_open(false);
    east.send(4..=5).await;
    until_connected(&terminator, "a/east", false).await;
    let waiting = trigger(&terminator, "?to=a/east", &json!({"n": 9})).await;
    assert_eq!(waiting.0, 202);

    assert_eq!(forget(&terminator, "a/east").await, (200, json!({"site": "a/east", "dropped": 1})));
    assert_eq!(forget(&terminator, "a/east").await.0, 404);
    assert!(status_of(&terminator, "a/east").await.is_none());
    assert_eq!(trigger(&terminator, "?wait=60s", &json!({"n": 1})).await.0, 200, "west is the only one");
    assert_eq!(metric(&terminator, "ferry_app_outbox_messages").await, 0.0);
    let (_, metrics) = get_text(&terminator, "/metrics").await;
    assert!(
        !metrics.contains("a/east") && metrics.contains("ferry_app_site_connected{site=\"a/west\"} 1"),
        "{metrics}"
    );

    // It comes back, and what it sent meanwhile arrives once.
    east.tunnel.set_open(true);
    assert_eq!(numbers(&results(&terminator, 5).await), [1, 2, 3, 4, 5]);
    assert_eq!(trigger(&terminator, "?to=a/east&wait=60s", &json!({"n": 7})).await.0, 200);
    assert_eq!(numbers(&results(&east.webapp, 1).await), [7]);
    drop(west);
    terminator.drain(TEST_TIMEOUT).await;
    let again = start();
    assert!(status_of(&again, "a/east").await.is_some() && status_of(&again, "a/west").await.is_some());
}

#[tokio::test]
async fn under_one_idempotency_key_each_site_gets_a_message_once() {
    let terminator = terminator();
    let east = Far::start("east", &terminator).await;
    let west = Far::start("west", &terminator).await;
    let send = async |to: &str, n: u64| {
        let request = reqwest::Client::new().post(url(&terminator, &format!("/trigger?to={to}&wait=60s")));
        answer(request.header("idempotency-key", "k").json(&json!({"n": n})).send().await.unwrap()).await
    };
    let (status, one) = send("east", 1).await;
    assert_eq!(status, 200);
    let (status, all) = send("*", 1).await;
    assert_eq!((status, &all["messages"][0]["id"]), (200, &one["id"]));
    assert_eq!(send("*", 1).await, (200, all));
    assert_eq!(send("*", 2).await.0, 422);
    assert_eq!((results(&east.webapp, 1).await.len(), results(&west.webapp, 1).await.len()), (1, 1));
}

#[tokio::test]
async fn a_stream_is_for_one_site() {
    let terminator = terminator();
    let east = Far::start("east", &terminator).await;
    let _west = Far::start("west", &terminator).await;
    let stream = async |to: &str| {
        let url = format!("ws://{}/stream{to}", terminator.local_addr());
        tokio_tungstenite::connect_async(url).await.map(|(stream, _)| StreamClient(stream))
    };
    assert!(stream("?to=*").await.is_err() && stream("?to=east,west").await.is_err());
    let mut nobody = stream("").await.unwrap();
    nobody.send(&json!({"n": 0})).await;
    assert!(nobody.next().await["error"].as_str().unwrap().contains("several sites"));
    let mut to_east = stream("?to=east").await.unwrap();
    to_east.send(&json!({"n": 1})).await;
    let id = to_east.next().await;
    assert_eq!(to_east.next().await, json!({"id": id["id"], "delivered": true, "reply": null}));
    assert_eq!(numbers(&results(&east.webapp, 1).await), [1]);
}

#[tokio::test]
async fn a_site_whose_python_hook_hangs_is_kept_apart() {
    if !crate::python::python() {
        return;
    }
    let begun = fresh_dir();
    let code = format!(
        "import time\ndef on_receive_terminator(payload):\n    if 'hang' in payload:\n        open({begun:?}, 'w').close()\n        \
         time.sleep(3600)\n    return payload\n"
    );
    let terminator = terminator_with(crate::python::load(&code).await);
    let east = Far::start("east", &terminator).await;
    let west = Far::start("west", &terminator).await;
    assert_eq!(trigger(&east.webapp, "", &json!({"n": 0, "hang": true})).await.0, 202);
    eventually("the hang", async || begun.exists().then_some(())).await;
    east.send(1..=3).await;
    for n in 1..=100 {
        let (status, answer) = trigger(&west.webapp, "?wait=60s", &json!({"n": n})).await;
        assert_eq!((status, &answer["reply"]["n"]), (200, &json!(n)));
        if n == 1 {
            // There is one worker for both, and east's call has 10 s: it goes on elsewhere.
            assert_eq!(get(&terminator, "/dead").await.1["count"], json!(0));
        }
    }
    let results = results(&terminator, 103).await;
    assert_eq!(of_site(&results, "west"), (1..=100).collect::<Vec<_>>());
    assert_eq!(of_site(&results, "east"), [1, 2, 3]);
    let (_, dead) = get(&terminator, "/dead").await;
    assert_eq!((&dead["count"], &dead["results"][0]["site"]), (&json!(1), &json!("east")));
    assert_eq!(status_of(&terminator, "east").await.unwrap()["dead"], json!(1));
}

#[tokio::test]
async fn a_trigger_for_several_sites_tells_which_of_them_could_not_take_it() {
    let terminator = terminator();
    let east = Far::start("east", &terminator).await;
    let north = Far::start("north", &terminator).await;
    north.tunnel.set_open(false);
    until_connected(&terminator, "north", false).await;
    let large = json!({"n": 0, "x": "x".repeat(1_000_000)});
    // What no other site needs is used up first.
    eventually("full", async || (trigger(&terminator, "?to=north", &large).await.0 == 503).then_some(())).await;
    let (status, answer) = trigger(&terminator, "?to=*", &large).await;
    let [of_east, of_north] = &answer["messages"].as_array().unwrap()[..] else { panic!("{answer}") };
    assert_eq!((status, &of_north["to"]), (207, &json!("north")));
    assert!(of_east["id"].is_string() && of_north["error"].as_str().unwrap().contains("outbox is full"), "{answer}");
    assert_eq!(results(&east.webapp, 1).await.len(), 1);
}
