use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::{fmt, io};

use ferry_session::ResetCode;
use thiserror::Error;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::config::ConfigSnapshot;
use crate::config::reload;
use crate::instance::InstanceFile;
use crate::limits::entries::Entries;
use crate::limits::files::Budget;
use crate::memory::kernel_buffers;
use crate::net::{Listener, Network, Tcp};
use crate::peer::Peer;
use crate::sessions::mailbox::Command;
use crate::shared::Shared;
use crate::survival::{self, Estate, Survival};
use crate::telemetry::admin;
use crate::telemetry::events::Event;
use crate::telemetry::scrape::Scrape;
use crate::transport::accept::{self, Opening};
use crate::transport::congestion;
use crate::transport::quic::{Quic, QuicListener};
use crate::transport::replicas;
use crate::transport::tls::TlsError;
use crate::workers::{Threads, Workers};
use crate::{instance, supply};

/// A running tunnel.
pub struct Tunnel {
    shared: Arc<Shared>,
    addresses: Addresses,
    services: JoinSet<Result<(), TunnelError>>,
    _threads: Threads,
}

/// Where a tunnel listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For peers.
    pub listen: Option<SocketAddr>,
    /// For peers, over QUIC.
    pub listen_quic: Option<SocketAddr>,
    /// For peers, by WebSocket.
    pub listen_ws: Option<SocketAddr>,
    /// For probes and metrics.
    pub admin: Option<SocketAddr>,
    /// For applications, in the configuration's order.
    pub egress: Vec<SocketAddr>,
}

/// Why a tunnel could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({key}): {error}; is another process using it?")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Where the configuration names it.
        key: String,
        /// What the system says.
        error: io::Error,
    },
    /// The identity cannot be used.
    #[error(transparent)]
    Identity(#[from] TlsError),
    /// The system has no thread, or no file, for a worker.
    #[error("cannot start a worker thread: {0}; raise the limits on processes and open files")]
    Threads(io::Error),
    /// The system has no random numbers.
    #[error("no random numbers from the system: {0}")]
    Random(getrandom::Error),
}

/// Why a running tunnel cannot go on.
#[derive(Debug, Error)]
pub enum TunnelError {
    /// A part of the tunnel ended that must not.
    #[error("a part of the tunnel ended unexpectedly: {0}")]
    Ended(String),
}

impl Tunnel {
    /// Starts on the kernel's TCP.
    ///
    /// # Errors
    /// When an address cannot be listened on or the identity cannot be used; nothing runs then.
    pub async fn start(config: ferry_config::Tunnel) -> Result<Self, StartError> {
        Self::start_kept(config, None).await
    }

    /// As [`start`](Self::start), with a keeper at this socket: takes over what the process before this one left there, and
    /// leaves sessions there if this one is killed.
    ///
    /// # Errors
    /// As [`start`](Self::start). A keeper that cannot be used is none.
    pub async fn start_kept(config: ferry_config::Tunnel, keeper: Option<PathBuf>) -> Result<Self, StartError> {
        kernel_buffers::check();
        let workers = Workers::start().map_err(StartError::Threads)?;
        let kept = match keeper {
            Some(keeper) => {
                let limits = config.settings.limits.clone();
                tokio::task::spawn_blocking(move || survival::connect(&keeper, &limits)).await.unwrap_or_default()
            }
            None => None,
        };
        Self::start_with(Arc::new(Tcp), workers, config, kept).await
    }

    /// Starts on a network of the caller's.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_on(network: Arc<dyn Network>, config: ferry_config::Tunnel) -> Result<Self, StartError> {
        Self::start_with(network, Workers::none(), config, None).await
    }

    async fn start_with(
        network: Arc<dyn Network>,
        (workers, threads): (Workers, Threads),
        config: ferry_config::Tunnel,
        kept: Option<(Survival, Estate)>,
    ) -> Result<Self, StartError> {
        let (survival, estate) = kept.map(|(survival, estate)| (Arc::new(survival), estate)).unzip();
        let instance = survival.as_ref().map(|survival| survival.instance());
        let instance_file = InstanceFile::open(config.state.as_deref(), instance).map_err(StartError::Random)?;
        let quic = Arc::new(Quic::default());
        let listeners = Listeners::bind(survival.as_deref(), &*network, &quic, &config).await?;
        congestion::check(&*network, config.settings.congestion.as_ref());
        let addresses = listeners.addresses();
        let peers = config.peers.iter().map(|peer| {
            Peer::new(&config.identity, peer.clone(), &quic).map(|made| (peer.name.clone(), Arc::new(made)))
        });
        let peers: BTreeMap<_, _> = peers.collect::<Result<_, _>>()?;
        let budget = Budget::of(&config);
        let config = ConfigSnapshot::new(config, peers, &Entries::default())?;
        let shared = Arc::new(Shared::new((network, quic), survival, workers, instance_file, config, budget));
        shared.tasks.spawn(shared.repeats.clone().run(shared.stop.clone()));
        if let (Some(survival), Some(estate)) = (&shared.survival, estate) {
            survival.close_unused_listeners();
            survival::adopt_all(&shared, survival, estate);
            shared.tasks.spawn(survival::attend(shared.clone()));
        }
        let services = listeners.serve(&shared).await;
        if let Some(survival) = &shared.survival {
            survival.ready();
        }
        let name = &shared.config().tunnel.name;
        debug!(%name, instance = %shared.instance, "tunnel up: {addresses}");
        shared.events.tell(Event::Started {
            name: name.to_string(),
            instance: shared.instance.to_string(),
            ferry: crate::VERSION,
        });
        Ok(Self { shared, addresses, services, _threads: threads })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Writes what `/metrics` shows, at any time; also once the tunnel is down.
    pub fn metrics(&self) -> impl Fn() -> Result<String, fmt::Error> + Send + Sync + use<> {
        let scrape = Scrape::new(self.shared.clone());
        move || scrape.text()
    }

    /// Resolves only if a part of the tunnel fails.
    pub async fn failed(&mut self) -> TunnelError {
        match self.services.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Ok(Ok(()))) => TunnelError::Ended("without an error".to_owned()),
            Some(Err(error)) => TunnelError::Ended(error.to_string()),
            None => std::future::pending().await,
        }
    }

    /// Moves every session that was opened here to fresh keys, as the rotation budget allows.
    pub fn rotate_all(&self) {
        let sessions = self.shared.sessions.list(usize::MAX);
        info!(sessions = sessions.len(), "rotating all sessions");
        for entry in sessions {
            // One that has just ended needs no fresh keys.
            let _ = entry.mailbox.send(Command::Rotate);
        }
    }

    /// Follows the configuration file at `path` from now on: what changes in it takes effect within two seconds.
    pub fn follow(&self, path: PathBuf) {
        self.shared.tasks.spawn(reload::follow(self.shared.clone(), path));
    }

    /// Looks at the followed file now, and reports its problems even if they were reported before.
    pub fn read_again(&self) {
        self.shared.read_again.notify_one();
    }

    /// Puts another configuration in force. Live sessions go on, except those whose peer or right was withdrawn.
    ///
    /// # Errors
    /// When the identity cannot be used; nothing has changed then.
    pub async fn reload(&self, config: ferry_config::Tunnel) -> Result<(), TlsError> {
        reload::apply(&self.shared, config).await
    }

    /// Whether what is open now can outlive this process.
    pub fn is_kept(&self) -> bool {
        self.shared.survival.is_some()
    }

    /// Lets sessions end within the configured time, without refusing new ones. What is left then is the keeper's, for the
    /// process that comes next, if this one ends without dropping the tunnel: as if it were killed.
    pub async fn leave(&self) {
        let shared = &self.shared;
        let within = shared.config().tunnel.settings.drain;
        shared.leaving.cancel();
        info!(sessions = shared.sessions.len(), "leaving: sessions may end within {within:?}");
        let _ = timeout(within, shared.sessions_ended()).await;
        info!(sessions = shared.sessions.len(), "left to the keeper");
    }

    /// Ends the tunnel: no new sessions; those that live may finish within the configured time, then they are reset.
    pub async fn drain(mut self) {
        let shared = &self.shared;
        let drain = shared.config().tunnel.settings.drain;
        shared.draining.cancel();
        info!(sessions = shared.sessions.len(), "draining, at most {drain:?}");
        shared.events.tell(Event::Draining { sessions: shared.sessions.len(), within: drain });
        if timeout(drain, shared.sessions_ended()).await.is_err() {
            let sessions = shared.sessions.list(usize::MAX);
            warn!(sessions = sessions.len(), "drain time over: sessions are reset");
            for entry in sessions {
                let _ = entry.mailbox.send(Command::Reset(ResetCode::Draining, "the tunnel is shutting down"));
            }
            // Time for the resets to reach the peers; who cannot be reached finds out alone.
            let _ = timeout(RESET_FLUSH_TIMEOUT, shared.sessions_ended()).await;
        }
        shared.stop.cancel();
        shared.sessions_ended().await;
        shared.tasks.close();
        shared.tasks.wait().await;
        self.services.shutdown().await;
        shared.quic.finish().await;
        if let Some(survival) = &shared.survival {
            survival.finish();
        }
        info!("tunnel down");
    }
}

/// How long resets may take to reach the peers.
const RESET_FLUSH_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);

/// Sockets bound before anything runs.
struct Listeners {
    peers: Option<Box<dyn Listener>>,
    quic: Option<QuicListener>,
    websockets: Option<Box<dyn Listener>>,
    admin: Option<tokio::net::TcpListener>,
    egress: Vec<(Box<dyn Listener>, ferry_config::Egress)>,
}

impl Listeners {
    async fn bind(
        survival: Option<&Survival>,
        network: &dyn Network,
        quic: &Quic,
        config: &ferry_config::Tunnel,
    ) -> Result<Self, StartError> {
        let failed = |address, key: String| move |error| StartError::Bind { address, key, error };
        let mut egress = Vec::new();
        for (index, entry) in config.egress.iter().enumerate() {
            let bound = survival::bind(survival, network, entry.listen).await;
            let key = format!("egress[{index}].listen");
            egress.push((bound.map_err(failed(entry.listen, key))?, entry.clone()));
        }
        let peers = match config.listen {
            Some(address) => {
                let bound = survival::bind(survival, network, address).await;
                Some(bound.map_err(failed(address, "listen".to_owned()))?)
            }
            None => None,
        };
        // Nobody keeps it: what comes next binds anew, and sessions resume over new links.
        let bound = config
            .listen_quic
            .map(|address| quic.listen(network, address).map_err(failed(address, "listen_quic".to_owned())));
        let quic = bound.transpose()?;
        let websockets = match config.listen_ws {
            Some(address) => {
                let bound = survival::bind(survival, network, address).await;
                Some(bound.map_err(failed(address, "listen_ws".to_owned()))?)
            }
            None => None,
        };
        let admin = match config.admin {
            Some(address) => {
                let bound = survival::bind_http(survival, address).await;
                Some(bound.map_err(failed(address, "admin".to_owned()))?)
            }
            None => None,
        };
        Ok(Self { peers, quic, websockets, admin, egress })
    }

    fn addresses(&self) -> Addresses {
        Addresses {
            listen: self.peers.as_ref().and_then(|listener| listener.local_addr().ok()),
            listen_quic: self.quic.as_ref().and_then(|listener| listener.local_addr().ok()),
            listen_ws: self.websockets.as_ref().and_then(|listener| listener.local_addr().ok()),
            admin: self.admin.as_ref().and_then(|listener| listener.local_addr().ok()),
            egress: self.egress.iter().filter_map(|(listener, _)| listener.local_addr().ok()).collect(),
        }
    }

    async fn serve(self, shared: &Arc<Shared>) -> JoinSet<Result<(), TunnelError>> {
        let mut services = JoinSet::new();
        for (listener, entry) in self.egress {
            shared.app_listeners.serve(shared, entry, Ok(listener));
        }
        shared.tasks.spawn(instance::keep_claiming(shared.clone()));
        shared.tasks.spawn(replicas::keep_asking(shared.clone()));
        if let Some(listener) = self.peers {
            shared.tasks.spawn(accept::listen(shared.clone(), listener, Opening::Tls));
        }
        if let Some(listener) = self.quic {
            shared.tasks.spawn(accept::listen_quic(shared.clone(), listener));
        }
        if let Some(listener) = self.websockets {
            let config = &shared.config().tunnel;
            let opening = Opening::WebSocket(config.ws_path.as_str().into(), config.ws_max_life);
            shared.tasks.spawn(accept::listen(shared.clone(), listener, opening));
        }
        for peer in shared.config().peers.values() {
            shared.tasks.spawn(supply::keep_warm(shared.clone(), peer.clone()));
        }
        if let Some(listener) = self.admin {
            let shared = shared.clone();
            services.spawn(async move {
                admin::serve(shared, listener).await;
                Ok(())
            });
        }
        services
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |address: Option<SocketAddr>| address.map_or_else(|| "none".to_owned(), |at| at.to_string());
        write!(f, "listen={} admin={} ", or_none(self.listen), or_none(self.admin))?;
        for (key, address) in [("listen_quic", self.listen_quic), ("listen_ws", self.listen_ws)] {
            if let Some(address) = address {
                write!(f, "{key}={address} ")?;
            }
        }
        f.write_str("egress=")?;
        let egress: Vec<String> = self.egress.iter().map(SocketAddr::to_string).collect();
        f.write_str(if egress.is_empty() { "none".to_owned() } else { egress.join(",") }.as_str())
    }
}
