//! `ferry invite`: a token by which another host's tunnel becomes a peer.

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anstream::eprintln;
use anyhow::anyhow;

use super::own_config::{Listeners, New, OwnConfig, unwritable};
use crate::exit::Usage;
use ferry_config::{
    Address, HostPort, Invitation, InvitationId, Invitations, Name, Offer, OfferedService, RedeemError, Secret,
    ServiceName, Token, Tunnel, WebSocketUrl, unix_time,
};

const EXAMPLES: &str = "\
Examples:
  ferry invite --service ssh=127.0.0.1:22 --address b.example.com:18000
  ferry invite --service ssh=127.0.0.1:22 | ssh a ferry join
  ferry invite --service db=127.0.0.1:5432 --listen-quic 0.0.0.0:18000 \
    --address quic://b.example.com:18000 --address b.example.com:18000      QUIC where UDP passes, else TCP
  ferry invite --valid 10m --peer a        services that the tunnel.yaml names; the other end is called a
  rm tunnel.state/joined/a.yaml            parts from the peer a

The token is the whole standard output. The host that has it can join, once, while this host's tunnel runs:
give it to the other administrator as you would a password.";

/// The shortest and the longest life of a token.
const VALID: std::ops::RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(7 * 24 * 3600);

/// Print a token that lets another host's tunnel become a peer: once, and not for long.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The tunnel.yaml of this host. Made, with an identity, if there is none.
    #[arg(long, value_name = "FILE", default_value = "tunnel.yaml")]
    config: PathBuf,
    /// A service here that the peer may reach, and where its application listens. The address may be left out for an
    /// `ingress` of the tunnel.yaml; without this option all of those are offered.
    #[arg(long = "service", value_name = "NAME[=HOST:PORT]")]
    services: Vec<Wanted>,
    /// Where the other host reaches this one's tunnel: `host:port`, `quic://host:port` or `wss://host/path`. Give several,
    /// the preferred one first. Otherwise this host's own address is guessed, for everything that the tunnel listens at.
    #[arg(long = "address", value_name = "ADDRESS")]
    addresses: Vec<Address>,
    /// What the peer is called here. Otherwise it says how it is called.
    #[arg(long, value_name = "NAME")]
    peer: Option<Name>,
    /// How long the token can be used.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = super::duration)]
    valid: Duration,
    /// This host's tunnel, where the tunnel.yaml is made: its name. Otherwise the host's.
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,
    #[command(flatten)]
    listeners: Listeners,
}

/// A service as the command line names it.
#[derive(Clone, Debug)]
struct Wanted {
    service: ServiceName,
    forward: Option<HostPort>,
}

impl FromStr for Wanted {
    type Err = ferry_config::ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (service, forward) = match text.split_once('=') {
            Some((service, forward)) => (service, Some(forward.parse()?)),
            None => (text, None),
        };
        Ok(Self { service: service.parse()?, forward })
    }
}

/// Keeps the invitation, then prints the token alone on a line.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    if !VALID.contains(&args.valid) {
        return Err(Usage("`--valid` is from 10s to 7d".to_owned()).into());
    }
    let own = OwnConfig::load_or_make(&args.config, args.name.as_ref(), New::Listening(&args.listeners))?;
    let token = invite(&args, &own).inspect_err(|_| own.undo())?;
    explain(&args, &own, &token).await;
    writeln!(io::stdout(), "{}", token.render()?.expose())?;
    Ok(())
}

fn invite(args: &Args, own: &OwnConfig) -> anyhow::Result<Token> {
    args.listeners.check(own)?;
    let offers = offers(args, &own.tunnel)?;
    let addresses = addresses(args, &own.tunnel)?;
    if let Some(name) = &args.peer
        && (*name == own.tunnel.name || own.tunnel.peers.iter().any(|peer| peer.name == *name))
    {
        return Err(anyhow!("there is a tunnel with the name {name} already; choose another one with `--peer`"));
    }
    let (mut id, mut secret) = ([0; 8], [0; 32]);
    getrandom::fill(&mut id).and_then(|()| getrandom::fill(&mut secret))?;
    let (id, expires) = (InvitationId::new(id), unix_time() + args.valid.as_secs());
    let port = |offer: &Offer| OfferedService { service: offer.service.clone(), port: offer.forward.port };
    let token = Token {
        peer: own.tunnel.name.clone(),
        key: own.tunnel.identity.public_key(),
        addresses,
        services: offers.iter().map(port).collect(),
        id,
        secret: Secret::new(secret),
        expires,
    };
    // What cannot be given to anybody is not kept.
    token.render()?;
    let invitation = Invitation::new(id, &secret, expires, args.peer.clone(), offers);
    Invitations::of(&own.state).add(&invitation).map_err(|error| match error {
        RedeemError::Io(path, error) => unwritable(&path, &error),
        error => error.into(),
    })?;
    Ok(token)
}

/// The services that were asked for, or all that there are.
fn offers(args: &Args, tunnel: &Tunnel) -> anyhow::Result<Vec<Offer>> {
    let known = |service: &ServiceName| tunnel.ingress.iter().find(|ingress| ingress.service == *service);
    let mut offers: Vec<Offer> = Vec::new();
    for wanted in &args.services {
        let service = wanted.service.clone();
        let forward = match (known(&service), wanted.forward.clone()) {
            (Some(ingress), Some(forward)) if ingress.forward != forward => {
                let there = &ingress.forward;
                return Err(anyhow!("the service {service} is at {there} already; choose another name for {forward}"));
            }
            (Some(ingress), _) => ingress.forward.clone(),
            (None, Some(forward)) => forward,
            (None, None) => {
                return Err(anyhow!("there is no service {service} yet; write `--service {service}=HOST:PORT`"));
            }
        };
        if !offers.iter().any(|offer| offer.service == service) {
            offers.push(Offer { service, forward });
        }
    }
    if args.services.is_empty() {
        let offer = |ingress: &ferry_config::Ingress| Offer {
            service: ingress.service.clone(),
            forward: ingress.forward.clone(),
        };
        offers.extend(tunnel.ingress.iter().map(offer));
    }
    if offers.is_empty() {
        let text = "there is no service to invite to; name one: `--service ssh=127.0.0.1:22`";
        return Err(Usage(text.to_owned()).into());
    }
    Ok(offers)
}

/// Where the other host is to dial.
fn addresses(args: &Args, tunnel: &Tunnel) -> anyhow::Result<Vec<Address>> {
    let quic = args.addresses.iter().find(|address| matches!(address, Address::Quic(_)));
    if let Some(address) = quic.filter(|_| tunnel.listen_quic.is_none()) {
        let hint = "add it, or give `--listen-quic 0.0.0.0:18000` where the tunnel.yaml is made";
        return Err(anyhow!("{address} is for QUIC, and the tunnel.yaml has no `listen_quic`; {hint}"));
    }
    if !args.addresses.is_empty() {
        return Ok(args.addresses.clone());
    }
    if !tunnel.accepts_links() {
        let text = "the tunnel.yaml has no `listen`; add it, or say with `--address` where the other host is to dial";
        return Err(anyhow!(text));
    }
    let guessed: Vec<_> = guessed_addresses(tunnel, own_address());
    if guessed.is_empty() {
        return Err(anyhow!("this host's address is not known; write it: `--address b.example.com:18000`"));
    }
    let shown: Vec<_> = guessed.iter().map(ToString::to_string).collect();
    let shown = shown.join(", ");
    eprintln!("the other host is to dial {shown}; if it reaches this one elsewhere, say so with `--address`");
    Ok(guessed)
}

/// One address for each listener, TCP first: it is what passes in most places. `own` is this host's.
fn guessed_addresses<I>(tunnel: &Tunnel<I>, own: Option<IpAddr>) -> Vec<Address> {
    let endpoint = |listen: SocketAddr| {
        let ip = if listen.ip().is_unspecified() { own? } else { listen.ip() };
        (listen.port() != 0).then(|| HostPort { host: ip.to_string(), port: listen.port() })
    };
    let tcp = tunnel.listen.and_then(endpoint).map(Address::HostPort);
    let quic = tunnel.listen_quic.and_then(endpoint).map(Address::Quic);
    let websocket = tunnel.listen_ws.and_then(endpoint).map(|endpoint| {
        let (path, max_life) = (tunnel.ws_path.clone(), tunnel.ws_max_life);
        Address::WebSocket(WebSocketUrl { secure: false, endpoint, path, max_life })
    });
    [tcp, quic, websocket].into_iter().flatten().collect()
}

/// The address that this host has towards others; no packet is sent for it.
fn own_address() -> Option<IpAddr> {
    let outward = |from: &str, to: &str| {
        let socket = UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    // Addresses for documentation, RFC 5737 and RFC 3849.
    outward("0.0.0.0:0", "192.0.2.1:9").or_else(|| outward("[::]:0", "[2001:db8::1]:9"))
}

/// What is next, for people.
async fn explain(args: &Args, own: &OwnConfig, token: &Token) {
    let config = args.config.display();
    if own.is_new() {
        eprintln!("wrote {config}, with a new identity next to it");
    }
    let services: Vec<_> = token.services.iter().map(|offered| offered.service.as_str()).collect();
    let valid = ferry_units::render_duration(args.valid);
    eprintln!("within {valid}, on the other host: ferry join TOKEN; it will reach {}", services.join(", "));
    if !listens(&own.tunnel).await {
        eprintln!(
            "no tunnel listens here yet, and the token works only while one does: ferry tunnel --config {config}"
        );
    }
}

/// Whether something has the address of this host's tunnel.
async fn listens(tunnel: &Tunnel) -> bool {
    let Some(mut listen) = tunnel.listen.or(tunnel.listen_ws) else {
        // A port of UDP answers nobody; but it can be had only once.
        let bound = tunnel.listen_quic.map(UdpSocket::bind);
        return bound.is_some_and(|bound| bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse));
    };
    if listen.ip().is_unspecified() {
        listen.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let connecting = tokio::net::TcpStream::connect(listen);
    tokio::time::timeout(Duration::from_secs(1), connecting).await.is_ok_and(|connected| connected.is_ok())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn guessed(listeners: &str) -> Vec<String> {
        let text = format!("name: b\nidentity: own.key\n{listeners}\n");
        let parsed = ferry_config::parse(&text, Path::new("/")).unwrap();
        let guessed = guessed_addresses(&parsed.tunnel, Some([192, 0, 2, 7].into()));
        guessed.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_address_is_guessed_for_everything_that_the_tunnel_listens_at() {
        let all = "listen: 0.0.0.0:18000\nlisten_quic: 0.0.0.0:18001\nlisten_ws: 192.0.2.9:8080\nws_path: /links\n\
                   ws_max_life: 1m";
        let expected = ["192.0.2.7:18000", "quic://192.0.2.7:18001", "ws://192.0.2.9:8080/links#max_life=1m"];
        assert_eq!(guessed(all), expected);
        assert_eq!(guessed("listen_quic: 0.0.0.0:18000"), ["quic://192.0.2.7:18000"]);
        assert_eq!(guessed("listen: 0.0.0.0:0"), [] as [String; 0], "any free port is known to nobody yet");
    }
}
