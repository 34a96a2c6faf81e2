//! The checked stream: one plain TCP connection through the tunnels, on which both ends write all the time and check
//! every byte that arrives.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use ferry_relay::{Checker, Pattern, Tally};

/// Each end writes this much this often: 2 MiB a second.
const CHUNK: usize = 20 * 1024;
pub(crate) const EVERY: Duration = Duration::from_millis(10);
/// How long the connection may take to come through, and its last bytes once no more are written.
const PATIENCE: Duration = Duration::from_secs(15);

/// What arrives is counted for each such time.
pub(crate) const PULSE: Duration = Duration::from_millis(100);
/// Beyond a minute nothing is counted: the demo's stream is over long before.
const PULSES_MAX: usize = 600;

/// A stream that is on. It ends when this is dropped.
pub(crate) struct CheckedStream {
    tasks: JoinSet<anyhow::Result<()>>,
    stop: watch::Sender<bool>,
    /// From the initiator's cluster to the terminator's, and the other way.
    ways: [Way; 2],
}

/// One direction, shared by its writer, its reader and the acts.
#[derive(Clone)]
struct Way(Arc<Mutex<Flow>>);

struct Flow {
    written: u64,
    checker: Checker,
    /// Bytes that arrived in each [`PULSE`] since the stream began.
    begun: Instant,
    pulse: Vec<u64>,
    /// The last arrival, and the longest time without one since the mark.
    arrived: Instant,
    pause: Duration,
}

impl CheckedStream {
    /// Connects to the tunnel at `egress`, takes the connection that comes out at `arrivals`, and begins to write.
    pub(crate) async fn begin(egress: SocketAddr, arrivals: &TcpListener) -> anyhow::Result<Self> {
        let both = async { tokio::try_join!(TcpStream::connect(egress), arrivals.accept()) };
        let (near, (far, _)) = timeout(PATIENCE, both).await.context("the checked stream did not come through")??;
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        let mut begin = |from: OwnedWriteHalf, to: OwnedReadHalf, key| {
            let pattern = Pattern::new(key);
            let way = Way::new(pattern);
            tasks.spawn(way.clone().write(from, pattern, stopped.clone()));
            tasks.spawn(way.clone().check(to, stopped.clone()));
            way
        };
        let ways = [begin(near_out, far_in, 0x6f75_7420), begin(far_out, near_in, 0x6261_636b)];
        Ok(Self { tasks, stop, ways })
    }

    /// From here on pauses count anew; one that is on counts from its beginning.
    pub(crate) fn mark(&self) {
        for way in &self.ways {
            way.flow().pause = Duration::ZERO;
        }
    }

    /// The longest time since the mark in which nothing arrived, at the end that waited longer.
    pub(crate) fn pause(&self) -> Duration {
        self.ways.iter().map(|way| way.flow().pause).max().unwrap_or_default()
    }

    /// Bytes written so far in each direction.
    pub(crate) fn written(&self) -> [u64; 2] {
        self.ways.each_ref().map(|way| way.flow().written)
    }

    /// What has arrived so far in each direction.
    pub(crate) fn tallies(&self) -> [Tally; 2] {
        self.ways.each_ref().map(|way| way.flow().checker.tally())
    }

    /// What has arrived in each [`PULSE`] so far, in both directions together.
    pub(crate) fn pulse(&self) -> Vec<u64> {
        let [mut one, other] = self.ways.each_ref().map(|way| way.flow().pulse.clone());
        one.resize(one.len().max(other.len()), 0);
        one.iter_mut().zip(other).for_each(|(sum, more)| *sum += more);
        one
    }

    /// Fails once the connection has ended, which it never should by itself.
    pub(crate) fn alive(&mut self) -> anyhow::Result<()> {
        match self.tasks.try_join_next() {
            None => Ok(()),
            Some(ended) => {
                ended??;
                bail!("the checked stream's connection was closed");
            }
        }
    }

    /// Ends both directions, reads them to their ends, and gives what was written and what arrived in each.
    pub(crate) async fn settle(mut self) -> anyhow::Result<[(u64, Tally); 2]> {
        self.stop.send_replace(true);
        let ended = async {
            while let Some(ended) = self.tasks.join_next().await {
                ended??;
            }
            anyhow::Ok(())
        };
        timeout(PATIENCE, ended).await.context("the checked stream's last bytes did not arrive")??;
        let ended = |way: &Way| {
            // One lock for both: a second one in the same expression would wait for the first.
            let flow = way.flow();
            (flow.written, flow.checker.tally())
        };
        Ok(self.ways.each_ref().map(ended))
    }
}

impl Flow {
    fn count(&mut self, now: Instant, bytes: u64) {
        let at = (now.duration_since(self.begun).as_millis() / PULSE.as_millis()) as usize;
        if at < PULSES_MAX {
            self.pulse.resize(self.pulse.len().max(at + 1), 0);
            self.pulse[at] += bytes;
        }
    }
}

impl Way {
    fn new(pattern: Pattern) -> Self {
        let checker = Checker::new(pattern);
        let (begun, pulse, pause) = (Instant::now(), Vec::new(), Duration::ZERO);
        Self(Arc::new(Mutex::new(Flow { written: 0, checker, begun, pulse, arrived: begun, pause })))
    }

    fn flow(&self) -> MutexGuard<'_, Flow> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes until it is told to stop, then half-closes.
    async fn write(
        self,
        mut to: OwnedWriteHalf,
        pattern: Pattern,
        stopped: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut chunk = vec![0; CHUNK];
        let mut written = 0;
        while !*stopped.borrow() {
            ticks.tick().await;
            pattern.fill(written, &mut chunk);
            to.write_all(&chunk).await.context("the checked stream broke at a write")?;
            written += CHUNK as u64;
            self.flow().written = written;
        }
        to.shutdown().await.context("the checked stream broke at its end")
    }

    /// Checks what arrives, to the end.
    async fn check(self, mut from: OwnedReadHalf, stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let count = from.read(&mut bytes).await.context("the checked stream broke at a read")?;
            let mut flow = self.flow();
            let now = Instant::now();
            // Nothing is due any more behind the last byte.
            if !*stopped.borrow() {
                flow.pause = flow.pause.max(now.duration_since(flow.arrived));
            }
            flow.arrived = now;
            flow.checker.feed(&bytes[..count]);
            flow.count(now, count as u64);
            if count == 0 {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream, and the two sockets that stand between its ends.
    async fn between() -> (CheckedStream, TcpStream, TcpStream) {
        let entrance = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let arrivals = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (egress, target) = (entrance.local_addr().unwrap(), arrivals.local_addr().unwrap());
        let ends = async { tokio::try_join!(entrance.accept(), TcpStream::connect(target)).unwrap() };
        let (stream, ((near, _), far)) = tokio::join!(CheckedStream::begin(egress, &arrivals), ends);
        (stream.unwrap(), near, far)
    }

    async fn settle(stream: CheckedStream) -> [(u64, Tally); 2] {
        while stream.written().iter().any(|written| *written < 10 * CHUNK as u64) {
            tokio::task::yield_now().await;
        }
        stream.settle().await.unwrap()
    }

    #[tokio::test]
    async fn a_stream_that_nothing_happens_to_arrives_whole() {
        let (stream, mut near, mut far) = between().await;
        let carried = tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        for (written, tally) in settle(stream).await {
            assert_eq!(tally, Tally { checked: written, ..Tally::default() });
        }
        carried.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn bytes_that_are_dropped_or_come_twice_on_the_way_are_found() {
        let (stream, mut near, mut far) = between().await;
        let carried = tokio::spawn(async move {
            let ((mut near_in, mut near_out), (mut far_in, mut far_out)) = (near.split(), far.split());
            let dropped = async {
                tokio::io::copy(&mut (&mut near_in).take(30_000), &mut far_out).await.unwrap();
                near_in.read_u8().await.unwrap();
                tokio::io::copy(&mut near_in, &mut far_out).await.unwrap();
                far_out.shutdown().await.unwrap();
            };
            let doubled = async {
                let mut twice = [0; 5_000];
                far_in.read_exact(&mut twice).await.unwrap();
                near_out.write_all(&twice).await.unwrap();
                near_out.write_all(&twice).await.unwrap();
                tokio::io::copy(&mut far_in, &mut near_out).await.unwrap();
                near_out.shutdown().await.unwrap();
            };
            tokio::join!(dropped, doubled);
        });
        let [(_, forward), (_, backward)] = settle(stream).await;
        assert_eq!((forward.lost, forward.doubled), (1, 0), "{forward:?}");
        assert_eq!((backward.lost, backward.doubled), (0, 5_000), "{backward:?}");
        carried.await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_that_breaks_is_an_error() {
        let (mut stream, near, far) = between().await;
        stream.alive().unwrap();
        near.set_zero_linger().unwrap();
        drop((near, far));
        while stream.alive().is_ok() {
            tokio::task::yield_now().await;
        }
    }
}
