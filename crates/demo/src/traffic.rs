//! The checked traffic: telemetry through `/stream` in both directions at once, with an account of all that is sent.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant as Deadline, interval, sleep_until};

use crate::telemetry::{EVERY, Sampler};
use crate::topology::{Cluster, Topology};
use ferry::client::{Arrival, Notice, Stream};

/// How long the last messages may take once no more are sent.
const SETTLE_MAX: Duration = Duration::from_secs(20);

/// Traffic that is on. It ends when this is dropped.
pub(crate) struct Traffic {
    task: JoinSet<anyhow::Result<Account>>,
    stop: oneshot::Sender<()>,
    count: watch::Receiver<Count>,
}

/// How much has been sent and has arrived, in both directions together.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Count {
    pub(crate) sent: usize,
    pub(crate) arrived: usize,
}

/// What was sent and what came of it.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// From the initiator's cluster to the terminator's.
    pub(crate) forward: Direction,
    /// The other way.
    pub(crate) backward: Direction,
}

/// One direction of the account.
#[derive(Debug, Default)]
pub(crate) struct Direction {
    /// When each message was sent; its index is the number in its payload.
    sent: Vec<Instant>,
    /// Bytes of payload sent.
    pub(crate) bytes: u64,
    /// The ids that the web-app gave, in the order in which it was sent the messages.
    pub(crate) ids: Vec<String>,
    /// How many of them the web-app says are delivered.
    pub(crate) delivered: usize,
    /// Messages refused, with the reason.
    pub(crate) refused: Vec<String>,
    /// How long each that arrived took, by its number.
    pub(crate) latencies: BTreeMap<usize, Duration>,
}

/// The part of a payload that is for the account.
#[derive(Deserialize)]
struct Numbered {
    telemetry: usize,
}

impl Traffic {
    /// Connects to both web-apps and begins to send.
    pub(crate) async fn begin(topology: &Topology) -> anyhow::Result<Self> {
        let (a, b) = tokio::try_join!(End::connect(&topology.initiator), End::connect(&topology.terminator))?;
        let (stop, stopped) = oneshot::channel();
        let (say, count) = watch::channel(Count::default());
        let mut task = JoinSet::new();
        task.spawn(run(a, b, stopped, say));
        Ok(Self { task, stop, count })
    }

    /// How far it is, now and later.
    pub(crate) fn count(&self) -> watch::Receiver<Count> {
        self.count.clone()
    }

    /// Stops sending, waits for what is under way, and gives the account. It is not judged here.
    pub(crate) async fn settle(mut self) -> anyhow::Result<Account> {
        // An error would mean that it has failed, which it says itself.
        let _ = self.stop.send(());
        self.task.join_next().await.context("the traffic was given up")??
    }
}

/// The demo's connection to one web-app.
struct End {
    cluster: &'static str,
    stream: Stream,
}

impl End {
    async fn connect(cluster: &Cluster) -> anyhow::Result<Self> {
        Ok(Self { cluster: cluster.id, stream: Stream::connect(&cluster.web_app).await? })
    }

    async fn send(&mut self, sample: &Value, direction: &mut Direction) -> anyhow::Result<()> {
        let payload = json!({"telemetry": direction.sent.len(), "from": self.cluster, "sample": sample}).to_string();
        direction.bytes += payload.len() as u64;
        direction.sent.push(Instant::now());
        self.stream.send(payload).await
    }

    async fn next(&mut self) -> anyhow::Result<Notice> {
        let notice = self.stream.next().await.with_context(|| format!("/stream of {}", self.cluster))?;
        notice.with_context(|| format!("{}'s web-app closed /stream", self.cluster))
    }
}

async fn run(
    mut a: End,
    mut b: End,
    mut stop: oneshot::Receiver<()>,
    count: watch::Sender<Count>,
) -> anyhow::Result<Account> {
    let mut account = Account::default();
    let mut sampler = Sampler::new().context("cannot look at this machine")?;
    let mut ticks = interval(EVERY);
    let mut deadline = None;
    while deadline.is_none() || !account.settled() {
        tokio::select! {
            _ = ticks.tick(), if deadline.is_none() => {
                let sample = sampler.sample();
                a.send(&sample, &mut account.forward).await?;
                b.send(&sample, &mut account.backward).await?;
            }
            notice = a.next() => take(notice?, &mut account.forward, &mut account.backward)?,
            notice = b.next() => take(notice?, &mut account.backward, &mut account.forward)?,
            _ = &mut stop, if deadline.is_none() => deadline = Some(Deadline::now() + SETTLE_MAX),
            () = sleep_until(deadline.unwrap_or_else(Deadline::now)), if deadline.is_some() => break,
        }
        count.send_replace(account.count());
    }
    Ok(account)
}

/// Books a notice from the end where `outgoing` starts.
fn take(notice: Notice, outgoing: &mut Direction, incoming: &mut Direction) -> anyhow::Result<()> {
    match notice {
        Notice::Accepted { id } => outgoing.ids.push(id),
        Notice::Delivered { .. } => outgoing.delivered += 1,
        Notice::Dead { id, error } => outgoing.refused.push(format!("{id}: {error}")),
        Notice::Refused { error } => outgoing.refused.push(error),
        Notice::Arrived(arrival) => incoming.arrived(&arrival, Instant::now()),
        Notice::Missed => bail!("/stream left out messages, though the demo reads all the time"),
    }
    Ok(())
}

impl Account {
    fn settled(&self) -> bool {
        [&self.forward, &self.backward].into_iter().all(Direction::settled)
    }

    fn count(&self) -> Count {
        let sum = |count: fn(&Direction) -> usize| count(&self.forward) + count(&self.backward);
        Count { sent: sum(|direction| direction.sent.len()), arrived: sum(|direction| direction.latencies.len()) }
    }

    /// The latencies of both directions, shortest first.
    pub(crate) fn latencies(&self) -> Vec<Duration> {
        let mut all: Vec<_> =
            self.forward.latencies.values().chain(self.backward.latencies.values()).copied().collect();
        all.sort_unstable();
        all
    }
}

impl Direction {
    /// Messages sent.
    pub(crate) fn count(&self) -> usize {
        self.sent.len()
    }

    /// A direction in which messages with these ids were sent and confirmed.
    #[cfg(test)]
    pub(crate) fn confirmed(ids: &[&str]) -> Self {
        let ids: Vec<_> = ids.iter().map(|id| (*id).to_owned()).collect();
        Self { sent: vec![Instant::now(); ids.len()], delivered: ids.len(), ids, ..Self::default() }
    }

    fn settled(&self) -> bool {
        let sent = self.sent.len();
        self.ids.len() == sent && self.delivered == sent && self.latencies.len() == sent
    }

    /// Books the first arrival of each message; whether there was a second, the output will tell.
    fn arrived(&mut self, arrival: &Arrival, now: Instant) {
        let Ok(Numbered { telemetry }) = serde_json::from_str(arrival.payload.get()) else { return };
        if let Some(sent) = self.sent.get(telemetry) {
            self.latencies.entry(telemetry).or_insert(now.duration_since(*sent));
        }
    }
}
