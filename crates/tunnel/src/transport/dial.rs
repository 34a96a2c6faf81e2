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
use crate::transport::carrier::{CarrierError, Route};
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
    #[error(transparent)]
    Carrier(#[from] CarrierError),
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
            Self::Carrier(_) => LinkFailure::Carrier,
            Self::ConnectTimedOut | Self::HandshakeTimedOut | Self::GivenUp => LinkFailure::Timeout,
            Self::Tls(error) => error.failure(),
            Self::Link(error) => error.failure(),
        }
    }
}

/// The addresses that `addresses` stand for now, in their order.
pub(super) fn listed(addresses: &[Address]) -> Vec<Address> {
    let mut listed = Vec::new();
    for address in addresses {
        let Address::File(path) = address else {
            listed.push(address.clone());
            continue;
        };
        // One address a line; a file that is not there yet is no address yet. Small and local: reading it inline is cheaper
        // than `spawn_blocking`.
        let text = if path.is_file() { std::fs::read_to_string(path).unwrap_or_default() } else { String::new() };
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        listed.extend(lines.filter_map(|line| line.parse::<Address>().ok()));
    }
    listed
}

/// A connection by the first of the routes that works. `largest`: no segment is to be longer.
pub(super) async fn connect(
    network: &Arc<dyn Network>,
    lookups: &Lookups,
    routes: Vec<Route>,
    largest: Option<u16>,
) -> Result<Box<dyn Stream>, DialError> {
    lookups.retain(|name| routes.iter().any(|route| route.first_hop == *name));
    timeout(CONNECT_TIMEOUT, race(network, lookups, routes, largest)).await.unwrap_or(Err(DialError::ConnectTimedOut))
}

/// A connection to the first of an application's addresses that answers.
pub(crate) async fn connect_to_app(
    network: &Arc<dyn Network>,
    lookups: &Lookups,
    target: &HostPort,
) -> Result<Box<dyn Stream>, DialError> {
    race(network, lookups, vec![Route::direct(target.clone())], None).await
}

/// A connection by the first of the routes that works, as soon as that can be: literal addresses and those that a name had
/// last wait for no lookup for longer than a moment.
async fn race(
    network: &Arc<dyn Network>,
    lookups: &Lookups,
    routes: Vec<Route>,
    largest: Option<u16>,
) -> Result<Box<dyn Stream>, DialError> {
    let mut race = Race::new(routes.iter().map(|route| lookups.find(network, &route.first_hop)).collect());
    let mut racing = JoinSet::new();
    loop {
        let next = race.next_at();
        tokio::select! {
            // A dial that has an answer needs no other one.
            biased;
            Some(tried) = racing.join_next() => match tried {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => race.on_failed(error),
                Err(_) => {}
            },
            Some((index, answer)) = race.lookups.next() => race.on_answer(index, answer),
            () = due(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                let Some((index, address)) = race.take() else { continue };
                let (network, route) = (network.clone(), routes[index].clone());
                racing.spawn(async move {
                    if let Some(dialled) = route.dial_without_tcp(&*network, address).await {
                        return Ok(dialled?);
                    }
                    let connected = network.connect_with(address, largest).await;
                    let stream = connected.map_err(|error| DialError::Connect { address, error })?;
                    Ok::<_, DialError>(route.open(stream).await?)
                });
            }
            else => return Err(race.problem),
        }
    }
}

/// Waits until `at`. Timers go by whole milliseconds: one that is due already would take up to one more.
async fn due(at: Instant) {
    if at > Instant::now() {
        tokio::time::sleep_until(at).await;
    }
}

/// Which address is tried next, and when.
struct Race {
    /// Of each target, in their order of preference: what is known of it, and whether it is still looked up.
    targets: Vec<(HostPort, Vec<SocketAddr>, bool)>,
    lookups: FuturesUnordered<BoxFuture<'static, (usize, io::Result<Vec<SocketAddr>>)>>,
    /// By route: several may begin at one proxy.
    tried: HashSet<(usize, SocketAddr)>,
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
    fn first(&self) -> Option<((usize, SocketAddr), bool)> {
        let mut asked = false;
        for (index, (_, addresses, asking)) in self.targets.iter().enumerate() {
            asked |= asking;
            let mut tries = addresses.iter().map(|address| (index, *address));
            if let Some(next) = tries.find(|next| !self.tried.contains(next)) {
                return Some((next, asked));
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

    fn take(&mut self) -> Option<(usize, SocketAddr)> {
        let (next, _) = self.first()?;
        self.tried.insert(next);
        self.turn = Instant::now() + NEXT_ADDRESS_DELAY;
        Some(next)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Listener;

    /// Refuses whatever is dialled.
    struct Refusing;

    impl Network for Refusing {
        fn resolve(&self, _: String, _: u16) -> BoxFuture<'_, io::Result<Vec<SocketAddr>>> {
            Box::pin(async { Err(io::ErrorKind::NotFound.into()) })
        }

        fn connect(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
            Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
        }

        fn bind(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
            Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
        }
    }

    /// Timers go by whole milliseconds: the clock stands between two of them.
    #[tokio::test(start_paused = true)]
    async fn addresses_that_are_known_and_fail_at_once_take_no_time() {
        tokio::time::advance(Duration::from_micros(300)).await;
        let network: Arc<dyn Network> = Arc::new(Refusing);
        let routes = ["192.0.2.1", "192.0.2.2"].map(|host| Route::direct(HostPort { host: host.into(), port: 1 }));
        let begun = Instant::now();
        let dialled = race(&network, &Lookups::default(), routes.to_vec(), None).await;
        assert!(matches!(dialled, Err(DialError::Connect { .. })), "{:?}", dialled.err());
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
