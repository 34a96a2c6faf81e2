//! The two applications: a checked stream in each direction of one connection, and what each end notices.

use anyhow::{Context, Result, bail};
use ferry_relay::{Checker, Pattern, Tally};
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// A write each: small enough that a pause of some milliseconds shows.
const TICK: Duration = Duration::from_millis(10);

/// Time for what is on its way to arrive, after the senders have stopped or one end has died.
const SETTLE: Duration = Duration::from_secs(3);

const HELLO: usize = 16;

/// One direction, as seen so far.
#[derive(Debug, Clone, Default)]
struct Progress {
    /// Bytes that the sender's kernel took.
    sent: u64,
    /// One more than the highest offset that arrived.
    high: u64,
    longest_pause: Duration,
    tally: Tally,
    /// How the sending or the receiving application saw its connection end before it was to.
    death: Option<Death>,
}

/// How an application saw its connection end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Death {
    /// "reset", "end of file", or the error.
    pub(crate) how: String,
    #[serde(skip)]
    at: Instant,
}

impl Death {
    fn new(how: impl Into<String>) -> Self {
        Self { how: how.into(), at: Instant::now() }
    }

    fn from_error(error: &std::io::Error) -> Self {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
        match error.kind() {
            ConnectionReset | BrokenPipe => Self::new("reset"),
            kind => Self::new(kind.to_string()),
        }
    }
}

/// What became of both directions together.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Outcome {
    /// Bytes that a sender's kernel took.
    pub(crate) sent: u64,
    /// Bytes compared by the receivers.
    pub(crate) checked: u64,
    /// Bytes sent that never arrived.
    pub(crate) lost: u64,
    /// Bytes that arrived more than once.
    pub(crate) doubled: u64,
    /// Bytes that arrived after later ones.
    pub(crate) reordered: u64,
    /// Bytes that nobody sent.
    pub(crate) garbled: u64,
    /// The longest time in which a receiver got nothing.
    pub(crate) longest_pause: f64,
}

/// A running stream in both directions.
#[derive(Debug)]
pub(crate) struct Flow {
    directions: [watch::Receiver<Progress>; 2],
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    rate: u64,
}

/// The application that is connected to.
#[derive(Debug)]
pub(crate) struct App {
    listener: TcpListener,
}

impl App {
    /// Listens on a free loopback port.
    ///
    /// # Errors
    /// Those of binding.
    pub(crate) async fn bind() -> Result<Self> {
        Ok(Self { listener: TcpListener::bind("127.0.0.1:0").await? })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn addr(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Connects to `near` until a connection reaches this application, and returns both ends of that one.
    ///
    /// # Errors
    /// When none does within `patience`; the last failure is the cause.
    pub(crate) async fn meet(&self, near: SocketAddr, patience: Duration) -> Result<(TcpStream, TcpStream)> {
        let deadline = Instant::now() + patience;
        for nonce in 0_u128.. {
            let failure = match timeout(Duration::from_secs(2), self.attempt(near, nonce)).await {
                Ok(Ok(ends)) => return Ok(ends),
                Ok(Err(error)) => error,
                Err(_) => anyhow::anyhow!("nothing came through within 2 s"),
            };
            if Instant::now() > deadline {
                return Err(failure).context("no connection comes through");
            }
            sleep(Duration::from_millis(50)).await;
        }
        bail!("unreachable: attempts end by the deadline")
    }

    /// One connection, known at the far end by its first bytes: earlier attempts may still arrive.
    async fn attempt(&self, near: SocketAddr, nonce: u128) -> Result<(TcpStream, TcpStream)> {
        let mut client = TcpStream::connect(near).await?;
        client.set_nodelay(true)?;
        client.write_all(&nonce.to_le_bytes()).await?;
        let mut answer = [0; HELLO];
        let accepted = async {
            loop {
                let (mut server, _) = self.listener.accept().await?;
                let mut hello = [0; HELLO];
                if server.read_exact(&mut hello).await.is_ok() && hello == nonce.to_le_bytes() {
                    server.set_nodelay(true)?;
                    server.write_all(&hello).await?;
                    return anyhow::Ok(server);
                }
            }
        };
        // A tunnel that cannot reach its peer ends the connection: then nobody arrives.
        let server = tokio::select! {
            biased;
            server = accepted => server?,
            ended = client.read(&mut answer) => bail!("ended at once: {ended:?}"),
        };
        client.read_exact(&mut answer).await?;
        Ok((client, server))
    }
}

impl Flow {
    /// Starts to send `rate` bytes a second from each end to the other.
    pub(crate) fn start(client: TcpStream, server: TcpStream, rate: u64) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let (client_reads, client_writes) = client.into_split();
        let (server_reads, server_writes) = server.into_split();
        let directions = [(client_writes, server_reads), (server_writes, client_reads)];
        let mut key = 0x5eed;
        let directions = directions.map(|(writes, reads)| {
            key += 1;
            let progress = Arc::new(watch::Sender::new(Progress::default()));
            tasks.spawn(send(writes, Pattern::new(key), rate, progress.clone(), stopped.clone()));
            tasks.spawn(receive(reads, Pattern::new(key), progress.clone()));
            progress.subscribe()
        });
        Self { directions, stop, tasks, rate }
    }

    /// Waits until what is sent from now on arrives at both ends: half a second's worth of it.
    ///
    /// # Errors
    /// How the connection died, or that nothing moved for `patience`.
    pub(crate) async fn moves(&self, patience: Duration) -> Result<(), Death> {
        let arrived = async {
            for direction in &self.directions {
                let mut direction = direction.clone();
                let mark = direction.borrow().sent + self.rate / 2;
                let moved = direction.wait_for(|progress| progress.high >= mark);
                moved.await.map_err(|_| Death::new("the application stopped"))?;
            }
            Ok(())
        };
        tokio::select! {
            biased;
            death = self.died() => Err(death),
            arrived = timeout(patience, arrived) => {
                arrived.unwrap_or_else(|_| Err(Death::new(format!("silent for {} s", patience.as_secs()))))
            }
        }
    }

    /// Waits until either application sees the connection end, and says what the first to see it saw.
    pub(crate) async fn died(&self) -> Death {
        let [mut up, mut down] = self.directions.clone();
        tokio::select! {
            _ = up.wait_for(|progress| progress.death.is_some()) => {}
            _ = down.wait_for(|progress| progress.death.is_some()) => {}
        }
        let deaths = self.directions.iter().filter_map(|direction| direction.borrow().death.clone());
        deaths.min_by_key(|death| death.at).unwrap_or_else(|| Death::new("the application stopped"))
    }

    /// Stops sending, waits for what is on its way, and counts.
    pub(crate) async fn finish(mut self) -> Outcome {
        self.stop.send_replace(true);
        let settled = async {
            for direction in &mut self.directions {
                // The sender has stopped a tick after it was told to.
                sleep(2 * TICK).await;
                let _ = direction.wait_for(|progress| progress.high >= progress.sent).await;
            }
        };
        let _ = timeout(SETTLE, settled).await;
        self.tasks.shutdown().await;
        let mut outcome = Outcome::default();
        for direction in &self.directions {
            let progress = direction.borrow();
            outcome.sent += progress.sent;
            outcome.checked += progress.tally.checked;
            outcome.lost += progress.tally.lost + progress.sent.saturating_sub(progress.high);
            outcome.doubled += progress.tally.doubled;
            outcome.reordered += progress.tally.reordered;
            outcome.garbled += progress.tally.garbled;
            outcome.longest_pause = outcome.longest_pause.max(progress.longest_pause.as_secs_f64());
        }
        outcome
    }
}

async fn send(
    mut writes: OwnedWriteHalf,
    pattern: Pattern,
    rate: u64,
    progress: Arc<watch::Sender<Progress>>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut block = vec![0; (rate as usize * TICK.as_millis() as usize / 1000).max(1)];
    let mut offset = 0;
    let sending = async {
        loop {
            ticks.tick().await;
            pattern.fill(offset, &mut block);
            let mut rest = &block[..];
            while !rest.is_empty() {
                match writes.write(rest).await {
                    Ok(count) => {
                        rest = &rest[count..];
                        offset += count as u64;
                        progress.send_modify(|progress| progress.sent = offset);
                    }
                    Err(error) => return Death::from_error(&error),
                }
            }
        }
    };
    tokio::select! {
        death = sending => progress.send_modify(|progress| progress.death = progress.death.take().or(Some(death))),
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
    // Dropping the half would send a FIN, which is not what the receiver is to see.
    std::future::pending::<()>().await;
}

async fn receive(mut reads: OwnedReadHalf, pattern: Pattern, progress: Arc<watch::Sender<Progress>>) {
    let mut checker = Checker::new(pattern);
    let mut bytes = vec![0; 256 * 1024];
    let mut last = Instant::now();
    loop {
        let death = match reads.read(&mut bytes).await {
            Ok(0) => Death::new("end of file"),
            Err(error) => Death::from_error(&error),
            Ok(count) => {
                checker.feed(&bytes[..count]);
                let pause = last.elapsed();
                last = Instant::now();
                progress.send_modify(|progress| {
                    progress.high = checker.high();
                    progress.longest_pause = progress.longest_pause.max(pause);
                    progress.tally = checker.tally();
                });
                continue;
            }
        };
        progress.send_modify(|progress| progress.death = progress.death.take().or(Some(death)));
        return std::future::pending().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferry_relay::{Cut, Relay};

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn flow() -> (Relay, Flow) {
        let app = App::bind().await.unwrap();
        let relay = Relay::start("127.0.0.1:0".parse().unwrap(), app.addr().unwrap()).unwrap();
        let (client, server) = app.meet(relay.addr(), PATIENCE).await.unwrap();
        (relay, Flow::start(client, server, 1 << 20))
    }

    #[tokio::test]
    async fn an_undisturbed_stream_arrives_whole() {
        let (_relay, flow) = flow().await;
        flow.moves(PATIENCE).await.unwrap();
        let outcome = flow.finish().await;
        assert!(outcome.checked >= 1 << 20, "{outcome:?}");
        assert_eq!(outcome.checked, outcome.sent);
        assert_eq!((outcome.lost, outcome.doubled, outcome.reordered, outcome.garbled), (0, 0, 0, 0));
    }

    #[tokio::test]
    async fn a_cut_is_seen_and_what_was_on_its_way_counts_as_lost() {
        let (relay, flow) = flow().await;
        flow.moves(PATIENCE).await.unwrap();
        relay.black_hole();
        // More than the receivers can have got; then the black hole ends in a reset.
        let mut up = flow.directions[0].clone();
        let more = up.borrow().sent + (1 << 18);
        up.wait_for(|progress| progress.sent >= more).await.unwrap();
        relay.cut(Cut::Rst);
        assert_eq!(flow.died().await.how, "reset");
        assert_eq!(flow.moves(PATIENCE).await.unwrap_err().how, "reset");
        let outcome = flow.finish().await;
        assert!(outcome.lost >= 1 << 18, "{outcome:?}");
        assert_eq!(outcome.lost, outcome.sent - outcome.checked);
    }
}
