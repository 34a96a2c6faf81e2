//! Dialling: every address of a peer, looked up anew each time, raced, then TLS and the Preface.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ferry_config::{Address, HostPort};
use futures_util::stream::{FuturesUnordered, StreamExt};
use thiserror::Error;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::net::{BoxFuture, Network, Stream};
use crate::telemetry::metrics::LinkFailure;
use crate::transport::link::LinkError;
use crate::transport::lookup::{Lookups, Resolution};
use crate::transport::tls::TlsError;

/// The next address gets its turn after this long (RFC 8305 §8).
const NEXT_ADDRESS_DELAY: Duration = Duration::from_millis(250);

/// A name that is still looked up holds up addresses that are known for no longer than this.
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// Longest wait for all connects of one dial together.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for TLS and the Prefaces.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a peer could not be dialled.
#[derive(Debug, Error)]
pub(crate) enum DialError {
    #[error("no address is known for it yet")]
    NoAddress,
    #[error("{address}: {error}")]
    Resolve { address: String, error: io::Error },
    #[error("{address}: {error}")]
    Connect { address: SocketAddr, error: io::Error },
    #[error("no connection within {CONNECT_TIMEOUT:?}")]
    ConnectTimedOut,
    #[error("no handshake within {HANDSHAKE_TIMEOUT:?}")]
    HandshakeTimedOut,
    #[error("no answer on a link before its session gave it up")]
    GivenUp,
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl DialError {
    /// The peer's host took the connection, and nobody answered on it.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(self, Self::HandshakeTimedOut | Self::Tls(TlsError::Io(_)))
    }

    /// The system has no port, file or memory left for it.
    pub(crate) fn is_exhaustion(&self) -> bool {
        use rustix::io::Errno;
        let Self::Connect { error, .. } = self else { return false };
        let scarce = [Errno::ADDRNOTAVAIL, Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
        Errno::from_io_error(error).is_some_and(|errno| scarce.contains(&errno))
    }

    /// How a dial that failed with this is counted.
    pub(crate) fn failure(&self) -> LinkFailure {
        match self {
            Self::NoAddress | Self::Resolve { .. } | Self::Connect { .. } => LinkFailure::Unreachable,
            Self::ConnectTimedOut | Self::HandshakeTimedOut | Self::GivenUp => LinkFailure::Timeout,
            Self::Tls(error) => error.failure(),
            Self::Link(error) => error.failure(),
        }
    }
}

/// The targets that `addresses` stand for now, in their order.
fn targets(addresses: &[Address]) -> Vec<HostPort> {
    let mut targets = Vec::new();
    for address in addresses {
        match address {
            Address::HostPort(target) => targets.push(target.clone()),
            Address::File(path) => {
                // One address a line; a file that is not there yet is no address yet. It is as small and as near as
                // tunnel.yaml: to read it takes less than to have another thread read it.
                let text =
                    if path.is_file() { std::fs::read_to_string(path).unwrap_or_default() } else { String::new() };
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
                targets.extend(lines.filter_map(|line| line.parse::<HostPort>().ok()));
            }
        }
    }
    targets
}

/// A connection to the first of the peer's addresses that answers. `largest`: no segment is to be longer.
pub(crate) async fn connect(
    network: &Arc<dyn Network>,
    lookups: &Lookups,
    addresses: &[Address],
    largest: Option<u16>,
) -> Result<Box<dyn Stream>, DialError> {
    let targets = targets(addresses);
    lookups.retain(|name| targets.contains(name));
    let race = connect_to(network, lookups, &targets, largest);
    timeout(CONNECT_TIMEOUT, race).await.unwrap_or(Err(DialError::ConnectTimedOut))
}

/// A connection to the first of the targets' addresses that answers, as soon as that can be: literal addresses and those
/// that a name had last wait for no lookup for longer than a moment.
pub(crate) async fn connect_to(
    network: &Arc<dyn Network>,
    lookups: &Lookups,
    targets: &[HostPort],
    largest: Option<u16>,
) -> Result<Box<dyn Stream>, DialError> {
    let mut race = Race::new(targets.iter().map(|target| lookups.find(network, target)).collect());
    let mut racing = JoinSet::new();
    loop {
        let next = race.next_at();
        tokio::select! {
            // A dial that has an answer needs no other one.
            biased;
            Some(tried) = racing.join_next() => match tried {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err((address, error))) => race.on_failed(DialError::Connect { address, error }),
                Err(_) => {}
            },
            Some((index, answer)) = race.lookups.next() => race.on_answer(index, answer),
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                let Some(address) = race.take() else { continue };
                let network = network.clone();
                racing.spawn(async move {
                    network.connect_with(address, largest).await.map_err(|error| (address, error))
                });
            }
            else => return Err(race.problem),
        }
    }
}

/// Which address is tried next, and when.
struct Race {
    /// Of each target, in their order of preference: what is known of it, and whether it is still looked up.
    targets: Vec<(HostPort, Vec<SocketAddr>, bool)>,
    lookups: FuturesUnordered<BoxFuture<'static, (usize, io::Result<Vec<SocketAddr>>)>>,
    tried: HashSet<SocketAddr>,
    begun: Instant,
    /// When the next one gets its turn, if none before has failed by then.
    turn: Instant,
    problem: DialError,
}

impl Race {
    fn new(targets: Vec<Resolution>) -> Self {
        let lookups = FuturesUnordered::new();
        let begin = |(index, found): (usize, Resolution)| {
            let asked = found.asking.is_some();
            if let Some(asking) = found.asking {
                lookups.push(Box::pin(async move { (index, asking.answer().await) }) as BoxFuture<'static, _>);
            }
            (found.target, found.addresses, asked)
        };
        let targets = targets.into_iter().enumerate().map(begin).collect();
        let now = Instant::now();
        let problem = DialError::NoAddress;
        Self { targets, lookups, tried: HashSet::new(), begun: now, turn: now, problem }
    }

    /// The first address that was not tried, and whether a name that is preferred to it is still looked up.
    fn first(&self) -> Option<(SocketAddr, bool)> {
        let mut asked = false;
        for (_, addresses, asking) in &self.targets {
            asked |= asking;
            if let Some(address) = addresses.iter().find(|address| !self.tried.contains(address)) {
                return Some((*address, asked));
            }
        }
        None
    }

    /// When there is something to try.
    fn next_at(&self) -> Option<Instant> {
        let (_, asked) = self.first()?;
        // RFC 8305 section 3: a moment for the answer, then whatever is known.
        Some(if asked { self.turn.max(self.begun + RESOLUTION_DELAY) } else { self.turn })
    }

    fn take(&mut self) -> Option<SocketAddr> {
        let (address, _) = self.first()?;
        self.tried.insert(address);
        self.turn = Instant::now() + NEXT_ADDRESS_DELAY;
        Some(address)
    }

    fn on_failed(&mut self, problem: DialError) {
        self.problem = problem;
        self.turn = Instant::now();
    }

    fn on_answer(&mut self, index: usize, answer: io::Result<Vec<SocketAddr>>) {
        let Some((target, addresses, asking)) = self.targets.get_mut(index) else { return };
        *asking = false;
        match answer {
            Ok(answer) => *addresses = answer,
            Err(error) => {
                // What is tried and fails says more.
                if matches!(self.problem, DialError::NoAddress) {
                    self.problem = DialError::Resolve { address: target.to_string(), error };
                }
            }
        }
    }
}
