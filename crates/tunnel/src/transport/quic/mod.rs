//! QUIC (RFC 9000) as what carries links: a connection for each link, and one stream in it. quinn speaks it; what is here
//! are its bounds, and a connection as a [`Stream`].

mod listener;
mod stream;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quinn::congestion::BbrConfig;
use quinn::{
    ConnectError, Connecting, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, TransportConfig,
    TransportErrorCode, VarInt,
};
use quinn::{ServerConfig, TokioRuntime};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::timeout;

pub(crate) use listener::{Arrival, QuicListener};

use crate::net::{Network, Stream};
use crate::transport::tls::{TlsError, quic_dialling};
use stream::QuicStream;

/// What may be received before it is read, once the peer has proved a key, until the session may be sent more: enough for
/// 670 Mbit/s over 100 ms. Links are always read, so that only what waits for a lost packet is ever held.
const RECEIVE_WINDOW: u64 = 8 * 1024 * 1024;

/// The same before that: a whole handshake, and no more of a stranger's.
const UNPROVEN_RECEIVE_WINDOW: u32 = 64 * 1024;

/// What a connection may receive bounds its stream, too: it has no other.
const STREAM_RECEIVE_WINDOW: VarInt = VarInt::from_u32(u32::MAX);

/// A connection over which nothing comes is lost.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// What a round trip is taken for until there was one: a first packet that is lost is sent again after three times this.
const INITIAL_ROUND_TRIP: Duration = Duration::from_millis(100);

/// The dialler says something at least this often: address translators forget UDP after half a minute, or later.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Connections at most that nobody has proved a key on, and whose last bytes are still on their way.
const MAX_LINGERING: usize = 64;

/// At the end of the process, for the last words of all connections.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A server name, which QUIC needs and nobody is sent.
const SERVER_NAME: &str = "ferry";

/// Why there is no connection.
#[derive(Debug, Error)]
pub(crate) enum QuicError {
    #[error("{0}")]
    Socket(#[from] io::Error),
    #[error("{0}")]
    Tls(#[from] TlsError),
    #[error("{0}")]
    Connect(#[from] ConnectError),
    #[error("{0}")]
    Connection(#[from] ConnectionError),
}

impl QuicError {
    /// The other end has ended it in good order, or has forgotten it.
    pub(crate) fn is_closed(&self) -> bool {
        use ConnectionError::{ApplicationClosed, ConnectionClosed, Reset, TimedOut};
        matches!(self, Self::Connection(ApplicationClosed(_) | Reset | TimedOut))
            || matches!(self, Self::Connection(ConnectionClosed(close)) if close.error_code == NO_ERROR)
    }

    /// Its dialler has let go of it while it was made, as of any whose other address was sooner.
    pub(crate) fn is_let_go(&self) -> bool {
        match self {
            Self::Connection(ConnectionError::ConnectionClosed(close)) => close.error_code == LET_GO,
            Self::Connection(ConnectionError::ApplicationClosed(_)) => true,
            _ => false,
        }
    }
}

/// An end in good order (RFC 9000 §20.1).
const NO_ERROR: TransportErrorCode = TransportErrorCode::NO_ERROR;

/// An application's end during the handshake: what it says may not be told then (RFC 9000 §10.2.3).
const LET_GO: TransportErrorCode = TransportErrorCode::APPLICATION_ERROR;

/// QUIC of one tunnel: one socket for all that it dials in each family of addresses, so that a rotation needs no new port.
pub(crate) struct Quic {
    ipv4: Mutex<Option<Endpoint>>,
    ipv6: Mutex<Option<Endpoint>>,
    listening: Mutex<Option<Endpoint>>,
    lingering: Arc<Semaphore>,
}

impl Default for Quic {
    fn default() -> Self {
        Self {
            ipv4: Mutex::default(),
            ipv6: Mutex::default(),
            listening: Mutex::default(),
            lingering: Arc::new(Semaphore::new(MAX_LINGERING)),
        }
    }
}

impl Quic {
    /// A connection to `address`, with a stream in it.
    pub(crate) async fn dial(&self, network: &dyn Network, address: SocketAddr) -> Result<Box<dyn Stream>, QuicError> {
        let connection = self.connecting(network, address)?.await?;
        let (send, receive) = connection.open_bi().await?;
        Ok(Box::new(QuicStream::new(connection, send, receive, self.lingering.clone())))
    }

    fn connecting(&self, network: &dyn Network, address: SocketAddr) -> Result<Connecting, QuicError> {
        let mut endpoint = if address.is_ipv4() { self.ipv4.lock() } else { self.ipv6.lock() };
        if let Some(endpoint) = &*endpoint {
            match endpoint.connect(address, SERVER_NAME) {
                // Its socket has failed.
                Err(ConnectError::EndpointStopping) => {}
                connecting => return Ok(connecting?),
            }
        }
        let here = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let mut fresh = open(network, SocketAddr::new(here, 0), None)?;
        let mut config = quic_dialling()?;
        config.transport_config(Arc::new(bounds(Side::Dialling)));
        fresh.set_default_client_config(config);
        Ok(endpoint.insert(fresh).connect(address, SERVER_NAME)?)
    }

    /// Listens on `address`.
    pub(crate) fn listen(&self, network: &dyn Network, address: SocketAddr) -> io::Result<QuicListener> {
        let listener = QuicListener::bind(network, address, self.lingering.clone())?;
        *self.listening.lock() = Some(listener.endpoint().clone());
        Ok(listener)
    }

    /// What connections have said last is sent.
    pub(crate) async fn finish(&self) {
        let endpoints = [&self.ipv4, &self.ipv6, &self.listening].map(|endpoint| endpoint.lock().clone());
        let idle = futures_util::future::join_all(endpoints.iter().flatten().map(Endpoint::wait_idle));
        // Whoever does not answer finds out alone.
        let _ = timeout(CLOSE_TIMEOUT, idle).await;
    }
}

fn open(network: &dyn Network, address: SocketAddr, accepting: Option<ServerConfig>) -> io::Result<Endpoint> {
    let socket = network.bind_datagrams(address)?;
    // Its clock is tokio's, which tests pause.
    Endpoint::new_with_abstract_socket(EndpointConfig::default(), accepting, socket, Arc::new(TokioRuntime))
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Dialling,
    Accepting,
}

/// What a connection may take.
fn bounds(side: Side) -> TransportConfig {
    let mut bounds = TransportConfig::default();
    bounds
        .max_concurrent_bidi_streams(VarInt::from_u32(u32::from(side == Side::Accepting)))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(STREAM_RECEIVE_WINDOW)
        .receive_window(VarInt::from_u32(UNPROVEN_RECEIVE_WINDOW))
        .max_idle_timeout(IdleTimeout::try_from(IDLE_TIMEOUT).ok())
        .initial_rtt(INITIAL_ROUND_TRIP)
        .keep_alive_interval((side == Side::Dialling).then_some(KEEP_ALIVE_INTERVAL))
        // Who chooses QUIC has a path that loses packets.
        .congestion_controller_factory(Arc::new(BbrConfig::default()));
    bounds
}
