//! Dialling one peer: what its addresses, this host's ports and the path have shown so far.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use ferry_config::{Address, Identity, Peer, Proxy};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use crate::net::{Carrier, Network};
use crate::transport::carrier::Route;
use crate::transport::carrier::proxy::{Environment, ProxyServer};
use crate::transport::dial::{self, DialError, HANDSHAKE_TIMEOUT};
use crate::transport::hint::Hint;
use crate::transport::lookup::Lookups;
use crate::transport::ports::{HeldPort, Ports};
use crate::transport::quic::Quic;
use crate::transport::segments::{Segments, Size};
use crate::transport::tls::{ClientHandshake, Established, OuterTls, TlsError};

/// What one dial is to reach.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Aim {
    /// What is tried first, instead of the order in which addresses are listed.
    pub(crate) preferred: Option<Carrier>,
    /// The process of the peer that is wanted, where it is one of several.
    pub(crate) wanted: Option<Hint>,
}

/// What a dial says of itself while it is under way.
#[derive(Default)]
pub(crate) struct Progress {
    connected: AtomicBool,
    /// How long its segments are, until it is answered or counted as not.
    unanswered: Mutex<Option<Size>>,
    /// A session has its link already: nobody else can hope for it.
    pub(crate) claimed: AtomicBool,
}

impl Progress {
    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    fn on_connected(&self, size: Size) {
        self.connected.store(true, Ordering::Relaxed);
        *self.unanswered.lock() = Some(size);
    }

    fn on_answered(&self) {
        self.take_unanswered();
    }

    /// What it uses, if it is connected and was neither answered nor counted.
    pub(crate) fn take_unanswered(&self) -> Option<Size> {
        self.unanswered.lock().take()
    }
}

/// Where a peer is, and how it proves itself, as the configuration says now.
pub(crate) struct Destination {
    addresses: Vec<Address>,
    route: ferry_config::Route,
    handshake: ClientHandshake,
}

impl Destination {
    pub(crate) fn new(identity: &Identity, peer: &Peer) -> Result<Self, TlsError> {
        let keys = peer.keys.iter().copied().collect::<Vec<_>>();
        let handshake = ClientHandshake::new(identity, keys, peer.route.server_name.as_ref())?;
        Ok(Self { addresses: peer.addresses.clone(), route: peer.route.clone(), handshake })
    }

    /// The same, to redeem an invitation there.
    pub(crate) fn for_joining(self) -> Self {
        Self { handshake: self.handshake.for_joining(), ..self }
    }

    /// The same, to have a key replaced there.
    pub(crate) fn for_rolling(self) -> Self {
        Self { handshake: self.handshake.for_rolling(), ..self }
    }

    /// It has addresses of TCP and of QUIC.
    pub(crate) fn has_both_kinds(&self) -> bool {
        let listed = dial::listed(&self.addresses);
        let over_quic = listed.iter().filter(|address| matches!(address, Address::Quic(_))).count();
        over_quic > 0 && over_quic < listed.len()
    }

    /// The ways there, in the order of preference: as they are listed, or those over QUIC before or after all others.
    fn routes(&self, quic: &Arc<Quic>, preferred: Option<Carrier>) -> Vec<Route> {
        let route = |address: Address| {
            let (address, url) = match address {
                Address::HostPort(address) => (address, None),
                Address::WebSocket(url) => {
                    (url.endpoint.clone(), Some((url, OuterTls::new(self.route.ca_file.clone()))))
                }
                Address::Quic(address) => return Some(Route::quic(address, quic.clone())),
                // What a file lists is in the list already.
                Address::File(_) => return None,
            };
            let proxy = self.proxy_for(&address.host);
            Some(Route::new(address, url, proxy))
        };
        let mut listed = dial::listed(&self.addresses);
        if let Some(preferred) = preferred {
            listed.sort_by_key(|address| matches!(address, Address::Quic(_)) != (preferred == Carrier::Quic));
        }
        listed.into_iter().filter_map(route).collect()
    }

    fn proxy_for(&self, host: &str) -> Option<Arc<ProxyServer>> {
        match &self.route.proxy {
            Some(Proxy::Off) => None,
            Some(Proxy::Http(proxy)) => {
                // Read for each dial, so that it can be replaced; without it the proxy says what is missing.
                let credentials = self.route.proxy_credentials.as_ref();
                let credentials = credentials.and_then(|path| std::fs::read_to_string(path).ok());
                Some(Arc::new(ProxyServer::new(proxy.clone(), credentials)))
            }
            None => ENVIRONMENT.get_or_init(Environment::read).proxy_for(host),
        }
    }
}

/// The proxy that this process's environment names.
static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();

/// Makes connections to one peer on which it has proved a key.
#[derive(Default)]
pub(crate) struct Dialler {
    quic: Arc<Quic>,
    lookups: Lookups,
    segments: Segments,
    ports: Ports,
}

impl Dialler {
    /// One whose connections over QUIC are from the same port as all others'.
    pub(crate) fn new(quic: Arc<Quic>) -> Self {
        Self { quic, ..Self::default() }
    }

    /// Dials once: the first address of `destination` that answers, the handshake, and then `establish`, which has what is left of
    /// the handshake's time. `progress` says meanwhile how far it is.
    pub(crate) async fn dial<T>(
        &self,
        network: &Arc<dyn Network>,
        destination: &Destination,
        aim: Aim,
        progress: &Progress,
        establish: impl AsyncFnOnce(Established) -> Result<T, DialError>,
    ) -> Result<T, DialError> {
        let size = self.segments.size(Instant::now());
        let dialled = async {
            let routes = destination.routes(&self.quic, aim.preferred);
            let stream = dial::connect(network, &self.lookups, routes, size.largest()).await?;
            progress.on_connected(size);
            let handshake = async {
                let established = destination.handshake.handshake(stream, aim.wanted).await?;
                progress.on_answered();
                self.segments.on_answered(size);
                establish(established).await
            };
            timeout(HANDSHAKE_TIMEOUT, handshake).await.unwrap_or(Err(DialError::HandshakeTimedOut))
        };
        let dialled = dialled.await;
        self.ports.note(dialled.as_ref().err().is_some_and(DialError::is_exhaustion));
        dialled
    }

    /// A link holds its local port for as long as it lives.
    pub(crate) fn hold_port(&self) -> HeldPort {
        self.ports.hold()
    }

    /// Local ports, or files, have run out, or are about to, with this many `dials` under way to a peer of this many
    /// `addresses`. What is left is for the sessions that are open.
    pub(crate) fn is_pressed(&self, addresses: usize, dials: usize) -> bool {
        self.ports.is_pressed(addresses, dials)
    }

    /// What an application is told that gets no link because of it.
    pub(crate) fn pressure(&self) -> String {
        self.ports.problem()
    }

    /// A dial has connected, and its first long packet gets no answer. The new limit of segments, if that changes it.
    pub(crate) fn on_unanswered(&self, size: Size) -> Option<u16> {
        self.segments.on_unanswered(size, Instant::now())
    }

    /// Dials go unanswered behind their first long packet.
    pub(crate) fn is_path_suspect(&self) -> bool {
        self.segments.is_suspect()
    }
}
