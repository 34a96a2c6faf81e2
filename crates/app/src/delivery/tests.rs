use std::future::pending;

use futures_util::SinkExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as WsMessage;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;
use crate::app::End;
use crate::hooks::{HookError, Hooks, PassThrough};
use crate::outbox::Verdict;
use crate::payload::Payload;
use crate::testing::bare_app;
use crate::{socket, trigger};

type Far = WebSocketStream<DuplexStream>;

/// A conversation of a terminator with the far side that the test plays; both have said hello and acknowledged
/// nothing.
async fn conversation(hooks: impl Hooks) -> (Arc<App>, tokio::task::JoinHandle<Disconnect>, Far) {
    conversation_with(hooks, false).await
}

/// As [`conversation`], with a far side that reads headers or not.
async fn conversation_with(
    hooks: impl Hooks,
    takes_headers: bool,
) -> (Arc<App>, tokio::task::JoinHandle<Disconnect>, Far) {
    let app = bare_app(End::Terminator, hooks);
    let (near, far) = tokio::io::duplex(1 << 20);
    let near = WebSocketStream::from_raw_socket(near, Role::Server, Some(socket::config())).await;
    let mut far = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
    let running = app.clone();
    let near = Socket { takes_headers, ..near.into() };
    let ended = tokio::spawn(async move { run(&running, &running.sites.first(), near, pending()).await });
    for frame in
        [json!({"hello": {"sender": "far", "pod": "p", "cluster": "c", "acked": 0}}), json!({"ack": {"seq": 0}})]
    {
        far.send(WsMessage::text(frame.to_string())).await.unwrap();
    }
    (app, ended, far)
}

async fn next_text(far: &mut Far) -> Value {
    loop {
        if let WsMessage::Text(text) = far.next().await.unwrap().unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_of_ten_minutes_is_no_more_than_a_pause_but_silence_for_ever_ends() {
    let (_app, ended, far) = conversation(PassThrough).await;
    let start = Instant::now();
    // The far side is connected but sends nothing, not even pongs, because it is not polled.
    let ended = ended.await.unwrap();
    assert!(matches!(ended, Disconnect::Silent(_)), "{ended}");
    assert!(start.elapsed() > Duration::from_secs(11 * 60) && start.elapsed() < Duration::from_secs(20 * 60));
    drop(far);
}

#[tokio::test(start_paused = true)]
async fn an_idle_websocket_is_kept_alive_by_pings() {
    let (_app, ended, mut far) = conversation(PassThrough).await;
    let start = Instant::now();
    let mut pings = 0;
    while start.elapsed() < Duration::from_secs(3600) {
        // Polling answers each ping with a pong.
        pings += u32::from(far.next().await.unwrap().unwrap().is_ping());
    }
    assert!((110..=120).contains(&pings), "{pings} pings in an hour");
    assert!(!ended.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_far_side_that_says_nothing_is_not_waited_for() {
    let app = bare_app(End::Terminator, PassThrough);
    let (near, _far) = tokio::io::duplex(1 << 20);
    let near = WebSocketStream::from_raw_socket(near, Role::Server, Some(socket::config())).await;
    let start = Instant::now();
    assert!(matches!(run(&app, &app.sites.first(), near.into(), pending()).await, Disconnect::Silent(HELLO_TIMEOUT)));
    assert!(start.elapsed() < 2 * HELLO_TIMEOUT);
}

/// Its receiving hook never ends.
struct Hanging;

impl Hooks for Hanging {
    fn on_receive_terminator(&self, _: Payload) -> BoxFuture<'_, Result<Option<Payload>, HookError>> {
        pending().boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiving_hook_that_hangs_costs_one_message_and_holds_up_no_sending() {
    let (app, _ended, mut far) = conversation(Hanging).await;
    let start = Instant::now();
    let message = json!({"message": {"seq": 1, "id": "far-1", "payload": {}, "trail": []}});
    far.send(WsMessage::text(message.to_string())).await.unwrap();
    assert!(next_text(&mut far).await["hello"].is_object());
    assert_eq!(next_text(&mut far).await, json!({"ack": {"seq": 0}}));

    // While the hook hangs, a message goes the other way and its ack comes back.
    let mut message =
        trigger::submit(&app, &app.sites.first(), Payload::parse("{}").unwrap(), &Default::default()).await.unwrap();
    assert_eq!(next_text(&mut far).await["message"]["seq"], 1);
    far.send(WsMessage::text(json!({"ack": {"seq": 1}}).to_string())).await.unwrap();
    assert!(matches!(message.verdict().await, Verdict::Delivered(None)));
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());

    let ack = next_text(&mut far).await;
    assert_eq!(ack["ack"]["dead"][0]["error"], "the hook took longer than 10s");
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn headers_go_to_a_far_side_that_reads_them_and_not_to_one_that_would_refuse_them() {
    let headers = [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("baggage", "a=1")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    for takes_headers in [true, false] {
        let (app, _ended, mut far) = conversation_with(PassThrough, takes_headers).await;
        let payload = Payload::parse("{}").unwrap();
        trigger::submit(&app, &app.sites.first(), payload, &headers).await.unwrap();
        let message = loop {
            let frame = next_text(&mut far).await;
            if let Some(message) = frame.get("message") {
                break message.clone();
            }
        };
        assert_eq!(message.get("headers").is_some(), takes_headers, "{message}");
        assert!(!takes_headers || message["headers"] == json!(headers), "{message}");
    }
}
