//! What the tests share: web-apps on free ports, and an HTTP and a WebSocket client for them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ferry_app::{Access, Config, Hooks, PassThrough, Role, Webapp};
pub(crate) use ferry_processes::nobody;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// The longest that any state is waited for: far beyond what a loaded machine needs.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) fn config(role: Role) -> Config {
    let (pod, cluster) = match role {
        Role::Initiator { .. } => ("initiator-0", "cluster-a"),
        Role::Terminator => ("terminator-0", "cluster-b"),
    };
    Config {
        role,
        listen: "127.0.0.1:0".parse().unwrap(),
        pod: pod.into(),
        cluster: cluster.into(),
        auto_trigger: 0,
        output_max: 10_000,
        data: fresh_dir(),
        access: Access::default(),
    }
}

/// A directory for a store, under the target directory, empty.
pub(crate) fn fresh_dir() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("stores").join(name);
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

pub(crate) fn terminator() -> Webapp {
    terminator_with(Arc::new(PassThrough))
}

pub(crate) fn terminator_with(hooks: Arc<dyn Hooks>) -> Webapp {
    Webapp::start(config(Role::Terminator), hooks).unwrap()
}

pub(crate) fn initiator(peer: SocketAddr) -> Webapp {
    initiator_with(peer, Arc::new(PassThrough))
}

pub(crate) fn initiator_with(peer: SocketAddr, hooks: Arc<dyn Hooks>) -> Webapp {
    Webapp::start(config(Role::Initiator { peer: format!("ws://{peer}/ws") }), hooks).unwrap()
}

pub(crate) fn url(webapp: &Webapp, path: &str) -> String {
    format!("http://{}{path}", webapp.local_addr())
}

/// `POST /trigger` and its answer.
pub(crate) async fn trigger(webapp: &Webapp, query: &str, payload: &Value) -> (u16, Value) {
    let request = reqwest::Client::new().post(url(webapp, &format!("/trigger{query}"))).json(payload);
    answer(request.send().await.unwrap()).await
}

pub(crate) async fn get(webapp: &Webapp, path: &str) -> (u16, Value) {
    answer(reqwest::get(url(webapp, path)).await.unwrap()).await
}

pub(crate) async fn get_text(webapp: &Webapp, path: &str) -> (u16, String) {
    let response = reqwest::get(url(webapp, path)).await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

pub(crate) async fn answer(response: reqwest::Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("not JSON: {text:?}")))
}

/// How often a state is asked for that cannot be waited for.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Polls until the check gives something.
pub(crate) async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + TEST_TIMEOUT;
    while Instant::now() < end {
        if let Some(found) = check().await {
            return found;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    panic!("{what}: not within {TEST_TIMEOUT:?}");
}

/// Waits until the output holds `count` results, and returns them all.
pub(crate) async fn results(webapp: &Webapp, count: usize) -> Vec<Value> {
    eventually(&format!("{count} results"), async || {
        (get(webapp, "/output?limit=1").await.1["count"] == json!(count)).then_some(())
    })
    .await;
    let (mut all, mut after) = (Vec::new(), String::new());
    while all.len() < count {
        let (status, page) = get(webapp, &format!("/output?limit=1000{after}")).await;
        assert_eq!(status, 200, "{page}");
        all.extend(page["results"].as_array().unwrap().iter().cloned());
        after = format!("&after={}", all.last().unwrap()["id"].as_str().unwrap());
    }
    all
}

/// The value of a metric without labels, or with exactly these.
pub(crate) async fn metric(webapp: &Webapp, name: &str) -> f64 {
    let (_, text) = get_text(webapp, "/metrics").await;
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

pub(crate) async fn connected(webapp: &Webapp) {
    eventually("connected", async || (metric(webapp, "ferry_app_far_websockets").await == 1.0).then_some(())).await;
}

pub(crate) fn numbers(results: &[Value]) -> Vec<u64> {
    results.iter().map(|result| result["payload"]["n"].as_u64().unwrap()).collect()
}

/// A client on `/stream`.
pub(crate) struct StreamClient(pub(crate) WebSocketStream<MaybeTlsStream<TcpStream>>);

impl StreamClient {
    pub(crate) async fn connect(webapp: &Webapp) -> Self {
        Self(connect_async(format!("ws://{}/stream", webapp.local_addr())).await.unwrap().0)
    }

    pub(crate) async fn send(&mut self, payload: &Value) {
        self.0.send(Message::text(payload.to_string())).await.unwrap();
    }

    /// The next text frame.
    pub(crate) async fn next(&mut self) -> Value {
        loop {
            let message = timeout(TEST_TIMEOUT, self.0.next()).await.expect("a frame in time").unwrap().unwrap();
            if let Message::Text(text) = message {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }
}

/// Headers as a hook gets them.
pub(crate) type Headers = BTreeMap<String, String>;
