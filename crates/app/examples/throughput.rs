//! How many messages of 200 bytes two web-apps deliver in a second, everything synced to disk at both ends. With a Python
//! file as argument, its hooks run at both ends.
//!
//! `cargo run --release -p ferry-app --example throughput [-- app.py]`
//!
//! With `--trigger`: how long `POST /trigger` takes when each sync of a store takes at least 5 ms (which needs Linux and a
//! C compiler), at 50 requests a second to each end, at random moments, whether the ones before are answered or not.
//!
//! `cargo run --release -p ferry-app --example throughput -- --trigger`
//!
//! Spans are exported where the environment names a collector, which shows what that costs.
//!
//! The stores are in the current directory: one in memory keeps the disk's own syncs out of it.

use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ferry_app::{Access, Config, Hooks, PassThrough, PythonConfig, PythonHooks, Role, Webapp};
use futures_util::{SinkExt, StreamExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::Message;

/// Requests to each end, and how many come in a second. Several rounds, because a busy machine stalls now and then.
const ROUNDS: u64 = 6;
const REQUESTS: usize = 500;
const RATE: f64 = 50.0;
const SYNC: Duration = Duration::from_millis(5);

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Error> {
    let argument = std::env::args().nth(1);
    let trigger = argument.as_deref() == Some("--trigger");
    let dir = tempfile::tempdir_in(".")?;
    if trigger && std::env::var_os("SYNC_MIN_US").is_none() {
        return with_slow_syncs(dir.path());
    }
    tokio::runtime::Runtime::new()?.block_on(async {
        let exporting = ferry_trace::start(&ferry_trace::resource("throughput", &[]))?;
        match argument {
            _ if trigger => triggers(dir.path()).await?,
            file => stream(dir.path(), file.as_deref()).await?,
        }
        if let Some(exporting) = exporting {
            exporting.finish().await;
        }
        Ok(())
    })
}

/// Runs this program again with its syncs slowed down.
fn with_slow_syncs(dir: &Path) -> Result<(), Error> {
    let (source, library) = (concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sync.c"), dir.join("sync.so"));
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status()?;
    if !compiled.success() {
        return Err("sync.c cannot be compiled".into());
    }
    let mut again = Command::new(std::env::current_exe()?);
    again.arg("--trigger").env("SYNC_MIN_US", SYNC.as_micros().to_string());
    let status = again.env("LD_PRELOAD", library.canonicalize()?).status()?;
    if status.success() { Ok(()) } else { Err(status.to_string().into()) }
}

async fn hooks(file: Option<&str>) -> Result<Arc<dyn Hooks>, Error> {
    let Some(file) = file else { return Ok(Arc::new(PassThrough)) };
    let timeout = Duration::from_secs(30);
    Ok(Arc::new(PythonHooks::start(PythonConfig { file: file.into(), workers: NonZeroUsize::MIN, timeout }).await?))
}

/// An initiator and its terminator, with their stores in `dir`.
async fn pair(dir: &Path, file: Option<&str>) -> Result<[Webapp; 2], Error> {
    let config = |role, pod: &str| Config {
        role,
        listen: ([127, 0, 0, 1], 0).into(),
        pod: pod.into(),
        cluster: "bench".into(),
        auto_trigger: 0,
        output_max: 10_000,
        data: dir.join(pod),
        access: Access::default(),
    };
    let terminator = Webapp::start(config(Role::Terminator, "terminator"), hooks(file).await?)?;
    let role = Role::Initiator { peer: format!("ws://{}/ws", terminator.local_addr()) };
    Ok([Webapp::start(config(role, "initiator"), hooks(file).await?)?, terminator])
}

async fn end(pair: [Webapp; 2]) {
    for webapp in pair {
        webapp.drain(Duration::from_secs(5)).await;
    }
}

async fn stream(dir: &Path, file: Option<&str>) -> Result<(), Error> {
    let messages = if file.is_some() { 20_000 } else { 100_000 };
    let pair = pair(dir, file).await?;
    let (socket, _) = tokio_tungstenite::connect_async(format!("ws://{}/stream", pair[0].local_addr())).await?;
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
    end(pair).await;
    Ok(())
}

async fn triggers(dir: &Path) -> Result<(), Error> {
    let pair = pair(dir, None).await?;
    println!("{ROUNDS} x {REQUESTS} triggers to each end at {RATE}/s, each sync at least {SYNC:?}");
    let [initiator, terminator] = pair.each_ref().map(|webapp| format!("http://{}/trigger", webapp.local_addr()));
    for round in 1..=ROUNDS {
        let done = Arc::new(AtomicBool::new(false));
        let machine = std::thread::spawn(bare_sleeps(done.clone()));
        let (near, far) = tokio::join!(times(&initiator, round), times(&terminator, ROUNDS + round));
        done.store(true, Ordering::Relaxed);
        let machine = machine.join().map_err(|_| "the bare sleeps panicked")?;
        println!("POST /trigger: {}; a bare sleep: {}", summary([near?, far?].concat()), summary(machine));
    }
    end(pair).await;
    Ok(())
}

fn summary(mut times: Vec<Duration>) -> String {
    times.sort();
    let [p50, p99, p999] = [500, 990, 999].map(|permille| times[times.len() * permille / 1000]);
    format!("p50 {p50:.1?}, p99 {p99:.1?}, p99.9 {p999:.1?}, most {:.1?}", times[times.len() - 1])
}

/// How long a sleep of one sync takes, with nothing else in its thread: what the machine adds by itself.
fn bare_sleeps(done: Arc<AtomicBool>) -> impl FnOnce() -> Vec<Duration> {
    move || {
        let mut times = Vec::new();
        while !done.load(Ordering::Relaxed) {
            let start = Instant::now();
            std::thread::sleep(SYNC);
            times.push(start.elapsed());
        }
        times
    }
}

/// How long each request took, from the moment when it was due.
async fn times(url: &str, seed: u64) -> Result<Vec<Duration>, Error> {
    let client = reqwest::Client::new();
    let (mut due, mut random) = (Instant::now(), seed);
    let mut requests = JoinSet::new();
    for n in 0..REQUESTS {
        // As independent clients come: xorshift64* for a pause of 1 / RATE on average.
        random ^= random >> 12;
        random ^= random << 25;
        random ^= random >> 27;
        let uniform = (random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64;
        due += Duration::from_secs_f64(-(1.0 - uniform).ln() / RATE);
        sleep_until(due).await;
        let request = client.post(url).json(&serde_json::json!({"n": n}));
        requests.spawn(async move {
            let answer = request.send().await?;
            let took = due.elapsed();
            if answer.status() == 202 { Ok(took) } else { Err(Error::from(format!("answered {}", answer.status()))) }
        });
    }
    requests.join_all().await.into_iter().collect()
}
