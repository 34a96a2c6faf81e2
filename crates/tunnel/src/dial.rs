//! Dialling: every address of a peer, looked up anew each time, raced, then TLS and the Preface.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ferry_config::Address;
use thiserror::Error;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::link::LinkError;
use crate::metrics::LinkFailure;
use crate::net::{Network, Stream};
use crate::tls::TlsError;

/// The next address gets its turn after this long (RFC 8305 §8).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// Longest wait for all connects of one dial together.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);

/// Longest wait for TLS and the Prefaces.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(10);

/// Why a peer could not be dialled.
#[derive(Debug, Error)]
pub(crate) enum DialError {
    #[error("no address is known for it yet")]
    NoAddress,
    #[error("{address}: {error}")]
    Resolve { address: String, error: io::Error },
    #[error("{address}: {error}")]
    Connect { address: SocketAddr, error: io::Error },
    #[error("no connection within {CONNECT:?}")]
    ConnectTimedOut,
    #[error("no handshake within {HANDSHAKE:?}")]
    HandshakeTimedOut,
    #[error("no answer on a link before its session gave it up")]
    GivenUp,
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl DialError {
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

/// Every address that `addresses` stand for now, in their order and without repeats; names that do not resolve are
/// passed over while others do.
async fn resolve(network: &dyn Network, addresses: &[Address]) -> Result<VecDeque<SocketAddr>, DialError> {
    let mut found = VecDeque::new();
    let mut problem = DialError::NoAddress;
    for address in addresses {
        let (targets, source) = match address {
            Address::HostPort(target) => (vec![target.clone()], target.to_string()),
            Address::File(path) => {
                // One address a line; a file that is not there yet is no address yet. It is as small and as near as
                // tunnel.yaml: to read it takes less than to have another thread read it.
                let text =
                    if path.is_file() { std::fs::read_to_string(path).unwrap_or_default() } else { String::new() };
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
                (lines.filter_map(|line| line.parse().ok()).collect(), path.display().to_string())
            }
        };
        for target in targets {
            match network.resolve(target.host, target.port).await {
                Ok(resolved) => found.extend(resolved),
                Err(error) => problem = DialError::Resolve { address: source.clone(), error },
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|address| seen.insert(*address));
    if found.is_empty() { Err(problem) } else { Ok(found) }
}

/// A connection to the first of the peer's addresses that answers.
pub(crate) async fn connect(network: &Arc<dyn Network>, addresses: &[Address]) -> Result<Box<dyn Stream>, DialError> {
    let mut waiting = resolve(&**network, addresses).await?;
    let race = async {
        let mut racing = JoinSet::new();
        let mut problem = DialError::NoAddress;
        loop {
            if let Some(address) = waiting.pop_front() {
                let network = network.clone();
                racing.spawn(async move {
                    network.connect(address).await.map_err(|error| DialError::Connect { address, error })
                });
            }
            let patience = if waiting.is_empty() { CONNECT } else { NEXT_ADDRESS };
            match timeout(patience, racing.join_next()).await {
                Ok(Some(Ok(Ok(stream)))) => return Ok(stream),
                Ok(Some(Ok(Err(error)))) => problem = error,
                Ok(Some(Err(_))) | Err(_) => {}
                Ok(None) => return Err(problem),
            }
        }
    };
    timeout(CONNECT, race).await.unwrap_or(Err(DialError::ConnectTimedOut))
}
