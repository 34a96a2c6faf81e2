//! Connections that come: none costs more than a datagram before its source is proved, or there are few such.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn::{Endpoint, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::stream::QuicStream;
use super::{QuicError, Side, bounds, open};
use crate::net::{Network, Stream};
use crate::transport::tls::quic_accepting;

/// Handshakes at once with sources that may be forged. Beyond them each source is asked to prove itself first (Retry,
/// RFC 9000 §8.1.2), which costs it a round trip and this end no memory.
const MAX_UNPROVED_SOURCES: usize = 32;

/// Connections that wait to be taken: they are, at once.
const MAX_WAITING: usize = 256;

/// What is kept of datagrams that come for such a connection, and for all of them.
const MAX_WAITING_BYTES: u64 = 16 * 1024;
const MAX_WAITING_BYTES_IN_ALL: u64 = 1024 * 1024;

/// Where diallers connect to over QUIC.
pub(crate) struct QuicListener {
    endpoint: Endpoint,
    unproved: Arc<Semaphore>,
    lingering: Arc<Semaphore>,
}

/// A connection that has come, before anything was computed for it.
pub(crate) struct Arrival {
    incoming: Incoming,
    lingering: Arc<Semaphore>,
    /// Its source may be forged.
    unproved: Option<OwnedSemaphorePermit>,
}

impl QuicListener {
    pub(super) fn bind(network: &dyn Network, address: SocketAddr, lingering: Arc<Semaphore>) -> io::Result<Self> {
        let mut config = quic_accepting().map_err(io::Error::other)?;
        config
            .transport_config(Arc::new(bounds(Side::Accepting)))
            .max_incoming(MAX_WAITING)
            .incoming_buffer_size(MAX_WAITING_BYTES)
            .incoming_buffer_size_total(MAX_WAITING_BYTES_IN_ALL);
        let endpoint = open(network, address, Some(config))?;
        Ok(Self { endpoint, unproved: Arc::new(Semaphore::new(MAX_UNPROVED_SOURCES)), lingering })
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// The next connection, and where it comes from. Nothing once the socket has failed.
    pub(crate) async fn accept(&self) -> Option<(Arrival, SocketAddr)> {
        loop {
            let incoming = self.endpoint.accept().await?;
            let from = incoming.remote_address();
            let unproved = match incoming.remote_address_validated() {
                true => None,
                false => match self.unproved.clone().try_acquire_owned() {
                    Ok(place) => Some(place),
                    Err(_) => {
                        // Refused where that may not be asked.
                        let _ = incoming.retry();
                        continue;
                    }
                },
            };
            return Some((Arrival { incoming, lingering: self.lingering.clone(), unproved }, from));
        }
    }
}

impl Arrival {
    /// The connection's handshake, and its stream. `turns`: whoever is computed for has one.
    pub(crate) async fn answer(self, turns: &Semaphore) -> Result<Box<dyn Stream>, QuicError> {
        let turn = turns.acquire().await;
        let connecting = self.incoming.accept();
        drop(turn);
        let connection = connecting?.await?;
        // Whoever has answered the handshake is where it says.
        drop(self.unproved);
        let (send, receive) = connection.accept_bi().await?;
        Ok(Box::new(QuicStream::new(connection, send, receive, self.lingering)))
    }
}
