//! Where a tunnel listens, and the applications that it connects to.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use ferry_config::{HostPort, Tunnel};
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream, UdpSocket, lookup_host};
use tokio::time::timeout;

use super::Check;

/// Longest wait for a name, a connection or an answer on this host's own network.
pub(super) const WAIT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the tunnel says that has this configuration's admin address.
#[derive(Deserialize)]
pub(super) struct Running {
    name: String,
    pub(super) peers: Vec<RunningPeer>,
}

#[derive(Deserialize)]
pub(super) struct RunningPeer {
    pub(super) name: String,
    pub(super) reachable: bool,
    pub(super) sessions: usize,
    pub(super) problem: Option<String>,
}

/// Where the admin endpoint can be asked from here.
pub(super) fn admin(tunnel: &Tunnel) -> Option<SocketAddr> {
    let mut admin = tunnel.admin.filter(|admin| admin.port() != 0)?;
    if admin.ip().is_unspecified() {
        admin.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    Some(admin)
}

/// The tunnel of this configuration, if it runs.
pub(super) async fn running(tunnel: &Tunnel) -> Option<Running> {
    let admin = admin(tunnel)?;
    let client = reqwest::Client::builder().no_proxy().timeout(WAIT_TIMEOUT).build().ok()?;
    let text = client.get(format!("http://{admin}/status?sessions=0")).send().await.ok()?.text().await.ok()?;
    let running: Running = serde_json::from_str(&text).ok()?;
    (running.name == tunnel.name.as_str()).then_some(running)
}

pub(super) async fn check(tunnel: &Tunnel, running: Option<&Running>) -> Vec<Check> {
    let mut checks = vec![match (running, tunnel.admin) {
        (Some(running), _) => Check::ok("running", &running.name, "a tunnel of this name runs here, and answers"),
        (None, Some(_)) => Check::skipped("running", &tunnel.name, "it does not run here now"),
        (None, None) => Check::skipped("running", &tunnel.name, "without `admin` it cannot be asked"),
    }];
    let mut listen: Vec<(String, SocketAddr)> = Vec::new();
    listen.extend(tunnel.listen.map(|at| ("listen".to_owned(), at)));
    listen.extend(tunnel.listen_ws.map(|at| ("listen_ws".to_owned(), at)));
    if let Some(at) = tunnel.listen_quic {
        checks.push(judge("listen_quic", at, running.is_some(), UdpSocket::bind(at).await.map(drop)));
    }
    listen.extend(tunnel.admin.map(|at| ("admin".to_owned(), at)));
    let egress = tunnel.egress.iter().enumerate();
    listen.extend(egress.map(|(index, entry)| (format!("egress[{index}].listen"), entry.listen)));
    for (key, address) in listen {
        checks.push(listens(&key, address, running.is_some()).await);
    }
    for entry in &tunnel.ingress {
        checks.push(forward(entry.service.as_str(), &entry.forward).await);
    }
    checks
}

async fn listens(key: &str, address: SocketAddr, running: bool) -> Check {
    judge(key, address, running, TcpListener::bind(address).await.map(drop))
}

fn judge(key: &str, address: SocketAddr, running: bool, bound: std::io::Result<()>) -> Check {
    let subject = format!("{address} ({key})");
    let error = match bound {
        Ok(()) if running && address.port() != 0 => {
            let advice = "restart the tunnel: `listen`, `admin` and its name change only then";
            return Check::failed("listens", subject, "the tunnel that runs does not listen there", advice);
        }
        Ok(()) => return Check::ok("listens", subject, "it is free"),
        Err(error) => error,
    };
    let advice = match error.kind() {
        ErrorKind::AddrInUse if running => return Check::ok("listens", subject, "the tunnel has it"),
        ErrorKind::AddrInUse => "another process has it (ss -ltnp): end that, or choose another port",
        ErrorKind::AddrNotAvailable => "this host does not have that address: use 0.0.0.0, or one that `ip addr` shows",
        ErrorKind::PermissionDenied => "ports below 1024 need a privilege: choose a higher one",
        _ => "choose another address",
    };
    Check::failed("listens", subject, format!("it cannot be listened on: {error}"), advice)
}

/// The application behind a service of this end.
async fn forward(service: &str, target: &HostPort) -> Check {
    let subject = format!("{target} (ingress {service})");
    let addresses = match resolve(target).await {
        Ok(addresses) => addresses,
        Err(found) => return Check::failed("application", subject, found, NAME_ADVICE),
    };
    let mut last = None;
    for address in addresses {
        match timeout(WAIT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return Check::ok("application", subject, "it accepts connections"),
            Ok(Err(error)) => last = Some(format!("no connection: {error}")),
            Err(_) => last = Some(format!("no answer to a connection within {WAIT_TIMEOUT:?}")),
        }
    }
    let advice = "start the application, or correct `forward`; in a pod, 127.0.0.1 is that pod only";
    Check::failed("application", subject, last.unwrap_or_default(), advice)
}

pub(super) const NAME_ADVICE: &str = "is the name spelled right, and does DNS work on this host (getent hosts NAME)?";

/// The addresses of a name, or why it has none.
pub(super) async fn resolve(target: &HostPort) -> Result<Vec<SocketAddr>, String> {
    let looked_up = timeout(WAIT_TIMEOUT, lookup_host((target.host.as_str(), target.port))).await;
    let found: Vec<_> = match looked_up {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(error)) => return Err(format!("the name {} does not resolve: {error}", target.host)),
        Err(_) => return Err(format!("the name {} does not resolve within {WAIT_TIMEOUT:?}", target.host)),
    };
    if found.is_empty() { Err(format!("the name {} has no address", target.host)) } else { Ok(found) }
}
