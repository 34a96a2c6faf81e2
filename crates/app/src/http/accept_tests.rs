use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::*;
use crate::app::{End, Phases};
use crate::hooks::PassThrough;
use crate::message::{Place, SenderId};
use crate::metrics::Metrics;
use crate::outbox::{Limits, Outbox};
use crate::output::Output;
use crate::terminator::Seat;

/// One connection to a terminator's HTTP, made from `address`.
fn connect(address: &str) -> DuplexStream {
    let app = Arc::new(App {
        end: End::Terminator,
        place: Place { pod: "p".into(), cluster: "c".into() },
        hooks: Arc::new(PassThrough),
        outbox: Outbox::new(SenderId::random().unwrap(), Limits::default()),
        output: Output::new(1),
        metrics: Metrics::new(),
        phases: Phases::new(),
        tasks: TaskTracker::new(),
        far: watch::Sender::new(None),
        seat: Seat::default(),
    });
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
