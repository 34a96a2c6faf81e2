//! `ferry join TOKEN`: this host's tunnel becomes a peer of the one that made the token.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anstream::eprintln;
use anyhow::{Context as _, anyhow};

use super::own_config::{New, OwnConfig, unwritable};
use crate::exit::Usage;
use ferry_config::{EntryLimits, Joined, JoinedEgress, Name, Peer, Route, ServiceName, Token, Tunnel, unix_time};
use ferry_text::Foreign;
use ferry_tunnel::{JoinError, JoinRefusal, ProbeError, join};

const EXAMPLES: &str = "\
Examples:
  ferry join ferry:join:1:…                with the token that `ferry invite` printed
  ferry join < token                       keeps the token out of the list of processes
  ferry join --listen ssh=127.0.0.1:2222 < token
  ferry invite --service ssh=127.0.0.1:22 | ssh a ferry join

On standard output, a line for each service: where applications here reach it, and its name.";

/// Where applications reach services whose own port is taken or reserved.
const PORTS: std::ops::RangeInclusive<u16> = 18001..=18999;

/// Ports below this are root's.
const FIRST_UNRESERVED: u16 = 1024;

/// How often a tunnel that is not there yet is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Clocks that differ by more are worth a word.
const MAX_CLOCK_DIFFERENCE: u64 = 60;

/// Become a peer of the tunnel that made a token: its services are reached from here.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The token; `-`, or none, is standard input.
    #[arg(value_name = "TOKEN", hide_default_value = true)]
    token: Option<String>,
    /// The tunnel.yaml of this host. Made, with an identity, if there is none.
    #[arg(long, value_name = "FILE", default_value = "tunnel.yaml")]
    config: PathBuf,
    /// Where applications here reach a service. Otherwise at 127.0.0.1, at the service's own port if that is free.
    #[arg(long = "listen", value_name = "SERVICE=IP:PORT")]
    listens: Vec<Listen>,
    /// This host's tunnel, where the tunnel.yaml is made: its name. Otherwise the host's.
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,
    /// How long the other tunnel is tried to be reached.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = super::duration)]
    wait: Duration,
}

/// Where a service is to be reached.
#[derive(Clone, Debug)]
struct Listen {
    service: ServiceName,
    listen: SocketAddr,
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (service, listen) = text.split_once('=').ok_or("write SERVICE=IP:PORT")?;
        let service = service.parse().map_err(|error: ferry_config::ValueError| error.to_string())?;
        let listen = listen.parse().map_err(|_| "write SERVICE=IP:PORT, such as `ssh=127.0.0.1:2222`")?;
        Ok(Self { service, listen })
    }
}

/// Redeems the token. Everything that can fail here fails before that.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let token = read_token(args.token.as_deref())?;
    let own = OwnConfig::load_or_make(&args.config, args.name.as_ref(), New::Dialling(&token.peer))?;
    let joined = prepare(&args, &own, &token).inspect_err(|_| own.undo())?;
    let name = match ask(&own.tunnel, &token, args.wait).await {
        Ok(name) => name,
        Err(error) => {
            // Who may be listed there keeps its key, and can ask again.
            if !matches!(error, JoinError::Unanswered(_)) {
                own.undo();
            }
            return Err(explained(&error, &token));
        }
    };
    let path = Joined::path(&own.state, &token.peer);
    joined.write_new(&own.state).map_err(|error| unwritable(&path, &error)).with_context(|| {
        format!("{} lists this tunnel now, and here that cannot be written down; join again", token.peer)
    })?;
    for egress in &joined.egress {
        writeln!(io::stdout(), "{} {}", egress.listen, egress.service)?;
    }
    let config = own.path.display();
    eprintln!("joined {} as {name}; wrote {}", token.peer, path.display());
    if own.is_new() {
        eprintln!("wrote {config}, with a new identity next to it; next: ferry tunnel --config {config}");
    } else {
        eprintln!("a tunnel that runs with {config} takes this up within two seconds");
    }
    Ok(())
}

/// Redeems the token, as soon as the other tunnel can be reached.
async fn ask(own: &Tunnel, token: &Token, wait: Duration) -> Result<Name, JoinError> {
    let end = Instant::now() + wait;
    loop {
        let error = match join(&own.identity, token, &own.name).await {
            Ok(name) => return Ok(name),
            Err(error) => error,
        };
        let is_passing = match &error {
            // To ask once more with the same key does no harm.
            JoinError::Unanswered(_) => true,
            JoinError::Unreachable(error) => {
                use ProbeError::{Connect, ConnectTimedOut, Ended, Silent};
                matches!(error, Connect(_) | ConnectTimedOut | Silent | Ended(_))
            }
            JoinError::NoInvitations | JoinError::Refused(_) => false,
        };
        if !is_passing || Instant::now() + RETRY_INTERVAL > end {
            return Err(error);
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

fn read_token(given: Option<&str>) -> anyhow::Result<Token> {
    /// More than any token.
    const MAX_INPUT: u64 = 64 * 1024;
    let mut text = String::new();
    match given.filter(|given| *given != "-") {
        Some(given) => text.push_str(given),
        None if io::stdin().is_terminal() => {
            eprintln!("paste the token, and press Enter:");
            io::stdin().read_line(&mut text)?;
        }
        None => drop(io::stdin().take(MAX_INPUT).read_to_string(&mut text)?),
    }
    if text.trim().is_empty() {
        return Err(
            Usage("no token; give the line that `ferry invite` printed, or send it to standard input".into()).into()
        );
    }
    text.parse().map_err(|error: ferry_config::ValueError| Usage(error.to_string()).into())
}

/// The peer as it will be here, after a look at everything that could be in its way.
fn prepare(args: &Args, own: &OwnConfig, token: &Token) -> anyhow::Result<Joined> {
    let (tunnel, peer) = (&own.tunnel, &token.peer);
    if tunnel.identity.public_key() == token.key {
        return Err(anyhow!("the token is this tunnel's own; join on the other host"));
    }
    if tunnel.name == *peer {
        return Err(anyhow!("both ends have the name {peer}; give this one another with `--name`"));
    }
    let path = Joined::path(&own.state, peer);
    if path.exists() {
        return Err(anyhow!(
            "{} exists already: this tunnel has joined {peer}; remove it to join again",
            path.display()
        ));
    }
    if let Some(known) = tunnel.peers.iter().find(|known| known.name == *peer || known.keys.contains(&token.key)) {
        return Err(anyhow!("{} is a peer in {} already", known.name, own.path.display()));
    }
    let joined = Joined {
        peer: Peer {
            name: peer.clone(),
            keys: [token.key].into(),
            addresses: token.addresses.clone(),
            route: Route::default(),
            limits: EntryLimits::default(),
        },
        services: Vec::new(),
        egress: egress(args, own, token)?,
    };
    ferry_config::load_with(&own.path, &joined)?;
    Joined::try_writing(&own.state).map_err(|error| unwritable(&own.state, &error))?;
    Ok(joined)
}

/// Where each service is reached.
fn egress(args: &Args, own: &OwnConfig, token: &Token) -> anyhow::Result<Vec<JoinedEgress>> {
    let offered = |service: &ServiceName| token.services.iter().any(|offered| offered.service == *service);
    if let Some(unknown) = args.listens.iter().find(|listen| !offered(&listen.service)) {
        let names: Vec<_> = token.services.iter().map(|offered| offered.service.as_str()).collect();
        let text = format!("the token is not for the service {}; it is for {}", unknown.service, names.join(", "));
        return Err(Usage(text).into());
    }
    let tunnel = &own.tunnel;
    let mut taken: Vec<u16> = tunnel.egress.iter().map(|egress| egress.listen.port()).collect();
    taken.extend([tunnel.listen, tunnel.listen_ws, tunnel.admin].iter().flatten().map(SocketAddr::port));
    let mut egress: Vec<JoinedEgress> = Vec::new();
    for offered in &token.services {
        let service = offered.service.clone();
        let listen = match args.listens.iter().find(|listen| listen.service == service) {
            Some(listen) => {
                let address = listen.listen;
                TcpListener::bind(address).with_context(|| format!("cannot listen on {address} for {service}"))?;
                address
            }
            None => free_address(offered.port, &taken).ok_or_else(|| {
                anyhow!("no free port for {service}; choose one with `--listen {service}=127.0.0.1:PORT`")
            })?,
        };
        taken.push(listen.port());
        egress.push(JoinedEgress { listen, service });
    }
    Ok(egress)
}

/// A loopback address with this port, or another one.
fn free_address(port: u16, taken: &[u16]) -> Option<SocketAddr> {
    let own = (port >= FIRST_UNRESERVED).then_some(port);
    let free = own.into_iter().chain(PORTS).filter(|port| !taken.contains(port));
    free.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).find(|address| TcpListener::bind(address).is_ok())
}

/// What happened, and what to do.
fn explained(error: &JoinError, token: &Token) -> anyhow::Error {
    let peer = &token.peer;
    let addresses: Vec<_> = token.addresses.iter().map(ToString::to_string).collect();
    let addresses = addresses.join(", ");
    let ago = |seconds: u64| ferry_units::render_duration(Duration::from_secs(seconds));
    match error {
        JoinError::Unreachable(ProbeError::Unlisted(key)) => anyhow!(
            "another tunnel than {peer} answers at {addresses}: it has the key {key}, and the token is for {}; is that \
             still the address of {peer}?",
            token.key
        ),
        JoinError::Unreachable(error) => {
            let now = unix_time();
            let late = match now >= token.expires {
                true => format!("; by this host's clock the token expired {} ago", ago(now - token.expires)),
                false => String::new(),
            };
            anyhow!("cannot reach {peer} at {addresses}: {error}; does its tunnel run there?{late}")
        }
        JoinError::NoInvitations => anyhow!(
            "the tunnel at {addresses} has no invitation open: it was withdrawn or ended long ago, or that tunnel runs \
             with another `state` directory or an older ferry; ask for another token"
        ),
        JoinError::Unanswered(why) => anyhow!(
            "{peer} was asked, and there is no answer: {why}; run this again with the same token: the key that was made \
             is kept"
        ),
        JoinError::Refused(refusal) => refused(refusal, token, &ago),
    }
}

fn refused(refusal: &JoinRefusal, token: &Token, ago: &dyn Fn(u64) -> String) -> anyhow::Error {
    let peer = &token.peer;
    match refusal {
        JoinRefusal::Unknown => anyhow!(
            "{peer} knows no such invitation, or the secret in the token is wrong: the token was made for another state \
             directory, withdrawn, or changed; ask for another one"
        ),
        JoinRefusal::Used { name, key, ago: since } => anyhow!(
            "the token was used {} ago, by {} with the key {}; if that was not you, somebody else has had the token: \
             have {peer} part from that peer, and ask for another token",
            ago(*since),
            Foreign(name),
            Foreign(key)
        ),
        JoinRefusal::Expired { ago: since, now } => {
            let difference = now.abs_diff(unix_time());
            let clocks = match difference > MAX_CLOCK_DIFFERENCE {
                true => format!(" (its clock and this host's differ by {}: is one wrong?)", ago(difference)),
                false => String::new(),
            };
            anyhow!("the token expired {} ago, by the clock of {peer}{clocks}; ask for another one", ago(*since))
        }
        JoinRefusal::NameTaken { name } => {
            anyhow!("{peer} has a peer with the name {} already; choose another one with `--name`", Foreign(name))
        }
        JoinRefusal::KeyTaken => anyhow!("{peer} lists this tunnel's key already: the two are linked"),
        JoinRefusal::Unwritable => {
            anyhow!("{peer} cannot write down who has joined, and its log says why; the token still works once it can")
        }
        JoinRefusal::Other => anyhow!("{peer} refuses, for a reason that this version does not know; see its log"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_reached_at_its_own_port_if_that_is_free_and_no_reserved_one() {
        let app = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = app.local_addr().unwrap().port();
        let other = free_address(port, &[]).unwrap().port();
        assert!(other != port && PORTS.contains(&other), "{other}");
        assert!(PORTS.contains(&free_address(22, &[]).unwrap().port()));
        let next = free_address(22, &[other]).unwrap().port();
        assert!(next != other && PORTS.contains(&next), "{next}");
    }

    #[test]
    fn clocks_that_differ_are_told_of() {
        let token = Token {
            peer: "b".parse().unwrap(),
            key: ferry_config::Identity::generate().unwrap().public_key(),
            addresses: vec!["b:1".parse().unwrap()],
            services: Vec::new(),
            id: ferry_config::InvitationId::new([1; 8]),
            secret: ferry_config::Secret::new([1; 32]),
            expires: 1,
        };
        let text = |now| explained(&JoinError::Refused(JoinRefusal::Expired { ago: 90, now }), &token).to_string();
        assert_eq!(text(unix_time()), "the token expired 1m30s ago, by the clock of b; ask for another one");
        let ahead = text(unix_time() + 7200);
        assert!(ahead.contains("(its clock and this host's differ by 2h"), "{ahead}");
    }
}
