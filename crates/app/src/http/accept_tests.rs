use std::collections::BTreeMap;
use std::future::pending;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

use super::*;
use crate::app::End;
use crate::hooks::{HookError, Hooks, Object};

/// Its hook on triggers never ends.
struct Hanging;

impl Hooks for Hanging {
    fn on_trigger<'a>(
        &'a self,
        _: Object,
        _: &'a BTreeMap<String, String>,
    ) -> BoxFuture<'a, Result<Object, HookError>> {
        pending().boxed()
    }
}

/// One connection to a terminator's HTTP, made from `address`.
fn connect(address: &str) -> DuplexStream {
    let app = App::bare(End::Terminator, Hanging);
    let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let client = Client { address: address.parse().unwrap(), _permit: Arc::new(permit) };
    let (near, far) = tokio::io::duplex(1024);
    tokio::spawn(serve(app.clone(), router(app), far, client));
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
        ("127.0.0.1:999", "/ws", "400"),
        ("10.1.2.3:999", "/output", "200"),
    ] {
        let mut connection = connect(address);
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let text = answer(connection).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{address} {path}: {text}");
        assert!(status != "403" || text.contains("{\"error\":\"/ws is for the tunnel in this pod"), "{text}");
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
    let head = b"POST /trigger HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";
    connection.write_all(head).await.unwrap();
    let text = answer(connection).await;
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_hangs_costs_its_trigger_an_error() {
    let start = Instant::now();
    let mut connection = connect("10.1.2.3:999");
    let head = "POST /trigger HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n";
    connection.write_all(format!("{head}content-length: 2\r\n\r\n{{}}").as_bytes()).await.unwrap();
    let text = answer(connection).await;
    assert!(text.starts_with("HTTP/1.1 500 ") && text.contains("longer than 30s"), "{text}");
    assert!(start.elapsed() < Duration::from_secs(31), "{:?}", start.elapsed());
}
