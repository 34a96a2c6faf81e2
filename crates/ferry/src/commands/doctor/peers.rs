//! The peers: their names, addresses, and what answers there.

use std::io::ErrorKind;
use std::path::Path;

use ferry_config::{Address, HostPort, Identity, Peer, Proxy};
use ferry_text::Foreign;
use ferry_tunnel::{ProbeError, probe};

use super::Check;
use super::places::{NAME_ADVICE, Running, resolve};

pub(super) async fn check(identity: &Identity, peer: &Peer, running: Option<&Running>) -> Vec<Check> {
    let mut checks = Vec::new();
    if peer.addresses.is_empty() {
        checks.push(dials_us(peer, running));
    }
    checks.extend(peer.route.proxy_credentials.as_deref().and_then(|path| credentials(peer, path)));
    for address in &peer.addresses {
        let Address::File(path) = address else {
            address_checks(&mut checks, identity, peer, address).await;
            continue;
        };
        for line in lines(&mut checks, peer, path) {
            match line.parse::<Address>() {
                Ok(address) => address_checks(&mut checks, identity, peer, &address).await,
                Err(error) => {
                    let subject = format!("{} ({})", path.display(), peer.name);
                    checks.push(Check::failed("address", subject, error, "write one host:port a line"));
                }
            }
        }
    }
    checks
}

/// A peer without an address dials this end: only a running tunnel knows whether it has.
fn dials_us(peer: &Peer, running: Option<&Running>) -> Check {
    let there = running.and_then(|running| running.peers.iter().find(|there| there.name == peer.name.as_str()));
    match there {
        None => {
            Check::skipped("peer", &peer.name, "it dials this end, which cannot be tried from here; run doctor there")
        }
        Some(there) if there.reachable || there.sessions > 0 => {
            Check::ok("peer", &peer.name, "it has dialled this end")
        }
        Some(there) => Check::failed(
            "peer",
            &peer.name,
            Foreign(there.problem.as_deref().unwrap_or("no link of it is here")),
            "run doctor there: does it have this end's address, and are both keys listed?",
        ),
    }
}

/// What is wrong with the credentials for a proxy; they are shown nowhere.
fn credentials(peer: &Peer, path: &Path) -> Option<Check> {
    let subject = format!("{} ({})", path.display(), peer.name);
    let advice = "write `user:password` into it, readable by this user alone: the tunnel reads it at each dial";
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim().contains(':') => None,
        Ok(_) => Some(Check::failed("credentials", subject, "no `user:password` is in it", advice)),
        Err(error) => Some(Check::failed("credentials", subject, format!("it cannot be read: {error}"), advice)),
    }
}

/// The lines of an address file.
fn lines(checks: &mut Vec<Check>, peer: &Peer, path: &Path) -> Vec<String> {
    let subject = format!("{} ({})", path.display(), peer.name);
    let lines: Vec<_> = match std::fs::read_to_string(path) {
        Ok(text) => {
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            lines.map(str::to_owned).collect()
        }
        Err(error) => {
            let advice = "write the peer's address into it, one host:port a line; the tunnel reads it at each dial";
            checks.push(Check::failed("address", subject, format!("it cannot be read: {error}"), advice));
            return Vec::new();
        }
    };
    if lines.is_empty() {
        let advice = "write the peer's address into it, one host:port a line";
        checks.push(Check::failed("address", subject, "there is no address in it", advice));
    }
    lines
}

/// An address as a tunnel uses it; one by one where a name has several and no proxy looks it up.
async fn address_checks(checks: &mut Vec<Check>, identity: &Identity, peer: &Peer, address: &Address) {
    if let Address::HostPort(target) = address
        && peer.route.proxy.is_none()
        && let Ok(found) = resolve(target).await
        && found.len() > 1
    {
        let all: Vec<_> = found.iter().map(|address| address.ip().to_string()).collect();
        checks.push(Check::ok("name", format!("{target} ({})", peer.name), all.join(", ")));
        for one in found {
            let one = HostPort { host: one.ip().to_string(), port: one.port() };
            checks.push(link(identity, peer, Address::HostPort(one)).await);
        }
        return;
    }
    checks.push(link(identity, peer, address.clone()).await);
}

async fn link(identity: &Identity, peer: &Peer, address: Address) -> Check {
    let subject = format!("{address} ({})", peer.name);
    let error = match probe(identity, peer, address.clone()).await {
        Ok(probed) => {
            let trip = probed.round_trip.map(|trip| format!(", round trip {:.1} ms", trip.as_secs_f64() * 1e3));
            let found = format!("it proved the key {}, and accepts ours{}", probed.key, trip.unwrap_or_default());
            return Check::ok("link", subject, found);
        }
        Err(error) => error,
    };
    let (mut found, ours) = (error.to_string(), identity.public_key());
    let is_quic = matches!(address, Address::Quic(_));
    if let (Some(Proxy::Http(proxy)), false) = (&peer.route.proxy, is_quic)
        && matches!(error, ProbeError::Connect(_) | ProbeError::ConnectTimedOut | ProbeError::Name(..))
    {
        found = format!("the proxy {proxy} is not reached, or does not answer: {found}");
        let advice = "does the proxy run, and is `proxy` right? `proxy: off` dials without one";
        return Check::failed("link", subject, found, advice);
    }
    let check = if matches!(error, ProbeError::Name(..)) { "name" } else { "link" };
    let advice = match error {
        ProbeError::NoAddress => "give it an address".to_owned(),
        ProbeError::Name(..) => NAME_ADVICE.to_owned(),
        ProbeError::Carrier(_) => {
            "look at what is in between, a proxy, an HTTP endpoint or a QUIC one: its address, its credentials, its path"
                .to_owned()
        }
        ProbeError::Connect(error) => match error.kind() {
            ErrorKind::ConnectionRefused => {
                "nothing listens there: is the peer's tunnel running, and is the port right?"
            }
            ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => {
                "this host has no way there: look at its routes, and at IPv6 if the address is one"
            }
            _ => "look at the network between: routes, firewalls, load balancers",
        }
        .to_owned(),
        ProbeError::ConnectTimedOut if is_quic => {
            "nothing answers over QUIC: does the peer have `listen_quic`, and does every firewall on the way pass UDP to \
             that port?"
                .to_owned()
        }
        ProbeError::ConnectTimedOut => {
            "a firewall or network policy drops it, or the address is another host's: allow TCP to that port".to_owned()
        }
        ProbeError::Silent => {
            "something accepts connections and says nothing: a load balancer without a backend, another \
                               program, or a path that drops large packets (MTU)"
                .to_owned()
        }
        ProbeError::Ended(_) => {
            "a load balancer whose backend is away, a tunnel that is out of room, or a middlebox that \
                                 refuses TLS without a server name"
                .to_owned()
        }
        ProbeError::Unlisted(_) => {
            let listed: Vec<_> = peer.keys.iter().map(ToString::to_string).collect();
            format!(
                "listed for {} are {}: compare with `ferry pubkey` there; if the key was replaced, list the new one; if not, \
                 another tunnel has that address",
                peer.name,
                listed.join(", ")
            )
        }
        ProbeError::KeyRefused => format!("list this tunnel's key there, under `keys` of its entry in `peers`: {ours}"),
        ProbeError::NoTunnel(_) => {
            "another program has that port, or a load balancer ends TLS there: pass TCP through as it is".to_owned()
        }
        ProbeError::Refused(_) => {
            "use the same version of ferry at both ends; a peer with too many links needs a moment".to_owned()
        }
    };
    Check::failed(check, subject, found, advice)
}
