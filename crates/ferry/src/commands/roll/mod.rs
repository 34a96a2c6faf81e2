//! `ferry roll`: this tunnel's key is replaced, here and at its peers, in an order that locks nobody out.

mod take;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anstream::eprintln;
use anyhow::{Context as _, anyhow, bail};
use tokio::task::JoinSet;

use super::own_config::unwritable;
use super::pubkey::explained;
use crate::exit::{BadConfiguration, Usage};
use ferry_config::{Identity, Name, Peer, PublicKey, Roll, RollNotes, RollStage, Tunnel};
use ferry_text::Foreign;
use ferry_tunnel::{RollError, RollRequest, RollResponse, ask_to_roll, probe};

const EXAMPLES: &str = "\
Examples:
  ferry roll --config tunnel.yaml          makes the next key, has every peer list it, uses it, has the old one dropped
  ferry roll --take b                      where b is dialled: lists the next key of b, until b uses it alone
  ferry roll --without c                   does not wait for the peer c, whose list is changed by hand

Run it as the user that the tunnel runs as, or as root, while the tunnels run. After a crash or a time-out, run it again: it continues.
On standard output, the key that is in use at the end.";

/// How often peers are asked that are not there yet.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Replace this tunnel's key, here and at its peers, without a session ending.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The tunnel.yaml of this host.
    #[arg(long, value_name = "FILE", default_value = "tunnel.yaml")]
    config: PathBuf,
    /// Take part in the roll of this peer, which this end dials, instead of rolling this end's own key.
    #[arg(long, value_name = "PEER", conflicts_with = "without")]
    take: Option<Name>,
    /// Do not wait for this peer: its list is changed by hand, or it is gone.
    #[arg(long, value_name = "PEER")]
    without: Vec<Name>,
    /// How long peers are waited for, at each step.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = super::duration)]
    wait: Duration,
}

/// A tunnel's configuration, and where it keeps what it has to remember.
struct Own {
    path: PathBuf,
    tunnel: Tunnel,
    state: PathBuf,
    identity: PathBuf,
}

impl Own {
    fn load(path: &Path) -> anyhow::Result<Self> {
        let tunnel = ferry_config::load(path)?.tunnel;
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let identity = ferry_config::parse(&text, path.parent().unwrap_or(Path::new("")))?.tunnel.identity;
        let Some(state) = tunnel.state.clone() else {
            let text = "without `state`; add `state: DIR`, a directory that the tunnel may write to, and restart it";
            return Err(BadConfiguration(format!("{}: {text}", path.display())).into());
        };
        if !tunnel.replicas.is_empty() {
            let text = "this tunnel is one of several `replicas`, and each lists keys for itself: replace a key by hand, in \
                        all of them, in the order that docs/rolling.md shows";
            return Err(BadConfiguration(format!("{}: {text}", path.display())).into());
        }
        Ok(Self { path: path.to_owned(), tunnel, state, identity })
    }
}

/// Continues from wherever the roll is.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let own = Own::load(&args.config)?;
    if let Some(peer) = &args.take {
        return take::run(own, peer, args.wait).await;
    }
    let known = |name: &&Name| own.tunnel.peers.iter().any(|peer| peer.name == **name);
    if let Some(unknown) = args.without.iter().find(|name| !known(name)) {
        return Err(Usage(format!("there is no peer {unknown} in {}", args.config.display())).into());
    }
    let peers: Vec<_> = own.tunnel.peers.iter().filter(|peer| !args.without.contains(&peer.name)).cloned().collect();
    let roll = Roll::of(&own.identity, &own.state);
    if roll.stage() != RollStage::Switched {
        let next = next_key(&roll)?;
        announce(&own, &next, &peers, args.wait).await?;
        roll.switch().map_err(explained)?;
        eprintln!("{} is the new key now; the old one is in {}", own.identity.display(), roll.old_path().display());
    }
    let own = Own::load(&args.config)?;
    await_proved(&own, &roll.notes, args.wait).await?;
    part(&own, &roll, &peers, args.wait).await?;
    roll.finish()?;
    writeln!(io::stdout(), "{}", own.tunnel.identity.public_key())?;
    Ok(())
}

/// The next key: made now, or at a try before.
fn next_key(roll: &Roll) -> anyhow::Result<Identity> {
    let is_new = roll.stage() == RollStage::Idle;
    let next = roll.make_next().map_err(explained)?;
    let made = if is_new { "made" } else { "found" };
    eprintln!("{made} the next key in {}: {}", roll.next_path().display(), next.public_key());
    Ok(next)
}

/// Has every peer list the next key, and sees that it does.
async fn announce(own: &Own, next: &Identity, peers: &[Peer], wait: Duration) -> anyhow::Result<()> {
    let (identity, name) = (own.tunnel.identity.clone(), own.tunnel.name.clone());
    let notes = RollNotes::of(&own.state);
    let missing = all_of(peers, wait, "lists the next key", |peer| {
        let (identity, next, notes, name) = (identity.clone(), next.clone(), notes.clone(), name.clone());
        async move {
            let key = next.public_key();
            if peer.addresses.is_empty() {
                let hint = format!("it dials this end; on {}, run: ferry roll --take {name}", peer.name);
                return if notes.is_listed(&peer.name, key) { Ok(None) } else { Err(hint) };
            }
            let refused = match ask_to_roll(&identity, &peer, RollRequest::Announce(key)).await {
                Ok((_, RollResponse::Accepted)) => None,
                Ok((_, RollResponse::Refused(why))) => Some(format!("it refuses: {}", Foreign(&why))),
                Ok(_) => Some("it answers something else".to_owned()),
                Err(error) => Some(error.to_string()),
            };
            // Whatever it says: what counts is that it lets the key in, also where that was listed by hand.
            is_let_in(&next, &peer).await.map(|()| None).map_err(|error| refused.unwrap_or(error))
        }
    });
    let missing = missing.await;
    if missing.is_empty() {
        return Ok(());
    }
    Err(anyhow!(
        "not every peer lists the next key: {}; nothing has changed for anybody. Run this again to continue, with \
         `--without` for a peer that is gone, or list {} there by hand",
        missing.join("; "),
        next.public_key()
    ))
}

async fn is_let_in(next: &Identity, peer: &Peer) -> Result<(), String> {
    let mut failed = String::new();
    for address in peer.addresses.clone() {
        match probe(next, peer, address).await {
            Ok(_) => return Ok(()),
            Err(error) => failed = error.to_string(),
        }
    }
    Err(failed)
}

/// Waits until the tunnel that runs, if one does, proves the new key.
async fn await_proved(own: &Own, notes: &RollNotes, wait: Duration) -> anyhow::Result<()> {
    let (key, end) = (own.tunnel.identity.public_key(), Instant::now() + wait);
    notes.begin().map_err(|error| unwritable(&own.state, &error))?;
    while notes.proved() != Some(key) {
        // Its tunnel holds this as long as it runs, and reads the new key when it starts.
        let held = File::open(own.state.join("instance")).is_ok_and(|file| file.try_lock_shared().is_err());
        if !held {
            return Ok(());
        }
        if Instant::now() > end {
            bail!(
                "the tunnel that runs does not use the new key yet: does its log say why {} is not read again? Peers \
                 accept both keys until you run this again",
                own.path.display()
            );
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
    Ok(())
}

/// Has every peer part with the old key.
async fn part(own: &Own, roll: &Roll, peers: &[Peer], wait: Duration) -> anyhow::Result<()> {
    let old = Identity::load(&roll.old_path()).map_err(explained)?.public_key();
    let identity = own.tunnel.identity.clone();
    let missing = all_of(peers, wait, "accepts the new key alone", |peer| {
        let identity = identity.clone();
        async move {
            let by_hand = Ok(Some(format!("by hand: remove {old} there")));
            if peer.addresses.is_empty() {
                return Ok(Some("as soon as its `ferry roll --take` has seen the new one".to_owned()));
            }
            match ask_to_roll(&identity, &peer, RollRequest::Part).await {
                Ok((_, RollResponse::Parted)) => Ok(None),
                Ok((_, RollResponse::Refused(why))) => Err(format!("it refuses: {}", Foreign(&why))),
                Ok(_) | Err(RollError::Unknown) => by_hand,
                Err(error) => Err(error.to_string()),
            }
        }
    });
    let missing = missing.await;
    if missing.is_empty() {
        return Ok(());
    }
    Err(anyhow!(
        "the new key is in use, and the old one, {old}, is still accepted by {}; run this again to continue",
        missing.join("; ")
    ))
}

/// Asks all peers again and again, until each has done it or the time is up: who has not, and why. What was done with a
/// reservation says so.
async fn all_of<F>(peers: &[Peer], wait: Duration, done: &str, ask: impl Fn(Peer) -> F) -> Vec<String>
where
    F: Future<Output = Result<Option<String>, String>> + Send + 'static,
{
    let end = Instant::now() + wait;
    let mut missing: BTreeMap<Name, (Peer, String)> =
        peers.iter().map(|peer| (peer.name.clone(), (peer.clone(), String::new()))).collect();
    loop {
        let mut asking = JoinSet::new();
        for (name, (peer, _)) in &missing {
            let (name, asked) = (name.clone(), ask(peer.clone()));
            asking.spawn(async move { (name, asked.await) });
        }
        for (name, answer) in asking.join_all().await {
            match answer {
                Ok(reservation) => {
                    let reservation = reservation.map(|how| format!(": {how}")).unwrap_or_default();
                    eprintln!("{name} {done}{reservation}");
                    missing.remove(&name);
                }
                Err(reason) => {
                    let Some((_, told)) = missing.get_mut(&name) else { continue };
                    if *told != reason {
                        eprintln!("waiting for {name}: {reason}");
                        *told = reason;
                    }
                }
            }
        }
        if missing.is_empty() || Instant::now() + RETRY_INTERVAL > end {
            return missing.into_iter().map(|(name, (_, reason))| format!("{name} ({reason})")).collect();
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

/// Whether a key may be this peer's: it is no one's else.
fn check_free(tunnel: &Tunnel, peer: &Name, key: PublicKey) -> anyhow::Result<()> {
    if tunnel.identity.public_key() == key {
        bail!("the next key of {peer} is this end's own");
    }
    if let Some(other) = tunnel.peers.iter().find(|other| other.name != *peer && other.keys.contains(&key)) {
        bail!("the next key of {peer} is that of {} already", other.name);
    }
    Ok(())
}
