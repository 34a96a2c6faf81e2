//! Many sites at one terminator: 200 initiators, each with 50 messages a second, of which ten are cut again and again and two
//! have a receiving hook that hangs. Every message has to arrive exactly once and in order, and the others must notice
//! nothing of it; how long their messages take is told beside a round without cuts and hangs.
//!
//! `cargo run --release -p ferry-app --example sites [-- SITES RATE SECONDS]`
//!
//! The initiators are light: they speak the sub-protocol, over connections of their own that a PROXY header begins as a
//! tunnel's do, and keep what is not acknowledged. The terminator is the real one, with its store in the current directory.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ferry_app::{Access, BoxFuture, Config, HookError, Hooks, Payload, Role, SUBPROTOCOL, Webapp};
use futures_util::{SinkExt, StreamExt};
use proxy_header::{ProxyHeader, Tlv};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{WebSocketStream, client_async};

/// Sites with a hook that hangs on their first messages; and sites that are cut.
const HUNG: usize = 2;
const CUT: usize = 10;
/// Messages on which the hook of a site hangs. Each takes its 10 s and is dead.
const HANGS: u64 = 2;
/// What a terminator's receiver takes unacknowledged.
const WINDOW: u64 = 1024;
/// How long what is left may take once everything is sent.
const PATIENCE: Duration = Duration::from_secs(60);

type Error = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone, Copy)]
struct Load {
    sites: usize,
    rate: u64,
    seconds: u64,
    disturbed: bool,
}

impl Load {
    fn messages(self) -> u64 {
        self.rate * self.seconds
    }

    fn hangs(self, site: usize) -> bool {
        self.disturbed && site < HUNG
    }

    fn is_cut(self, site: usize) -> bool {
        self.disturbed && (HUNG..HUNG + CUT).contains(&site)
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut numbers = std::env::args().skip(1).map(|number| number.parse::<u64>());
    let mut number = |default| numbers.next().unwrap_or(Ok(default));
    let (sites, rate, seconds) = (usize::try_from(number(200)?)?, number(50)?, number(20)?);
    println!("{sites} sites, {rate} messages a second each, for {seconds} s");
    for disturbed in [false, true] {
        round(Load { sites, rate, seconds, disturbed }).await?;
    }
    Ok(())
}

/// The receiving hook hangs where the payload says so.
struct HangsWhereTold;

impl Hooks for HangsWhereTold {
    fn on_receive_terminator(&self, payload: Payload) -> BoxFuture<'_, Result<Option<Payload>, HookError>> {
        Box::pin(async move {
            if payload.as_str().contains("\"hang\"") {
                std::future::pending::<()>().await;
            }
            Ok(None)
        })
    }
}

async fn round(load: Load) -> Result<(), Error> {
    let dir = tempfile::tempdir_in(".")?;
    let config = Config {
        role: Role::Terminator,
        listen: "127.0.0.1:0".parse()?,
        pod: "terminator".into(),
        cluster: "cluster-b".into(),
        auto_trigger: 0,
        output_max: 100_000,
        data: dir.path().join("store"),
        access: Access::default(),
    };
    let terminator = Webapp::start(config, Arc::new(HangsWhereTold))?;
    let address = terminator.local_addr();
    let arrived = tokio::spawn(arrivals(address, load));
    // A result names its site once a second one is known: the first message waits until all of them are.
    let all_known = Arc::new(Barrier::new(load.sites + 1));
    let mut running = JoinSet::new();
    for site in 0..load.sites {
        let all_known = all_known.clone();
        running.spawn(async move { (site, initiator(address, load, site, &all_known).await) });
    }
    timeout(PATIENCE, all_known.wait()).await.map_err(|_| "not every site was known in time")?;
    let start = Instant::now();
    let (mut healthy, mut cuts) = (Vec::new(), 0);
    let all = async {
        while let Some(done) = running.join_next().await {
            let (site, sent) = done?;
            let sent = sent?;
            cuts += sent.cuts;
            if !load.hangs(site) && !load.is_cut(site) {
                healthy.extend(sent.delays);
            }
        }
        Ok::<_, Error>(())
    };
    let end = Duration::from_secs(load.seconds) + PATIENCE;
    timeout(end, all).await.map_err(|_| "not everything was acknowledged in time")??;
    let took = start.elapsed();
    timeout(PATIENCE, arrived).await.map_err(|_| "not everything was shown in time")???;
    terminator.drain(Duration::from_secs(5)).await;
    healthy.sort_unstable();
    let at = |part: f64| healthy[((healthy.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    println!(
        "{}: all exactly once and in order in {:.1} s, {cuts} cuts; from due to acknowledged, healthy sites: p50 {:.1} ms, \
         p99 {:.1} ms, p99.9 {:.1} ms, at most {:.1} ms",
        if load.disturbed { "ten cut, two hung" } else { "undisturbed" },
        took.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
    );
    Ok(())
}

/// Reads everything that arrives, and holds each site's messages to their order.
async fn arrivals(address: SocketAddr, load: Load) -> Result<(), Error> {
    let (mut stream, _) = tokio_tungstenite::connect_async(format!("ws://{address}/stream")).await?;
    let mut last: HashMap<u64, u64> =
        (0..load.sites).map(|site| (site as u64, if load.hangs(site) { HANGS } else { 0 })).collect();
    let mut missing: u64 = last.values().map(|dead| load.messages() - dead).sum();
    while missing > 0 {
        let Some(message) = stream.next().await else { return Err("/stream has ended".into()) };
        let Message::Text(text) = message? else { continue };
        let row: Value = serde_json::from_str(&text)?;
        let (Some(site), Some(n)) = (row["payload"]["site"].as_u64(), row["payload"]["n"].as_u64()) else {
            return Err(format!("not a result: {text}").into());
        };
        let before = last.insert(site, n).unwrap_or_default();
        if n != before + 1 || load.sites > 1 && row["site"] != json!(name(site as usize)) {
            return Err(format!("{text} follows message {before} of site {site}").into());
        }
        missing -= 1;
    }
    Ok(())
}

/// What one initiator saw.
struct Sent {
    /// From when a message was due until it was acknowledged.
    delays: Vec<Duration>,
    cuts: u64,
}

impl Sent {
    /// Notes that messages up to `seq` are acknowledged, and returns up to where they are now.
    fn acknowledge(&mut self, acked: u64, seq: u64, due: impl Fn(u64) -> Instant) -> u64 {
        self.delays.extend((acked + 1..=seq).map(|n| due(n).elapsed()));
        acked.max(seq)
    }
}

fn name(site: usize) -> String {
    format!("edge-{site}/initiator")
}

/// Sends its messages at their times from when all sites are known on, each until it is acknowledged.
async fn initiator(address: SocketAddr, load: Load, site: usize, all_known: &Barrier) -> Result<Sent, Error> {
    let (sender, all) = (format!("sender{site}"), load.messages());
    let (mut far, mut acked) = connect(address, site, 0).await?;
    all_known.wait().await;
    let start = Instant::now();
    // Not all sites in one instant.
    let offset = Duration::from_secs(1).mul_f64(site as f64 / load.sites as f64 / load.rate as f64);
    let due = |n: u64| start + offset + Duration::from_secs(1).mul_f64((n - 1) as f64 / load.rate as f64);
    let mut sent = Sent { delays: Vec::new(), cuts: 0 };
    loop {
        let cut_at = load
            .is_cut(site)
            .then(|| Instant::now() + Duration::from_millis(500 + 173 * (site as u64 + sent.cuts) % 1500));
        // What is not acknowledged is sent again.
        let mut last = acked;
        loop {
            if acked == all {
                return Ok(sent);
            }
            let next = Some(last + 1).filter(|next| *next <= all && *next <= acked + WINDOW);
            tokio::select! {
                () = sleep_until(cut_at.unwrap_or(start)), if cut_at.is_some() => break,
                () = sleep_until(next.map_or(start, due)), if next.is_some() => {
                    let n = next.unwrap_or_default();
                    let mut payload = json!({"site": site, "n": n});
                    if load.hangs(site) && n <= HANGS {
                        payload["hang"] = json!(true);
                    }
                    let id = format!("{sender}-{n}");
                    let message = json!({"message": {"seq": n, "id": id, "payload": payload, "trail": []}});
                    far.send(Message::text(message.to_string())).await?;
                    last = n;
                }
                seq = next_ack(&mut far, site) => acked = sent.acknowledge(acked, seq?, due),
            }
        }
        sent.cuts += 1;
        drop(far);
        sleep(Duration::from_millis(100)).await;
        let seq;
        (far, seq) = connect(address, site, acked).await?;
        acked = sent.acknowledge(acked, seq, due);
    }
}

/// A connection as the tunnel next to a terminator makes it for a peer, and up to where the terminator has this site's
/// messages.
async fn connect(address: SocketAddr, site: usize, acked: u64) -> Result<(WebSocketStream<TcpStream>, u64), Error> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut header = Vec::new();
    ProxyHeader::with_tlvs(None, [Tlv::Custom(0xe0, name(site).into_bytes().into())]).encode_v2(&mut header)?;
    stream.write_all(&header).await?;
    let mut request = format!("ws://{address}/ws").into_client_request()?;
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
    let mut far = client_async(request, stream).await?.0;
    let hello = json!({"sender": format!("sender{site}"), "pod": "initiator", "cluster": name(site), "acked": acked});
    far.send(Message::text(json!({ "hello": hello }).to_string())).await?;
    let seq = next_ack(&mut far, site).await?;
    Ok((far, seq))
}

/// Cancellation-safe: an ack that is read is returned.
async fn next_ack(far: &mut WebSocketStream<TcpStream>, site: usize) -> Result<u64, Error> {
    while let Some(message) = far.next().await {
        match message? {
            Message::Text(text) => {
                let frame: Value = serde_json::from_str(&text)?;
                if let Some(seq) = frame["ack"]["seq"].as_u64() {
                    return Ok(seq);
                }
            }
            Message::Close(close) => return Err(format!("{}: {close:?}", name(site)).into()),
            _ => {}
        }
    }
    Err(format!("{} was sent away", name(site)).into())
}
