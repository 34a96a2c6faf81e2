//! What carries a link's bytes where a plain TCP connection is not let through, or is slow: an HTTP proxy, a WebSocket, one
//! through the other, or QUIC. Ferry's own TLS runs inside, unchanged, so that nothing is trusted that they can read or write.

mod head;
pub(crate) mod proxy;
pub(crate) mod upgrade;
mod websocket;

use std::net::SocketAddr;
use std::sync::Arc;

use ferry_config::{HostPort, WebSocketUrl};
use thiserror::Error;

use crate::net::{Network, Stream};
use crate::transport::quic::{Quic, QuicError};
use crate::transport::tls::OuterTls;
pub(crate) use head::HeadError;
use proxy::ProxyServer;

/// How one address of a peer is reached: where to connect to, and what to ask for there.
#[derive(Clone)]
pub(crate) struct Route {
    /// Where the connection goes: the address itself, or the proxy.
    pub(crate) first_hop: HostPort,
    carrier: Carrier,
}

#[derive(Clone, Default)]
struct Carrier {
    /// Instead of TCP, and of everything over that.
    quic: Option<Arc<Quic>>,
    proxy: Option<(Arc<ProxyServer>, HostPort)>,
    websocket: Option<(WebSocketUrl, OuterTls)>,
}

/// Why an address that takes connections does not carry a link.
#[derive(Debug, Error)]
pub(crate) enum CarrierError {
    #[error("the proxy {proxy} {refusal}")]
    Proxy { proxy: HostPort, refusal: proxy::Refusal },
    #[error("{url}: {error}")]
    WebSocket { url: WebSocketUrl, error: upgrade::UpgradeError },
    #[error("quic://{address}: {error}: does the peer's tunnel listen there, with `listen_quic`?")]
    Quic { address: SocketAddr, error: QuicError },
    #[error("{url}: TLS to the endpoint failed: {error}")]
    OuterTls { url: WebSocketUrl, error: std::io::Error },
}

impl Route {
    /// A plain TCP connection.
    pub(crate) fn direct(address: HostPort) -> Self {
        Self { first_hop: address, carrier: Carrier::default() }
    }

    /// A QUIC connection. No HTTP proxy passes UDP on, so there is none on the way.
    pub(crate) fn quic(address: HostPort, quic: Arc<Quic>) -> Self {
        Self { first_hop: address, carrier: Carrier { quic: Some(quic), ..Carrier::default() } }
    }

    /// A connection to `address`, or a WebSocket to `url` at it, through `proxy` if there is one.
    pub(crate) fn new(
        address: HostPort,
        url: Option<(WebSocketUrl, OuterTls)>,
        proxy: Option<Arc<ProxyServer>>,
    ) -> Self {
        match proxy {
            Some(proxy) => Self {
                first_hop: proxy.address.clone(),
                carrier: Carrier { proxy: Some((proxy, address)), websocket: url, quic: None },
            },
            None => Self { first_hop: address, carrier: Carrier { proxy: None, websocket: url, quic: None } },
        }
    }

    /// A connection to the peer at `address` that is none of TCP's. Nothing, if this route begins with TCP.
    pub(crate) async fn dial_without_tcp(
        &self,
        network: &dyn Network,
        address: SocketAddr,
    ) -> Option<Result<Box<dyn Stream>, CarrierError>> {
        let dialled = self.carrier.quic.as_ref()?.dial(network, address).await;
        Some(dialled.map_err(|error| CarrierError::Quic { address, error }))
    }

    /// Makes a connection to the first hop one to the peer.
    pub(crate) async fn open(&self, mut stream: Box<dyn Stream>) -> Result<Box<dyn Stream>, CarrierError> {
        if let Some((proxy, address)) = &self.carrier.proxy {
            let refused = |refusal| CarrierError::Proxy { proxy: proxy.address.clone(), refusal };
            proxy::connect(&mut *stream, proxy, address).await.map_err(refused)?;
        }
        let Some((url, outer)) = &self.carrier.websocket else { return Ok(stream) };
        if url.secure {
            let failed = |error| CarrierError::OuterTls { url: url.clone(), error };
            stream = outer.connect(stream, &url.endpoint.host).await.map_err(failed)?;
        }
        let failed = |error| CarrierError::WebSocket { url: url.clone(), error };
        upgrade::request(stream, url).await.map_err(failed)
    }
}
