//! Both ends of a tunnel, started for a measurement of its cost.

use crate::process::Process;
use crate::tunnels::{Act, Answer, Reserved, Site, Started, Tunnel};
use anyhow::{Context, Result};
use ferry_relay::Relay;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::{Instant, sleep, timeout};

/// How long a tunnel may take until a first connection comes through.
const START: Duration = Duration::from_secs(20);

/// A running pair. Dropping it ends its processes.
#[derive(Debug)]
pub(crate) struct Pair {
    /// Where the application connects.
    pub(crate) addr: SocketAddr,
    /// Where it runs.
    pub(crate) site: Site,
    started: Started,
    _relay: Option<Relay>,
    _dir: TempDir,
}

impl Pair {
    /// Starts a tunnel to the echo service `app` and waits until a connection comes through.
    ///
    /// With a `delay`, each byte between the ends takes that long; without one, they are connected directly.
    ///
    /// # Errors
    /// When it cannot be started, or nothing comes through.
    pub(crate) async fn start(tunnel: &dyn Tunnel, app: SocketAddr, delay: Option<Duration>) -> Result<Self> {
        Self::start_on(Ipv4Addr::LOCALHOST, tunnel, app, delay).await
    }

    /// As [`Pair::start`], on another loopback address.
    ///
    /// # Errors
    /// As [`Pair::start`].
    pub(crate) async fn start_on(
        ip: Ipv4Addr,
        tunnel: &dyn Tunnel,
        app: SocketAddr,
        delay: Option<Duration>,
    ) -> Result<Self> {
        let link = Reserved::on(ip)?;
        let relay = match delay {
            Some(delay) => {
                let relay = Relay::start(SocketAddr::from((ip, 0)), link.addr())?;
                relay.delay(delay);
                Some(relay)
            }
            None => None,
        };
        Self::start_at(tunnel, (ip, link, app), relay, None).await
    }

    /// As [`Pair::start`], with the far end in the network namespace of the process `space`, where it listens on `link`
    /// and the application on `app`.
    ///
    /// # Errors
    /// As [`Pair::start`].
    pub(crate) async fn start_across(tunnel: &dyn Tunnel, space: u32, link: Reserved, app: SocketAddr) -> Result<Self> {
        Self::start_at(tunnel, (Ipv4Addr::LOCALHOST, link, app), None, Some(space)).await
    }

    async fn start_at(
        tunnel: &dyn Tunnel,
        (ip, link, app): (Ipv4Addr, Reserved, SocketAddr),
        relay: Option<Relay>,
        far_space: Option<u32>,
    ) -> Result<Self> {
        let dir = TempDir::new()?;
        let (near, admin, far_admin) = (Reserved::on(ip)?, Reserved::on(ip)?, Reserved::on(ip)?);
        let between = relay.as_ref().map_or(link.addr(), Relay::addr);
        let site = Site { near, link, relay: between, app, admin, far_admin, dir: dir.path().to_owned(), far_space };
        let started = block_in_place(|| tunnel.start(&site))?;
        let addr = match &relay {
            Some(relay) => {
                relay.set_target(started.target);
                started.near_addr
            }
            // Without a tunnel and a relay, what is left is the application itself.
            None if started.near_addr == between => started.target,
            None => started.near_addr,
        };
        let pair = Self { addr, site, started, _relay: relay, _dir: dir };
        pair.ready().await.with_context(|| pair.started.log_tails())?;
        Ok(pair)
    }

    /// Does something to the tunnel that takes it one step.
    ///
    /// # Errors
    /// When it fails, or takes more.
    pub(crate) fn perform(&mut self, tunnel: &dyn Tunnel, act: Act) -> Result<()> {
        let answer = tunnel.perform(act, 0, &self.site, &mut self.started)?;
        anyhow::ensure!(answer == Answer::Done, "{} answers {answer:?} to {act:?}", tunnel.name());
        Ok(())
    }

    /// All processes of both ends.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let (near, far) = self.ends();
        [near, far].concat()
    }

    /// The processes of the near end, and of the far one.
    pub(crate) fn ends(&self) -> (Vec<u32>, Vec<u32>) {
        let family = |end: &Option<Process>| end.as_ref().map(Process::family).unwrap_or_default();
        (family(&self.started.near), family(&self.started.far))
    }

    /// The processes that were started: of the near end, and of the far one.
    pub(crate) fn started(&self) -> Vec<&Process> {
        let ends = [&self.started.near, &self.started.far];
        ends.map(|end| end.as_ref()).into_iter().flatten().collect()
    }

    /// What the processes wrote last.
    pub(crate) fn log_tails(&self) -> String {
        self.started.log_tails()
    }

    async fn ready(&self) -> Result<()> {
        let deadline = Instant::now() + START;
        loop {
            let attempt = async {
                let mut stream = TcpStream::connect(self.addr).await?;
                exchange(&mut stream).await
            };
            match timeout(Duration::from_secs(2), attempt).await {
                Ok(Ok(())) => return Ok(()),
                _ if Instant::now() < deadline => sleep(Duration::from_millis(50)).await,
                Ok(Err(error)) => return Err(error).context("no connection comes through"),
                Err(_) => anyhow::bail!("no connection comes through"),
            }
        }
    }
}

/// Bytes of a message to an [`Echo`].
pub(crate) const MESSAGE: usize = 64;

/// What messages are full of; [`crate::load::App`] knows by it that it is to echo.
pub(crate) const FILLING: u8 = 0x5a;

/// Sends a message and waits for it to come back.
///
/// # Errors
/// When the connection ends, or something else comes.
pub(crate) async fn exchange(stream: &mut TcpStream) -> Result<()> {
    let message = [FILLING; MESSAGE];
    let mut answer = [0; MESSAGE];
    stream.write_all(&message).await?;
    stream.read_exact(&mut answer).await?;
    anyhow::ensure!(answer == message, "something else came back");
    Ok(())
}

/// An application that sends back what it gets, with next to no memory per connection.
#[derive(Debug)]
pub(crate) struct Echo {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Echo {
    /// Listens on a free loopback port.
    ///
    /// # Errors
    /// Those of binding.
    pub(crate) async fn start() -> Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// Listens on an address.
    ///
    /// # Errors
    /// Those of binding.
    pub(crate) async fn start_at(addr: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let accepting = tokio::spawn(async move {
            loop {
                // Out of descriptors: those of connections that end come back.
                let Ok((stream, _)) = listener.accept().await else {
                    sleep(Duration::from_millis(10)).await;
                    continue;
                };
                tokio::spawn(echo(stream));
            }
        });
        Ok(Self { addr, accepting })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = [0; 1024];
    loop {
        let count = stream.read(&mut bytes).await?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&bytes[..count]).await?;
    }
}
