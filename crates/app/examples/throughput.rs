//! How many messages of 200 bytes two web-apps deliver in a second, everything synced to disk at both ends; and how long a
//! single `POST /trigger` takes. With a Python file as argument, its hooks run at both ends.
//!
//! `cargo run --release -p ferry-app --example throughput [-- app.py]`

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferry_app::{Config, Hooks, PassThrough, PythonConfig, PythonHooks, Role, Webapp};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

const SINGLES: usize = 500;

type Error = Box<dyn std::error::Error>;

async fn hooks(file: Option<&str>) -> Result<Arc<dyn Hooks>, Error> {
    let Some(file) = file else { return Ok(Arc::new(PassThrough)) };
    let timeout = Duration::from_secs(30);
    Ok(Arc::new(PythonHooks::start(PythonConfig { file: file.into(), workers: NonZeroUsize::MIN, timeout }).await?))
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let file = std::env::args().nth(1);
    let messages = if file.is_some() { 20_000 } else { 100_000 };
    let dir = tempfile::tempdir_in(".")?;
    let config = |role, pod: &str| Config {
        role,
        listen: ([127, 0, 0, 1], 0).into(),
        pod: pod.into(),
        cluster: "bench".into(),
        auto_trigger: 0,
        output_max: 10_000,
        data: dir.path().join(pod),
        token: None,
    };
    let terminator = Webapp::start(config(Role::Terminator, "terminator"), hooks(file.as_deref()).await?)?;
    let role = Role::Initiator { peer: format!("ws://{}/ws", terminator.local_addr()) };
    let initiator = Webapp::start(config(role, "initiator"), hooks(file.as_deref()).await?)?;

    let (socket, _) = tokio_tungstenite::connect_async(format!("ws://{}/stream", initiator.local_addr())).await?;
    let (mut writer, mut reader) = socket.split();
    let text = format!("{{\"n\":1,\"pad\":\"{}\"}}", "x".repeat(200 - 15));
    let start = Instant::now();
    let sending = tokio::spawn(async move {
        for _ in 0..messages {
            writer.feed(Message::text(text.clone())).await?;
        }
        writer.flush().await
    });
    let mut delivered = 0;
    while delivered < messages {
        let Some(message) = reader.next().await else { return Err("the stream ended".into()) };
        delivered += usize::from(message?.to_text()?.contains("\"delivered\":true"));
    }
    let seconds = start.elapsed().as_secs_f64();
    sending.await??;
    println!(
        "/stream: {messages} messages of 200 bytes delivered in {seconds:.2} s: {:.0}/s",
        messages as f64 / seconds
    );

    let client = reqwest::Client::new();
    let url = format!("http://{}/trigger", initiator.local_addr());
    let mut times = Vec::new();
    for n in 0..SINGLES {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let start = Instant::now();
        let answer = client.post(&url).json(&serde_json::json!({"n": n})).send().await?;
        if answer.status() != 202 {
            return Err(format!("answered {}", answer.status()).into());
        }
        times.push(start.elapsed());
    }
    times.sort();
    println!("POST /trigger: p50 {:?}, p99 {:?}", times[SINGLES / 2], times[SINGLES * 99 / 100]);
    initiator.drain(Duration::from_secs(5)).await;
    terminator.drain(Duration::from_secs(5)).await;
    Ok(())
}
