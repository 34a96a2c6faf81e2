//! Accepting connections and serving HTTP/1.1 on them.

mod announced;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::FutureExt;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tracing::{debug, warn};

use announced::{Announced, Unread, read_announced};

use super::meter::{Meter, MeteredStream};
use super::router;
use crate::app::App;
use crate::error::StopError;
use crate::peer::{PeerName, SessionId};

/// Connections open at once from outside this pod, and as many from within it: outsiders cannot crowd out the tunnel and
/// probes.
const MAX_CONNECTIONS: usize = 4096;
/// How long a client may take for a request's head, and a connection may be idle between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A request's head, in bytes.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// The delay after a failed accept, and the number of failures in a row that end the web-app: running out of file
/// descriptors passes, other errors do not.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);
const MAX_ACCEPT_FAILURES: u32 = 600;

/// Who made a request; every handler finds it among the request's extensions.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    /// Where it connected to.
    pub(crate) local: SocketAddr,
    /// The peer whose tunnel it comes through, if this end's tunnel says so.
    pub(crate) peer: Option<PeerName>,
    /// The session that it lies in, if it says that.
    pub(crate) session: Option<SessionId>,
    pub(crate) meter: Arc<Meter>,
    /// The connection's permit under [`MAX_CONNECTIONS`]; a WebSocket keeps it.
    _permit: Arc<OwnedSemaphorePermit>,
}

#[cfg(test)]
impl Client {
    pub(crate) fn at(address: SocketAddr, local: SocketAddr) -> Self {
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("it is free");
        let meter = Arc::new(Meter::new(Arc::new(Semaphore::new(1))));
        Self { address, local, peer: None, session: None, meter, _permit: Arc::new(permit) }
    }
}

/// Accepts connections and serves them until the web-app drains.
pub(crate) async fn serve_connections(app: Arc<App>, listener: TcpListener) -> Result<(), StopError> {
    let outside = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let within = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let router = router(app.clone());
    let mut failures = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = app.phases.draining.cancelled() => return Ok(()),
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                failures += 1;
                retry(error, failures).await?;
                continue;
            }
        };
        failures = 0;
        let permits = if address.ip().to_canonical().is_loopback() { &within } else { &outside };
        match permits.clone().try_acquire_owned() {
            Ok(permit) => {
                no_delay(&stream);
                // Closed already if it has no address.
                let Ok(local) = stream.local_addr() else { continue };
                let meter = Arc::new(Meter::new(app.large_messages.clone()));
                let client = Client { address, local, peer: None, session: None, meter, _permit: Arc::new(permit) };
                app.tasks.spawn(serve(app.clone(), router.clone(), stream, client));
            }
            Err(_) => {
                app.metrics.turned_away_connections.inc();
                debug!(%address, "connection closed: {MAX_CONNECTIONS} are open already");
            }
        }
    }
}

async fn retry(error: io::Error, failures: u32) -> Result<(), StopError> {
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return Ok(());
    }
    if failures >= MAX_ACCEPT_FAILURES {
        return Err(StopError::Accept(error));
    }
    if failures == 1 {
        warn!(%error, "cannot accept connections, retrying");
    }
    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
    Ok(())
}

fn no_delay(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "cannot set TCP_NODELAY");
    }
}

/// The stream after the tunnel's header, or as it is if the tunnel cannot have made it. `None` if there will be no request.
async fn announced<S: AsyncRead + Unpin>(app: &App, stream: S, client: &mut Client) -> Option<Unread<S>> {
    if !client.address.ip().to_canonical().is_loopback() {
        return Some(stream.into());
    }
    let read = tokio::select! {
        read = timeout(HEAD_TIMEOUT, read_announced(stream)) => read.ok()?,
        () = app.phases.draining.cancelled() => return None,
    };
    match read {
        Ok((Announced { peer, session }, stream)) => {
            (client.peer, client.session) = (peer, session);
            Some(stream)
        }
        Err(error) => {
            let address = client.address;
            debug!(%address, %error, "connection closed: its PROXY header cannot be read");
            None
        }
    }
}

/// Serves one connection. When the web-app drains, the request under way is finished and no other is accepted.
async fn serve<S>(app: Arc<App>, router: Router, stream: S, mut client: Client)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let stream = match announced(&app, stream, &mut client).await {
        Some(stream) => stream,
        None => return,
    };
    let inner = TowerToHyperService::new(router);
    let stream = MeteredStream::new(stream, client.meter.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        client.meter.finish_message();
        request.extensions_mut().insert(client.clone());
        let (response, meter) = (inner.call(request), client.meter.clone());
        response.inspect(move |_| meter.finish_message())
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = app.phases.draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                served = connection => served,
                () = app.phases.ended.cancelled() => return,
            }
        }
    };
    if let Err(error) = served {
        debug!(%error, "connection ended early");
    }
}

#[cfg(test)]
mod tests;
