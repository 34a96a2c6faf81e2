//! Starting, watching and ending a web-app.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::DropGuard;
use tracing::{info, warn};

use crate::access::Access;
use crate::app::{App, End};
use crate::error::{StartError, StopError};
use crate::hooks::Hooks;
use crate::initiator::PeerUrl;
use crate::message::Location;
use crate::outbox::Limits;
use crate::output::{Output, StoredOutput};
use crate::sites::Sites;
use crate::store::{self, StoredState};
use crate::{auto_trigger, committer, http, initiator};

/// Connections that the kernel holds before they are accepted.
const LISTEN_BACKLOG: u32 = 1024;

/// Which end a web-app is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Connects to the terminator.
    Initiator {
        /// Where the terminator's `/ws` is reached: `ws://host:port/path`, usually that of the tunnel next to the web-app.
        peer: String,
    },
    /// Accepts the initiator on `/ws`.
    Terminator,
}

/// What a web-app needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which end it is.
    pub role: Role,
    /// Where it listens for HTTP; port 0 for any.
    pub listen: SocketAddr,
    /// The pod's name, as shown in trails.
    pub pod: String,
    /// The cluster's name, as shown in trails.
    pub cluster: String,
    /// How many messages an initiator sends by itself once it is connected; 0 for none. A terminator sends none.
    pub auto_trigger: u32,
    /// How many results the output keeps, at least 1.
    pub output_max: usize,
    /// The directory of everything that outlives the process, created if it is missing. Only one web-app can use it.
    pub data: PathBuf,
    /// Who may use it.
    pub access: Access,
}

/// A running web-app. Dropping it ends it at once; [`Webapp::drain`] ends it in good order.
pub struct Webapp {
    app: Arc<App>,
    local_addr: SocketAddr,
    tasks: JoinSet<Result<(), StopError>>,
    committer: JoinHandle<Result<(), StopError>>,
    _end: DropGuard,
}

impl Webapp {
    /// Starts a web-app: when this returns, its listener is up. Must be called within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// The configuration cannot be used, or the listener cannot be opened.
    pub fn start(config: Config, hooks: Arc<dyn Hooks>) -> Result<Self, StartError> {
        let Config { role, listen, pod, cluster, auto_trigger, output_max, data, access } = config;
        let location = Location { pod, cluster };
        location.check().map_err(StartError::Name)?;
        if output_max == 0 {
            return Err(StartError::OutputMax);
        }
        let (end, peer) = match role {
            Role::Terminator => (End::Terminator, None),
            Role::Initiator { peer: url } => match PeerUrl::parse(&url) {
                Ok(peer) => (End::Initiator, Some(peer)),
                Err(reason) => return Err(StartError::Peer { url, reason }),
            },
        };
        let (store, state) = store::open(&data)?;
        let (listener, local_addr) = bind(listen).map_err(|source| StartError::Listen { listen, source })?;
        info!(
            at = %location, address = %local_addr, data = %data.display(),
            outbox = state.sites.iter().map(|site| site.outbox.len()).sum::<usize>(), output = state.output.len(), dead = state.dead.len(),
            "web-app listening"
        );

        let StoredState { sites, output: results, watermarks, peers, dead } = state;
        let waiting = sites.iter().flat_map(|site| &site.outbox);
        let replied: Vec<_> = waiting.filter_map(|(message, _)| message.in_reply_to.clone()).collect();
        let output = Output::new(output_max, StoredOutput { results, watermarks, peers, dead }, &replied);
        let sites = Sites::new(sites, Limits::for_hop(&location.hop()));
        let app = Arc::new(App::new(end, location, hooks, access, sites, output));
        let guard = app.phases.ended.clone().drop_guard();
        let committer = tokio::spawn(committer::run(app.clone(), store, Some(data)));
        let mut tasks = JoinSet::new();
        tasks.spawn(http::serve_connections(app.clone(), listener));
        if let Some(peer) = peer {
            spawn_initiator(&mut tasks, &app, peer, auto_trigger);
        }
        Ok(Self { app, local_addr, tasks, committer, _end: guard })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Writes what `/metrics` shows, at any time; also once the web-app has ended.
    pub fn metrics(&self) -> impl Fn() -> Result<String, fmt::Error> + Send + Sync + use<> {
        let app = self.app.clone();
        move || app.metrics_text()
    }

    /// Waits until the web-app has stopped by itself, which it only does when something is wrong. Cancel-safe, so it
    /// can be used in a `select!` with the signal that leads to [`Webapp::drain`].
    ///
    /// # Errors
    ///
    /// What went wrong.
    pub async fn stopped(&mut self) -> Result<(), StopError> {
        loop {
            let joined = tokio::select! {
                Some(joined) = self.tasks.join_next() => joined,
                joined = &mut self.committer, if !self.committer.is_finished() => joined,
                else => return Ok(()),
            };
            flatten(joined)?;
        }
    }

    /// Ends the web-app within `deadline`: it accepts nothing new, lets requests and messages under way finish, and
    /// closes WebSockets with code 1001. Messages that are still unacknowledged by then are sent after the next start,
    /// and the log says how many.
    pub async fn drain(mut self, deadline: Duration) {
        let end = Instant::now() + deadline;
        let phases = self.app.phases.clone();
        phases.draining.cancel();
        // The last quarter is for closing the WebSockets.
        if timeout(deadline.mul_f64(0.75), self.app.sites.empty()).await.is_err() {
            let undelivered = self.app.sites.depth().messages;
            warn!(undelivered, "drain: the far side has not acknowledged every message in time");
        }
        phases.closing.cancel();
        self.app.tasks.close();
        let finished = async {
            while let Some(joined) = self.tasks.join_next().await {
                if let Err(error) = flatten(joined) {
                    warn!(%error, "drain: a task had failed");
                }
            }
            self.app.tasks.wait().await;
            // Nothing changes from here on.
            phases.committing.cancel();
            if !self.committer.is_finished()
                && let Err(error) = flatten((&mut self.committer).await)
            {
                warn!(%error, "drain: the store had failed");
            }
        };
        if timeout_at(end, finished).await.is_err() {
            warn!("drain: timed out, ending what is still under way");
        }
        phases.ended.cancel();
        self.tasks.shutdown().await;
        self.app.tasks.wait().await;
    }
}

fn spawn_initiator(tasks: &mut JoinSet<Result<(), StopError>>, app: &Arc<App>, peer: PeerUrl, auto_trigger: u32) {
    let dialling = app.clone();
    tasks.spawn(async move {
        initiator::run(&dialling, &peer).await;
        Ok(())
    });
    if auto_trigger > 0 {
        let triggering = app.clone();
        tasks.spawn(async move {
            auto_trigger::run(&triggering, auto_trigger).await;
            Ok(())
        });
    }
}

fn flatten(joined: Result<Result<(), StopError>, JoinError>) -> Result<(), StopError> {
    match joined {
        Ok(result) => result,
        Err(error) if error.is_panic() => Err(StopError::Panicked(error.to_string())),
        Err(_) => Ok(()),
    }
}

fn bind(listen: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let socket = if listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not have to wait until the kernel has forgotten the old process's connections.
    socket.set_reuseaddr(true)?;
    socket.bind(listen)?;
    let listener = socket.listen(LISTEN_BACKLOG)?;
    let local_addr = listener.local_addr()?;
    Ok((listener, local_addr))
}
