//! What carries a link's bytes where a plain TCP connection is not let through: an HTTP proxy, a WebSocket, or one through
//! the other. Ferry's own TLS runs inside, unchanged, so that nothing is trusted that they can read or write.

mod head;
pub(crate) mod proxy;
pub(crate) mod upgrade;
mod websocket;

use std::sync::Arc;

use ferry_config::{HostPort, WebSocketUrl};
use thiserror::Error;

use crate::net::Stream;
use crate::transport::tls::OuterTls;
pub(crate) use head::HeadError;
use proxy::ProxyServer;

/// How one address of a peer is reached: where to connect to, and what to ask for there.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// Where the TCP connection goes: the address itself, or the proxy.
    pub(crate) first_hop: HostPort,
    carrier: Carrier,
}

#[derive(Clone, Debug, Default)]
struct Carrier {
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
    #[error("{url}: TLS to the endpoint failed: {error}")]
    OuterTls { url: WebSocketUrl, error: std::io::Error },
}

impl Route {
    /// A plain TCP connection.
    pub(crate) fn direct(address: HostPort) -> Self {
        Self { first_hop: address, carrier: Carrier::default() }
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
                carrier: Carrier { proxy: Some((proxy, address)), websocket: url },
            },
            None => Self { first_hop: address, carrier: Carrier { proxy: None, websocket: url } },
        }
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
