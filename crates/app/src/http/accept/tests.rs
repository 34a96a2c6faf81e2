use std::collections::BTreeMap;
use std::future::pending;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

use super::*;
use crate::app::End;
use crate::hooks::{HookError, Hooks};
use crate::payload::Payload;
use crate::testing::bare_app;

/// Its hook on triggers never ends.
struct Hanging;

impl Hooks for Hanging {
    fn on_trigger<'a>(
        &'a self,
        _: Payload,
        _: &'a BTreeMap<String, String>,
    ) -> BoxFuture<'a, Result<Payload, HookError>> {
        pending().boxed()
    }
}

/// Where clients connect to.
const LOCAL: &str = "10.1.2.1:8000";

/// One connection to a terminator's HTTP, made from `address`.
fn connect(address: &str) -> DuplexStream {
    connect_to(&bare_app(End::Terminator, Hanging), address)
}

fn connect_to(app: &Arc<App>, address: &str) -> DuplexStream {
    let client = Client::at(address.parse().unwrap(), LOCAL.parse().unwrap());
    let (near, far) = tokio::io::duplex(1024);
    tokio::spawn(serve(app.clone(), router(app.clone()), far, client));
    near
}

async fn answer(mut connection: DuplexStream) -> String {
    let mut text = String::new();
    connection.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn ws_is_forbidden_to_all_but_loopback_and_the_rest_is_not() {
    for (address, path, status) in [
        ("10.1.2.3:999", "/ws", "403"),
        ("[2001:db8::1]:999", "/ws", "403"),
        // The kernel has no such connection, so it has no owner.
        ("127.0.0.1:999", "/ws", "403"),
        ("10.1.2.3:999", "/output", "200"),
    ] {
        let mut connection = connect(address);
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let text = answer(connection).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{address} {path}: {text}");
        assert!(status != "403" || text.contains("{\"error\":\"/ws is for the tunnel next to this web-app"), "{text}");
    }
}

#[tokio::test]
async fn without_a_token_no_endpoint_answers_to_a_name_that_a_web_page_may_have() {
    let paths = ["GET /output", "GET /stream", "GET /dead", "POST /trigger", "POST /dead/1/retry", "GET /livez"];
    for target in paths.into_iter().chain(["GET /readyz", "GET /metrics", "GET /ws", "GET /nowhere"]) {
        for (head, refused) in [
            ("host: rebound.example:8000", true),
            ("host: rebound.example\r\norigin: http://rebound.example", true),
            ("host: localhost:8000\r\norigin: http://elsewhere.example", true),
            ("host: localhost:8000\r\norigin: null", true),
            ("host: localhost:8000", false),
            ("host: 127.0.0.1", false),
            // A pod's address, as probes and scrapers call it.
            ("host: 10.1.2.1:8000", false),
        ] {
            let mut connection = connect("127.0.0.1:999");
            let request = format!("{target} HTTP/1.1\r\n{head}\r\nconnection: close\r\n\r\n");
            connection.write_all(request.as_bytes()).await.unwrap();
            let text = answer(connection).await;
            let is_refused = text.starts_with("HTTP/1.1 403 ") && !text.contains("/ws is for");
            assert_eq!(is_refused, refused, "{target} {head}: {text}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_web_app_whose_store_is_stuck_is_not_ready() {
    let ask = async |app: &Arc<App>| {
        let mut connection = connect_to(app, "127.0.0.1:999");
        connection.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
        answer(connection).await
    };
    let app = bare_app(End::Terminator, Hanging);
    app.commit_timer.start();
    assert!(ask(&app).await.starts_with("HTTP/1.1 200 "));
    tokio::time::advance(Duration::from_secs(11)).await;
    let text = ask(&app).await;
    assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("has not answered for 11 s"), "{text}");
    app.commit_timer.stop();
    assert!(ask(&app).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn ws_is_forbidden_to_what_is_forwarded() {
    for header in ["x-forwarded-for: 192.0.2.1", "Forwarded: for=192.0.2.1", "Via: 1.1 proxy", "X-Real-Ip: 192.0.2.1"] {
        let mut connection = connect("127.0.0.1:999");
        let request = format!("GET /ws HTTP/1.1\r\nhost: localhost\r\n{header}\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let text = answer(connection).await;
        assert!(text.starts_with("HTTP/1.1 403 ") && text.contains("forwarded"), "{header}: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_finishes_its_head_is_dropped() {
    let start = Instant::now();
    let mut connection = connect("10.1.2.3:999");
    connection.write_all(b"POST /trigger HTTP/1.1\r\nhost: ").await.unwrap();
    answer(connection).await;
    assert!(start.elapsed() >= HEAD_TIMEOUT && start.elapsed() < 2 * HEAD_TIMEOUT, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_finishes_its_body_is_told_so() {
    let mut connection = connect("10.1.2.3:999");
    let head =
        b"POST /trigger HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";
    connection.write_all(head).await.unwrap();
    let text = answer(connection).await;
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_hangs_costs_its_trigger_an_error() {
    let start = Instant::now();
    let mut connection = connect("10.1.2.3:999");
    let head = "POST /trigger HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n";
    connection.write_all(format!("{head}content-length: 2\r\n\r\n{{}}").as_bytes()).await.unwrap();
    let text = answer(connection).await;
    assert!(text.starts_with("HTTP/1.1 500 ") && text.contains("longer than 30s"), "{text}");
    assert!(start.elapsed() < Duration::from_secs(31), "{:?}", start.elapsed());
}
